"""A host, and results of a code that does not exist: levels of the most extreme defect, energies with a pair term."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import mx2
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from defectgen.core import Configuration, Host
from defectgen.io.host_files import host_from_file, parse_rules
from defectgen.score.surrogate.features import displacements

HOMO = {"Mo_W": 0.05, "v_W": 0.6, "Se_S": 0.02, "v_S": 0.1}
LUMO = {"Mo_W": 1.7, "v_W": 1.0, "Se_S": 1.75, "v_S": 1.2}
ENERGY = {"Mo_W": 0.2, "v_W": 5.5, "Se_S": 0.3, "v_S": 2.6}
ATOM = {"W": -12.0, "Mo": -11.0, "S": -4.1, "Se": -3.5}
GAP_EV = 1.8


def host_file(folder: Path) -> Path:
    """The unit cell of WS2."""
    path = folder / "WS2.cif"
    atoms: Any = mx2("WS2", kind="2H", a=3.18, thickness=3.14, vacuum=9)
    atoms.pbc = True
    write(path, atoms)
    return path


def host(folder: Path) -> Host:
    """WS2 3x3 with Mo and vacancies for W, Se and vacancies for S."""
    return host_from_file(host_file(folder), (3, 3), parse_rules(["W:Mo,VAC", "S:Se,VAC"]))


def names(configuration: Configuration) -> list[str]:
    """The defects, each by its name."""
    from defectgen.core import defect_name

    site = configuration.host.site_element
    return [defect_name(site(where), new) for where, new in configuration.edits]


def truth(configuration: Configuration) -> dict[str, float]:
    """HOMO and LUMO above the valence band maximum, gap and formation energy, eV."""
    found = names(configuration)
    pull = _pull(configuration)
    homo = max([0.0, *(HOMO[name] for name in found)])
    lumo = min([GAP_EV, *(LUMO[name] for name in found)]) - 0.1 * pull
    energy = sum(ENERGY[name] for name in found) - 0.4 * pull
    return {"homo_ev": homo, "lumo_ev": lumo, "band_gap_ev": lumo - homo, "formation_energy_ev": energy}


def _pull(configuration: Configuration) -> float:
    sites = [site for site, _ in configuration.edits]
    pairs = [(a, b) for k, a in enumerate(sites) for b in sites[k + 1 :]]
    if not pairs:
        return 0.0
    first, second = (np.array(part) for part in zip(*pairs, strict=True))
    length = np.linalg.norm(displacements(configuration.host, first, second), axis=1)
    return float(np.exp(-(length - 2.4) / 2.0).sum())


def write_results(path: Path, configurations: Iterable[Configuration], code: str = "gpaw", **more: object) -> Path:
    """Results of structures, their host and its elements, as extended XYZ."""
    items = list(configurations)
    pristine = Configuration.of(items[0].host, {})
    frames = [_frame(pristine, 0.0, {"homo_ev": 0.0, "lumo_ev": GAP_EV}, "host", code, more)]
    for number, item in enumerate(items):
        values = truth(item)
        levels = {name: values[name] for name in ("homo_ev", "lumo_ev")}
        frames.append(_frame(item, values["formation_energy_ev"], levels, f"made-{number}", code, more))
    for element, energy in ATOM.items():
        frames.append(_element(element, energy, code, more))
    write(path, frames, format="extxyz")
    return path


def write_levels(path: Path, configurations: Iterable[Configuration], levels: Iterable[dict[str, float]]) -> Path:
    """Levels of structures, with their host, as extended XYZ."""
    items = list(configurations)
    pristine = Configuration.of(items[0].host, {})
    frames = [_frame(pristine, 0.0, {"homo_ev": 0.0, "lumo_ev": GAP_EV}, "host", "gpaw", {})]
    for number, (item, found) in enumerate(zip(items, levels, strict=True)):
        frames.append(_frame(item, 0.0, found, f"made-{number}", "gpaw", {}))
    write(path, frames, format="extxyz")
    return path


def _frame(item: Configuration, excess: float, levels: dict[str, float], name: str, code: str, more: object) -> Any:
    atoms: Any = item.to_ase()
    energy = sum(ATOM[symbol] for symbol in atoms.get_chemical_symbols()) + excess
    return _with(atoms, energy, levels | {"vacuum_level_ev": 5.0}, name, code, more)


def _element(element: str, energy: float, code: str, more: object) -> Any:
    from ase import Atoms

    return _with(Atoms(element, cell=[3, 3, 3], pbc=True), energy, {}, f"element_{element}", code, more)


def _with(atoms: Any, energy: float, levels: dict[str, float], name: str, code: str, more: Any) -> Any:
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    atoms.info |= {**levels, "name": name, "code": code, "functional": "PBE", "converged": True, **more}
    return atoms
