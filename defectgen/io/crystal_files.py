"""Bulk crystals from files: CIF and POSCAR files, folders, extended XYZ, tables with CIFs, folders of samples."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import CifError
from defectgen.io.structures import (
    EXTXYZ_SUFFIXES,
    READABLE,
    SEVERAL_SUFFIXES,
    holds_one,
    is_structure_file,
    parse_cif,
    read_structures,
    structure_files,
)
from defectgen.io.tables import read_csv
from defectgen.one_line import printable

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLE_SUFFIXES = (".csv", ".parquet")
SAMPLES = "samples.parquet"
"""The table in a folder that `defectgen generate` or `defectgen template` wrote."""

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
        DefectgenError: a table without CIFs.
    """
    for file in crystal_files(path):
        if file.suffix.lower() in TABLE_SUFFIXES:
            yield from _table(file)
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
        if not (is_structure_file(path) or path.suffix.lower() in TABLE_SUFFIXES):
            raise UsageError(f"{path} is no file of crystals.", EXPECTED)
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist.", EXPECTED)
    if (path / SAMPLES).is_file():
        return [path / SAMPLES]
    top = path / RELAXED if (path / RELAXATIONS).is_file() else path
    files = [file for file in structure_files(top) if holds_one(file)]
    for suffixes in ((*TABLE_SUFFIXES, *EXTXYZ_SUFFIXES), *((suffix,) for suffix in SEVERAL_SUFFIXES)):
        files = files or sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise UsageError(f"{path} holds no crystals.", EXPECTED)
    return files


def _table(path: Path) -> Iterator[NamedCrystal]:
    table = read_table(path)
    if "cif" not in table.columns:
        raise DefectgenError(f"{path}: no column cif, got {', '.join(table.columns):.100}.")
    if not table.height:
        raise DefectgenError(f"{path}: holds no rows.", "Expected a crystal in each.")
    named = next((column for column in NAME_COLUMNS if column in table.columns), None)
    for number, row in enumerate(table.iter_rows(named=True), 1):
        name = str(row[named]) if named in NAME_COLUMNS[:3] else f"{path.name}#{row[named] if named else number}"
        refused = row.get(VALID_COLUMN) is False
        if refused or not row["cif"]:
            yield NamedCrystal(name, None, str(row.get(REASON_COLUMN) or "no CIF"), refused)
            continue
        try:
            structure = parse_cif(str(row["cif"]))
            check_stated_formula(structure.composition.reduced_formula, row.get(FORMULA_COLUMN))
            yield NamedCrystal(name, structure)
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
            return pl.read_parquet(path)
        return read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DefectgenError(f"{path}: cannot be read as a table ({' '.join(str(error).split()):.100}).") from error


def file_label(index: int, name: str) -> str:
    """A name for the files of a crystal: its number and what is left of its name in a file name's letters."""
    stem = Path(name.partition("#")[0]).stem if "/" in name or "." in name else name
    return f"{index:05d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem):.40}"
