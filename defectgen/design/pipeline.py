"""From targets to ranked candidates: propose, deduplicate, predict, rank."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.data.levels import LevelScale
from defectgen.design.candidates import PRISTINE_VBM, RAW, Candidate, DesignRun, Target
from defectgen.design.proposers import Ask, Proposer
from defectgen.design.seeds import seed_for
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.potentials.relaxation import Relaxation
from defectgen.score.protocol import Scorer, uncertainty_column

SINGLE_SHARE = 0.25
"""Share of a target's proposals that ask for one of its properties alone."""

RankBy = Literal["expected", "distance"]

MAX_ROUNDS = 4
"""Rounds of proposals for a target that has too few distinct ones."""


@dataclass(frozen=True)
class DesignSettings:
    """What a design run does besides its targets.

    Attributes:
        n: candidates to return for each target.
        samples: proposals to draw for each target before ranking.
        seed: of all draws.
        rank_by: what decides the order, see `rank`.
    """

    n: int = 16
    samples: int = 256
    seed: int = 0
    rank_by: RankBy = "expected"


@dataclass(frozen=True)
class RawReference:
    """Conversion between a data set's own zero and the pristine host's valence band maximum.

    Attributes:
        scale: level scale of the set whose zero is meant.
        mean_shift_ev: mean shift over the training structures, for a target whose structure is not known yet.
    """

    scale: LevelScale
    mean_shift_ev: float

    def to_vbm(self, values: Mapping[str, float]) -> dict[str, float]:
        """Wanted raw levels on the scale of the pristine host's VBM, in eV."""
        shift = self.scale.e_vbm_ev + self.mean_shift_ev
        return {c: v - shift if BY_COLUMN[c].is_level else v for c, v in values.items()}

    def to_raw(self, values: Mapping[str, float], configuration: Configuration) -> dict[str, float]:
        """Predicted values with levels on the zero of the configuration's own cell, in eV."""
        return {c: self.scale.to_raw(v, configuration) if BY_COLUMN[c].is_level else v for c, v in values.items()}

    def widen(self, column: str, half_width_ev: float) -> float:
        """Half-width of the 90 % interval of a raw level, with the scatter of the zero's fitted shift added."""
        return math.hypot(half_width_ev, 1.645 * self.scale.scatter_ev) if BY_COLUMN[column].is_level else half_width_ev


@dataclass
class Tally:
    """Counts of a run: how many proposals came, were valid, and were distinct for their target."""

    proposed: int = 0
    valid: int = 0
    distinct: int = 0
    seconds: float = 0.0


