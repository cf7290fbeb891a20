"""`defectgen surrogate`: train the surrogate, and say how good one is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

SPLIT_FRACTIONS = (0.8, 0.1, 0.1)

app = typer.Typer(no_args_is_help=True, help="Train or evaluate the surrogate of the DFT labels.")

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", envvar="DEFECTGEN_2DMD", help="2DMD in its published layout; else the fetched one."
    ),
]


@app.command("train")
def train(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL", help="Folder to write the surrogate to.")],
    data: DataOption = None,
    sets: Annotated[str, typer.Option("--sets", metavar="A,B", help="Sets to train on, or all.")] = "all",
    seed: SeedOption = 42,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads; their number changes the last digits.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train on 80 % of the labelled structures; choose and calibrate on 10 %; report on 10 %."""
    from defectgen.data.levels import fit_level_scales
    from defectgen.data.splits import split_by_class
    from defectgen.data.twodmd import read_dataset
    from defectgen.errors import UsageError
    from defectgen.score.parts import TARGETS
    from defectgen.score.training import train_surrogate
    from defectgen_cli.data import dataset_path

    if (output / "surrogate.json").exists():
        raise UsageError(f"{output} already holds a surrogate.", "Choose another folder for the new one.")
    chosen = None if sets == "all" else [name.strip() for name in sets.split(",") if name.strip()]
    frame = split_by_class(read_dataset(dataset_path(data), chosen), SPLIT_FRACTIONS, seed)
    scales = {name: scale.to_dict() for name, scale in fit_level_scales(frame).items()}
    started = time.monotonic()
    command = f"defectgen surrogate train --data DIR -o MODEL --sets {sets} --seed {seed} --threads {threads}"
    about = {
        "command": command,
        "data": f"2DMD (CC BY 4.0), {len(frame):,} labelled structures of {frame['set'].n_unique()} sets",
        "split": f"80/10/10 by symmetry class, stratified by set, seed {seed}",
    }
    with progress("training", frame["set"].n_unique() * len(TARGETS), "models") as advance:
        trained = train_surrogate(
            frame, output, seed, level_scales=scales, threads=threads, about=about, advance=advance
        )
    size = sum(file.stat().st_size for file in output.iterdir())
    result = {
        "output": str(output),
        "hosts": trained.hosts,
        "rows": trained.metadata["rows"],
        "size_bytes": size,
        "seconds": round(time.monotonic() - started, 1),
        "validation": trained.metadata["errors"]["validation"],
        "test": trained.metadata["errors"]["test"],
    }
    emit(result, as_json, _table(result["test"], f"Test part (not used in training); model in {output}"))


@app.command("evaluate")
def evaluate(
    data: DataOption = None,
    model: Annotated[Path | None, typer.Option("--model", metavar="MODEL", help="Surrogate [the shipped one].")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the metrics to a JSON file.")
    ] = None,
    sets: Annotated[str, typer.Option("--sets", metavar="A,B", help="Sets to evaluate on, or all.")] = "all",
    as_json: JsonOption = False,
) -> None:
    """Errors of a surrogate on structures that were in neither its training nor its validation part.

    On the data that it was trained from, these are exactly the test part of its split.
    """
    import json

    import polars as pl

    from defectgen.data.twodmd import read_dataset
    from defectgen.errors import DefectgenError, UsageError
    from defectgen.score import evaluation
    from defectgen.score.surrogate import Surrogate, digest
    from defectgen_cli.data import dataset_path

    if output is not None and output.exists():
        raise UsageError(f"{output} exists already.", "Choose another file.")
    scorer = Surrogate.load(model)
    chosen = None if sets == "all" else [name.strip() for name in sets.split(",") if name.strip()]
    frame = read_dataset(dataset_path(data), chosen)
    known = frame.filter(pl.col("host").is_in(scorer.hosts))
    unseen = [digest(host, key) not in scorer.seen for host, key in known.select("host", "configuration").iter_rows()]
    rows = known.filter(pl.Series(unseen, dtype=pl.Boolean))
    if rows.is_empty():
        raise DefectgenError(
            "the surrogate has seen every structure of its hosts in this data.",
            "Evaluate on data with other structures.",
        )
    result = {
        "model": "shipped" if model is None else str(model),
        "n_rows": len(frame),
        "n_unknown_host": len(frame) - len(known),
        "n_seen": len(known) - len(rows),
        "n_evaluated": len(rows),
        "sets": evaluation.evaluate(scorer, rows),
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        say(f"metrics written to {output}")
    title = f"{len(rows)} structures that the surrogate has not seen ({result['n_seen']} seen ones left out)"
    emit(result, as_json, _table(result["sets"], title))


def _table(sets: dict[str, dict[str, dict[str, Any]]], title: str) -> str:
    head = f"{'set':<14} {'property':<29} {'n':>5} {'MAE':>8} {'RMSE':>8} {'R2':>7} {'<20 meV':>8} {'in 90 %':>8}"
    lines = [title, "errors in meV; shares are of all n", "", head]
    for name, found in sets.items():
        for column, m in found.items():
            numbers = " ".join(_cell(m[key], 8, 2) for key in ("mae_mev", "rmse_mev"))
            shares = " ".join(_cell(m[key], 8, 3) for key in ("within_20_mev", "coverage_90"))
            lines.append(f"{name:<14} {column:<29} {m['n']:>5} {numbers} {_cell(m['r2'], 7, 4)} {shares}")
    return "\n".join(lines)


def _cell(value: float | None, width: int, decimals: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{decimals}f}"
