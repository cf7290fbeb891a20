"""The one reader of structures: CIF, POSCAR, extended XYZ, ASE's database, and zip files and folders of them.

Every command reads structures here, so that a file is the same to all of them. A file may hold several structures;
each comes by itself with its name, and one that cannot be read says why and does not stop the others.
"""

from __future__ import annotations

import codecs
import csv
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.hosts import common_title
from defectgen.core.matching import configuration_from_structure, what_it_is
from defectgen.core.slab import NotADecorationError, NotALayerError
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.ase_rows import AseRow, database_rows, extxyz_frames
from defectgen.io.crystal_cif import CifAtoms, CifError, atoms_from_cif, check_cell, check_positions, collected_remarks
from defectgen.io.places import atoms_problem, place_problem
from defectgen.io.poscar import parse_poscar
from defectgen.one_line import encodable, printable, reason_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

CIF_SUFFIXES = (".cif", ".mcif")
POSCAR_SUFFIXES = (".vasp", ".poscar")
EXTXYZ_SUFFIXES = (".extxyz", ".xyz")
DB_SUFFIXES = (".db",)
ZIP_SUFFIXES = (".zip",)
SEVERAL_SUFFIXES = (*EXTXYZ_SUFFIXES, *DB_SUFFIXES, *ZIP_SUFFIXES)
"""Of files that hold any number of structures."""

SAMPLES, SAMPLE_FRAMES = "samples.parquet", "samples.extxyz"
"""The table of a folder of `defectgen generate` or `template`, and frames that repeat the files in its `structures`."""

RUN_TABLE, RUN_STRUCTURES, RUN_FORMATS = "candidates.csv", "structures", ("cif", "poscar")
"""What tells a folder that `defectgen design` wrote, the structures in it, and the table's columns with their files."""

READABLE = "CIF, POSCAR, extended XYZ, ASE .db or zip files"

