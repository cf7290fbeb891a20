"""Reader of bulk crystals as one table: MP-20 and other CSV files with a column ``cif``, or structure files.

Source of MP-20: Jain et al., APL Materials 1, 011002 (2013), doi 10.1063/1.4812323 (Materials Project,
CC BY 4.0); selection of crystals with up to 20 atoms by Xie et al., ICLR 2022, doi
10.48550/arXiv.2110.06197.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.core.crystal import Crystal
from defectgen.data.splits import PARTS, split_by_class
from defectgen.data.table_cache import cached_table
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import CifError
from defectgen.io.crystal_files import FORMULA_COLUMN, check_stated_formula, left_out_of
from defectgen.io.structures import (
    CIF_SUFFIXES,
    READABLE,
    checked_atoms,
    decoded,
    holds_one,
    is_structure_file,
    read_structures,
    structure_files,
)
from defectgen.io.tables import read_csv

READER_VERSION = 4
"""Counts changes of what the reader returns; cached tables of another version are not used."""

LABELS = {
    "formation_energy_per_atom_ev": "formation_energy_per_atom",
    "band_gap_ev": "band_gap",
    "e_above_hull_ev": "e_above_hull",
}
"""Our column of a label and the published one; energies in eV/atom, the gap in eV."""

NOT_NEGATIVE = ("band_gap_ev", "e_above_hull_ev")

EXPECTED = f"Expected CSV tables with a column cif, or {READABLE}, or a folder of them."

PUBLISHED_PARTS = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}

SCHEMA: dict[str, Any] = {
    "source": pl.String,
    "row": pl.Int64,
    "id": pl.String,
    "problem": pl.String,
    "formula": pl.String,
    "n_atoms": pl.Int64,
    "spacegroup": pl.Int64,
    **dict.fromkeys(LABELS, pl.Float64),
    "lengths_angstrom": pl.List(pl.Float64),
    "angles_degrees": pl.List(pl.Float64),
    "species": pl.List(pl.String),
    "fractional": pl.List(pl.List(pl.Float64)),
    "cif": pl.String,
}


@dataclass(frozen=True)
class SkippedRow:
    """A row or file that holds no usable crystal: where it is, its id, and what is wrong."""

    source: str
    row: int
    id: str
    problem: str

    def __str__(self) -> str:
        place = f"row {self.row} of {self.source} ({self.id})" if self.row else self.source
        return f"{place}: {self.problem}"


SAME_CRYSTAL: dict[str, Any] = {"ltol": 0.002, "stol": 0.01, "angle_tol": 0.1, "scale": False}
"""Tolerances of pymatgen's StructureMatcher within which two rows of one id hold one crystal: those of rounding."""


@dataclass(frozen=True)
class CrystalData:
    """The crystals that were read.

    Attributes:
        frame: one row a crystal, in the order of files and rows. Columns ``source`` (file), ``row`` (from 1 in a
            table, 0 in a structure file), ``id``, ``formula`` (reduced), ``n_atoms``, ``spacegroup`` (number),
            ``formation_energy_per_atom_ev``, ``band_gap_ev``, ``e_above_hull_ev`` (null where there is no
            label), ``lengths_angstrom`` (3), ``angles_degrees`` (3), ``species`` (n), ``fractional``
            (n, 3), ``cif``, and ``split`` if the files state one.
        skipped: what could not be used.
        own_split: whether the files state the parts themselves.
        left_out: what is in the folder and was not read.
        repeated: rows with the id, the crystal and the labels of an earlier one, which alone is taken.
    """

    frame: pl.DataFrame
    skipped: tuple[SkippedRow, ...]
    own_split: bool
    left_out: tuple[Path, ...] = ()
    repeated: tuple[SkippedRow, ...] = ()


