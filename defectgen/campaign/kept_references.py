"""Results of the pristine host and of elemental phases, against which a campaign's values count."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.campaign.folder import CALCULATIONS, REFERENCES
from defectgen.core import VACANCY, Configuration
from defectgen.core.hosts import common_title
from defectgen.dft.ase_files import frame_text, is_ase_file
from defectgen.dft.codes import CODES
from defectgen.dft.codes.espresso_potential import PLANES
from defectgen.dft.elemental_phases import has_phase
from defectgen.dft.finding import Found, find_results
from defectgen.errors import UsageError
from defectgen.io.files import write_text, write_whole

if TYPE_CHECKING:
    from defectgen.campaign.folder import Campaign
    from defectgen.core import Host
    from defectgen.dft.result import DftResult

BESIDE = ("OUTCAR", "LOCPOT", PLANES)
"""What results of VASP and pw.x are read with."""

SAME_EV = 1e-3
"""Energies of one cell that differ by less are those of one result."""

Rows = Sequence[tuple[Mapping[str, Any], "DftResult"]]
"""Rows of a table of results, each with what was read."""


def reference_paths(campaign: Campaign) -> list[Path]:
    """Where the results of the pristine host and the elements are."""
    places = (campaign.folder / CALCULATIONS / REFERENCES, campaign.folder / REFERENCES)
    return [place for place in places if _found(campaign, place)]


def reservoirs(host: Host) -> tuple[str, ...]:
    """Elements that come or go in a host, sorted."""
    return tuple(sorted({item for rule in host.rules for item in (rule.element, rule.replacement)} - {VACANCY}))


def reference_keys(host: Host) -> tuple[str, ...]:
    """Configurations whose references are those of all defects, but for elements of which no phase is known here."""
    keys = []
    for rule in host.rules:
        site = next(site for site, old in host.sites() if old == rule.element)
        known = [item for item in (rule.element, rule.replacement) if item == VACANCY or has_phase(item)]
        if rule.element in known:
            keys.append(Configuration.of(host, {site: known[-1] if len(known) == 2 else VACANCY}).key)
    return tuple(dict.fromkeys(keys)) or (Configuration.of(host, {}).key,)


def note_on_phases(campaign: Campaign) -> str:
    """A line on elements whose phases nobody has; empty if there are none."""
    given = given_references(campaign)
    unknown = [symbol for symbol in reservoirs(campaign.host) if symbol not in given and not has_phase(symbol)]
    if not unknown:
        return ""
    return (
        f"no elemental phase of {', '.join(unknown)} is known here: formation energies of what has it come when its "
        f"result is there (defectgen inputs --element {unknown[0]}=FILE, then defectgen campaign add)"
    )


def given_references(campaign: Campaign) -> set[str]:
    """Elements whose phases were handed over with an energy; an empty text stands for the pristine host."""
    found = _found(campaign, campaign.folder / REFERENCES)
    return {*_potentials(found), *("" for item in found if item.role == "host" and _is_usable(item.result))}


def chemical_potentials(campaign: Campaign) -> dict[str, float]:
    """Energy of an atom in its elemental phase, eV, of the elements that the campaign has."""
    return _potentials([item for place in reference_paths(campaign) for item in _found(campaign, place)])


def _potentials(found: Sequence[Found]) -> dict[str, float]:
    energies: dict[str, float] = {}
    for item in found:
        result = item.result
        if item.role == "element" and result is not None and _is_usable(result):
            assert result.energy_ev is not None
            symbol, energy = result.structure[0].specie.symbol, result.energy_ev / len(result.structure)
            energies[symbol] = min(energy, energies.get(symbol, energy))
    return energies


def _is_usable(result: DftResult | None) -> bool:
    """Whether energies may count against a result."""
    return (
        result is not None
        and result.energy_ev is not None
        and result.electronic_converged is not False
        and not result.charge
    )


def _found(campaign: Campaign, place: Path) -> list[Found]:
    """Results in a folder; none where it is not there, or holds none yet."""
    if not place.is_dir():
        return []
    try:
        return find_results([place], campaign.host)
    except UsageError:
        return []


def keep_references(campaign: Campaign, rows: Rows) -> tuple[list[str], list[str]]:
    """Copy results of the pristine host and the elements into the campaign, each into a folder of its own.

    What is there already is not copied again. Of a file of several structures the one alone is kept. What the campaign
    counts against stays: one of another energy is left out, so that all its values have one zero.

    Args:
        campaign: whose folder takes them.
        rows: results from outside, by the campaign's settings.

    Returns:
        Names of those that were copied, and a line for each that is left out.
    """
    present = [item for place in reference_paths(campaign) for item in _found(campaign, place)]
    energies = {_kind(item.role, item.result): _energy(item.role, item.result) for item in reversed(present)
                if item.result is not None and _is_usable(item.result)}  # fmt: skip
    energies |= {("element", symbol): energy for symbol, energy in _potentials(present).items()}
    kept, notes = [], []
    for row, result in rows:
        if not _is_usable(result):
            notes.append(f"{row['name']} is left out: {_unusable(result)}")
            continue
        kind, energy = _kind(row["role"], result), _energy(row["role"], result)
        if kind in energies and abs(energy - energies[kind]) > SAME_EV:
            what = f"the pristine {common_title(campaign.host)}" if row["role"] == "host" else f"{kind[1]}, by atom,"
            notes.append(
                f"{row['name']} is left out: its energy is {energy - energies[kind]:+.3f} eV from that of {what} "
                "which the campaign has, and against which all counts"
            )
            continue
        if row["role"] == "host":
            energies[kind] = energy
        if name := _keep(campaign.folder / REFERENCES, row, result):
            kept.append(name)
    return kept, notes


def _kind(role: str, result: DftResult) -> tuple[str, str]:
    """What a reference is of: the host in a cell of so many atoms, or an element."""
    return role, str(len(result.structure)) if role == "host" else result.structure[0].specie.symbol


def _energy(role: str, result: DftResult) -> float:
    """Of the cell of a host, of an atom of an element, eV."""
    assert result.energy_ev is not None
    return result.energy_ev if role == "host" else result.energy_ev / len(result.structure)


def _unusable(result: DftResult) -> str:
    if result.electronic_converged is False:
        return "its electronic cycle did not converge"
    return f"it has charge {result.charge:+g}" if result.charge else "it has no energy"


def _keep(folder: Path, row: Mapping[str, Any], result: DftResult) -> str:
    """The name by which a reference is copied; empty if it is there already."""
    source, name = Path(row["path"]), str(row["name"])
    stem = re.sub(r"[^\w.+-]+", "-", f"{source.stem}_{name}" if name.isdecimal() else name).strip(".-")[:80]
    stem = stem or str(row["role"])
    frame = frame_text(result, stem) if is_ase_file(source) else None
    for number in itertools.count(1):
        target = folder / (stem if number == 1 else f"{stem}_{number}")
        if not target.exists():
            write_whole(target, partial(_copy, source, f"{stem}.extxyz", frame))
            return target.name
        there = target / (source.name if frame is None else f"{stem}.extxyz")
        if there.is_file() and there.read_bytes() == (source.read_bytes() if frame is None else frame.encode()):
            break
    return ""


def _copy(source: Path, name: str, frame: str | None, folder: Path) -> None:
    folder.mkdir()
    if frame is not None:
        write_text(folder / name, frame)
        return
    for file in _belonging(source):
        shutil.copy2(file, folder / file.name)


def _belonging(result: Path) -> list[Path]:
    """A result and what its reader looks for beside it; not wave functions."""
    return [
        file
        for file in sorted(result.parent.iterdir())
        if file.is_file()
        and (file == result or file.name.startswith(BESIDE) or any(code.claims(file) for code in CODES.values()))
    ]