def design(
    host: Host,
    targets: Sequence[Target],
    proposer: Proposer,
    scorer: Scorer,
    known: Collection[str],
    settings: DesignSettings,
    *,
    raw: RawReference | None = None,
    warnings: Sequence[str] = (),
    extra: Mapping[str, object] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> DesignRun:
    """Ranked, symmetry-distinct candidates for each target.

    Args:
        host: what is decorated.
        targets: on the scale that `raw` decides.
        proposer: where configurations come from.
        scorer: predicts the properties.
        known: canonical keys of the training structures; all others are novel.
        settings: see `DesignSettings`.
        raw: given if levels of targets and results refer to the data's own zero.
        warnings: shown with the result.
        extra: settings to report besides those of this function.
        progress: called with the number of new proposals.

    Returns:
        The run; after Ctrl-C what was there by then, with ``complete=False``.
    """
    proposals, tally, complete = collect(host, targets, proposer, settings, raw=raw, progress=progress)
    ranked: list[Candidate] = []
    notes = list(warnings)
    for target in targets:
        candidates = rank(target, proposals[target.id], scorer, known, raw, by=settings.rank_by)
        if complete and len(candidates) < settings.n:
            notes.append(f"target {target.id}: {len(candidates)} distinct candidates found, {settings.n} asked for.")
        ranked += candidates[: settings.n]
    beyond = sum(not candidate.uncertainty for candidate in ranked)
    if beyond:
        notes.append(
            f"{beyond} of {len(ranked)} candidates are unlike anything that the surrogate was trained on: "
            "their values are extrapolated and have no interval."
        )
    facts = {
        "n": settings.n,
        "samples_per_target": settings.samples,
        "rank_by": settings.rank_by,
        "seed": settings.seed,
        "proposed": tally.proposed,
        "valid": tally.valid,
        "distinct": tally.distinct,
        "generation_seconds": round(tally.seconds, 2),
    }
    return DesignRun(
        host=host,
        reference=RAW if raw else PRISTINE_VBM,
        candidates=tuple(ranked),
        settings={**(extra or {}), **facts},
        warnings=tuple(notes),
        complete=complete,
        targets=tuple(targets),
    )


def relax_top(
    run: DesignRun,
    relax: Callable[[Configuration], Relaxation],
    top: int,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> DesignRun:
    """The run with the best candidates of each target relaxed; ranks and predictions stay as they are.

    Args:
        run: the run.
        relax: relaxes the unrelaxed structure of a configuration.
        top: how many of each target.
        progress: called with the number of candidates done.

    Returns:
        The run; after Ctrl-C with what was relaxed by then. Relaxations that diverged are kept, with a warning.
    """
    found: dict[str, Relaxation] = {}
    complete = run.complete
    chosen = [candidate for target in run.targets for candidate in run.of(target)[:top]]
    try:
        for candidate in chosen:
            configuration = candidate.configuration.canonical()
            if configuration.key not in found:
                found[configuration.key] = relax(configuration)
            progress(1)
    except KeyboardInterrupt:
        complete = False
    keys = {id(candidate): candidate.configuration.canonical().key for candidate in chosen}
    candidates = tuple(
        replace(c, relaxation=found[keys[id(c)]]) if keys.get(id(c)) in found else c for c in run.candidates
    )
    notes = list(run.warnings)
    bad = sorted(result.summary for result in found.values() if not result.usable)
    if bad:
        notes.append(f"{len(bad)} of {len(found)} relaxations diverged and are not to be used, e.g. {bad[0]}.")
    by = sorted({result.potential for result in found.values()})
    settings = {**run.settings, "relaxed": len(found), "relaxed_by": ", ".join(by) or None}
    return replace(run, candidates=candidates, settings=settings, complete=complete, warnings=tuple(notes))


def collect(
    host: Host,
    targets: Sequence[Target],
    proposer: Proposer,
    settings: DesignSettings,
    *,
    raw: RawReference | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, dict[str, Configuration]], Tally, bool]:
    """Distinct proposals for each target id by canonical key, counts, and whether nothing interrupted it."""
    found: dict[str, dict[str, Configuration]] = {target.id: {} for target in targets}
    tally = Tally()
    started = time.monotonic()
    complete = True
    try:
        for number in range(MAX_ROUNDS):
            wanting = [t for t in targets if number == 0 or len(found[t.id]) < settings.n]
            asks = [(target.id, ask) for target in wanting for ask in _asks(target, number, settings, raw)]
            for proposal in proposer.propose(host, [ask for _, ask in asks]) if asks else ():
                tally.proposed += 1
                if proposal.configuration is not None:
                    tally.valid += 1
                    found[asks[proposal.ask][0]].setdefault(proposal.configuration.key, proposal.configuration)
                if number == 0:
                    progress(1)
    except KeyboardInterrupt:
        complete = False
    tally.distinct = sum(len(configurations) for configurations in found.values())
    tally.seconds = time.monotonic() - started
    return found, tally, complete


def _asks(target: Target, number: int, settings: DesignSettings, raw: RawReference | None) -> list[Ask]:
    """What is asked of the proposer for one target in one round.

    A share of the proposals is for each wanted property alone: where no structure has all of them at
    once, these reach the nearest compromise, which the joint wish can miss.
    """
    wanted = raw.to_vbm(dict(target.values)) if raw else dict(target.values)
    alone = [{column: value} for column, value in wanted.items()] if len(wanted) > 1 else []
    each = int(settings.samples * SINGLE_SHARE) // max(len(alone), 1) if alone else 0
    sizes = [(wanted, settings.samples - each * len(alone)), *((values, each) for values in alone)]
    return [
        Ask(values, size, seed_for(settings.seed, target.id, number, part), whole=part == 0)
        for part, (values, size) in enumerate(sizes)
        if size
    ]


def rank(
    target: Target,
    configurations: Mapping[str, Configuration],
    scorer: Scorer,
    known: Collection[str],
    raw: RawReference | None = None,
    *,
    by: RankBy = "expected",
) -> list[Candidate]:
    """Candidates of one target, best first; ties in the order of their keys.

    Args:
        target: what is wanted.
        configurations: by canonical key.
        scorer: predicts the properties.
        known: canonical keys that are not novel.
        raw: given if the target is on the data's own zero.
        by: ``distance`` of the predicted values, or the ``expected`` distance, which counts their
            uncertainty too: of two equally near structures the better known one comes first.
    """
    keys = sorted(configurations)
    if not keys:
        return []
    scores = scorer.score([configurations[key] for key in keys])
    if scores.height != len(keys):
        raise DefectgenError(f"the scorer returned {scores.height} rows for {len(keys)} configurations.")
    found = []
    for key, row in zip(keys, scores.iter_rows(named=True), strict=True):
        predicted = {column: float(row[column]) for column in COLUMNS if row.get(column) is not None}
        if raw:
            predicted = raw.to_raw(predicted, configurations[key])
        missing = [BY_COLUMN[column].title for column, _ in target.values if column not in predicted]
        if missing and row.get("in_domain") is False:
            continue  # too far from all that the scorer knows
        if missing:
            raise UsageError(
                f"the scorer has no {missing[0]} for {configurations[key].label}.", "Leave that target out."
            )
        uncertainty = {
            column: float(row[uncertainty_column(column)])
            for column in predicted
            if row.get(uncertainty_column(column)) is not None and row.get("in_domain", True)
        }
        if raw:
            uncertainty = {column: raw.widen(column, width) for column, width in uncertainty.items()}
        distance = target.distance_ev(predicted)
        distance = distance if np.isfinite(distance) else np.inf
        found.append(Candidate(1, target, configurations[key], predicted, uncertainty, distance, key not in known))
    found.sort(key=lambda c: (c.expected_ev if by == "expected" else 0.0, c.distance_ev, c.configuration.key))
    return [replace(candidate, rank=place) for place, candidate in enumerate(found, 1)]