LARGEST_MEMBER_BYTES = 1 << 28
"""A file in a zip that unpacks to more is refused."""

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""How files of gzip, bzip2 and xz begin."""

SMALLEST_VOLUME_ANGSTROM3 = 1e-6

UNFORESEEN = "cannot be read as its format says"
"""Of errors that no reader foresees."""

AROUND_CELLS = 2.0
"""Atoms farther from the origin than so many cell vectors are moved into the cell."""


@dataclass(frozen=True)
class NamedStructure:
    """One structure of a file.

    Attributes:
        name: path of the file; with ``#2`` for the second structure of several in it, or ``#`` and the name in a zip.
        structure: None if it cannot be read or computed.
        note: why there is none, without the name; empty if there is one.
        warnings: what the reader took for granted or a library remarked.
    """

    name: str
    structure: Structure | None
    note: str = ""
    warnings: tuple[str, ...] = ()


def read_structures(path: Path) -> Iterator[NamedStructure]:
    """The structures of a file or folder in order, those that cannot be read among them.

    Args:
        path: see `READABLE`; of a folder all such files in it and the folders in it, by name.

    Raises:
        DefectgenError: no such file or folder, or a folder without structures.
    """
    if path.is_dir():
        files = structure_files(path)
        if not files:
            raise UsageError(f"{path} holds no structures.", f"Expected {READABLE}.")
        for file in files:
            yield from read_structures(file)
        return
    if not path.is_file():
        raise DefectgenError(f"{path} is not a file or a folder.", f"Expected {READABLE}, or a folder of them.")
    try:
        content = path.read_bytes() if path.suffix.lower() not in (*DB_SUFFIXES, *ZIP_SUFFIXES) else b""
        found = list(_in_file(path, content))
    except (DefectgenError, OSError) as error:
        found = [NamedStructure("", None, " ".join(str(error).split()))]
    except Exception as error:  # of a library, on a damaged file: it costs this file, not those after it
        found = [NamedStructure("", None, f"{UNFORESEEN} ({type(error).__name__}: {reason_of(error)})")]
    if not found:
        found = [NamedStructure("", None, "holds no structure")]
    for number, item in enumerate(found, 1):
        mark = item.name or (str(number) if len(found) > 1 else "")
        note = " ".join(printable(item.note).split())
        yield replace(item, name=encodable(f"{path}#{mark}" if mark else str(path)), note=note)


def read_structure(path: Path) -> Structure:
    """The structure in a file that holds one; see `read_structures`.

    Raises:
        DefectgenError: no such file, one that cannot be read as a structure, or one with several.
    """
    if path.is_dir():
        raise DefectgenError(f"{path} is not a file.", f"Expected {READABLE}.")
    found = list(read_structures(path))
    if len(found) > 1:
        raise DefectgenError(f"{path}: holds {len(found)} structures, expected one.", "Name a file with one.")
    if found[0].structure is None:
        raise DefectgenError(f"{path}: {found[0].note}.")
    return found[0].structure


def read_configuration(host: Host, path: Path) -> Configuration:
    """The configuration in a file with one structure.

    Raises:
        DefectgenError: see `read_structure`.
        NotADecorationError: no decoration of the host.
    """
    structure = read_structure(path)
    try:
        return configuration_from_structure(host, structure)
    except NotALayerError as error:
        raise NotALayerError(f"{path} {error}") from error
    except NotADecorationError as error:
        what = what_it_is(host, structure) or error
        raise NotADecorationError(f"{path} is no decoration of {common_title(host)}: {what}") from error


def chosen_files(paths: Sequence[Path]) -> list[Path]:
    """The files among some files and folders; of a folder those that hold structures.

    Raises:
        UsageError: folders without structures only.
        DefectgenError: a path that is neither file nor folder.
    """
    found = [path for given in paths for path in (structure_files(given) if given.is_dir() else [given])]
    if not found:
        raise UsageError("the folders hold no structures.", f"Expected {READABLE}.")
    for path in found:
        if not path.is_file():
            raise DefectgenError(f"{path} is not a file or a folder.", f"Expected {READABLE}, or a folder of them.")
    return found


def structure_files(folder: Path) -> list[Path]:
    """The files of structures in a folder and the folders in it, by path; hidden ones are left out.

    Of a folder that `defectgen design` wrote these are the ones in its folder of structures, one for each that it
    wrote in several formats.
    """
    others = repeated_formats(folder)
    return [path for path in visible_files(folder) if path not in others and is_structure_file(path) and path.is_file()]


def repeated_formats(folder: Path) -> set[Path]:
    """The files in a folder that repeat others: of a design run by its table, of `defectgen generate` its frames."""
    found: set[Path] = set()
    for run in {path.parent.parent for path in visible_files(folder) if path.parent.name == RUN_STRUCTURES}:
        try:
            rows = list(csv.DictReader((run / RUN_TABLE).read_text(encoding="utf-8", errors="replace").splitlines()))
        except (OSError, csv.Error):
            continue
        for row in rows:
            files = [path for form in RUN_FORMATS if (name := row.get(form)) and (path := run / name).is_file()]
            found.update(files[1:])
    frames = (path for path in visible_files(folder) if path.name == SAMPLE_FRAMES)
    found.update(path for path in frames if (path.parent / SAMPLES).is_file() and _has_files(path.parent))
    return found


def _has_files(samples: Path) -> bool:
    return any(holds_one(path) for path in (samples / RUN_STRUCTURES).glob("*"))


def skipped_files(paths: Sequence[Path]) -> list[Path]:
    """The files in those folders that `structure_files` leaves out because of their names."""
    files = (path for folder in paths if folder.is_dir() for path in visible_files(folder))
    return [path for path in files if not (is_structure_file(path) and path.is_file())]


def visible_files(folder: Path) -> list[Path]:
    """What is in a folder and the folders in it but folders and what is hidden, by path."""
    run = folder / RUN_STRUCTURES
    top = run if (folder / RUN_TABLE).is_file() and run.is_dir() else folder
    return sorted(
        path
        for path in top.rglob("*")
        if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(top).parts)
    )


def is_structure_file(path: Path) -> bool:
    """Whether a file holds structures by its name."""
    return path.suffix.lower() in (*CIF_SUFFIXES, *SEVERAL_SUFFIXES) or is_poscar(path)


def holds_one(path: Path) -> bool:
    """Whether a file is a CIF or POSCAR by its name, which hold one structure."""
    return path.suffix.lower() in CIF_SUFFIXES or is_poscar(path)


def is_poscar(path: Path) -> bool:
    """Whether a file is one of VASP's structures by its name."""
    suffix = path.suffix.lower()
    return suffix in POSCAR_SUFFIXES or (
        suffix not in (*CIF_SUFFIXES, *SEVERAL_SUFFIXES, ".csv", ".parquet", ".json")
        and ("POSCAR" in path.name.upper() or "CONTCAR" in path.name.upper())
    )


def parse_cif(text: str) -> Structure:
    """The crystal of one CIF.

    Raises:
        DefectgenError: it cannot be read, or cannot be computed.
    """
    return _cif(text)[0]


def structure_from_ase(atoms: Any) -> Structure:
    """The structure of ASE's atoms.

    Raises:
        DefectgenError: no cell.
    """
    from pymatgen.core import Structure

    if abs(atoms.cell.volume) < SMALLEST_VOLUME_ANGSTROM3 or not np.isfinite(atoms.cell.array).all():
        raise DefectgenError('has no cell with a volume, expected e.g. Lattice="..." in an extended XYZ file')
    symbols = atoms.get_chemical_symbols()
    if "X" in symbols:
        raise DefectgenError("the structure has a species that is no element (X)")
    return Structure(atoms.cell.array, symbols, atoms.positions, coords_are_cartesian=True)


