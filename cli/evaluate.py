"""`defectgen evaluate`: how well models hit held-out targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

app = typer.Typer(help="Measure models on held-out data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Measure models on held-out data."""


@app.command("defect")
def defect(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", envvar="DEFECTGEN_2DMD", help="2DMD in its published layout."),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="NAME[,NAME]", help="Hosts to measure.")] = "MoS2,WSe2",
    targets: Annotated[int, typer.Option(min=1, help="Held-out structures whose HOMO and LUMO are asked for.")] = 50,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Structures generated for each target.")] = 20,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.8,
    model: Annotated[Path | None, typer.Option("--model", metavar="DIR", help="Adapter [the shipped one].")] = None,
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write metrics as JSON.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask for HOMO and LUMO of held-out structures and measure what comes.

    Three ways side by side: the language model, random structures under the host's rules, and the
    nearest labelled structure of the training part. The distance of a structure is
    |HOMO - target| + |LUMO - target|: by the surrogate, and by DFT where the structure is labelled.
    """
    import polars as pl

    from defectgen.core import get_host
    from defectgen.data.splits import split_by_class
    from defectgen.data.twodmd import read_dataset
    from defectgen.design.evaluate import evaluate_proposer, held_out_targets, nearest_labelled
    from defectgen.design.proposals import RandomProposer
    from defectgen.errors import UsageError
    from defectgen.tasks.defect import LEVEL_PAIR
    from defectgen_cli.data import dataset_path
    from defectgen_cli.engine import load_engine

    if split not in ("validation", "test"):
        raise UsageError(f"got --split {split!r}, expected validation or test.")
    if output is not None and output.exists():
        raise UsageError(f"{output} exists already.", "Choose another file.")
    crystals = [get_host(name) for name in host.split(",") if name.strip()]
    folder = dataset_path(data)
    result: dict[str, object] = {
        "targets_per_host": targets, "n": n, "split": split, "seed": seed, "temperature": temperature
    }  # fmt: skip
    lines = []
    for crystal in crystals:
        engine = load_engine(crystal, model, surrogate, None, (), temperature)
        split_seed = engine.card.data["settings"]["seed"]
        frame = split_by_class(read_dataset(folder, (crystal.name,)), seed=split_seed).drop_nulls(LEVEL_PAIR)
        labels = {
            row["configuration"]: {column: row[column] for column in LEVEL_PAIR}
            for row in frame.select("configuration", *LEVEL_PAIR).iter_rows(named=True)
        }
        trained = set(frame.filter(pl.col("split") == "train")["configuration"])
        if trained != engine.known:
            say(f"warning: the model's training structures are not the training part of {folder} for {crystal.name}.")
        asked = held_out_targets(frame, crystal.name, split, targets, seed)
        part: dict[str, object] = {}
        for title, proposer in (("model", engine.proposer), ("random", RandomProposer(engine.proposer.max_defects))):
            with progress(f"{crystal.name}: {title}", targets * n, "structures") as advance:
                measured = evaluate_proposer(
                    crystal, asked, proposer, engine.scorer, engine.known, labels, n=n, seed=seed, progress=advance
                )
            part[title] = measured.metrics
        known = {key: values for key, values in labels.items() if key in engine.known}
        part["nearest labelled"] = nearest_labelled(crystal, asked, engine.scorer, known)
        result[crystal.name] = part
        lines += _lines(crystal.name, part)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    emit(result, as_json, "\n".join(lines))


def _lines(host: str, part: dict[str, object]) -> list[str]:
    head = f"{host:<6} {'':<17}{'valid':>7}{'distinct':>9}{'novel':>7}{'per s':>7}   first-ranked, meV: median, p90"
    lines = [head]
    for title, metrics in part.items():
        m: dict[str, float] = metrics  # type: ignore[assignment]
        counts = (
            f"{m['valid_share']:>7.1%}{m['distinct_share']:>9.1%}{m['novel_share']:>7.1%}{m['structures_per_s']:>7.1f}"
            if "proposals" in m
            else " " * 30
        )
        lines.append(
            f"{'':<7}{title:<17}{counts}   {m['first_surrogate_median_mev']:.1f}, {m['first_surrogate_p90_mev']:.1f}"
        )
    return lines
