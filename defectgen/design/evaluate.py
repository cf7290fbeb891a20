"""How well proposals hit held-out targets, beside random structures and a look-up of labelled ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.design.candidates import Candidate, Target
from defectgen.design.pipeline import rank, seed_for
from defectgen.design.proposals import Ask, Proposer
from defectgen.errors import DefectgenError
from defectgen.score.protocol import Scorer
from defectgen.tasks.defect import LEVEL_PAIR

WITHIN_EV = 0.02


@dataclass(frozen=True)
class ProposerResult:
    """What one proposer reached on all targets.

    Attributes:
        metrics: name (unit in it) to value; see docs/evaluation.md for definitions and denominators.
        first: first-ranked candidate of each target that has one.
    """

    metrics: dict[str, float | int | None]
    first: tuple[Candidate, ...]


def held_out_targets(frame: pl.DataFrame, host: str, split: str, n: int, seed: int) -> tuple[Target, ...]:
    """HOMO and LUMO of `n` structures drawn without replacement from one part of the split.

    Args:
        frame: columns of the data reader and ``split``.
        host: name of the host.
        split: ``validation`` or ``test``.
        n: number of targets.
        seed: of the draw.

    Raises:
        DefectgenError: fewer than `n` structures with both levels.
    """
    rows = frame.filter((pl.col("host") == host) & (pl.col("split") == split)).drop_nulls(LEVEL_PAIR).sort("id")
    if rows.height < n:
        raise DefectgenError(f"the {split} part has {rows.height} structures of {host} with both levels, expected {n}.")
    chosen = np.random.default_rng(seed).choice(rows.height, size=n, replace=False)
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
    labelled: dict[str, dict[str, float]],
    *,
    n: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> ProposerResult:
    """Draw `n` proposals for each target and measure them.

    Args:
        host: what is decorated.
        targets: held-out values.
        proposer: what is measured.
        scorer: predicts the properties of each proposal.
        training: canonical keys that the proposer was trained on.
        labelled: canonical key to DFT values, for every labelled structure of the host.
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
            found[proposal.ask].append(proposal.configuration)
    seconds = time.monotonic() - started
    first: list[Candidate] = []
    every: list[float] = []
    novel: list[float] = []
    dft: list[float] = []
    distinct = 0
    for target, configurations in zip(targets, found, strict=True):
        ranked = rank(target, {c.key: c for c in configurations}, scorer, training)
        by_key = {candidate.configuration.key: candidate for candidate in ranked}
        distinct += len(ranked)
        first += ranked[:1]
        every += [by_key[c.key].distance_ev for c in configurations]
        novel += [by_key[c.key].distance_ev for c in configurations if by_key[c.key].novel]
        dft += [target.distance_ev(labelled[c.key]) for c in configurations if c.key in labelled]
    first_dft = [c.target.distance_ev(labelled[c.configuration.key]) for c in first if c.configuration.key in labelled]
    valid = len(every)
    metrics: dict[str, float | int | None] = {
        "targets": len(targets),
        "proposals": proposed,
        "valid_share": valid / proposed if proposed else None,
        "distinct_share": distinct / proposed if proposed else None,
        "novel_share": len(novel) / proposed if proposed else None,
        "structures_per_s": proposed / seconds if seconds else None,
        **_spread("sample_surrogate", every),
        **_spread("sample_novel_surrogate", novel),
        **_spread("sample_dft", dft),
        **_spread("first_surrogate", [c.distance_ev for c in first]),
        **_spread("first_dft", first_dft),
        "first_novel_share": sum(c.novel for c in first) / len(targets),
    }
    return ProposerResult(metrics, tuple(first))


def nearest_labelled(
    host: Host, targets: Sequence[Target], scorer: Scorer, training: dict[str, dict[str, float]]
) -> dict[str, float | int | None]:
    """The labelled training structure nearest to each target by DFT, and how far the surrogate places it."""
    keys = sorted(training)
    values = np.array([[training[key][column] for column in LEVEL_PAIR] for key in keys])
    dft, surrogate = [], []
    for target in targets:
        distance = np.abs(values - np.array([dict(target.values)[column] for column in LEVEL_PAIR])).sum(axis=1)
        best = keys[int(distance.argmin())]
        dft.append(float(distance.min()))
        candidate = rank(target, {best: Configuration.from_key(host, best)}, scorer, training)[0]
        surrogate.append(candidate.distance_ev)
    return {"targets": len(targets), **_spread("first_surrogate", surrogate), **_spread("first_dft", dft)}


def _spread(name: str, distances: Sequence[float]) -> dict[str, float | int | None]:
    """Count, median and 90th percentile in meV, and share within 20 meV, of distances in eV."""
    values: Any = np.asarray(distances)
    some = len(values) > 0
    return {
        f"{name}_n": len(values),
        f"{name}_median_mev": float(np.median(values)) * 1e3 if some else None,
        f"{name}_p90_mev": float(np.quantile(values, 0.9)) * 1e3 if some else None,
        f"{name}_within_20mev": float((values <= WITHIN_EV).mean()) if some else None,
    }
