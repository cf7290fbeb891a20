"""`defectgen score`: what structure files are, whether they can be, and what scorers say of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, M3GNetOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    import polars as pl

    from defectgen.core import Host
    from defectgen.score.protocol import Scorer
    from defectgen.score.samples import NamedSample

BATCH = 64
"""Structures between two steps of the progress bar."""


def score(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="CIF, POSCAR or extended XYZ files, or folders of them.")
    ],
    scorer: Annotated[
        str,
        typer.Option("--scorer", metavar="NAME[,NAME]", help="Some of surrogate, m3gnet, chgnet, slices-catboost."),
    ] = "surrogate",
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="Host of all files [each its own].")
    ] = None,
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
    ] = None,
    m3gnet: M3GNetOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.csv", help="Write a CSV table.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Name the defects in structure files and predict properties.

    Each file is matched to the known hosts' pristine supercells with the same axes; it may be relaxed,
    shifted or have another vacuum. The surrogate needs a decoration of a host that it was trained on; a
    potential (m3gnet, chgnet) takes any atoms as they are. Columns valid, reasons and novel judge the
    structure, note says what has no score and why. Levels are in eV relative to the valence band
    maximum of the pristine host. The exit code is 1 if nothing could be scored.
    """
    from defectgen.core import get_host, host_names
    from defectgen.data.assets import cache_dir
    from defectgen.errors import DefectgenError, UsageError
    from defectgen.io.files import require_writable
    from defectgen.score.registry import ScorerOptions, load_scorer, scorer_names
    from defectgen.score.samples import read_samples, structure_files

    names = scorer_names(scorer)
    if output is not None and output.exists():
        raise UsageError(f"{output} exists already.", "Choose another file.")
    if output is not None:
        if output.suffix != ".csv":
            raise UsageError(f"got -o {output}, expected a file that ends in .csv.")
        require_writable(output)
    paths = [path for given in files for path in (structure_files(given) if given.is_dir() else [given])]
    if not paths:
        raise UsageError("the folders hold no structures.", "Expected *.cif, *.vasp, *.extxyz or POSCAR files.")
    for path in paths:
        if not path.is_file():
            raise DefectgenError(f"{path} is not a file.", "Expected a CIF, POSCAR or extended XYZ file, or a folder.")
    hosts = [get_host(name) for name in ([host] if host else host_names())]
    options = ScorerOptions(cache=cache_dir() / "matgl", surrogate=surrogate, m3gnet=m3gnet)
    scorers = {name: load_scorer(name, options) for name in names}
    samples = []
    with progress("reading", len(paths), "files") as advance:
        for path in paths:
            samples += read_samples(path, hosts)
            advance(1)
    if not any(sample.sample for sample in samples):
        raise DefectgenError(samples[0].note + _more(len(samples) - 1, "cannot be read"))
    table, scored = _table(samples, scorers)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(output, float_precision=6)
    if not scored:
        name, note = str(table["file"][0]), str(table["note"][0])
        first = note if note.startswith(name) else f"{name} {note}" if note.startswith("is no") else f"{name}: {note}"
        raise DefectgenError(first + _more(table.height - 1, "could not be scored"))
    emit({"structures": table.to_dicts(), "output": output}, as_json, _text(table, names))
    if scored < table.height:
        say(f"warning: {table.height - scored} of {table.height} structures have no score; see their note.")