def _in_file(path: Path, content: bytes) -> Iterator[NamedStructure]:
    """The structures of a file; `name` is what to add to the file's own, empty for a number."""
    suffix = path.suffix.lower()
    if suffix in ZIP_SUFFIXES:
        yield from _zip(path)
    elif suffix in DB_SUFFIXES:
        yield from _db(path)
    elif suffix in EXTXYZ_SUFFIXES:
        yield from map(_from_frame, extxyz_frames(decoded(content)))
    else:
        yield _one(path, content)


def _one(path: Path, content: bytes) -> NamedStructure:
    try:
        _check_text(path, content)
        with collected_remarks() as remarks:
            structure, notes = (parse_poscar(decoded(content)), ()) if is_poscar(path) else _cif(decoded(content))
    except DefectgenError as error:
        return NamedStructure("", None, str(error).rstrip("."))
    return _settled(structure, (*notes, *remarks))


def _check_text(path: Path, content: bytes) -> None:
    """Refuse a file that cannot hold one structure as text."""
    if content.startswith(COMPRESSED):
        raise DefectgenError("is compressed, expected text: unpack it first")
    if not holds_one(path):
        raise DefectgenError(f"is no structure by its name, expected {READABLE}; convert it, or rename it")
    if not content.strip():
        raise DefectgenError("is empty, expected a structure")
    if b"\0" in content and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DefectgenError("is no text, expected a CIF or POSCAR")


def _settled(structure: Structure, notes: tuple[str, ...] = ()) -> NamedStructure:
    """A structure as it is, or with its atoms moved into the cell if they are far from it, or why it is none."""
    if problem := atoms_problem(structure):
        return NamedStructure("", None, f"the structure {problem}")
    if np.abs(structure.frac_coords).max() <= AROUND_CELLS:
        return NamedStructure("", structure, warnings=notes)
    moved = structure.copy()
    for index in range(len(moved)):
        moved[index].to_unit_cell(in_place=True)
    return NamedStructure("", moved, warnings=(*notes, "atoms far outside the cell were moved into it"))


def _cif(text: str) -> tuple[Structure, tuple[str, ...]]:
    try:
        atoms = checked_atoms(text)
    except CifError as error:
        raise DefectgenError(f"cannot be read as CIF ({error})") from error
    return atoms.structure(), atoms.warnings


def checked_atoms(text: str, *, apart: bool = True) -> CifAtoms:
    """The atoms in the text of a CIF, which must be what the file says of them.

    Args:
        text: of the file.
        apart: whether each must be at a place of its own; of generated crystals that is judged later.

    Raises:
        CifError: see `atoms_from_cif`, `place_problem` and `check_positions`; the message is the reason alone.
    """
    atoms = atoms_from_cif(text)
    check_cell(atoms)
    if problem := place_problem(atoms.lattice(), atoms.fractional, apart=apart):
        raise CifError(problem)
    check_positions(atoms)
    return atoms


def _db(path: Path) -> Iterator[NamedStructure]:
    try:
        for row in database_rows(path):
            yield replace(_from_frame(row), name=str(row.number))
    except DefectgenError as error:
        yield NamedStructure("", None, str(error))


def _from_frame(row: AseRow) -> NamedStructure:
    return NamedStructure("", None, row.problem) if row.problem else _from_ase(row.atoms)


def _from_ase(atoms: Any) -> NamedStructure:
    try:
        return _settled(structure_from_ase(atoms))
    except DefectgenError as error:
        return NamedStructure("", None, str(error))


def _zip(path: Path) -> Iterator[NamedStructure]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda item: item.filename):
                name = PurePosixPath(info.filename)
                hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
                if info.is_dir() or hidden or not is_structure_file(Path(name.name)):
                    continue
                yield from _member(archive, info)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        yield NamedStructure("", None, f"cannot be read as a zip file ({reason_of(error)})")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[NamedStructure]:
    name = Path(PurePosixPath(info.filename).name)
    if info.file_size > LARGEST_MEMBER_BYTES:
        yield NamedStructure(info.filename, None, f"unpacks to more than {LARGEST_MEMBER_BYTES >> 20} MiB")
        return
    if name.suffix.lower() in ZIP_SUFFIXES:
        yield NamedStructure(info.filename, None, "is a zip file in a zip file")
        return
    try:
        content = archive.read(info)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        yield NamedStructure(info.filename, None, f"cannot be unpacked ({reason_of(error)})")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        if name.suffix.lower() in DB_SUFFIXES:
            file.write_bytes(content)
        found = list(_in_file(file, content))
    for number, item in enumerate(found, 1):
        mark = f"#{item.name or number}" if len(found) > 1 or item.name else ""
        yield replace(item, name=f"{info.filename}{mark}")


def decoded(content: bytes) -> str:
    """Text of a file as programs of the field write it: UTF-8 or UTF-16 with a mark, else Latin-1; any line ends."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
