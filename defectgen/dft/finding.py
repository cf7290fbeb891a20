"""Which files in a folder are results, of which code, and what each is of: a defect, the host, an element."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.core import Configuration, Host, NotADecorationError
from defectgen.core.matching import configuration_from_structure, known_configuration
from defectgen.dft.ase_files import is_ase_file, read_ase_results
from defectgen.dft.codes import CODES
from defectgen.dft.inputs import MANIFEST, read_manifest
from defectgen.dft.result import DftResult
from defectgen.errors import DefectgenError, UsageError

if TYPE_CHECKING:
    from pymatgen.core import Structure

STEP = re.compile(r"(relax|opt|step)[_-]?(\d+)")
"""Name of a folder that holds one of several steps of a calculation."""

STATE, CAMPAIGN = "structures.db", "campaign.yaml"
"""A database with this name beside a campaign's file is its state, no result."""

OTHER = "other"
"""Role of a result that is none of the host's."""


@dataclass(frozen=True)
class Found:
    """A result and what it is of.

    Attributes:
        name: of its folder, or of its row in a file of several.
        path: file that was read.
        result: None if it cannot be read.
        role: ``defect``, ``host``, ``element`` or `OTHER`.
        configuration: of a defect or a host, as the structure shows it.
        cells: unit cells of the host in the cell.
        note: why it cannot be read or used.
    """

    name: str
    path: Path
    result: DftResult | None
    role: str
    configuration: Configuration | None = None
    cells: int = 0
    note: str = ""


def find_results(paths: Sequence[Path], host: Host | None) -> list[Found]:
    """All results in files and folders, in the order of their paths; those that cannot be read say why.

    Args:
        paths: files, or folders, which are searched with the folders in them.
        host: what the structures decorate; None for the one that the folder's inputs name, or a built-in one.

    Raises:
        DefectgenError: no such path, or no result in any of them.
    """
    files = [file for path in paths for file in _outputs(path)]
    if not files:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(
            f"{names}: no results of a DFT code found.",
            "Expected folders with vasprun.xml, OUTCAR, gpaw-results.json, .gpw, pw.x's XML, or .db and .extxyz files.",
        )
    return [item for code, file in dict.fromkeys(files) for item in _read(code, file, host)]


def _outputs(path: Path) -> list[tuple[str, Path]]:
    """(code, file) pairs; an empty code stands for one of ASE's files."""
    if path.is_file():
        code = _claimed(path)
        if code is None and not is_ase_file(path):
            raise UsageError(f"{path}: is no result of a DFT code by its name.", "Name a folder, or another file.")
        return [(code[0] if code else "", path)]
    if not path.is_dir():
        raise DefectgenError(f"{path} is not there.", "Name folders or files with results.")
    by_folder: dict[Path, dict[str, tuple[int, Path]]] = {}
    others: list[tuple[str, Path]] = []
    for file in sorted(item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")):
        if code := _claimed(file):
            best = by_folder.setdefault(file.parent, {})
            if code[1] > best.get(code[0], (0, file))[0]:
                best[code[0]] = (code[1], file)
        elif is_ase_file(file) and not (file.name == STATE and (file.parent / CAMPAIGN).is_file()):
            others.append(("", file))
    found = [(name, file) for best in by_folder.values() for name, (_, file) in best.items()]
    found = [(name, file) for name, file in found if not CODES[name].outdated(file)]
    found = _last_steps(found)
    others = [item for item in others if item[1].parent not in by_folder]
    return sorted([*found, *others], key=lambda item: item[1])


def _last_steps(found: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Without the folders of earlier steps: relax1 where there is a relax2 beside it."""
    last: dict[tuple[Path, str], int] = {}
    for _, file in found:
        if step := STEP.fullmatch(file.parent.name):
            place = (file.parent.parent, step[1])
            last[place] = max(int(step[2]), last.get(place, 0))
    return [
        (name, file)
        for name, file in found
        if not (step := STEP.fullmatch(file.parent.name)) or last[file.parent.parent, step[1]] == int(step[2])
    ]


def _claimed(path: Path) -> tuple[str, int] | None:
    claims = [(name, code.claims(path)) for name, code in CODES.items()]
    best = max(claims, key=lambda item: item[1], default=("", 0))
    return best if best[1] else None


def _read(code: str, path: Path, host: Host | None) -> Iterator[Found]:
    expected, known = _inputs_of(path)
    wanted = host or expected
    name = _name(path, known)
    try:
        results: list[tuple[str, DftResult | str]]
        results = [(name, CODES[code].read(path))] if code else list(read_ase_results(path))
    except DefectgenError as error:
        yield Found(name, path, None, OTHER, note=str(error))
        return
    for label, result in results:
        if isinstance(result, str):
            yield Found(label, path, None, OTHER, note=f"{path}#{label}: {result}")
            continue
        said = result if result.charge is not None else _with_charge(result, known.get(name, {}))
        yield _placed(label, path, said, wanted, given=wanted is not None)


def _with_charge(result: DftResult, entry: dict[str, Any]) -> DftResult:
    charge = entry.get("charge")
    return dataclasses.replace(result, charge=float(charge)) if isinstance(charge, int) else result


def _name(path: Path, known: dict[str, Any]) -> str:
    """The folder that the inputs know, else the one in which the file, or the folder of its step, lies."""
    folder = path.absolute().parent
    place = folder.parent if STEP.fullmatch(folder.name) and folder.parent.name else folder
    return next((parent.name for parent in path.absolute().parents if parent.name in known), place.name)


def _inputs_of(path: Path) -> tuple[Host | None, dict[str, Any]]:
    for folder in list(path.absolute().parents)[:4]:
        if (folder / MANIFEST).is_file():
            return _manifest(folder)
    return None, {}


@lru_cache(maxsize=16)
def _manifest(folder: Path) -> tuple[Host, dict[str, dict[str, Any]]]:
    return read_manifest(folder)


def _placed(name: str, path: Path, result: DftResult, host: Host | None, given: bool) -> Found:
    """What a result is of, by its structure."""
    structure = result.structure
    try:
        found = known_configuration(structure, host)
    except NotADecorationError as error:
        single = _unit_cell(structure, host)
        if single is not None:
            return Found(name, path, result, "host", single, 1)
        if len({site.specie.symbol for site in structure}) == 1:
            return Found(name, path, result, "element")
        why = f"of another host: {error}" if given else f"of no known host: {error}"
        advice = "" if given else " Name the host with --host, --supercell and --allow."
        return Found(name, path, result, OTHER, note=f"{why} Levels and formation energy are left out.{advice}")
    cells = found.host.supercell[0] * found.host.supercell[1]
    return Found(name, path, result, "defect" if found.edits else "host", found, cells)


def _unit_cell(structure: Structure, host: Host | None) -> Configuration | None:
    """The pristine unit cell of the host, if a structure is that."""
    if host is None:
        return None
    try:
        found = configuration_from_structure(dataclasses.replace(host, supercell=(1, 1)), structure)
    except NotADecorationError:
        return None
    return None if found.edits else found
