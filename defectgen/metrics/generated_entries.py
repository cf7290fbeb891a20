"""Crystals to evaluate, from whatever another program wrote: CIFs, extended XYZ, CSV or parquet tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import CifError
from defectgen.io.crystal_files import (
    TABLE_SUFFIXES,
    crystal_files,
    crystal_table,
    left_out_files,
    read_table,
    row_atoms,
)
from defectgen.io.documents import parse_json, read_object
from defectgen.io.structures import read_structures

STABILITY_COLUMNS = ("e_above_hull_ev_per_atom", "e_above_hull_ev", "e_above_hull")
"""Columns taken as energy above the convex hull in eV/atom, the first that is there."""


class GapPredictor(Protocol):
    """Predicts band gaps of crystals."""

    def predict(self, crystals: Sequence[Crystal]) -> Sequence[float] | NDArray[np.float64]:
        """Band gaps in eV, shape (n,)."""

    def describe(self, crystals: Sequence[Crystal]) -> str:
        """What it is, how far it errs, and what it knows of these crystals, in one line."""


@dataclass(frozen=True)
class Entry:
    """One draw of a generator, or one crystal of a file.

    Attributes:
        name: where it comes from.
        crystal: None if it cannot be read as one.
        problem: why it cannot be read; empty if it can.
        accepted: False if the generator itself threw it away and drew again.
        conditions: what was asked of it, by name; nothing of an infill, which states the crystal it changes.
        e_above_hull_ev: energy above the hull in eV/atom, None if not known.
        n_competing: compounds that this hull knows of the crystal's elements, None if not known.
        band_gap_ev: predicted band gap in eV, None if not known.
    """

    name: str
    crystal: Crystal | None
    problem: str = ""
    accepted: bool = True
    conditions: Mapping[str, Any] = field(default_factory=dict)
    e_above_hull_ev: float | None = None
    n_competing: int | None = None
    band_gap_ev: float | None = None


@dataclass(frozen=True)
class Crystals:
    """All entries of some files.

    Attributes:
        entries: in the order of files and rows.
        has_draws: whether rejected draws are among them, so that there are raw rates.
        stability_column: where energies above the hull were found; empty if nowhere.
        crystals_per_s: rate of the generator as it noted it; None if it did not.
        partial_hull: why the hull of the energies may not be the whole one; empty if it is, or if that is not known.
        left_out: what is in the folders and was not read.
        gap_source: what predicted the band gaps; empty if nothing did.
    """

    entries: tuple[Entry, ...]
    has_draws: bool = False
    stability_column: str = ""
    crystals_per_s: float | None = None
    partial_hull: str = ""
    left_out: tuple[Path, ...] = ()
    gap_source: str = ""

    def sampled(self, limit: int | None, seed: int) -> Crystals:
        """At most so many entries, drawn at random without replacement, in their order."""
        if limit is None or limit >= len(self.entries):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.entries), limit, replace=False))
        return replace(self, entries=tuple(self.entries[index] for index in chosen))

    def require_readable(self) -> None:
        """Raise a `DefectgenError` if none of the crystals can be read."""
        if not any(entry.crystal for entry in self.entries):
            first = self.entries[0]
            raise DefectgenError(
                f"{first.name}: {first.problem} ({len(self.entries)} crystal{'s' * (len(self.entries) > 1)}, none can "
                "be read)."
            )

    def accepted(self) -> Crystals:
        """Without the draws that the generator refused: what a set to compare with consists of."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.accepted))

    def with_stability(self, path: Path) -> Crystals:
        """With the energies above the hull that `defectgen stability` wrote for the same crystals, row by row.

        Args:
            path: its table; where it has no energy there is none, whatever the input said.

        Raises:
            UsageError: another number of rows, another formula in one of them, or no such table.
            DefectgenError: the file cannot be read.
        """
        table = read_table(path)
        column = STABILITY_COLUMNS[0]
        if missing := [name for name in ("formula", column) if name not in table.columns]:
            raise UsageError(f"{path} has no column {missing[0]}.", "Give the stability.csv of defectgen stability.")
        same = "Give the stability.csv of the same files."
        if table.height != len(self.entries):
            raise UsageError(f"{path} has {table.height} rows, the input {len(self.entries)} crystals.", same)
        entries = []
        for number, (entry, row) in enumerate(zip(self.entries, table.iter_rows(named=True), strict=True), 1):
            formula = entry.crystal.formula if entry.crystal else None
            if formula and row["formula"] and formula != row["formula"]:
                raise UsageError(f"{path}, row {number}: {row['formula']}, but {entry.name} is {formula}.", same)
            energy = row[column]
            if not isinstance(energy, float | int | None):
                raise UsageError(f"{path}, row {number}: {column} is {energy!r}, expected a number.", same)
            known = row.get("n_competing")
            competing = known if isinstance(known, int) else None
            above = None if energy is None else _finite(energy)
            entries.append(replace(entry, e_above_hull_ev=above, n_competing=competing))
        named = f"{column} of {path.name}"
        return replace(self, entries=tuple(entries), stability_column=named, partial_hull=_partial_hull(path))

    def with_gaps(self, predictor: GapPredictor) -> Crystals:
        """With the band gaps that a predictor gives the crystals that can be read."""
        readable = [entry.crystal for entry in self.entries if entry.crystal is not None]
        gaps = iter(predictor.predict(readable))
        entries = tuple(
            entry if entry.crystal is None else replace(entry, band_gap_ev=float(next(gaps))) for entry in self.entries
        )
        return replace(self, entries=entries, gap_source=predictor.describe(readable))


