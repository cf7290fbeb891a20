"""Models side by side on held-out targets of 2DMD: what `defectgen evaluate defect` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS
from defectgen.design.engine import USUAL, Drawing, Models, load_engine
from defectgen.design.evaluate import (
    ProposerEvaluation,
    evaluate_pool,
    evaluate_proposer,
    held_out_targets,
    nearest_labelled,
)
from defectgen.design.limits import Limits
from defectgen.design.proposers import Ask, Proposer, RandomProposer
from defectgen.design.seeds import seed_for
from defectgen.errors import UsageError
from defectgen.io.host_tables import host_of
from defectgen.llm.adapter import AdapterCard, read_adapter
from defectgen.models import SHIPPED_ADAPTER, adapter_folder
from defectgen.tasks.defect.defect_task import LEVEL_PAIR
from defectgen.watch import Watch

POOL = 1000
"""Random structures among which the search picks the best for each target."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What decides the figures of an evaluation besides the data.

    Attributes:
        sets: of 2DMD that the targets come from; empty for all that every model knows.
        targets: held-out structures of each set whose HOMO and LUMO are asked for, at most.
        n: structures generated for each target.
        split: ``test``, or ``validation``, which the surrogate was fitted on too.
        adapters: folders of the models that are compared; empty for the shipped one.
        models: surrogate and engine; its adapter is not used.
        drawing: how the models draw.
        seed: of targets and draws.
    """

    sets: tuple[str, ...] = ()
    targets: int = 40
    n: int = 16
    split: str = "test"
    adapters: tuple[Path, ...] = ()
    models: Models = field(default_factory=Models)
    drawing: Drawing = USUAL
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise UsageError(f"got split {self.split!r}, expected validation or test.")

    @property
    def settings(self) -> dict[str, Any]:
        """What to report beside the figures."""
        return {
            "targets_per_set": self.targets, "n": self.n, "split": self.split, "seed": self.seed,
            **asdict(self.drawing), "engine": self.models.engine,
            "models": [Path(adapter).name for adapter in self.adapters] or ["shipped"],
        }  # fmt: skip


def common_sets(request: EvaluationRequest) -> tuple[tuple[str, ...], Sequence[AdapterCard]]:
    """The sets that a request means, and the cards of its models.

    Raises:
        UsageError: models of bulk crystals, without a host in common, or that do not know a set's host.
        DefectgenError: a folder without an adapter.
    """
    cards = [read_adapter(adapter_folder(name)) for name in request.adapters or [SHIPPED_ADAPTER]]
    hosts = {info.name: info.host for info in SETS}
    names = request.sets or tuple(name for name in hosts if all(hosts[name] in card.hosts for card in cards))
    if bulk := [card for card in cards if card.is_bulk]:
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
    return names, cards


def evaluate_sets(
    request: EvaluationRequest,
    data: Path,
    watch: Watch,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, dict[str, ProposerEvaluation]]]:
    """Evaluations of each set by the name of the proposer: the models, random ones, a search, a look-up.

    Args:
        request: what is measured.
        data: folder of 2DMD.
        watch: shows progress.
        warn: told what a reader has to know, a line each.

    Raises:
        UsageError: see `common_sets`.
        DefectgenError: data or models that are missing or damaged.
    """
    names, cards = common_sets(request)
    for name in names:
        frame = split_by_class(read_dataset(data, (name,)), seed=cards[0].data["settings"]["seed"])
        yield name, evaluate_set(name, frame.drop_nulls(LEVEL_PAIR), request, watch, warn)


def evaluate_set(
    name: str, frame: pl.DataFrame, request: EvaluationRequest, watch: Watch, warn: Callable[[str], None]
) -> dict[str, ProposerEvaluation]:
    """Evaluations on one set by the name of the proposer.

    Args:
        name: of the set.
        frame: its rows with both levels, and ``split``.
        request: what is measured.
        watch: shows progress.
        warn: told what a reader has to know.
    """
    host = host_of(frame)
    asked = held_out_targets(frame, request.split, request.targets, request.seed)
    trained = frame.filter(pl.col("split") == "train")
    sizes = trained["n_defects"].to_list()
    limits = Limits(min(sizes), max(sizes))
    labels = set_labels(frame)
    blind = RandomProposer(max(sizes), min(sizes))
    adapters: Sequence[Path | None] = request.adapters or [None]
    found = {}
    for place, adapter in enumerate(adapters):
        engine = load_engine(host, replace(request.models, adapter=adapter), limits, request.drawing)
        held = frame.filter(pl.col("split") == request.split)["configuration"]
        if not set(trained["configuration"]) <= engine.known or any(key in engine.known for key in held):
            warn(f"the split of {name} is not the one that the model was trained with.")
        proposers: dict[str, Proposer] = {"model" if len(adapters) == 1 else str(adapter): engine.proposer}
        proposers |= {"random": blind} if place == len(adapters) - 1 else {}
        for title, proposer in proposers.items():
            with watch(f"{name}: {title}", len(asked) * request.n, "structures") as advance:
                found[title] = evaluate_proposer(
                    host, asked, proposer, engine.scorer, engine.known, labels,
                    n=request.n, seed=request.seed, progress=advance,
                )  # fmt: skip
    drawn = blind.propose(host, [Ask({}, POOL, seed_for(request.seed, name, "pool"))])
    pool = [proposal.configuration for proposal in drawn if proposal.configuration is not None]
    found[f"best of {POOL} random"] = evaluate_pool(host, asked, pool, engine.scorer, engine.known, labels)
    known = set(trained["configuration"])
    found["nearest labelled"] = nearest_labelled(host, asked, engine.scorer, known, labels)
    return found


def set_labels(frame: pl.DataFrame) -> Mapping[str, Mapping[str, float]]:
    """HOMO and LUMO of the rows of a set, by canonical key, in eV."""
    return {
        row["configuration"]: {column: row[column] for column in LEVEL_PAIR}
        for row in frame.select("configuration", *LEVEL_PAIR).iter_rows(named=True)
    }
