"""How near the first candidate of a design is, by DFT, for held-out targets: `evaluate defect --proposers`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen.core import Host
from defectgen.data.known_labels import labels_of
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.design.evaluate import held_out_targets, spread
from defectgen.design.held_out import EvaluationRequest, common_sets, set_labels
from defectgen.design.limits import Limits
from defectgen.design.mix import LLM
from defectgen.design.request import DesignRequest, Ranking
from defectgen.design.run import prepare_design
from defectgen.errors import UsageError
from defectgen.io.host_tables import host_of
from defectgen.tasks.defect.defect_task import LEVEL_PAIR
from defectgen.watch import Watch

DEFAULT = "default"
"""Name of the mix that a design uses if no proposer is named."""

ALONE = 5
"""Targets that are designed one by one too, for the time that one takes."""


HIDE = ("part", "targets", "nothing")
"""Labels that designs do not see: of the whole part that the targets are from, of the targets' own rows, or none."""


@dataclass(frozen=True)
class FirstRanked:
    """Designs for held-out targets, beside their labels.

    Attributes:
        metrics: see docs/evaluation.md.
        samples: one row a target: ``target``, ``key``, ``origin``, ``novel``, ``surrogate_distance_ev``,
            ``dft_distance_ev`` (null without a label).
    """

    metrics: dict[str, Any]
    samples: pl.DataFrame


def first_ranked_sets(
    request: EvaluationRequest, names: Sequence[str], novel: bool, hide: str, data: Path, watch: Watch
) -> Iterator[tuple[str, dict[str, FirstRanked]]]:
    """Each proposer on held-out targets of each set.

    Args:
        request: sets, targets, models.
        names: proposers, several joined by ``+``, or `DEFAULT`.
        novel: whether only structures without a (shown) label may be proposed.
        hide: which labels the designs do not see, one of `HIDE`.
        data: folder of 2DMD, which judges.
        watch: shows progress.

    Raises:
        UsageError: an unknown proposer or word in `hide`, more than one model, or a set that the model does not know.
        DefectgenError: data or models that are missing or damaged.
    """
    if hide not in HIDE:
        raise UsageError(f"got --hide {hide!r}, expected one of {', '.join(HIDE)}.")
    if len(request.adapters) > 1:
        raise UsageError(f"got {len(request.adapters)} models with --proposers, expected one at most.")
    models = replace(request.models, adapter=request.adapters[0]) if request.adapters else request.models
    sets, cards = common_sets(request)
    for name in sets:
        frame = split_by_class(read_dataset(data, (name,)), seed=cards[0].data["settings"]["seed"])
        frame = frame.drop_nulls(LEVEL_PAIR)
        targets = held_out_targets(frame, request.split, request.targets, request.seed)
        host = host_of(frame)
        sizes = frame.filter(pl.col("split") == "train")["n_defects"]
        limits = Limits(int(sizes.min()), int(sizes.max()))  # type: ignore[arg-type]
        part = pl.col("split") == request.split  # by the model's seed, which need not be that of the shipped labels
        rows = frame.filter(part if hide == "part" else pl.col("id").is_in([target.id for target in targets]))
        unseen = set() if hide == "nothing" else set(rows["configuration"])
        labels, found = set_labels(frame), {}
        shown = labels_of(host, hidden=(request.split,) if hide == "part" else (), fetched=False)
        shown = {key: values for key, values in shown.items() if key not in unseen}
        for proposer in names:
            with watch(f"{name}: {proposer}", None, "structures") as advance:
                design = DesignRequest(
                    host, targets, Ranking(n=1, seed=request.seed, novel=novel), limits,
                    request.drawing, models,
                    proposer=None if proposer == DEFAULT else proposer.replace("+", ","),
                    labels=shown,
                )  # fmt: skip
                found[proposer] = measure_first(host, design, labels, advance)
        yield name, found


def measure_first(
    host: Host,
    request: DesignRequest,
    labels: Mapping[str, Mapping[str, float]],
    progress: Callable[[int], None] = lambda _: None,
) -> FirstRanked:
    """The first candidate of each target of a design.

    Args:
        host: what is decorated.
        request: the design.
        labels: of every labelled structure, by canonical key: they judge.
        progress: called with the number of new structures.
    """
    prepared = prepare_design(replace(request, targets=request.targets[:1]))
    prepared.run()  # models are loaded and tables made: that is not the time of a target
    run, seconds = _timed(request, progress)
    firsts = {target.id: run.of(target)[0] for target in run.targets if run.of(target)}
    rows = []
    for target in request.targets:
        if target.id not in firsts:
            continue
        first = firsts[target.id]
        key = first.configuration.key
        rows.append(
            {
                "target": target.id,
                "key": key,
                "origin": "+".join(first.origin),
                "novel": first.novel,
                "surrogate_distance_ev": first.distance_ev,
                "dft_distance_ev": target.distance_ev(labels[key]) if key in labels else None,
            }
        )
    samples = pl.DataFrame(rows, schema=_SCHEMA)
    alone = [_timed(replace(request, targets=(target,)))[1] for target in request.targets[:ALONE]]
    n = len(request.targets)
    metrics = {
        "targets": n,
        "supercell": host.size,
        "proposed": run.settings["proposed"],
        "evaluated_per_target": int(run.settings["distinct"]) / n,
        "cpu_s_per_target": seconds / n,
        "cpu_s_alone": float(np.median(alone)),
        "novel_share": float(samples["novel"].sum()) / n,
        "labelled_share": samples["dft_distance_ev"].drop_nulls().len() / n,
        "surrogate": spread(samples["surrogate_distance_ev"]),
        "dft": spread(samples["dft_distance_ev"].drop_nulls()),
    }
    return FirstRanked(metrics, samples)


def _timed(request: DesignRequest, progress: Callable[[int], None] = lambda _: None) -> Any:
    """A run, and the seconds of CPU that it took; loading a language model that was named is not counted."""
    started = time.process_time()
    prepared = prepare_design(request)
    if LLM in request.names:
        started = time.process_time()
    run = prepared.run(progress)
    return run, time.process_time() - started


def first_ranked_lines(name: str, found: Mapping[str, FirstRanked]) -> list[str]:
    """A line a proposer, as `HEAD` names its columns."""
    lines = []
    for title, one in found.items():
        m, dft = one.metrics, one.metrics["dft"]
        shown = [f"{dft[key]:8.1f}" if dft[key] is not None else f"{'-':>8}" for key in ("median_mev", "p90_mev")]
        within = "-" if dft["within_20_mev"] is None else f"{dft['within_20_mev']:.1%}"
        lines.append(
            f"{name:<10}{title:<22}{m['targets']:>8}{m['labelled_share']:>8.0%}{m['novel_share']:>7.0%}{''.join(shown)}"
            f"{within:>8}{m['cpu_s_per_target']:>8.2f}{m['cpu_s_alone']:>8.2f}"
        )
        name = ""
    return lines


HEAD = (
    "first-ranked: distance to the target by DFT, meV; CPU: seconds a target, together and one by one\n\n"
    f"{'set':<10}{'proposer':<22}{'targets':>8}{'labels':>8}{'novel':>7}{'median':>8}{'p90':>8}{'<= 20':>8}{'CPU':>8}"
    f"{'alone':>8}"
)

_SCHEMA: dict[str, Any] = {
    "target": pl.String,
    "key": pl.String,
    "origin": pl.String,
    "novel": pl.Boolean,
    "surrogate_distance_ev": pl.Float64,
    "dft_distance_ev": pl.Float64,
}
