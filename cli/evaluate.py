"""`defectgen evaluate`: how well models hit held-out targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.engine import Drawing
from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say, write

if TYPE_CHECKING:
    import polars as pl

    from defectgen.design.evaluate import ProposerEvaluation

POOL = 1000
"""Random structures among which the search picks the best for each target."""

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
    sets: Annotated[
        str, typer.Option("--sets", metavar="NAME[,NAME]", help="Sets that the targets come from, or all of the model.")
    ] = "all",
    targets: Annotated[
        int, typer.Option(min=1, help="Held-out structures of each set whose HOMO and LUMO are asked for, at most.")
    ] = 40,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Structures generated for each target.")] = 16,
    split: Annotated[str, typer.Option(help="test, or validation, which the surrogate was fitted on too.")] = "test",
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.5,
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Probability of the tokens kept.")] = 1.0,
    guidance: Annotated[float, typer.Option(min=0.0, help="Weight of the target in the model.")] = 1.0,
    model: Annotated[
        list[Path] | None, typer.Option("--model", metavar="DIR", help="Adapter; repeat for several [the shipped one].")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="transformers or vllm.")] = "transformers",
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write metrics as JSON.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Write a page with parity plots.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask for HOMO and LUMO of held-out structures and measure what comes.

    Side by side: each language model, random structures under the host's rules, the best of 1,000
    random ones by the surrogate, and the nearest labelled structure of the training part. The
    distance of a structure is |HOMO - target| + |LUMO - target|, by DFT where it is labelled in
    any part of the data, else by the surrogate. Numbers of defects are those of the training part of the set.
    """
    from defectgen.data.locations import chosen_sets, dataset_path
    from defectgen.data.splits import split_by_class
    from defectgen.data.twodmd import SETS, read_dataset
    from defectgen.errors import UsageError
    from defectgen.io.files import require_writable
    from defectgen.llm.adapter import read_adapter
    from defectgen.tasks.defect.defect_task import LEVEL_PAIR
    from defectgen_cli.engine import SHIPPED_ADAPTER, shipped

    if split not in ("validation", "test"):
        raise UsageError(f"got --split {split!r}, expected validation or test.")
    for path in (output, page):
        if path is not None and path.exists():
            raise UsageError(f"{path} exists already.", "Choose another file.")
        if path is not None:
            require_writable(path)
    cards = [read_adapter(folder) for folder in model or [shipped(SHIPPED_ADAPTER)]]
    hosts = {info.name: info.host for info in SETS}
    names = chosen_sets(sets) or [name for name in hosts if all(hosts[name] in card.hosts for card in cards)]
    if bulk := [card for card in cards if card.encoding == "bulk"]:
        raise UsageError(
            f"got {len(bulk)} models of bulk crystals, expected models of defects.",
            "Use: defectgen generate, evaluate bulk",
        )
    if not names:
        known = "; ".join(", ".join(card.hosts) for card in cards)
        raise UsageError(f"the models have no host in common ({known}).", "Evaluate them one by one.")
    for name in names:
        for card in cards:
            if hosts[name] not in card.hosts:
                raise UsageError(
                    f"set {name} is of {hosts[name]}, the model was trained on {', '.join(card.hosts)}.",
                    "Leave the set out, or give a model of that host with --model.",
                )
    folder = dataset_path(data)
    split_seed = cards[0].data["settings"]["seed"]
    drawing = Drawing(temperature=temperature, top_p=top_p, guidance=guidance, engine=engine)
    result: dict[str, Any] = {
        "targets_per_set": targets, "n": n, "split": split, "seed": seed,
        "temperature": temperature, "top_p": top_p, "guidance": guidance, "engine": engine, "sets": {},
    }  # fmt: skip
    plots: dict[str, dict[str, pl.DataFrame]] = {}
    lines = [_HEAD]
    for name in names:
        frame = split_by_class(read_dataset(folder, (name,)), seed=split_seed).drop_nulls(LEVEL_PAIR)
        found = _evaluate_set(name, frame, drawing, model or [None], surrogate, targets, n, split, seed)
        result["sets"][name] = {title: evaluation.metrics for title, evaluation in found.items()}
        plots[name] = {title: evaluation.samples for title, evaluation in found.items()}
        lines += _lines(name, result["sets"][name])
    emit(result, as_json, "\n".join(lines))
    write(output, "metrics", lambda: json.dumps(result, indent=1) + "\n")
    if page is not None:
        from defectgen.report.target_page import targets_page

        write(page, "plots", lambda: targets_page(plots, result))


