"""`defectgen evaluate`: how well models hit held-out targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.design_options import DrawingOptions, ManyModelOptions, names
from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import DataOption, JsonOption, SeedOption, is_given
from defectgen_cli.output import emit, progress, say, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from defectgen.design.held_out import EvaluationRequest

app = typer.Typer(help="Measure models on held-out data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Measure models on held-out data."""


@app.command("defect")
@expand_groups
def defect(
    context: typer.Context,
    models: ManyModelOptions,
    drawing: DrawingOptions,
    data: DataOption = None,
    sets: Annotated[
        str, typer.Option("--sets", metavar="NAME[,NAME]", help="Sets that the targets come from, or all of the model.")
    ] = "all",
    targets: Annotated[
        int, typer.Option(min=1, help="Held-out structures of each set whose HOMO and LUMO are asked for, at most.")
    ] = 40,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Structures generated for each target.")] = 16,
    split: Annotated[str, typer.Option(help="test, or validation, which the surrogate was fitted on too.")] = "test",
    proposers: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="First-ranked of designs: default, or such as known+exhaustive,random."),
    ] = "",
    hide: Annotated[
        str, typer.Option(metavar="WHAT", help="Labels that designs do not see: part, targets, nothing.")
    ] = "part",
    novel: Annotated[bool, typer.Option("--novel", help="With --proposers: only structures without a label.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write metrics as JSON.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Write a page with parity plots.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask for levels of held-out structures; measure what comes.

    Side by side: each language model, random structures under the host's rules, the best of 1,000
    random ones by the surrogate, and the nearest labelled structure of the training part. The
    distance of a structure is |HOMO - target| + |LUMO - target|, by DFT where it is labelled in
    any part of the data, else by the surrogate. Numbers of defects are those of the training part of the set.
    With --proposers the first-ranked candidate of a design for each target is measured instead, labels as
    --hide says hidden.
    """
    from defectgen.data.locations import chosen_sets, dataset_path
    from defectgen.design.held_out import EvaluationRequest, common_sets, evaluate_sets
    from defectgen.io.files import claimed_files

    _check_mode(context, bool(proposers))
    with claimed_files(output, page):
        request = EvaluationRequest(
            sets=tuple(chosen_sets(sets) or ()),
            targets=targets,
            n=n,
            split=split,
            adapters=tuple(models.model or ()),
            models=models.models(),
            drawing=drawing.drawing(),
            seed=seed,
        )
        common_sets(request)
        if proposers:
            _first_ranked(request, names(proposers), (novel, hide), dataset_path(data), output, as_json)
            return
        result: dict[str, Any] = {**request.settings, "sets": {}}
        plots: dict[str, dict[str, pl.DataFrame]] = {}
        lines = [_HEAD]
        for name, found in evaluate_sets(request, dataset_path(data), progress, lambda line: say(f"warning: {line}")):
            result["sets"][name] = {title: evaluation.metrics for title, evaluation in found.items()}
            plots[name] = {title: evaluation.samples for title, evaluation in found.items()}
            lines += _lines(name, result["sets"][name])
        emit(result, as_json, "\n".join(lines))
        write(output, "metrics", lambda: json.dumps(result, indent=1) + "\n")
        if page is not None:
            from defectgen.report.target_page import targets_page

            write(page, "plots", lambda: targets_page(plots, result))


def _check_mode(context: typer.Context, by_proposers: bool) -> None:
    """Refuse options of the other way to evaluate."""
    from defectgen.errors import UsageError

    for name, option in (("page", "--page"), ("n", "-n")) if by_proposers else ():
        if is_given(context, name):
            raise UsageError(f"got {option} with --proposers, which measures the first of each design and has no page.")
    for name in () if by_proposers else ("novel", "hide"):
        if is_given(context, name):
            raise UsageError(f"got --{name} without --proposers, whose designs it is for.")


def _first_ranked(
    request: EvaluationRequest,
    proposers: Sequence[str],
    shown: tuple[bool, str],
    data: Path,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure designs with each of some proposers."""
    from defectgen.design.first_ranked import HEAD, first_ranked_lines, first_ranked_sets

    novel, hide = shown
    result: dict[str, Any] = {**request.settings, "novel": novel, "hide": hide, "sets": {}}
    lines = [HEAD]
    for name, found in first_ranked_sets(request, proposers, novel, hide, data, progress):
        result["sets"][name] = {title: one.metrics for title, one in found.items()}
        lines += first_ranked_lines(name, found)
    emit(result, as_json, "\n".join(lines))
    write(output, "metrics", lambda: json.dumps(result, indent=1) + "\n")


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
