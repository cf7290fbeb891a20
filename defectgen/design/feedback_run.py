"""A trained model's own proposals as pairs to learn from: what `defectgen feedback` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from defectgen.core.stored_hosts import host_title, record_hosts
from defectgen.design.engine import Drawing, Models, load_engine, load_surrogate, task_of
from defectgen.design.feedback import FeedbackSettings, choose_targets, write_feedback
from defectgen.design.limits import Limits
from defectgen.design.proposers import Proposer
from defectgen.errors import UsageError
from defectgen.io.files import file_hash
from defectgen.io.folders import claimed
from defectgen.llm.adapter import WEIGHTS, read_adapter
from defectgen.llm.train.record_folder import read_manifest, read_parts
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_SURROGATE, shipped
from defectgen.score.protocol import Scorer
from defectgen.score.surrogate.model import METADATA
from defectgen.watch import Watch

BATCH = 128
"""Proposals that the language model draws together."""


def feedback_of_model(
    data: Path,
    output: Path,
    settings: FeedbackSettings,
    models: Models,
    watch: Watch,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Let a model propose for the levels of its training structures, judge that, and write pairs.

    Args:
        data: records that the model was trained on.
        output: folder of the pairs.
        settings: see `FeedbackSettings`; no sets stand for all of the data.
        models: what proposes and judges.
        watch: shows progress.
        overwrite: replace pairs made with other settings.
        say: told what is going on.

    Returns:
        The manifest, with ``within_share`` (of all proposals) and ``pairs``.

    Raises:
        UsageError: records of another encoding, pairs instead of records, an unknown set, or other files in the folder.
        DefectgenError: a model or records that are missing or damaged.
    """
    with claimed(output):
        manifest = read_manifest(data)
        adapter = models.adapter or _shipped_for(manifest["settings"].get("encoding"))
        card = read_adapter(adapter)
        if card.is_bulk or card.encoding != manifest["settings"]["encoding"]:
            raise UsageError(
                f"the model writes {card.encoding}, {data} holds records of {manifest['settings']['encoding']}.",
                "Give the records that the model was trained on.",
            )
        if "feedback" in manifest["settings"]:
            raise UsageError(f"{data} holds pairs of proposals.", "Give the records of build-data that they came from.")
        parts = read_parts(data, manifest)
        training, held_back = parts["train"], [*parts["validation"], *parts["test"]]
        settings = replace(settings, sets=_chosen_sets(settings.sets, training, data))
        say("loading the models ...")
        judge = models.surrogate or shipped(SHIPPED_SURROGATE)
        load_surrogate(judge)
        sources = {"model": file_hash(adapter / WEIGHTS), "surrogate": file_hash(judge / METADATA)}
        sizes = {name: [r["n_defects"] for r in training if r["set"] == name] for name in settings.sets}
        hosts = record_hosts(manifest)
        homes = {record["set"]: hosts[host_title(record)] for record in training}

        def propose(name: str) -> tuple[Proposer, Scorer]:
            limits = Limits(min(sizes[name]), max(sizes[name]))
            drawing = Drawing(temperature=settings.temperature)
            loaded = load_engine(homes[name], replace(models, adapter=adapter), limits, drawing)
            return replace(loaded.proposer, sampling=replace(loaded.proposer.sampling, batch_size=BATCH)), loaded.scorer

        with watch("judging", len(choose_targets(training, settings)), "targets") as advance:
            return write_feedback(
                data, output, training, held_back, settings, sources, task_of(card), propose,
                overwrite=overwrite, progress=advance,
            )  # fmt: skip


def _shipped_for(encoding: str | None) -> Path:
    """The shipped adapter that writes an encoding, or the usual one."""
    crowded = shipped(SHIPPED_CROWDED_ADAPTER)
    return crowded if read_adapter(crowded).encoding == encoding else shipped(SHIPPED_ADAPTER)


def _chosen_sets(wanted: Sequence[str], training: Sequence[dict[str, Any]], data: Path) -> tuple[str, ...]:
    names = sorted({record["set"] for record in training})
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError(f"{data} has no set {', '.join(unknown)}.", f"Expected some of: {', '.join(names)}.")
    return tuple(sorted(wanted or names))
