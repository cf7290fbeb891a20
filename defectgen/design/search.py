"""The proposer `search`: many starts of annealing, crossings of what was found, and trees of edits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.names import short_text
from defectgen.design.edit_moves import Edits
from defectgen.design.landscape import (
    STAY,
    Account,
    Archive,
    Landscape,
    crowded_model,
    edits_of,
)
from defectgen.design.limits import Space
from defectgen.design.proposers import Ask, Budget, Proposal, ProposerOptions
from defectgen.design.ranking import Shortlist, score_batch
from defectgen.design.seeds import seed_for
from defectgen.design.tree_search import Prior, SparingPrior, tree_search
from defectgen.design.widths import WidthModel
from defectgen.errors import UsageError
from defectgen.one_line import OneLine
from defectgen.score.protocol import Scorer
from defectgen.score.threads import single_blas

Indices = NDArray[np.int64]

USUAL_BUDGET = Budget(evaluations=20_000)
"""For each target, where the user names none."""

WIDTH = 48
"""Neighbours of which one is chosen in each step."""

STEPS = 12
"""Steps of one walk."""

HOT, COLD_EV = 0.3, 1e-3
"""Temperatures of a walk: first in units of the spread of the first neighbours' distances, and the last one."""

WARM_EV = 0.02
"""First temperature of a walk that starts from something good."""

TREE_EVERY, TREE_SHARE = 4, 0.08
"""After so many walks a tree takes so large a share of the budget."""

FIRST_TREE_SHARE = 0.04
"""Of the budget, for a tree below the best of the first look, for either distance."""

DRAWN_SHARE = 0.2
"""Of a budget in seconds, for what a guide draws to begin with."""

KEPT = 2048
"""Decorations that are remembered by their expected distance."""

FIRST_LOOK, LOOK = 128, 64
"""Decorations that are scored in full, with their uncertainty: random ones at first, the best ones after each walk."""

FIRST_SHARE = 0.125
"""Of a budget in structures, for the first look."""

PARENTS = 24
"""Of the best decorations, of which two are crossed."""

RANDOM_STARTS = 0.2
"""Share of the walks that begin anew."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search hands over.

    Attributes:
        configurations: canonical and distinct, best first: by the expected distance, which counts the uncertainty.
        distances_ev: predicted distance of each to the target, without it.
        evaluated: structures that were scored.
        complete: False if Ctrl-C ended the search; the others are what it had by then.
    """

    configurations: tuple[Configuration, ...]
    distances_ev: tuple[float, ...]
    evaluated: int
    complete: bool = True


class EditGuide(Protocol):
    """A model of decorations that knows the target, e.g. `defectgen.design.model_guide.ModelGuide`."""

    def drawn(self, host: Host, ask: Ask, left_s: Callable[[], float] | None) -> Sequence[Configuration]:
        """What it proposes to begin with; `left_s` gives the seconds that are left for it, None for no limit."""
        ...

    def prior(self, ask: Ask, edits: Edits) -> Prior | None:
        """How likely edits are; None if it does not say."""
        ...


