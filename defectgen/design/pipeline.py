"""From targets to ranked candidates: propose, predict, keep the best of each target."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.design.candidates import PRISTINE_VBM, RAW, Candidate, DesignRun, Target
from defectgen.design.fronts import FrontFinder
from defectgen.design.proposers import Ask, Proposal, Proposer
from defectgen.design.ranking import NO_LABELS, Labels, RankBy, Shortlist, score_batch
from defectgen.design.raw_reference import RawReference
from defectgen.design.seeds import seed_for
from defectgen.design.verdict import Verdict
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.protocol import Scorer

SINGLE_SHARE = 0.25
"""Share of a target's proposals that ask for one of its properties alone."""

STARTS = 8
"""Of the best so far, from which a search starts."""

MAX_ROUNDS = 4
"""Rounds of proposals for a target that has too few distinct ones."""

BATCH = 4096
"""Structures that are scored together."""

KEPT_PER_CANDIDATE = 16
KEPT = 512
"""Structures that a target keeps before the like are put together: so many a candidate, and no fewer than so many."""


@dataclass(frozen=True)
class DesignSettings:
    """What a design run does besides its targets.

    Attributes:
        n: candidates to return for each target.
        samples: proposals to draw for each target before ranking.
        seed: of all draws.
        rank_by: what decides the order, see `defectgen.design.ranking.Shortlist`.
        diverse: whether a candidate stands for those like it.
        novel: whether structures that are known are left out.
        spare: candidates beyond `n`, for a step that may leave out some.
    """

    n: int = 16
    samples: int = 256
    seed: int = 0
    rank_by: RankBy = "expected"
    diverse: bool = False
    novel: bool = False
    spare: int = 0

    @property
    def kept(self) -> int:
        """Structures that each target keeps."""
        return max(KEPT, KEPT_PER_CANDIDATE * self.n) if self.diverse else self.n + self.spare


@dataclass
class Tally:
    """Counts of a run: how many proposals came, were valid, and were distinct for their target."""

    proposed: int = 0
    valid: int = 0
    distinct: int = 0
    seconds: float = 0.0
    by_origin: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Stage:
    """One proposer of a run.

    Attributes:
        name: shown as the origin of candidates.
        make: makes the proposer when its turn comes; it may be costly.
        repeats: whether asking again gives other proposals.
        gains: tells whether a target has a use for it; None for always.
        is_optional: whether the run goes on with a warning if it cannot be made.
    """

    name: str
    make: Callable[[], Proposer]
    repeats: bool = True
    gains: Callable[[Search, Target], bool] | None = None
    is_optional: bool = False


