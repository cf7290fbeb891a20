"""`defectgen feedback`: a model's own proposals, judged, as pairs to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.design_options import ModelOptions, names
from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say


@expand_groups
def feedback(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Records that the model was trained on.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the pairs.")],
    models: ModelOptions,
    sets: Annotated[
        str, typer.Option("--sets", metavar="NAME[,NAME]", help="Sets whose levels are asked for, or all of the data.")
    ] = "all",
    targets: Annotated[int, typer.Option(min=1, help="Training structures whose levels are asked for.")] = 2000,
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="Proposals for each of them.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.8,
    within: Annotated[float, typer.Option(min=0.0, help="A proposal this near, in meV, is good enough.")] = 20.0,
    diversity: Annotated[
        float, typer.Option(min=0.0, metavar="MEV", help="What likeness to the other proposals of a target costs.")
    ] = 0.0,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pairs made with other settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make pairs of better and worse proposals of a model.

    It learns from them. HOMO and LUMO of training structures are asked for. Of the proposals for each, one that is near
    and one that is not become a pair; labels judge what has one, the surrogate the rest. Structures of the
    validation and test parts are left out. Train on the pairs with: defectgen finetune smollm2-feedback --data PAIRS
    --start-from ADAPTER. Interrupted, the same command goes on.
    """
    from defectgen.design.feedback import FeedbackSettings
    from defectgen.design.feedback_run import feedback_of_model
    from defectgen.errors import UsageError

    chosen = () if sets == "all" else names(sets)
    if sets != "all" and not chosen:
        raise UsageError(f"got --sets {sets!r}, expected all or some of the sets of the data.")
    settings = FeedbackSettings(targets, n, temperature, within / 1000, chosen, seed, diversity / 1000)
    made = feedback_of_model(data, output, settings, models.models(), progress, overwrite=overwrite, say=say)
    text = (
        f"{made['pairs']} pairs from {made['proposals']} proposals for {made['targets']} targets, "
        f"{made['within_share']:.1%} of them within {within:g} meV ({output})"
    )
    emit({"output": output, "skipped": False} | made, as_json, text)