def read_entries(paths: Sequence[Path]) -> Crystals:
    """The crystals of files and folders; what cannot be read is an entry that says why.

    Raises:
        UsageError: no such path, a file of another kind, or a folder without crystals (see `crystal_files`).
    """
    files = [file for path in paths for file in crystal_files(path)]
    entries: list[Entry] = []
    has_draws, column, rate = False, "", None
    for file in files:
        if file.suffix.lower() in TABLE_SUFFIXES:
            try:
                table = crystal_table(file)
            except DefectgenError as error:  # it costs this file, not those after it
                entries.append(Entry(str(file), None, str(error).removeprefix(f"{file}: ").rstrip(".")))
                continue
            has_draws = has_draws or {"raw_text", "valid"} <= set(table.columns)
            column = column or next((name for name in STABILITY_COLUMNS if name in table.columns), "")
            rate = rate or _rate(file)
            entries += _table_entries(file, table, column)
        else:
            entries += _structure_entries(file)
    return Crystals(tuple(entries), has_draws, column, rate, left_out=tuple(left_out_files(paths)))


def _table_entries(file: Path, table: pl.DataFrame, column: str) -> Iterator[Entry]:
    for number, row in enumerate(table.iter_rows(named=True), 1):
        accepted = row.get("valid")
        crystal, problem = _crystal(row)
        energy = row.get(column)
        yield Entry(
            name=f"{file.name} row {number}",
            crystal=crystal,
            problem=problem,
            accepted=accepted if isinstance(accepted, bool) else True,
            conditions={} if row.get("task") == "infill" else _conditions(row.get("conditions")),
            e_above_hull_ev=_finite(energy) if isinstance(energy, int | float) else None,
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _crystal(row: Mapping[str, Any]) -> tuple[Crystal | None, str]:
    """The crystal of a row, and why there is none; one with atoms on one place is a crystal, not a valid one."""
    try:
        return row_atoms(row, apart=False).crystal(), ""
    except CifError as error:
        return None, (not row["cif"] and str(row.get("reason") or "")) or str(error)


def _structure_entries(file: Path) -> Iterator[Entry]:
    for item in read_structures(file):
        if item.structure is None:
            yield Entry(item.name, None, item.note)
            continue
        try:
            yield Entry(item.name, Crystal.from_structure(item.structure))
        except DefectgenError as error:
            yield Entry(item.name, None, str(error).rstrip("."))


def _conditions(value: object) -> dict[str, Any]:
    """Conditions as a table holds them: JSON text, a struct, or nothing; absent ones are dropped."""
    if isinstance(value, str):
        try:
            value = parse_json(value, "conditions")
        except ValueError:
            return {}
    if not isinstance(value, Mapping):
        return {}
    return {str(key): item for key, item in value.items() if item is not None}


def _partial_hull(table: Path) -> str:
    """What the manifest beside a table of `defectgen stability` says of its hull; empty where it is whole."""
    try:
        hull = read_object(table.parent / "manifest.json").get("hull")
    except (OSError, ValueError):
        return ""
    return str(hull.get("partial") or "") if isinstance(hull, Mapping) else ""


def _rate(file: Path) -> float | None:
    """Crystals a second that the manifest beside a table states."""
    try:
        manifest = read_object(file.parent / "manifest.json")
    except (OSError, ValueError):
        return None
    for part in (manifest, *(value for value in manifest.values() if isinstance(value, Mapping))):
        rate = part.get("crystals_per_second")
        if isinstance(rate, int | float) and rate > 0:
            return float(rate)
    return None