def _table(samples: Sequence[NamedSample], scorers: Mapping[str, Scorer]) -> tuple[pl.DataFrame, int]:
    """One row a sample: facts, scores, note; and how many have a score."""
    import polars as pl

    from defectgen.score.registry import NO_CONFIGURATION, score_samples

    usable = [index for index, named in enumerate(samples) if named.sample]
    picked = [named.sample for named in samples if named.sample]
    notes = [[named.note] if named.note and not named.sample else [] for named in samples]
    scored: set[int] = set()
    columns = [_facts(samples)]
    for name, scorer in scorers.items():
        parts = []
        with progress(f"scoring with {name}", len(picked), "structures") as advance:
            for start in range(0, len(picked), BATCH):
                frame, problems = score_samples(scorer, picked[start : start + BATCH])
                for index, problem in zip(usable[start:], problems, strict=False):
                    if not problem:
                        scored.add(index)
                        continue
                    reason = samples[index].note if problem == NO_CONFIGURATION else problem
                    notes[index].append(f"{name}: {reason}" if len(scorers) > 1 else reason)
                row = pl.Series("_row", usable[start : start + BATCH], dtype=pl.Int64)
                parts.append(frame.with_columns(row) if frame.width else row.to_frame())
                advance(len(problems))
        everything = pl.DataFrame({"_row": range(len(samples))}, schema={"_row": pl.Int64})
        found = everything.join(pl.concat(parts, how="diagonal_relaxed"), on="_row", how="left").sort("_row")
        found, beyond = _without_false_intervals(found.drop("_row"))
        for index in beyond:
            reason = "unlike the training data: extrapolated, no interval"
            notes[index].append(f"{name}: {reason}" if len(scorers) > 1 else reason)
        columns.append(found.rename({c: f"{name}_{c}" for c in found.columns}) if len(scorers) > 1 else found)
    columns.append(pl.DataFrame({"note": ["; ".join(lines) or None for lines in notes]}, schema={"note": pl.String}))
    return pl.concat(columns, how="horizontal"), len(scored)


def _facts(samples: Sequence[NamedSample]) -> pl.DataFrame:
    """What each sample is, whether it can be, and whether the shipped model was trained on it."""
    import polars as pl

    from defectgen.llm.adapter import training_configurations
    from defectgen.score.validity import check
    from defectgen_cli.engine import SHIPPED_ADAPTER, shipped

    known = training_configurations(shipped(SHIPPED_ADAPTER))
    schema = {
        "file": pl.String, "host": pl.String, "label": pl.String, "n_defects": pl.Int64, "formula": pl.String,
        "configuration": pl.String, "valid": pl.Boolean, "reasons": pl.String, "novel": pl.Boolean,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for named in samples:
        row: dict[str, Any] = {"file": os.fspath(named.name), "valid": False, "reasons": named.note}
        if named.sample is not None:
            verdict = check(named.sample)
            formula = named.sample.structure.composition.reduced_formula
            row |= {"formula": formula, "valid": verdict.valid, "reasons": "; ".join(verdict.reasons)}
            found = named.sample.configuration
            if found is not None:
                crystal, key = found.host, found.canonical().key
                row |= {
                    "host": crystal.name,
                    "label": found.label,
                    "n_defects": found.n_defects,
                    "formula": found.formula,
                    "configuration": key,
                    "novel": key not in known[_known_name(crystal)] if _known_name(crystal) in known else None,
                }
        rows.append(row)
    return pl.DataFrame(rows, schema=schema)


def _without_false_intervals(found: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """The scores without intervals where the scorer extrapolates, and which rows these are."""
    import polars as pl

    if "in_domain" not in found.columns:
        return found, []
    beyond = ~pl.col("in_domain").fill_null(True)
    widths = [column for column in found.columns if "_uncertainty_" in column]
    rows = found.with_row_index("_place").filter(beyond)["_place"].to_list()
    return found.with_columns(pl.when(beyond).then(None).otherwise(pl.col(c)).alias(c) for c in widths), rows


def _interval(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {half_width:.3f}"


def _known_name(crystal: Host) -> str:
    return f"{crystal.name} {crystal.size}"


def _more(n: int, what: str) -> str:
    return f" ({n} more {what}.)" if n > 0 else ""


def _text(table: pl.DataFrame, names: Sequence[str]) -> str:
    """A line a structure for people."""
    from defectgen.core.properties import PROPERTIES
    from defectgen.score.protocol import uncertainty_column

    prefixes = [(f"{name}_", f"{name} ") for name in names] if len(names) > 1 else [("", "")]
    lines = []
    for row in table.iter_rows(named=True):
        what = f"{row['label']} in {row['host']}" if row["host"] else row["formula"] or "not read"
        values = [
            f"{shown}{p.title} {row[prefix + p.column]:.3f}{_interval(row.get(prefix + uncertainty_column(p.column)))}"
            for prefix, shown in prefixes
            for p in PROPERTIES
            if row.get(prefix + p.column) is not None
        ]
        parts = [what, f"{', '.join(values)} eV" if values else "no score"]
        if row["reasons"] and row["formula"]:
            parts.append(f"not valid: {row['reasons']}")
        if row["note"]:
            parts.append(row["note"])
        lines.append(f"{row['file']}: {'; '.join(parts)}")
    return "\n".join(lines)
