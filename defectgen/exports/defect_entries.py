"""Defects as the objects of pymatgen-analysis-defects and of doped, in the JSON that monty reads.

pymatgen-analysis-defects: Shen and Varley, J Open Source Softw 9, 5941 (2024), doi 10.21105/joss.05941. doped: Kavanagh
et al., J Open Source Softw 9, 6433 (2024), doi 10.21105/joss.06433.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import VACANCY, Configuration
from defectgen.errors import DefectgenError
from defectgen.exports.items import ExportItem
from defectgen.extras import import_extra

if TYPE_CHECKING:
    from types import ModuleType

    from pymatgen.core import Structure

EXTRA = "exports"

AT_SITE_ANGSTROM = 1.0
"""Atoms nearer to their site than this show that a structure has the origin of its host."""


def write_defects(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """A list of DefectEntry objects for calculated defects and of Defect objects for the others.

    Raises:
        DefectgenError: pymatgen-analysis-defects is not installed.
    """
    core = import_extra("pymatgen.analysis.defects.core", EXTRA, "This export")
    thermo = import_extra("pymatgen.analysis.defects.thermo", EXTRA, "This export")
    defects, notes = _defects_alone(items)
    objects = [_entry(item, core, thermo.DefectEntry) if item.energy_ev is not None else _defect(item, core)
               for item in defects]  # fmt: skip
    without = sum(item.energy_ev is None for item in defects)
    _write(path, objects)
    if without:
        notes.append(f"{without} of {len(defects)} have no energy by DFT: they are Defect objects.")
    return notes


def _defects_alone(items: Sequence[ExportItem]) -> tuple[list[ExportItem], list[str]]:
    """What has defects, and a line on the rest.

    Raises:
        DefectgenError: nothing has.
    """
    defects = [item for item in items if item.configuration.edits]
    pristine = [item.name for item in items if not item.configuration.edits]
    if not defects:
        raise DefectgenError(f"{pristine[0]} is the pristine host, which is no defect.", "Name cells with defects.")
    more = f" and {len(pristine) - 1} more" if len(pristine) > 1 else ""
    return defects, [f"left out, as the pristine host is no defect: {pristine[0]}{more}."] if pristine else []


def write_doped(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """A list of doped's DefectEntry objects, which ``doped.vasp.DefectsSet`` takes; the energy of one without is 0.

    doped has vacancies, substitutions and interstitials; complexes are left out.

    Raises:
        DefectgenError: doped is not installed, or there are complexes alone.
    """
    core = import_extra("doped.core", EXTRA, "This export")
    defects, notes = _defects_alone(items)
    single = [item for item in defects if item.configuration.n_defects == 1]
    if not single:
        raise DefectgenError(
            "doped has no defect complexes, and none of the structures is a single defect.",
            "Export to defects (pymatgen-analysis-defects), which has them.",
        )
    _write(path, [_entry(item, core, core.DefectEntry, named=True) for item in single])
    if len(single) < len(defects):
        left_out = len(defects) - len(single)
        few = "complex is" if left_out == 1 else "complexes are"
        notes.append(f"{left_out} {few} left out: doped has none. --to defects has them.")
    if any(item.energy_ev is None for item in single):
        notes.append("Entries without an energy by DFT carry 0, as doped's own do before they are computed.")
    return notes


def _write(path: Path, objects: Sequence[Any]) -> None:
    from monty.json import MontyEncoder

    path.write_text(json.dumps(objects, cls=MontyEncoder) + "\n", encoding="utf-8")


def _defect(item: ExportItem, core: ModuleType) -> Any:
    """The defect in the unit cell of the host; a complex, which needs more room, in its supercell."""
    from pymatgen.core import PeriodicSite

    configuration = item.configuration
    host = configuration.host
    base = replace(host, supercell=(1, 1)) if configuration.n_defects == 1 else host
    cell = Configuration.of(base, {}).to_structure()
    parts = []
    for (site, species), frac in zip(configuration.edits, _together(configuration), strict=True):
        place = frac @ np.asarray(host.supercell_lattice)
        old = host.site_element(site)
        kind = core.Vacancy if species == VACANCY else core.Substitution
        symbol = old if species == VACANCY else species
        where = PeriodicSite(symbol, cell.lattice.get_fractional_coords(place), cell.lattice)
        parts.append(kind(cell, where, oxi_state=0))
    return parts[0] if len(parts) == 1 else core.DefectComplex(parts, oxi_state=0)


def _entry(item: ExportItem, core: ModuleType, entry_class: Any, named: bool = False) -> Any:
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    configuration = item.configuration
    host = configuration.host
    pristine = Configuration.of(host, {}).to_structure()
    middle = _together(configuration).mean(axis=0) % 1.0
    placed = _is_placed(configuration, item.structure)
    more: dict[str, Any] = {}
    if named:
        more = {"name": f"{item.name}_{item.charge:+d}", "defect_supercell": item.structure, "bulk_supercell": pristine}
    bulk = None
    if item.host_energy_ev is not None:
        bulk = ComputedEntry(pristine.composition, item.host_energy_ev, entry_id=f"{host.name} {host.size}")
    return entry_class(
        defect=_defect(item, core),
        charge_state=item.charge,
        sc_entry=ComputedStructureEntry(item.structure, item.energy_ev or 0.0, entry_id=item.name),
        bulk_entry=bulk,
        sc_defect_frac_coords=tuple(float(x) for x in middle) if placed else None,
        **more,
    )


def _together(configuration: Configuration) -> NDArray[np.float64]:
    """The changed sites in fractions of the supercell, each in the image nearest to the first one, shape (n, 3)."""
    from pymatgen.core import Lattice

    host = configuration.host
    lattice = Lattice(host.supercell_lattice)
    places = host.site_frac_coords[[site for site, _ in configuration.edits]]
    images = [lattice.get_distance_and_image(places[0], place)[1] for place in places]
    return np.asarray(places + np.asarray(images), dtype=np.float64)


def _is_placed(configuration: Configuration, structure: Structure) -> bool:
    """Whether the atoms of a structure lie on the sites of its configuration, and not shifted or turned."""
    ideal = configuration.to_structure()
    if not np.allclose(ideal.lattice.parameters, structure.lattice.parameters, atol=0.1):
        return False
    distances = structure.lattice.get_all_distances(ideal.frac_coords, structure.frac_coords)
    nearest = distances.argmin(axis=1)
    same = [a.specie.symbol == structure[int(b)].specie.symbol for a, b in zip(ideal, nearest, strict=True)]
    return bool(distances.min(axis=1).max() < AT_SITE_ANGSTROM and all(same) and len(set(nearest)) == len(ideal))
