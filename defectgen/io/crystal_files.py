"""Bulk crystals from files: CIF and POSCAR files, folders, extended XYZ, tables with CIFs, folders of samples."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import CifAtoms, CifError
from defectgen.io.structures import (
    EXTXYZ_SUFFIXES,
    READABLE,
    SAMPLES,
    SEVERAL_SUFFIXES,
    checked_atoms,
    holds_one,
    is_structure_file,
    read_structures,
    repeated_formats,
    structure_files,
    visible_files,
)
from defectgen.io.tables import read_csv, read_parquet
from defectgen.one_line import printable

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLE_SUFFIXES = (".csv", ".parquet")

RELAXATIONS, RELAXED = "relaxations.jsonl", "relaxed"
"""What tells a folder that `defectgen stability` wrote, and the relaxed crystals in it."""

EXPECTED = f"Expected {READABLE}, CSV or parquet tables with CIFs, or folders of them."

NAME_COLUMNS = ("material_id", "name", "id", "index")
FORMULA_COLUMN = "pretty_formula"
"""Of tables of crystals, as the Materials Project and MP-20 name it."""

VALID_COLUMN, REASON_COLUMN = "valid", "reason"
"""Columns of samples: a draw that was refused is no crystal to compute, but counts."""


@dataclass(frozen=True)
class NamedCrystal:
    """One crystal of a file.

    Attributes:
        name: material id, or file and number of the row.
        structure: None if there is none.
        note: why there is none, or why it cannot be computed; empty if it can.
        refused: whether there is none because the generator itself refused the draw.
    """

    name: str
    structure: Structure | None
    note: str = ""
    refused: bool = False

    @cached_property
    def digest(self) -> str:
        """Names what the crystal is: the same name, atoms and cell have the same digest."""
        parts = [self.name, self.note, *(["refused"] if self.refused else [])]
        if self.structure is not None:
            parts += [str(self.structure.lattice.matrix.round(6).tolist())]
            parts += [f"{site.species_string} {site.frac_coords.round(6).tolist()}" for site in self.structure]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def read_crystals(path: Path) -> Iterator[NamedCrystal]:
    """The crystals of a file or folder, in order; what cannot be read is named and comes without a structure.

    Args:
        path: see `crystal_files`.

    Raises:
        UsageError: no such file or folder, or no crystals in it.
    """
    for file in crystal_files(path):
        if file.suffix.lower() in TABLE_SUFFIXES:
            try:
                table = crystal_table(file)
            except DefectgenError as error:  # it costs this file, not those after it
                yield NamedCrystal(str(file), None, str(error).removeprefix(f"{file}: "))
            else:
                yield from _table(file, table)
        else:
            for item in read_structures(file):
                yield NamedCrystal(item.name, item.structure, item.note)


def crystal_files(path: Path) -> list[Path]:
    """The files of crystals that a path stands for, by name.

    A file stands for itself, a folder of samples for its table (so that draws that are no crystals count), a folder of
    `defectgen stability` for its relaxed crystals. Any other folder stands for the CIF and POSCAR files in it and its
    subfolders; if there are none, for the extended XYZ files, tables, databases or zip files in it, the first kind that
    is there: they often repeat the others.

    Raises:
        UsageError: no such path, a file of another kind, or a folder without crystals.
    """
    if path.is_file():
        if not is_crystal_file(path):
            raise UsageError(f"{path} is no file of crystals.", EXPECTED)
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist.", EXPECTED)
    if (path / SAMPLES).is_file():
        return [path / SAMPLES]
    top = path / RELAXED if (path / RELAXATIONS).is_file() else path
    files = [file for file in structure_files(top) if holds_one(file)]
    for suffixes in ((*TABLE_SUFFIXES, *EXTXYZ_SUFFIXES), *((suffix,) for suffix in SEVERAL_SUFFIXES)):
        files = files or [file for file in visible_files(path) if file.suffix.lower() in suffixes and file.is_file()]
    if not files:
        raise UsageError(f"{path} holds no crystals.", EXPECTED)
    return files


def is_crystal_file(path: Path) -> bool:
    """Whether a file holds crystals by its name."""
    return is_structure_file(path) or path.suffix.lower() in TABLE_SUFFIXES


def left_out_files(paths: Sequence[Path]) -> list[Path]:
    """What is in the folders among some paths and not read; folders that this program wrote hold nothing else."""
    foreign = (p for p in paths if p.is_dir() and not (p / SAMPLES).is_file() and not (p / RELAXATIONS).is_file())
    return [path for folder in foreign for path in left_out_of(folder, crystal_files(folder))]


def left_out_of(folder: Path, chosen: Iterable[Path]) -> list[Path]:
    """What is in a folder and not among those files; of a structure in two formats neither is left out."""
    known = {*chosen, *repeated_formats(folder)}
    return [path for path in visible_files(folder) if path not in known]


def crystal_table(path: Path) -> pl.DataFrame:
    """A table of crystals, which has the column ``cif`` and rows.

    Raises:
        DefectgenError: it has not, or cannot be read.
    """
    table = read_table(path)
    if "cif" not in table.columns:
        raise DefectgenError(
            f"{path}: no column cif, got {', '.join(table.columns):.100}.", "Expected the text of a CIF in each row."
        )
    if not table.height:
        raise DefectgenError(f"{path}: holds no rows.", "Expected a crystal in each.")
    return table


def row_atoms(row: Mapping[str, Any], *, apart: bool = True) -> CifAtoms:
    """The atoms in a row of a table with the column ``cif``, checked as those of a file are.

    Args:
        row: of `crystal_table`.
        apart: see `checked_atoms`.

    Raises:
        CifError: no CIF, see `checked_atoms`, or another formula than the row states.
    """
    text = row["cif"]
    if text is not None and not isinstance(text, str):
        raise CifError(f"cif is {text!r:.30}, expected the text of a CIF")
    if not text:
        raise CifError("no CIF")
    atoms = checked_atoms(text, apart=apart)
    if row.get(FORMULA_COLUMN) is not None:
        check_stated_formula(atoms.crystal().formula, row[FORMULA_COLUMN])
    return atoms


def _table(path: Path, table: pl.DataFrame) -> Iterator[NamedCrystal]:
    named = next((column for column in NAME_COLUMNS if column in table.columns), None)
    for number, row in enumerate(table.iter_rows(named=True), 1):
        name = str(row[named]) if named in NAME_COLUMNS[:3] else f"{path.name}#{row[named] if named else number}"
        refused = row.get(VALID_COLUMN) is False
        if refused or not row["cif"]:
            yield NamedCrystal(name, None, str(row.get(REASON_COLUMN) or "no CIF"), refused)
            continue
        try:
            yield NamedCrystal(name, row_atoms(row).structure())
        except DefectgenError as error:
            yield NamedCrystal(name, None, str(error))


def check_stated_formula(formula: str, stated: object) -> None:
    """Make sure that a crystal is what the column `FORMULA_COLUMN` of its table says.

    Args:
        formula: of the crystal, reduced.
        stated: what the column holds; None if there is no such column or nothing in it.

    Raises:
        CifError: another formula, or none.
    """
    from pymatgen.core import Composition

    if stated is None or stated == formula:
        return
    try:
        same = Composition(str(stated)).reduced_formula == formula
    except ValueError:
        same = False
    if not same:
        raise CifError(f"{FORMULA_COLUMN} is {printable(str(stated)):.60}, the crystal is {formula}")


def read_table(path: Path) -> pl.DataFrame:
    """A CSV or parquet table.

    Raises:
        DefectgenError: it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return read_parquet(path)
        return read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DefectgenError(f"{path}: cannot be read as a table ({' '.join(str(error).split()):.100}).") from error


def file_label(index: int, name: str) -> str:
    """A name for the files of a crystal: its number and what is left of its name in a file name's letters."""
    stem = Path(name.partition("#")[0]).stem if "/" in name or "." in name else name
    return f"{index:05d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem):.40}"
