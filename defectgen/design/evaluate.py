"""How well proposals hit held-out targets, beside random structures, a search and a look-up of labelled ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.design.candidates import Target
from defectgen.design.proposers import Ask, Proposer
from defectgen.design.ranking import rank
from defectgen.design.seeds import seed_for
from defectgen.errors import DefectgenError
from defectgen.one_line import OneLine
from defectgen.score.protocol import Scorer
from defectgen.tasks.defect.defect_task import LEVEL_PAIR

WITHIN_EV = 0.02

Labels = Mapping[str, Mapping[str, float]]
"""Canonical key to DFT values by column, in eV."""


@dataclass(frozen=True, repr=False)
class ProposerEvaluation(OneLine):
    """What one proposer reached on all targets.

    Attributes:
        metrics: see docs/evaluation.md for definitions and denominators.
        samples: one row a valid proposal: ``target``, ``key``, ``novel``, ``first`` (of its target), for HOMO and
            LUMO ``target_*``, ``surrogate_*`` and ``dft_*`` in eV, and the distances ``surrogate_distance_ev``,
            ``dft_distance_ev`` (null without a label) and ``distance_ev`` (DFT if there is one, else surrogate).
    """

    metrics: dict[str, Any]
    samples: pl.DataFrame


def held_out_targets(frame: pl.DataFrame, split: str, n: int, seed: int) -> tuple[Target, ...]:
    """HOMO and LUMO of up to `n` structures drawn without replacement from one part of the split of one set.

    Args:
        frame: rows of one set, with the columns of the data reader and ``split``.
        split: ``validation`` or ``test``.
        n: number of targets; all of the part if it has fewer.
        seed: of the draw.

    Raises:
        DefectgenError: no structure with both levels.
    """
    rows = frame.filter(pl.col("split") == split).drop_nulls(LEVEL_PAIR).sort("id")
    if rows.is_empty():
        raise DefectgenError(f"the {split} part has no structure with both levels.", "Give more data.")
    chosen = np.random.default_rng(seed).choice(rows.height, size=min(n, rows.height), replace=False)
    picked = rows[np.sort(chosen).tolist()]
    return tuple(
        Target(row["id"], tuple((column, float(row[column])) for column in LEVEL_PAIR))
        for row in picked.iter_rows(named=True)
    )


def evaluate_proposer(
    host: Host,
    targets: Sequence[Target],
    proposer: Proposer,
    scorer: Scorer,
    training: Collection[str],
    labels: Labels,
    *,
    n: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> ProposerEvaluation:
    """Draw `n` proposals for each target and measure them.

    Args:
        host: what is decorated.
        targets: held-out values.
        proposer: what is measured.
        scorer: predicts the properties of each proposal.
        training: canonical keys that the proposer was trained on.
        labels: of every labelled structure of the host.
        n: proposals a target.
        seed: of the proposals.
        progress: called with the number of new proposals.
    """
    asks = [Ask(dict(target.values), n, seed_for(seed, target.id)) for target in targets]
    found: list[list[Configuration]] = [[] for _ in targets]
    started, proposed = time.monotonic(), 0
    for proposal in proposer.propose(host, asks):
        proposed += 1
        progress(1)
        if proposal.configuration is not None:
            for own in found if proposal.ask is None else [found[proposal.ask]]:
                own.append(proposal.configuration)
    seconds = time.monotonic() - started
    samples = pl.concat(
        judge(target, configurations, scorer, training, labels)
        for target, configurations in zip(targets, found, strict=True)
    )
    metrics: dict[str, Any] = {
        "targets": len(targets),
        "proposals": proposed,
        "valid_share": samples.height / proposed if proposed else None,
        "distinct_share": samples.n_unique(["target", "key"]) / proposed if proposed else None,
        "novel_share": float(samples["novel"].sum()) / proposed if proposed else None,
        "structures_per_s": proposed / seconds if seconds else None,
        **measure(samples),
    }
    return ProposerEvaluation(metrics, samples)


def evaluate_pool(
    host: Host,
    targets: Sequence[Target],
    pool: Sequence[Configuration],
    scorer: Scorer,
    training: Collection[str],
    labels: Labels,
) -> ProposerEvaluation:
    """The best of one pool of structures for each target, by the surrogate.

    Args:
        host: what is decorated.
        targets: held-out values.
        pool: canonical structures, the same for all targets.
        scorer: predicts the properties.
        training: canonical keys that count as known.
        labels: of every labelled structure of the host.
    """
    keys = sorted({configuration.key for configuration in pool})
    everything = [Configuration.from_key(host, key) for key in keys]
    scores = scorer.score(everything)
    values = np.array([scores[column].to_numpy() for column in LEVEL_PAIR]).T
    rows = []
    for target in targets:
        wanted = np.array([dict(target.values)[column] for column in LEVEL_PAIR])
        distances = np.abs(values - wanted).sum(axis=1)
        best = everything[int(np.nanargmin(distances))]
        rows.append(judge(target, [best], scorer, training, labels))
    samples = pl.concat(rows)
    return ProposerEvaluation({"targets": len(targets), "pool": len(keys), **measure(samples)}, samples)


def nearest_labelled(
    host: Host, targets: Sequence[Target], scorer: Scorer, training: Collection[str], labels: Labels
) -> ProposerEvaluation:
    """The labelled training structure nearest to each target by DFT."""
    keys = sorted(key for key in labels if key in training)
    values = np.array([[labels[key][column] for column in LEVEL_PAIR] for key in keys])
    rows = []
    for target in targets:
        wanted = np.array([dict(target.values)[column] for column in LEVEL_PAIR])
        best = keys[int(np.abs(values - wanted).sum(axis=1).argmin())]
        rows.append(judge(target, [Configuration.from_key(host, best)], scorer, training, labels))
    samples = pl.concat(rows)
    return ProposerEvaluation({"targets": len(targets), "pool": len(keys), **measure(samples)}, samples)


def judge(
    target: Target,
    configurations: Sequence[Configuration],
    scorer: Scorer,
    training: Collection[str],
    labels: Labels,
) -> pl.DataFrame:
    """The rows of `ProposerEvaluation.samples` for the proposals of one target, in their order."""
    ranked = {c.configuration.key: c for c in rank(target, {c.key: c for c in configurations}, scorer, training)}
    seen: set[str] = set()
    rows = []
    for key in (configuration.key for configuration in configurations):
        candidate, label = ranked[key], labels.get(key)
        by_label = None if label is None else target.distance_ev(label)
        rows.append(
            {
                "target": target.id,
                "key": key,
                "novel": candidate.novel,
                "first": candidate.rank == 1 and key not in seen,
                **{f"target_{column}": value for column, value in target.values},
                **{f"surrogate_{column}": candidate.predicted[column] for column, _ in target.values},
                **{f"dft_{column}": None if label is None else label[column] for column, _ in target.values},
                "surrogate_distance_ev": candidate.distance_ev,
                "dft_distance_ev": by_label,
                "distance_ev": candidate.distance_ev if by_label is None else by_label,
            }
        )
        seen.add(key)
    return pl.DataFrame(rows, schema=_SCHEMA)


_SCHEMA: dict[str, Any] = {
    "target": pl.String,
    "key": pl.String,
    "novel": pl.Boolean,
    "first": pl.Boolean,
    **{f"{kind}_{column}": pl.Float64 for kind in ("target", "surrogate", "dft") for column in LEVEL_PAIR},
    **dict.fromkeys(("surrogate_distance_ev", "dft_distance_ev", "distance_ev"), pl.Float64),
}


def measure(samples: pl.DataFrame) -> dict[str, Any]:
    """Distances of all samples, the novel ones, the first-ranked and the best of each target; errors of the levels."""
    best = samples.group_by("target").agg(pl.col("distance_ev").min())
    return {
        "samples": _distances(samples),
        "novel_samples": _distances(samples.filter("novel")),
        "first": _distances(samples.filter("first")),
        "first_novel_share": samples.filter("first")["novel"].mean(),  # None where there are no samples
        "best": {"distance": spread(best["distance_ev"])},
        "levels": {column: level_errors(samples, column) for column in LEVEL_PAIR},
    }


def level_errors(samples: pl.DataFrame, column: str) -> dict[str, float | int | None]:
    """R2 and RMSE (meV) of surrogate values against targets, over all samples and the 25 % with the least error."""
    target, value = (samples[f"{kind}_{column}"].to_numpy() for kind in ("target", "surrogate"))
    if not len(target):
        return {"n": 0, "r2": None, "rmse_mev": None, "r2_25": None, "rmse_25_mev": None}
    squared = (value - target) ** 2
    chosen = squared <= np.quantile(squared, 0.25)
    r2, rmse = _agreement(target, squared)
    r2_25, rmse_25 = _agreement(target[chosen], squared[chosen])
    return {"n": len(target), "r2": r2, "rmse_mev": rmse, "r2_25": r2_25, "rmse_25_mev": rmse_25}


def _agreement(target: np.ndarray[Any, Any], squared: np.ndarray[Any, Any]) -> tuple[float | None, float]:
    spread = float(((target - target.mean()) ** 2).sum())
    r2 = 1 - float(squared.sum()) / spread if spread > 0 else None
    return r2, float(np.sqrt(squared.mean())) * 1e3


def _distances(samples: pl.DataFrame) -> dict[str, Any]:
    return {
        "surrogate": spread(samples["surrogate_distance_ev"]),
        "dft": spread(samples["dft_distance_ev"].drop_nulls()),
        "distance": spread(samples["distance_ev"]),
    }


def spread(distances: pl.Series) -> dict[str, float | int | None]:
    """Count, median and 90th percentile in meV, and share within 20 meV, of distances in eV."""
    values = distances.to_numpy()
    some = len(values) > 0
    return {
        "n": len(values),
        "median_mev": float(np.median(values)) * 1e3 if some else None,
        "p90_mev": float(np.quantile(values, 0.9)) * 1e3 if some else None,
        "within_20_mev": float((values <= WITHIN_EV).mean()) if some else None,
    }