@dataclass(frozen=True, repr=False)
class SearchProposer(OneLine):
    """Looks for decorations that are near the target, as far as the uncertainty of the predictions tells.

    The expected distance, which ranks a design, guides one half of the walks, the distance of the predicted values the
    other half. Exact values and intervals cost too much for every step: a walk goes by fast values, corrected by what
    they lack where it begins, and by intervals guessed from the composition; the best of each walk are scored in full,
    and the guess learns from these.

    With a budget in evaluations the same seed gives the same proposals.

    Attributes:
        space: the decorations that there are.
        scorer: predicts; fast for crowded cells of a surrogate.
        budget: for each ask.
        start: decorations to begin with, e.g. of a file, before those of an ask.
        guide: gives more to begin with and the prior of the trees, e.g. a language model; None for none.
        clock: what a budget in seconds is measured by.
    """

    space: Space
    scorer: Scorer
    budget: Budget = USUAL_BUDGET
    start: tuple[Configuration, ...] = ()
    guide: EditGuide | None = None
    clock: Callable[[], float] = time.monotonic

    def propose(self, _: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `defectgen.design.proposers.Proposer`: the best of each ask for a whole target first, then `start`.

        After Ctrl-C, which goes on to the caller, the best by then.
        """
        for index, ask in enumerate(asks):
            if ask.whole:
                result = self._search(ask)
                own = canonicalize(self.start) if self.start else []
                for configuration in {item.key: item for item in (*result.configurations, *own)}.values():
                    yield Proposal(index, configuration)
                if not result.complete:
                    raise KeyboardInterrupt

    def find(self, ask: Ask) -> SearchResult:
        """The best `ask.n` distinct decorations for one ask.

        Raises:
            UsageError: a property that the scorer does not predict, limits that leave nothing, or a start beyond them.
        """
        result = self._search(ask)
        if not result.complete:
            raise KeyboardInterrupt
        return result

    def _search(self, ask: Ask) -> SearchResult:
        """As `find`; after Ctrl-C what was scored by then."""
        account = Account(self.budget, clock=self.clock)
        target = ask.objective
        columns = tuple(wish.column for wish in target.wishes)
        crowded = crowded_model(self.scorer, self.space.host, columns)
        edits = edits_of(self.space, crowded)
        model = None if crowded is None else crowded[0]
        rng = np.random.default_rng(seed_for(ask.seed, "search"))
        guides = [
            (Landscape(target, edits, self.scorer, model, widths), Archive(KEPT))
            for widths in (WidthModel(columns), None)
        ]
        own = [self._begin(edits, item) for item in self.start]
        drawn: Sequence[Configuration] = ()
        prior = None
        if self.guide is not None:
            drawn = self.guide.drawn(self.space.host, ask, account.seconds_for(DRAWN_SHARE))
            whole = self.guide.prior(ask, edits)
            prior = None if whole is None else SparingPrior(whole, account)
        starts = [*own, *(kinds for item in (*ask.start, *drawn) if (kinds := edits.kinds_of(item)) is not None)]
        walks, seen = 0, Seen(guides, account, ask.n)
        first = FIRST_LOOK if self.budget.evaluations is None else int(self.budget.evaluations * FIRST_SHARE)
        try:
            with single_blas():
                seen.look([*starts, *(edits.draw(rng) for _ in range(min(first, FIRST_LOOK)))])
                for landscape, archive in reversed(guides):
                    if account.spent < 1 and (best := archive.best(1)):
                        until = min(account.spent + FIRST_TREE_SHARE, 1.0)
                        root = best[0][1]
                        tree_search(landscape.near([root], archive), root, until, account, archive, rng, prior)
                        seen.look(archive.unseen(LOOK))
                while account.spent < 1:
                    landscape, archive = guides[walks % len(guides)]
                    kind_of, like = _start(landscape, starts, walks, archive, rng)
                    _walk(landscape.near(like, archive), kind_of, bool(like), account, archive, rng)
                    if account.spent < 1:
                        seen.look(archive.unseen(LOOK))
                    walks += 1
                    if walks % TREE_EVERY == 0:
                        best = archive.best(PARENTS)
                        root = best[int(rng.integers(len(best)))][1]
                        until = min(account.spent + TREE_SHARE, 1.0)
                        tree_search(landscape.near([root], archive), root, until, account, archive, rng, prior)
                for _, archive in guides:
                    seen.look(archive.unseen(seen.finalists))
        except KeyboardInterrupt:
            if not len(seen):
                raise
            return replace(seen.best(ask.n), complete=False)
        return seen.best(ask.n)

    @staticmethod
    def _begin(edits: Edits, item: Configuration) -> Indices:
        """The kinds of defects on each site of a structure to begin with."""
        kinds = edits.kinds_of(item)
        if kinds is None:
            number = f"{item.n_defects} defect{'' if item.n_defects == 1 else 's'}"
            raise UsageError(
                f"the search cannot begin with {short_text(item.label)} ({number}): it looks at {edits.least} to "
                f"{edits.most} defects, of the kinds and numbers that the limits and the surrogate leave.",
                "Begin with another structure (--from), or give other limits.",
            )
        return kinds


class Seen:
    """What was scored in full: the nearest, and those of least expected distance."""

    def __init__(self, guides: Sequence[tuple[Landscape, Archive]], account: Account, n: int) -> None:
        """For the best `n` of each sort, or somewhat more."""
        self._guides, self._account = guides, account
        target, capacity = guides[0][0].target, 2 * n
        self._near, self._expected = Shortlist(target, capacity, "distance"), Shortlist(target, capacity)
        self._wanted, self._each_s = n, np.inf

    def __len__(self) -> int:
        return len(self._expected)

    @property
    def finalists(self) -> int:
        """Decorations of each archive that are looked at when the budget is spent."""
        return max(LOOK // 2, self._wanted - len(self))

    def look(self, decorations: Sequence[Indices]) -> None:
        """Score decorations in full, correct what the archives say of them, and learn how wide intervals are."""
        if not len(decorations):
            return
        edits, target = self._guides[0][0].edits, self._guides[0][0].target
        columns = [wish.column for wish in target.wishes]
        items = canonicalize([edits.configuration(kind_of) for kind_of in decorations])
        self._account.evaluated += len(items)
        started = self._account.clock()
        batch = score_batch(items, self._guides[0][0].scorer)
        for shortlist in (self._near, self._expected):
            shortlist.offer(batch)
        self._each_s = min(self._each_s, (self._account.clock() - started) / len(items))
        self._account.kept_s = self._each_s * sum(self.finalists for _ in self._guides)
        if not all(column in batch.values for column in columns):
            return
        n_kinds = len(edits.lows)
        counts = np.array([np.bincount(kind_of[kind_of >= 0], minlength=n_kinds) for kind_of in decorations])
        for landscape, archive in self._guides:
            found = target.distances_ev(batch.values)
            if landscape.widths is not None:
                landscape.widths.learn(counts, [batch.half_widths[column] for column in columns])
                if landscape.widths.is_fitted:
                    found = target.expected_ev(batch.values, batch.half_widths)
            for row, (distance, kind_of) in enumerate(zip(found.tolist(), decorations, strict=True)):
                exact = {column: float(batch.values[column][row]) for column in columns}
                archive.correct(np.inf if np.isnan(distance) else distance, kind_of, exact)

    def best(self, n: int) -> SearchResult:
        """Half the nearest, half those of least expected distance, ranked as a design does."""
        pairs = zip_longest(self._near.best(), self._expected.best())
        chosen = {entry.key: entry for pair in pairs for entry in pair if entry is not None}
        ranked = Shortlist(self._guides[0][0].target)
        for entry in list(chosen.values())[:n]:
            ranked.offer(entry.batch, rows=[entry.row])
        found = ranked.candidates(n, ())
        return SearchResult(
            tuple(candidate.configuration for candidate in found),
            tuple(candidate.distance_ev for candidate in found),
            self._account.evaluated,
        )


def _start(
    landscape: Landscape, starts: Sequence[Indices], walks: int, archive: Archive, rng: np.random.Generator
) -> tuple[Indices, Sequence[Indices]]:
    """Where a walk begins, and what good ones that is like: itself, the parents, or none for a random one."""
    if walks < len(starts):
        return starts[walks], [starts[walks]]
    best = archive.best(PARENTS)
    if len(best) < 2 or rng.random() < RANDOM_STARTS:
        return landscape.edits.draw(rng), []
    first, second = (best[int(k)][1] for k in rng.choice(len(best), 2, replace=False))
    image = landscape.edits.configuration(second).random_image(rng)
    other = landscape.edits.kinds_of(image)
    child = None if other is None else landscape.edits.crossed(first, other, rng)
    return (first, [first]) if child is None else (child, [first, second])


def _walk(
    landscape: Landscape, kind_of: Indices, warm: bool, account: Account, archive: Archive, rng: np.random.Generator
) -> None:
    """Annealing: of each step's neighbours and the decoration itself one is drawn by its Boltzmann factor."""
    walker = landscape.walker(kind_of)
    distance = float(landscape.distances(walker, STAY, account, archive)[0])
    hot = WARM_EV if warm else np.nan
    for step in range(STEPS):
        if account.spent >= 1:
            return
        moves = landscape.edits.block(walker.kind_of, rng, WIDTH)
        if not len(moves):
            return
        found = landscape.distances(walker, moves, account, archive)
        there = found[np.isfinite(found)]
        if not len(there):
            continue
        if np.isnan(hot):
            hot = max(HOT * float(there.std()), 2 * COLD_EV)
        temperature = hot * (COLD_EV / hot) ** (step / (STEPS - 1))
        everything = np.append(found, distance if np.isfinite(distance) else 1e9)
        weights = np.exp(-(everything - everything.min()) / temperature)
        chosen = int(rng.choice(len(everything), p=weights / weights.sum()))
        if chosen < len(found):
            walker.accept(moves, chosen)
            distance = float(found[chosen])


def search_proposer(options: ProposerOptions, name: str = "search", guide: EditGuide | None = None) -> SearchProposer:
    """The search that options describe.

    Args:
        options: space, scorer, budget, and what to begin with.
        name: of the proposer.
        guide: see `SearchProposer`.

    Raises:
        UsageError: no scorer, no largest number of defects, or limits that leave nothing.
    """
    endless = options.budget.seconds is None and options.budget.evaluations is None
    budget = USUAL_BUDGET if endless else options.budget
    return SearchProposer(options.space, options.required_scorer(name), budget, options.start, guide)
