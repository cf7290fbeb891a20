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

from defectgen.core import VACANCY, Configuration
from defectgen.errors import DefectgenError
from defectgen.exports.items import ExportItem
from defectgen.extras import import_extra

if TYPE_CHECKING:
    from types import ModuleType

EXTRA = "exports"
COMPLEX = "complex"


def write_defects(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """A list of DefectEntry objects for calculated defects and of Defect objects for the others.

    Raises:
        DefectgenError: pymatgen-analysis-defects is not installed.
    """
    core = import_extra("pymatgen.analysis.defects.core", EXTRA, "This export")
    thermo = import_extra("pymatgen.analysis.defects.thermo", EXTRA, "This export")
    objects = [_entry(item, core, thermo.DefectEntry) if item.energy_ev is not None else _defect(item, core)
               for item in items]  # fmt: skip
    without = sum(item.energy_ev is None for item in items)
    _write(path, objects)
    return [f"{without} of {len(items)} have no energy by DFT: they are Defect objects."] if without else []


def write_doped(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """A list of doped's DefectEntry objects, which ``doped.vasp.DefectsSet`` takes; the energy of one without is 0.

    doped has vacancies, substitutions and interstitials; complexes are left out.

    Raises:
        DefectgenError: doped is not installed, or there are complexes alone.
    """
    core = import_extra("doped.core", EXTRA, "This export")
    single = [item for item in items if item.configuration.n_defects == 1]
    if not single:
        raise DefectgenError(
            "doped has no defect complexes, and none of the structures is a single defect.",
            "Export to defects (pymatgen-analysis-defects), which has them.",
        )
    _write(path, [_entry(item, core, core.DefectEntry, named=True) for item in single])
    notes = []
    if len(single) < len(items):
        notes.append(f"{len(items) - len(single)} complexes are left out: doped has none. --to defects has them.")
    if any(item.energy_ev is None for item in single):
        notes.append("Entries without an energy by DFT carry 0, as doped's own do before they are computed.")
    return notes


def _write(path: Path, objects: Sequence[Any]) -> None:
    from monty.json import MontyEncoder

    path.write_text(json.dumps(objects, cls=MontyEncoder) + "\n", encoding="utf-8")


def _defect(item: ExportItem, core: ModuleType) -> Any:
    """The defect, or the complex, in the unit cell of the host; sites keep the cell that they are in."""
    from pymatgen.core import PeriodicSite

    configuration = item.configuration
    host = configuration.host
    unit = Configuration.of(replace(host, supercell=(1, 1)), {}).to_structure()
    parts = []
    for site, species in configuration.edits:
        place = host.site_cart_coords[site]
        old = host.site_element(site)
        kind = core.Vacancy if species == VACANCY else core.Substitution
        symbol = old if species == VACANCY else species
        where = PeriodicSite(symbol, unit.lattice.get_fractional_coords(place), unit.lattice)
        parts.append(kind(unit, where, oxi_state=0))
    if not parts:
        raise DefectgenError(f"{item.name} is the pristine host, which is no defect.")
    return parts[0] if len(parts) == 1 else core.DefectComplex(parts, oxi_state=0)


def _entry(item: ExportItem, core: ModuleType, entry_class: Any, named: bool = False) -> Any:
    import numpy as np
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    configuration = item.configuration
    host = configuration.host
    sites = [site for site, _ in configuration.edits]
    pristine = Configuration.of(host, {}).to_structure()
    middle = host.site_frac_coords[sites[0]]
    offsets = host.site_frac_coords[sites] - middle
    middle = (middle + np.mean(offsets - np.round(offsets), axis=0)) % 1.0
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
        sc_defect_frac_coords=tuple(float(x) for x in middle),
        **more,
    )
