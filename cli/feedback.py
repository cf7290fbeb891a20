"""`defectgen feedback`: a model's own proposals, judged, as pairs to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.design.proposers import Proposer
    from defectgen.score.protocol import Scorer


def feedback(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Records that the model was trained on.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the pairs.")],
    model: Annotated[Path | None, typer.Option("--model", metavar="DIR", help="Adapter [the shipped one].")] = None,
    sets: Annotated[
        str, typer.Option("--sets", metavar="NAME[,NAME]", help="Sets whose levels are asked for, or all of the data.")
    ] = "all",
    targets: Annotated[int, typer.Option(min=1, help="Training structures whose levels are asked for.")] = 2000,
    n: Annotated[int, typer.Option("-n", "--n", min=2, help="Proposals for each of them.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.8,
    within: Annotated[float, typer.Option(min=0.0, help="A proposal this near, in meV, is good enough.")] = 20.0,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="transformers or vllm.")] = "transformers",
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
    ] = None,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pairs made with other settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge a model's own proposals, and write pairs that it learns from.

    HOMO and LUMO of training structures are asked for. Of the proposals for each, one that is near
    and one that is not become a pair; labels judge what has one, the surrogate the rest. Structures of the
    validation and test parts are left out. Train on the pairs with: defectgen finetune smollm2-feedback --data PAIRS
    --start-from ADAPTER. Interrupted, the same command goes on.
    """
    from dataclasses import replace

    from defectgen.core import get_host
    from defectgen.design.feedback import FeedbackSettings, choose_targets, write_feedback
    from defectgen.errors import UsageError
    from defectgen.io.files import file_hash, require_writable
    from defectgen.llm.adapter import WEIGHTS, read_adapter
    from defectgen.llm.train.dataset import read_records
    from defectgen.llm.train.finetune import read_manifest
    from defectgen.score.surrogate.model import METADATA
    from defectgen_cli.engine import (
        SHIPPED_ADAPTER,
        SHIPPED_SURROGATE,
        Drawing,
        load_engine,
        load_surrogate,
        shipped,
        task_of,
    )

    adapter = model or shipped(SHIPPED_ADAPTER)
    card = read_adapter(adapter)
    manifest = read_manifest(data)
    if card.encoding == "bulk" or card.encoding != manifest["settings"]["encoding"]:
        raise UsageError(
            f"the model writes {card.encoding}, {data} holds records of {manifest['settings']['encoding']}.",
            "Give the records that the model was trained on.",
        )
    if "feedback" in manifest["settings"]:
        raise UsageError(f"{data} holds pairs of proposals.", "Give the records of build-data that they came from.")
    require_writable(output)
    training = read_records(data / "train.jsonl")
    held_back = [record for part in ("validation", "test") for record in read_records(data / f"{part}.jsonl")]
    names = sorted({record["set"] for record in training})
    chosen = names if sets == "all" else sets.split(",")
    if unknown := [name for name in chosen if name not in names]:
        raise UsageError(f"{data} has no set {', '.join(unknown)}.", f"Expected some of: {', '.join(names)}.")
    sizes = {name: [r["n_defects"] for r in training if r["set"] == name] for name in chosen}
    homes = {record["set"]: (record["host"], record["supercell"]) for record in training}

    def propose(name: str) -> tuple[Proposer, Scorer]:
        drawing = Drawing(min(sizes[name]), max(sizes[name]), temperature=temperature, engine=engine)
        loaded = load_engine(get_host(*homes[name]), adapter, surrogate, drawing)
        return replace(loaded.proposer, sampling=replace(loaded.proposer.sampling, batch_size=128)), loaded.scorer

    settings = FeedbackSettings(targets, n, temperature, within / 1000, tuple(sorted(chosen)), seed)
    say("loading the models ...")
    judge = surrogate or shipped(SHIPPED_SURROGATE)
    load_surrogate(judge)
    sources = {"model": file_hash(adapter / WEIGHTS), "surrogate": file_hash(judge / METADATA)}
    with progress("judging", len(choose_targets(training, settings)), "targets") as advance:
        made = write_feedback(
            data, output, training, held_back, settings, sources, task_of(card), propose,
            overwrite=overwrite, progress=advance,
        )  # fmt: skip
    text = (
        f"{made['pairs']} pairs from {made['proposals']} proposals for {made['targets']} targets, "
        f"{made['within_share']:.1%} of them within {within:g} meV ({output})"
    )
    emit({"output": output, "skipped": False} | made, as_json, text)