class Search:
    """The shortlists and fronts of all targets while proposers run one after the other."""

    def __init__(
        self,
        host: Host,
        targets: Sequence[Target],
        scorer: Scorer,
        settings: DesignSettings,
        *,
        known: Container[str] = (),
        labels: Labels = NO_LABELS,
        raw: RawReference | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Empty shortlists; see `design` for the arguments."""
        self.host, self.targets, self.scorer, self.settings = host, targets, scorer, settings
        self.known, self.labels, self.raw, self.progress = known, labels, raw, progress
        self.shortlists = {t.id: Shortlist(t, settings.kept, settings.rank_by) for t in targets}
        self.fronts = {t.id: FrontFinder(t) for t in targets}
        self.tally = Tally()
        self._seen: dict[str, set[int]] = {target.id: set() for target in targets}
        self._everyone: set[int] = set()
        self._told: set[int] = set()
        self.notes: list[str] = []
        self.beyond: set[str] = set()

    def run(self, stage: Stage) -> None:
        """Let one proposer propose to the targets that have a use for it."""
        started = time.monotonic()
        wanting = [target for target in self.targets if stage.gains is None or stage.gains(self, target)]
        proposer = self._make(stage) if wanting else None
        try:
            for number in range(MAX_ROUNDS if stage.repeats else 1):
                if number:
                    wanting = [t for t in wanting if self.n_distinct(t) < self.settings.n]
                if proposer is None or not wanting:
                    break
                asks = [(t, ask) for t in wanting for ask in self._asks(t, number)]
                for batch in _batches(proposer.propose(self.host, [ask for _, ask in asks]), self._tell):
                    self._take(stage.name, batch, [target for target, _ in asks], wanting)
        finally:
            self.tally.seconds += time.monotonic() - started

    def _tell(self, proposal: Proposal) -> None:
        """Count a structure that none has proposed before: labelled ones come once more from a listing."""
        if proposal.configuration is not None and (key := hash(proposal.configuration.key)) not in self._told:
            self._told.add(key)
            self.progress(1)

    def _make(self, stage: Stage) -> Proposer | None:
        try:
            return stage.make()
        except DefectgenError as error:
            if not stage.is_optional or isinstance(error, UsageError):
                raise
            self.notes.append(f"went without the proposer {stage.name}: {error}")
            return None

    def n_distinct(self, target: Target) -> int:
        """How many distinct structures were offered to a target."""
        return len(self._seen[target.id] | self._everyone)

    def _take(self, name: str, batch: Sequence[Proposal], asked: Sequence[Target], wanting: Sequence[Target]) -> None:
        """Score the new ones of a batch and offer them."""
        self.tally.proposed += len(batch)
        self.tally.by_origin[name] += len(batch)
        items: dict[str, Configuration] = {}
        shared: list[int] = []
        own: dict[str, list[int]] = {}
        place: dict[str, int] = {}
        for proposal in batch:
            if proposal.configuration is None:
                continue
            self.tally.valid += 1
            key = proposal.configuration.key
            if self.settings.novel and (key in self.known or key in self.labels):
                continue
            if key not in items:
                place[key] = len(items)
                items[key] = proposal.configuration
            if proposal.ask is None:
                shared.append(place[key])
                self._everyone.add(hash(key))
            else:
                own.setdefault(asked[proposal.ask].id, []).append(place[key])
                self._seen[asked[proposal.ask].id].add(hash(key))
        if not items:
            return
        scored = score_batch(list(items.values()), self.scorer, self.labels, self.raw)
        self.beyond.update(scored.configurations[row].key for row in np.flatnonzero(scored.beyond).tolist())
        for target in wanting:
            rows = list(dict.fromkeys([*shared, *own.get(target.id, ())]))
            if rows:
                self.shortlists[target.id].offer(scored, name, rows)
                self.fronts[target.id].offer(scored, rows)

    def _asks(self, target: Target, number: int) -> list[Ask]:
        """What is asked of a proposer for one target in one round.

        A share of the proposals is for each wanted property alone: where no structure has all of them at
        once, these reach the nearest compromise, which the joint wish can miss.
        """
        objective = self.raw.target_to_vbm(target) if self.raw else target
        wanted, settings = dict(objective.values), self.settings
        alone = [{column: value} for column, value in wanted.items()] if len(wanted) > 1 else []
        each = int(settings.samples * SINGLE_SHARE) // max(len(alone), 1) if alone else 0
        sizes = [(wanted, settings.samples - each * len(alone)), *((values, each) for values in alone)]
        return [
            Ask(
                values,
                size,
                seed_for(settings.seed, target.id, number, part),
                part == 0,
                None if part else objective,
                () if part else self._best(target),
            )
            for part, (values, size) in enumerate(sizes)
            if size
        ]

    def _best(self, target: Target) -> tuple[Configuration, ...]:
        """What is best so far, for a search to start from."""
        entries = self.shortlists[target.id].best() if self.n_distinct(target) else []
        return tuple(entry.batch.configurations[entry.row] for entry in entries[:STARTS])


def _batches(proposals: Iterator[Proposal], tell: Callable[[Proposal], None]) -> Iterator[list[Proposal]]:
    """Lists of proposals; what there was before an interruption comes before it."""
    some: list[Proposal] = []
    try:
        for proposal in proposals:
            some.append(proposal)
            tell(proposal)
            if len(some) == BATCH:
                yield some
                some = []
    except KeyboardInterrupt:
        if some:
            yield some
        raise
    if some:
        yield some


def design(
    host: Host,
    targets: Sequence[Target],
    stages: Proposer | Sequence[Stage],
    scorer: Scorer,
    known: Container[str],
    settings: DesignSettings,
    *,
    labels: Labels = NO_LABELS,
    raw: RawReference | None = None,
    warnings: Sequence[str] = (),
    extra: Mapping[str, object] | None = None,
    conclude: Callable[[Search], Sequence[Verdict]] = lambda _: (),
    progress: Callable[[int], None] = lambda _: None,
) -> DesignRun:
    """Ranked, symmetry-distinct candidates for each target.

    Args:
        host: what is decorated.
        targets: on the scale that `raw` decides.
        stages: where configurations come from, one after the other.
        scorer: predicts the properties.
        known: canonical keys of the training structures; all others without a label are novel.
        settings: see `DesignSettings`.
        labels: of DFT, by canonical key, relative to the pristine host's VBM.
        raw: given if levels of targets and results refer to the data's own zero.
        warnings: shown with the result.
        extra: settings to report besides those of this function.
        conclude: what there is to say of each target after a finished search.
        progress: called with the number of new structures, those that nothing has proposed before.

    Returns:
        The run; after Ctrl-C what was there by then, with ``complete=False``.
    """
    found = Search(
        host, targets, scorer, settings, known=known, labels=labels, raw=raw, progress=progress,
    )  # fmt: skip
    complete = True
    try:
        for stage in [stages_of(stages)] if not isinstance(stages, Sequence) else stages:
            found.run(stage)
    except KeyboardInterrupt:
        complete = False
    ranked = [c for t in targets for c in _ranked(found.shortlists[t.id], known, settings)]
    verdicts = tuple(conclude(found)) if complete else ()
    notes = [*warnings, *found.notes]
    for target in targets:
        number = sum(candidate.target is target for candidate in ranked)
        if complete and number < settings.n:
            notes.append(f"target {target.id}: {number} distinct candidates found, {settings.n} asked for.")
    notes += _without_intervals(ranked, found.beyond)
    tally = found.tally
    facts = {
        "n": settings.n,
        "samples_per_target": settings.samples,
        "rank_by": settings.rank_by,
        "diverse": settings.diverse,
        "novel_only": settings.novel,
        "seed": settings.seed,
        "proposed": tally.proposed,
        "proposed_by": dict(tally.by_origin),
        "valid": tally.valid,
        "distinct": sum(found.n_distinct(target) for target in targets),
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
        verdicts=verdicts,
        fronts=tuple(found.fronts[target.id].front(known) for target in targets),
    )


def _ranked(shortlist: Shortlist, known: Container[str], settings: DesignSettings) -> list[Candidate]:
    """The candidates of a target, then the spare ones."""
    first = shortlist.candidates(settings.n, known, settings.diverse)
    if not settings.spare:
        return first
    taken = {candidate.configuration.key for candidate in first}
    more = shortlist.candidates(settings.n + settings.spare, known, settings.diverse)
    others = [candidate for candidate in more if candidate.configuration.key not in taken]
    return first + [replace(candidate, rank=place) for place, candidate in enumerate(others, len(first) + 1)]


def stages_of(proposer: Proposer) -> Stage:
    """One proposer that is there already as a stage."""
    return Stage(type(proposer).__name__, lambda: proposer)


def _without_intervals(ranked: Sequence[Candidate], beyond: Collection[str]) -> list[str]:
    """How many candidates have predicted values without an interval, by the reason.

    Args:
        ranked: all candidates.
        beyond: keys of structures that the scorer was not made for.
    """
    bare = [candidate.configuration.key for candidate in ranked if not (candidate.uncertainty or candidate.dft)]
    unlike = sum(key in beyond for key in bare)
    reasons = (
        "are unlike anything that the surrogate was trained on: their values are extrapolated and have no interval.",
        "have values without an interval: what predicts them gives none.",
    )
    numbers = zip((unlike, len(bare) - unlike), reasons, strict=True)
    return [f"{number} of {len(ranked)} candidates {why}" for number, why in numbers if number]
