"""A table of structure files: what each is, whether it can be, what scorers say of it, and why one does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from defectgen.core import Host
from defectgen.errors import DefectgenError
from defectgen.score.protocol import MISSING, Scorer
from defectgen.score.samples import NamedSample
from defectgen.score.scorers import NO_CONFIGURATION, score_samples
from defectgen.score.validity import check
from defectgen.watch import Watch, unwatched

BATCH = 64
"""Structures that a scorer is given at once."""

EXTRAPOLATED = "unlike the training data: extrapolated, no interval"

FACTS = {
    "file": pl.String, "host": pl.String, "supercell": pl.String, "label": pl.String, "n_defects": pl.Int64,
    "formula": pl.String, "configuration": pl.String, "transformation": pl.String, "valid": pl.Boolean,
    "reasons": pl.String, "novel": pl.Boolean,
}  # fmt: skip
"""The columns before the scores; the column ``note`` comes after them."""


@dataclass(frozen=True)
class StructureTable:
    """What is known of some structures.

    Attributes:
        frame: a row a structure: `FACTS`, the columns of the scorers (with the name of the scorer before them if
            there are several), ``note``.
        scored: whether each has a value of any scorer.
    """

    frame: pl.DataFrame
    scored: pl.Series

    @property
    def n_scored(self) -> int:
        """Structures with a value of any scorer."""
        return int(self.scored.sum())

    @property
    def is_void(self) -> bool:
        """Whether it says no more of any structure than why there is nothing to say."""
        facts = self.frame["formula"] if "file" in self.frame.columns else None
        return not self.n_scored and (facts is None or bool(facts.is_null().all()))

    def require_scored(self) -> None:
        """Raise a `DefectgenError` that tells of the first structure if none has a value."""
        if self.n_scored:
            return
        note = str(self.frame["note"][0])
        if "file" not in self.frame.columns:
            raise DefectgenError(f"row 1: {note}" + more(self.frame.height - 1, "could not be scored"))
        name = str(self.frame["file"][0])
        if self.frame["formula"].is_null().all():
            raise DefectgenError(note + more(self.frame.height - 1, "cannot be read"))
        mark = "" if note.startswith(("is no", "is a bulk crystal")) else ":"
        first = note if note.startswith(name) else f"{name}{mark} {note}"
        raise DefectgenError(first + more(self.frame.height - 1, "could not be scored"))


def more(n: int, what: str) -> str:
    """How many others there are, as the end of a message; empty if there are none."""
    return f" ({n} more {what}.)" if n > 0 else ""


def structure_table(
    samples: Sequence[NamedSample],
    scorers: Mapping[str, Scorer],
    known: Mapping[str, Collection[str]],
    watch: Watch = unwatched,
    *,
    hosts: Sequence[Host] = (),
) -> StructureTable:
    """Judge and score structures.

    Args:
        samples: of `read_samples`.
        scorers: by name.
        known: canonical keys that a model was trained on, by host and supercell, e.g. ``MoS2 8x8``.
        watch: told how far each scorer is.
        hosts: that these keys are of.
    """
    notes = [[named.note] if named.note and not named.sample else [] for named in samples]
    scored = [False] * len(samples)
    usable = [index for index, named in enumerate(samples) if named.sample]
    columns = [structure_facts(samples, known, hosts)]
    for name, scorer in scorers.items():
        title = f"{name}: " if len(scorers) > 1 else ""
        found = scored_rows(name, partial(_of_samples, scorer, samples), usable, BATCH, notes, scored, title, watch)
        columns.append(found.rename({column: f"{name}_{column}" for column in found.columns}) if title else found)
    for named, lines in zip(samples, notes, strict=True):
        lines += [f"the reader says: {remark}" for remark in named.warnings if named.sample]
    columns.append(pl.DataFrame({"note": ["; ".join(lines) or None for lines in notes]}, schema={"note": pl.String}))
    return StructureTable(pl.concat(columns, how="horizontal"), pl.Series("scored", scored, dtype=pl.Boolean))


def merged(tables: Sequence[StructureTable]) -> StructureTable:
    """Tables of one request, one below the other; ``note`` stays the last column."""
    frame = pl.concat([table.frame for table in tables], how="diagonal_relaxed")
    ordered = [name for name in frame.columns if name != "note"]
    return StructureTable(frame.select(*ordered, "note"), pl.concat([table.scored for table in tables]))


def structure_facts(
    samples: Sequence[NamedSample], known: Mapping[str, Collection[str]], hosts: Sequence[Host] = ()
) -> pl.DataFrame:
    """What each sample is, whether it can be, and whether it is new to a model; the columns are `FACTS`.

    Args:
        samples: a row each.
        known: see `structure_table`; ``novel`` is null for hosts and supercells that are not in it.
        hosts: see `structure_table`; a host of the same name with another unit cell has other keys.
    """
    rows: list[dict[str, Any]] = []
    for named in samples:
        row: dict[str, Any] = {"file": str(named.name), "valid": False, "reasons": named.note}
        if named.sample is not None:
            verdict = check(named.sample)
            formula = named.sample.structure.composition.reduced_formula
            row |= {"formula": formula, "valid": verdict.valid, "reasons": "; ".join(verdict.reasons)}
            found = named.sample.configuration
            if found is not None:
                key, cell = found.canonical().key, found.host.title
                row |= {
                    "host": found.host.name,
                    "supercell": found.host.size,
                    "label": found.label,
                    "n_defects": found.n_defects,
                    "formula": found.formula,
                    "configuration": key,
                    "novel": key not in known[cell] if cell in known and any(map(found.host.is_like, hosts)) else None,
                    "transformation": named.transformation,
                }
        rows.append(row)
    return pl.DataFrame(rows, schema=FACTS)


def without_false_intervals(scores: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Scores without uncertainties where the scorer extrapolates (``in_domain`` is false), and which rows these are."""
    if "in_domain" not in scores.columns:
        return scores, []
    beyond = ~pl.col("in_domain").fill_null(True)
    widths = [column for column in scores.columns if "_uncertainty_" in column]
    rows = scores.with_row_index("_place").filter(beyond)["_place"].to_list()
    return scores.with_columns(pl.when(beyond).then(None).otherwise(pl.col(c)).alias(c) for c in widths), rows


