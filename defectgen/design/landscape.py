"""How far decorations and their neighbours are from a target, what was seen so far, and what is left of a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import Target
from defectgen.design.edit_moves import Edits
from defectgen.design.limits import Space
from defectgen.design.proposers import Budget
from defectgen.design.widths import WidthModel
from defectgen.errors import UsageError
from defectgen.score.absent_values import instead_of
from defectgen.score.protocol import Scorer
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.high_density import DenseModels
from defectgen.score.surrogate.host_models import HostModels
from defectgen.score.surrogate.incremental import Moves, State
from defectgen.score.surrogate.mean_values import MeanModel

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


MOST_KEPT = 0.25
"""Share of a budget in seconds that may be kept for the end."""


STAY = Moves.of([((), ())])
"""The move that changes nothing."""


class Walker(Protocol):
    """One decoration whose neighbours are scored."""

    kind_of: Indices

    def propose(self, moves: Moves) -> dict[str, Array]:
        """Predicted values after each move, by property in its unit."""
        ...

    def accept(self, moves: Moves, row: int = 0) -> None:
        """Make one of the moves."""
        ...


class ScoredWalker:
    """A walker for any scorer: each neighbour is scored in full."""

    def __init__(self, scorer: Scorer, edits: Edits, kind_of: Indices) -> None:
        """Begin with the kinds of defects on each site."""
        self._scorer, self._edits, self.kind_of = scorer, edits, kind_of.copy()

    def propose(self, moves: Moves) -> dict[str, Array]:
        """See `Walker`."""
        items = [self._edits.configuration(moves.applied(self.kind_of, row)) for row in range(len(moves))]
        scores = self._scorer.score(canonicalize(items))
        return {name: scores[name].cast(float).fill_null(np.nan).to_numpy() for name in scores.columns}

    def accept(self, moves: Moves, row: int = 0) -> None:
        """See `Walker`."""
        self.kind_of = moves.applied(self.kind_of, row)


@dataclass
class Account:
    """What was spent of a budget.

    Attributes:
        budget: the limits.
        evaluated: structures that were scored.
        clock: gives seconds, of wall time or of the process.
        kept_s: seconds that are left for the end; no more than `MOST_KEPT` of the budget.
    """

    budget: Budget
    evaluated: int = 0
    clock: Callable[[], float] = time.monotonic
    kept_s: float = 0.0
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def spent(self) -> float:
        """Share of the budget that is spent; the larger one of time and number."""
        shares = [0.0]
        if self.budget.seconds is not None:
            shares.append((self.clock() - self._started) / self._free_s(self.budget.seconds))
        if self.budget.evaluations is not None:
            shares.append(self.evaluated / self.budget.evaluations)
        return max(shares)

    @property
    def seconds_left(self) -> float:
        """Until the time is spent, but for what is kept for the end; infinite without a limit in seconds."""
        if self.budget.seconds is None:
            return math.inf
        return self._free_s(self.budget.seconds) - (self.clock() - self._started)

    def seconds_for(self, share: float) -> Callable[[], float] | None:
        """Tells how many seconds are left until a share of the time is spent; None without a limit in seconds."""
        seconds = self.budget.seconds
        return None if seconds is None else lambda: self.seconds_left - (1 - share) * self._free_s(seconds)

    def _free_s(self, seconds: float) -> float:
        """Seconds of the budget that are not kept for the end."""
        return seconds - min(self.kept_s, MOST_KEPT * seconds)


class Archive:
    """The best decorations that were seen, and which of them were scored in full."""

    def __init__(self, capacity: int) -> None:
        """For so many, and as many more before the worst ones are dropped."""
        self._capacity = capacity
        self._looked_at: dict[bytes, Mapping[str, float]] = {}
        self._found: dict[bytes, tuple[float, Indices]] = {}
        self._worst = np.inf

    def offer(self, distances: Array, kind_of: Indices, moves: Moves) -> None:
        """Take the neighbours of a decoration that are nearer than the worst kept ones."""
        for row in np.flatnonzero(distances < self._worst):
            self.add(float(distances[row]), moves.applied(kind_of, int(row)))

    def add(self, distance: float, kind_of: Indices) -> None:
        """Take one; what is known of it already stays."""
        self._found.setdefault(kind_of.astype(np.int8).tobytes(), (distance, kind_of))
        self._trim()

    def correct(self, distance: float, kind_of: Indices, values: Mapping[str, float]) -> None:
        """Take one with its exact distance, in place of the guessed one, and remember its exact values."""
        key = kind_of.astype(np.int8).tobytes()
        self._looked_at[key] = values
        self._found[key] = (distance, kind_of)
        self._trim()

    def exact(self, kind_of: Indices) -> Mapping[str, float] | None:
        """Values of a decoration that was scored in full; None for another."""
        return self._looked_at.get(kind_of.astype(np.int8).tobytes())

    def _trim(self) -> None:
        if len(self._found) > 2 * self._capacity:
            kept = sorted(self._found.items(), key=lambda item: (item[1][0], item[0]))[: self._capacity]
            self._found, self._worst = dict(kept), kept[-1][1][0]

    def best(self, n: int) -> list[tuple[float, Indices]]:
        """The first `n`, best first."""
        found = sorted(self._found.items(), key=lambda item: (item[1][0], item[0]))
        return [entry for _, entry in found[:n]]

    def unseen(self, n: int) -> list[Indices]:
        """The first `n` of those that were not scored in full, best first."""
        found = sorted((entry[0], key) for key, entry in self._found.items() if key not in self._looked_at)
        return [self._found[key][1] for _, key in found[:n]]


@dataclass(frozen=True, eq=False)
class Landscape:
    """The expected distance of decorations to one target.

    Attributes:
        target: what is wanted, levels relative to the pristine host's VBM.
        edits: the decorations that there are.
        scorer: predicts.
        model: predicts crowded cells fast; None where `scorer` has none.
        widths: guesses how uncertain the predictions are; without it, or before it knows, distances count without.
        shifts: what is added to the fast values, by property in its unit: see `near`.
    """

    target: Target
    edits: Edits
    scorer: Scorer
    model: MeanModel | None
    widths: WidthModel | None = None
    shifts: Mapping[str, float] = field(default_factory=dict)

    def near(self, decorations: Sequence[Indices], archive: Archive) -> Landscape:
        """The same for what is like some decorations: their exact values, where known, say what the fast ones lack.

        The fast values go without the networks of a surrogate; part of what these add to a cell they add to its
        neighbours too.
        """
        if self.model is None:
            return self
        pairs = [(exact, kind_of) for kind_of in decorations if (exact := archive.exact(kind_of)) is not None]
        apart = []
        for exact, kind_of in pairs:
            fast = self.walker(kind_of).propose(STAY)
            apart.append({column: exact[column] - float(fast[column][0]) for column in fast if column in exact})
        shifts = {
            column: float(np.mean(found))
            for column in (apart[0] if apart else ())
            if np.isfinite(found := [some[column] for some in apart]).all()
        }
        return replace(self, shifts=shifts)

    def walker(self, kind_of: Indices) -> Walker:
        """Begin with a decoration."""
        if self.model is None:
            return ScoredWalker(self.scorer, self.edits, kind_of)
        rules, host = self.edits.host.rules, self.model.host
        sites = np.flatnonzero(kind_of >= 0)
        return State(self.model, Configuration.of(host, [(int(s), rules[kind_of[s]].replacement) for s in sites]))

    def distances(self, walker: Walker, moves: Moves, account: Account, archive: Archive) -> Array:
        """Expected for each neighbour, in eV, infinite without a prediction; what is near goes into the archive."""
        if not len(moves):
            return np.zeros(0)
        account.evaluated += len(moves)
        values = {column: found + self.shifts.get(column, 0.0) for column, found in walker.propose(moves).items()}
        columns = [wish.column for wish in self.target.wishes]
        missing = [column for column in columns if column not in values]
        if missing:
            item = BY_COLUMN[missing[0]]
            raise UsageError(
                f"the scorer has no values of {item.name.replace('_', ' ')}.",
                instead_of(item.column, values, f"Leave out --{item.option} ({item.option.replace('-', '_')}=)."),
            )
        if self.widths is not None and self.widths.is_fitted:
            counts = moves.counts(walker.kind_of, len(self.edits.lows))
            found = self.target.expected_ev(values, self.widths.guess(counts))
        else:
            found = self.target.distances_ev(values)
        found = np.where(np.isnan(found), np.inf, found)
        archive.offer(found, walker.kind_of, moves)
        return found


def crowded_model(scorer: Scorer, host: Host, columns: Sequence[str]) -> tuple[MeanModel, Indices, int, int] | None:
    """The fast means of a surrogate at high density, with the largest number of defects that it was trained on.

    Returns:
        The model, the most defects of each kind, the fewest and the most of all; None for another scorer or a host
        without such models.
    """
    part = _crowded_part(scorer, host)
    if part is None:
        return None
    return MeanModel(part, tuple(columns)), np.array(part.max_counts, dtype=np.int64), *part.defects_range


def has_crowded(scorer: Scorer | None, host: Host) -> bool:
    """Whether a scorer has fast means of crowded cells of a host."""
    return _crowded_part(scorer, host) is not None


def _crowded_part(scorer: Scorer | None, host: Host) -> HostModels | None:

    if not isinstance(scorer, Surrogate):
        return None
    fits = [part for part in scorer.parts if part.host == host.name and part.supercell == host.size]
    return next((part for part in fits if isinstance(part.models, DenseModels)), None)


def edits_of(space: Space, crowded: tuple[MeanModel, Indices, int, int] | None) -> Edits:
    """The decorations that both a space and a model's training rows leave; the space alone where these do not meet."""
    host = space.host if crowded is None else crowded[0].host
    limits = {(rule.element, rule.replacement): (low, high) for rule, low, high in space.counts}
    pairs = [limits.get((rule.element, rule.replacement), (0, 0)) for rule in host.rules]
    lows, highs = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in range(2))
    if crowded is None:
        return Edits(space, host, space.least, space.most, lows, highs)
    _, trained, fewest, most = crowded
    least, most = max(space.least, fewest), min(space.most, most)
    within = np.minimum(highs, trained)
    if least > most or (lows > within).any() or within.sum() < least:
        return Edits(space, host, space.least, space.most, lows, highs)
    return Edits(space, host, least, most, lows, within)