def _evaluate_set(
    name: str,
    frame: pl.DataFrame,
    drawing: Drawing,
    models: list[Path] | list[None],
    surrogate: Path | None,
    n_targets: int,
    n: int,
    split: str,
    seed: int,
) -> dict[str, ProposerEvaluation]:
    """Evaluations of one set by the name of the proposer."""
    from dataclasses import replace

    import polars as pl

    from defectgen.core import get_host
    from defectgen.design.evaluate import evaluate_pool, evaluate_proposer, held_out_targets, nearest_labelled
    from defectgen.design.proposers import Ask, RandomProposer
    from defectgen.design.seeds import seed_for
    from defectgen.tasks.defect.defect_task import LEVEL_PAIR
    from defectgen_cli.engine import load_engine

    crystal = get_host(frame["host"][0], frame["supercell"][0])
    asked = held_out_targets(frame, split, n_targets, seed)
    trained = frame.filter(pl.col("split") == "train")
    sizes = trained["n_defects"]
    limited = replace(drawing, min_defects=int(sizes.min()), max_defects=int(sizes.max()))  # type: ignore[arg-type]
    labels = {
        row["configuration"]: {column: row[column] for column in LEVEL_PAIR}
        for row in frame.select("configuration", *LEVEL_PAIR).iter_rows(named=True)
    }
    blind = RandomProposer(limited.max_defects or 1, limited.min_defects)
    found = {}
    for place, model in enumerate(models):
        engine = load_engine(crystal, model, surrogate, limited)
        if not set(trained["configuration"]) <= engine.known or any(
            key in engine.known for key in frame.filter(pl.col("split") == split)["configuration"]
        ):
            say(f"warning: the split of {name} is not the one that the model was trained with.")
        proposers = {"model" if len(models) == 1 else str(model): engine.proposer}
        proposers |= {"random": blind} if place == len(models) - 1 else {}
        for title, proposer in proposers.items():
            with progress(f"{name}: {title}", len(asked) * n, "structures") as advance:
                found[title] = evaluate_proposer(
                    crystal, asked, proposer, engine.scorer, engine.known, labels, n=n, seed=seed, progress=advance
                )
    drawn = blind.propose(crystal, [Ask({}, POOL, seed_for(seed, name, "pool"))])
    pool = [proposal.configuration for proposal in drawn if proposal.configuration is not None]
    found[f"best of {POOL} random"] = evaluate_pool(crystal, asked, pool, engine.scorer, engine.known, labels)
    known = set(trained["configuration"])
    found["nearest labelled"] = nearest_labelled(crystal, asked, engine.scorer, known, labels)
    return found


_HEAD = (
    "distances in meV; <20: share within 20 meV, single: of all structures, first: of the first-ranked\n\n"
    f"{'set':<14}{'proposer':<20}{'valid':>6}{'dist.':>6}{'novel':>6}{'per s':>7}{'single':>9}{'<20':>6}"
    f"{'first':>8}{'<20':>6}"
)


def _lines(name: str, part: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for title, m in part.items():
        shares = [m.get(key) for key in ("valid_share", "distinct_share", "novel_share")]
        counts = "".join(f"{'':>6}" if share is None else f"{share:>6.0%}" for share in shares)
        rate = m.get("structures_per_s")
        single = _pair(m["samples"]["distance"], 9) if "proposals" in m else " " * 15
        lines.append(
            f"{name:<14}{title[-19:]:<20}{counts}{'' if rate is None else f'{rate:.1f}':>7}"
            f"{single}{_pair(m['first']['distance'], 8)}"
        )
        name = ""
    return lines


def _pair(spread: dict[str, float | None], width: int) -> str:
    if spread["median_mev"] is None or spread["within_20_mev"] is None:
        return f"{'-':>{width}}{'-':>6}"
    return f"{spread['median_mev']:>{width}.1f}{spread['within_20_mev']:>6.0%}"