def scored_rows(
    name: str,
    score: Callable[[Sequence[int]], tuple[pl.DataFrame, list[str]]],
    usable: Sequence[int],
    size: int,
    notes: Sequence[list[str]],
    scored: list[bool],
    title: str = "",
    watch: Watch = unwatched,
) -> pl.DataFrame:
    """The columns of one scorer, a row for each of `notes`, null where there is no score.

    Args:
        name: of the scorer.
        score: gives scores of some rows, and for each of them why there is none, empty if there is one.
        usable: rows that can be scored.
        size: rows that are scored together.
        notes: what is said of each row, to which this adds.
        scored: whether each row has a score of any scorer, which this sets.
        title: what stands before each addition.
        watch: told how far it is.
    """
    table = pl.DataFrame({"_row": range(len(notes))}, schema={"_row": pl.Int64})
    parts = []
    with watch(f"scoring with {name}", len(usable), "structures") as advance:
        for start in range(0, len(usable), size):
            rows = usable[start : start + size]
            frame, problems = score(rows)
            for row, problem in zip(rows, problems, strict=True):
                scored[row] |= not problem
                notes[row].extend([title + problem] if problem else [])
            numbers = pl.Series("_row", rows, dtype=pl.Int64)
            parts.append(frame.with_columns(numbers) if frame.width else numbers.to_frame())
            advance(len(rows))
    if parts:
        table = table.join(pl.concat(parts, how="diagonal_relaxed"), on="_row", how="left").sort("_row")
    table = table.drop("_row")
    if MISSING in table.columns:
        for lines, reason in zip(notes, table[MISSING], strict=True):
            lines.extend([title + reason] if reason else [])
        table = table.drop(MISSING)
    table, beyond = without_false_intervals(table)
    for row in beyond:
        notes[row].append(title + EXTRAPOLATED)
    return table


def _of_samples(scorer: Scorer, samples: Sequence[NamedSample], rows: Sequence[int]) -> tuple[pl.DataFrame, list[str]]:
    """Scores of some samples that were read."""
    frame, problems = score_samples(scorer, [sample for row in rows if (sample := samples[row].sample)])
    reasons = zip(rows, problems, strict=True)
    return frame, [(problem == NO_CONFIGURATION and samples[row].note) or problem for row, problem in reasons]