def read_crystals(path: Path, *, cache: bool = True) -> CrystalData:
    """The crystals in a CSV file or a structure file, in a folder of CSV files, or in one of structure files.

    A CSV file needs a column ``cif``; ``material_id``, ``spacegroup.number``, ``pretty_formula`` and the
    labels of `LABELS` are used where they exist. Files named train.csv, val.csv and test.csv are taken as
    the published parts. A folder without CSV files stands for its CIF and POSCAR files and those of its subfolders, or,
    where there are none, for its other structure files (`defectgen.io.structures`); they have no labels.

    Args:
        path: file or folder; it is only read.
        cache: keep the table of each file in the cache folder (`defectgen.data.assets.cache_dir`) and use
            it as long as the file has the same size and time.

    Raises:
        UsageError: no such path, a folder without crystals, or only some of the three parts.
        DefectgenError: a damaged table or one without a column ``cif`` that is named itself or is one of the parts
            (another one of a folder is among `skipped`), an id with two crystals, labels or parts, or no usable crystal
            at all.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} does not exist.", EXPECTED)
    tables = [path] if path.is_file() else sorted(path.glob("*.csv"))
    if path.is_file() and not (path.suffix.lower() == ".csv" or is_structure_file(path)):
        raise UsageError(f"{path} is no file of crystals.", EXPECTED)
    parts = {file.name for file in tables} & PUBLISHED_PARTS.keys()
    own_split = len(parts) == len(PUBLISHED_PARTS)
    if own_split:
        tables = [file for file in tables if file.name in PUBLISHED_PARTS]
    elif len(parts) > 1:
        missing = sorted(PUBLISHED_PARTS.keys() - parts)
        raise UsageError(f"{path} holds {' and '.join(sorted(parts))} but no {missing[0]}.", "Give all three or one.")
    if tables and tables[0].suffix.lower() == ".csv":
        files = tables
        frame = pl.concat([_cached([file], path, cache) for file in tables])
    else:
        files = tables or structure_files(path)
        files = [file for file in files if holds_one(file)] or files
        if not files:
            raise UsageError(f"{path} holds no crystals.", EXPECTED)
        frame = _cached(files, path, cache)
    broken = frame.filter(pl.col("problem").is_not_null())
    skipped = tuple(SkippedRow(*row) for row in broken.select("source", "row", "id", "problem").iter_rows())
    good = frame.filter(pl.col("problem").is_null()).drop("problem")
    if good.is_empty():
        what = f"none of {len(skipped)} crystals can be used, the first is {skipped[0]}" if skipped else "no crystals"
        raise DefectgenError(f"{path}: {what}.", "Expected ordered crystals as CIF text.")
    if own_split:
        good = good.with_columns(split=pl.col("source").replace_strict(PUBLISHED_PARTS))
    good, repeated = _once(good, path)
    left_out = () if path.is_file() else tuple(left_out_of(path, files))
    return CrystalData(good, skipped, own_split, left_out, repeated)


def split_by_formula(frame: pl.DataFrame, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 42) -> pl.DataFrame:
    """The frame with a column ``split``: ``train``, ``validation`` or ``test``, no formula in two of them.

    Args:
        frame: columns of `CrystalData`.
        fractions: shares of the reduced formulas; they sum to 1.
        seed: of the shuffle.
    """
    named = frame.with_columns(host=pl.lit("bulk"), configuration=pl.col("formula"), set=pl.lit("bulk"))
    return split_by_class(named, fractions, seed).drop("host", "configuration", "set")


def shared_formulas(frame: pl.DataFrame) -> dict[str, int]:
    """For validation and test how many of their crystals have a formula that occurs in train."""
    known = frame.filter(split=PARTS[0])["formula"].unique()
    return {part: int(frame.filter(split=part)["formula"].is_in(known.implode()).sum()) for part in PARTS[1:]}


def crystal_of(row: Mapping[str, Any]) -> Crystal:
    """The crystal of a row of `CrystalData.frame`."""
    return Crystal(
        lengths=tuple(row["lengths_angstrom"]),
        angles=tuple(row["angles_degrees"]),
        species=tuple(row["species"]),
        fractional=tuple(tuple(position) for position in row["fractional"]),
    )


def _once(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, tuple[SkippedRow, ...]]:
    """The rows without those that repeat an earlier one, and these.

    An id names one crystal in one part: records are drawn with seeds of their ids and in their order.
    """
    firsts: dict[str, dict[str, Any]] = {}
    repeated = []
    for row in frame.filter(frame["id"].is_duplicated()).iter_rows(named=True):
        first = firsts.setdefault(row["id"], row)
        if first is row:
            continue
        places = [f"row {item['row']} of {item['source']}" if item["row"] else item["source"] for item in (first, row)]
        if two := _contradiction(first, row):
            raise DefectgenError(
                f"{path}: the id {row['id']} has two {two}, in {places[0]} and {places[1]}, expected one.",
                "Delete the wrong one, or give it an id of its own.",
            )
        repeated.append(SkippedRow(row["source"], row["row"], row["id"], f"repeats {places[0]}"))
    return frame.unique("id", keep="first", maintain_order=True), tuple(repeated)


def _contradiction(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What two rows of one id do not share; empty if they are the same."""
    if one["formula"] != other["formula"]:
        return f"crystals ({one['formula']} and {other['formula']})"
    cell = ("lengths_angstrom", "angles_degrees", "species", "fractional")
    if any(one[column] != other[column] for column in cell):
        from pymatgen.analysis.structure_matcher import StructureMatcher

        if not StructureMatcher(**SAME_CRYSTAL).fit(crystal_of(one).to_structure(), crystal_of(other).to_structure()):
            return f"crystals ({one['formula']} in other cells or at other positions)"
    for column in (*LABELS, "spacegroup", "split"):
        if one.get(column) != other.get(column):
            title = {"split": "parts"}.get(column, f"values of {LABELS.get(column, 'spacegroup.number')}")
            return f"{title} ({one[column]} and {other[column]})".replace("None", "none")
    return ""


def _cached(files: Sequence[Path], root: Path, cache: bool) -> pl.DataFrame:
    """The table of one CSV file, or of many structure files."""
    if not cache:
        return _read(files, root)
    return cached_table("crystals", f"{READER_VERSION} {root.resolve()}", files, lambda: _read(files, root))


def _read(files: Sequence[Path], root: Path) -> pl.DataFrame:
    rows: Iterator[dict[str, Any]] = (row for file in files for row in _rows(file, root))
    return pl.DataFrame([_tidy(row) for row in rows], schema=SCHEMA, orient="row")


def _rows(file: Path, root: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as they stand there, with its name and their number."""
    if file.suffix.lower() != ".csv":
        yield from _structure_rows(file, file.name if file == root else file.relative_to(root).as_posix())
        return
    try:
        table = _table(file)
    except DefectgenError as error:
        if file == root or file.name in PUBLISHED_PARTS:
            raise
        problem = str(error).removeprefix(f"{file} ").rstrip(".")
        yield {"source": file.name, "row": 0, "material_id": file.name, "cif": "", "problem": problem}
        return
    for number, row in enumerate(table.iter_rows(named=True), 1):
        name = row.get("material_id") or f"{file.stem}-{number}"
        yield row | {"source": file.name, "row": number, "material_id": name}


def _table(file: Path) -> pl.DataFrame:
    try:
        table = read_csv(file, infer_schema=False, null_values=[""])
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DefectgenError(f"{file} is damaged or no CSV file ({reason:.120}).") from error
    if "cif" not in table.columns:
        raise DefectgenError(f"{file} has no column 'cif'; its columns are {', '.join(table.columns):.200}.")
    return table


def _structure_rows(file: Path, name: str) -> Iterator[dict[str, Any]]:
    """The crystals of a structure file, with their text as a CIF."""
    is_cif = file.suffix.lower() in CIF_SUFFIXES
    found = list(read_structures(file))
    for number, item in enumerate(found, 1):
        title = Path(name).with_suffix("").as_posix() if is_cif else name
        row = {"source": name, "row": 0, "material_id": f"{title}#{number}" if len(found) > 1 else title, "cif": ""}
        try:
            if item.structure is None:
                raise CifError(item.note)
            text = decoded(file.read_bytes()) if is_cif else str(item.structure.to(fmt="cif"))
            yield row | {"cif": text, "crystal": Crystal.from_structure(item.structure)}
        except DefectgenError as error:
            yield row | {"problem": str(error).rstrip(".")}


def _tidy(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table; with a problem and without a crystal if it cannot be used."""
    tidy: dict[str, Any] = dict.fromkeys(SCHEMA) | {
        "source": row["source"], "row": row["row"], "id": row["material_id"], "cif": row["cif"],
    }  # fmt: skip
    if row.get("problem"):
        return tidy | {"problem": row["problem"]}
    try:
        crystal = row.get("crystal") or checked_atoms(row["cif"] or "").crystal()
        labels = {ours: _number(row, theirs) for ours, theirs in LABELS.items()}
        negative = [LABELS[name] for name in NOT_NEGATIVE if (labels[name] or 0.0) < 0]
        if negative:
            raise CifError(f"{negative[0]} is {row[negative[0]]}, expected 0 or more")
        check_stated_formula(crystal.formula, row.get(FORMULA_COLUMN))
        group = _spacegroup(row)
    except CifError as error:
        return tidy | {"problem": str(error)}
    return (
        tidy
        | labels
        | {
            "formula": crystal.formula,
            "n_atoms": len(crystal.species),
            "spacegroup": group,
            "lengths_angstrom": crystal.lengths,
            "angles_degrees": crystal.angles,
            "species": crystal.species,
            "fractional": crystal.fractional,
        }
    )


def _number(row: Mapping[str, Any], column: str) -> float | None:
    text = row.get(column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise CifError(f"{column} is {text!r}, expected a number") from None
    return value if math.isfinite(value) else None


def _spacegroup(row: Mapping[str, Any]) -> int | None:
    value = _number(row, "spacegroup.number")
    if value is None:
        return None
    if value not in range(1, 231):
        raise CifError(f"spacegroup.number is {row['spacegroup.number']}, expected 1 to 230")
    return int(value)
