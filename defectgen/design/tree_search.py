"""Tree search over edits: the surrogate is the value, and a model of edits may be the prior.

Banik et al., ACS Appl. Mater. Interfaces 13, 22, 25865 (2021), doi 10.1021/acsami.1c07545, search arrangements of
vacancies by Monte Carlo tree search. Here every node is a whole decoration, so that its predicted distance takes the
place of a playout; nodes are chosen as by Silver et al., Nature 550, 354 (2017), doi 10.1038/nature24270.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from defectgen.design.landscape import STAY, Account, Archive, Landscape
from defectgen.score.surrogate.incremental import Moves

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Prior = Callable[[Sequence[Indices]], Sequence[Array | None]]
"""From decorations (kind on each site) to the log-probability of each defect as the next one behind those on earlier
sites, shape (n_sites, n_kinds) each; what stands on a changed site included. None where it does not say."""

WIDTH = 24
"""Edits that are scored when a node is opened."""

BRANCHES = 12
"""Of these, how many become children: the nearest ones; with a prior those of the largest product with it."""

BLOCKS, BLOCK = 6, 512
"""With a prior the edits are drawn by it from so many blocks, each of one sort and at most so large."""

LEAVES = 4
"""With a prior so many nodes are opened together: a language model judges several for little more than one."""

PER_JUDGED = 1250
"""Structures of a budget for each decoration that a prior judges: a language model takes as long for one as the
surrogate for thousands of neighbours."""

EXPLORATION = 1.0
"""How much visits count beside values."""

SCALE_EV = 0.02
"""Distance at which a node is worth half of one that hits the target."""

TEMPERATURE_EV = 0.02
"""Of the prior that the distances themselves give."""


@dataclass(eq=False)
class _Node:
    """A decoration.

    Attributes:
        kind_of: kind of the defect on each site, -1 without one.
        distance: to the target, in eV.
        prior: probability that its parent gives it.
        visits: how often it was passed.
        best: largest worth of itself and all below.
        total: sum of the worths that came back through it.
        children: empty until it is opened.
    """

    kind_of: Indices
    distance: float
    prior: float = 1.0
    visits: int = 0
    best: float = 0.0
    total: float = 0.0
    children: list[_Node] = field(default_factory=list)

    def chosen(self) -> _Node:
        """The child with the best mean of mean and best worth, and the largest promise."""
        root = np.sqrt(self.visits + 1)
        return max(self.children, key=lambda c: c.worth + EXPLORATION * c.prior * root / (1 + c.visits))

    @property
    def worth(self) -> float:
        """What is to be expected below."""
        if not self.visits:
            return value_of(self.distance)
        return 0.5 * (self.best + self.total / self.visits)


@dataclass(eq=False)
class SparingPrior:
    """A prior that is asked for no more decorations than a budget allows, and says nothing of the others.

    Attributes:
        prior: says which edits are likely.
        account: of the search.
    """

    prior: Prior
    account: Account
    _judged: int = 0
    _slowest_s: float = 0.0

    def __call__(self, kinds: Sequence[Indices]) -> list[Array | None]:
        """See `Prior`; with a limit in seconds the first is judged alone, to see how long it takes."""
        number, left = len(kinds), self.account.seconds_left
        if self.account.budget.evaluations is not None:
            number = min(number, max(self.account.budget.evaluations // PER_JUDGED, 1) - self._judged)
        if math.isfinite(left):
            number = min(number, int(left / self._slowest_s) if self._judged else int(left > 0))
        asked = kinds[: max(number, 0)]
        if not asked:
            return [None] * len(kinds)
        started = self.account.clock()
        tables = list(self.prior(asked))
        self._slowest_s = max(self._slowest_s, (self.account.clock() - started) / len(asked), 1e-6)
        self._judged += len(asked)
        return [*tables, *[None] * (len(kinds) - len(asked))]


def value_of(distance_ev: float) -> float:
    """1 for a hit, falling to 0."""
    return SCALE_EV / (SCALE_EV + max(distance_ev, 0.0)) if np.isfinite(distance_ev) else 0.0


def tree_search(
    landscape: Landscape,
    start: Indices,
    until: float,
    account: Account,
    archive: Archive,
    rng: np.random.Generator,
    prior: Prior | None = None,
) -> None:
    """Open nodes below a decoration until a share of the budget is spent.

    Args:
        landscape: gives the distances.
        start: the root.
        until: share of the budget, 0 to 1.
        account: what is spent.
        archive: takes what is found.
        rng: draws the edits.
        prior: says which edits are likely; None for what the distances say.
    """
    root = _Node(start, float(landscape.distances(landscape.walker(start), STAY, account, archive)[0]))
    while account.spent < until:
        paths: list[list[_Node]] = []
        for _ in range(1 if prior is None else LEAVES):
            path = [root]
            while path[-1].children:
                path.append(path[-1].chosen())
            if any(path[-1] is other[-1] for other in paths):
                break
            paths.append(path)
            for node in path:  # as if nothing had been found, so that the next path is another one
                node.visits += 1
        tables: Sequence[Array | None] = [None] * len(paths)
        if prior is not None:
            tables = prior([path[-1].kind_of for path in paths])
        for path, table in zip(paths, tables, strict=True):
            leaf = path[-1]
            leaf.children = _opened(landscape, leaf, account, archive, rng, table)
            found = max((value_of(node.distance) for node in (leaf, *leaf.children)), default=0.0)
            for node in path:
                node.total += found
                node.best = max(node.best, found)
        if not root.children:
            return


def _opened(
    landscape: Landscape,
    node: _Node,
    account: Account,
    archive: Archive,
    rng: np.random.Generator,
    table: Array | None,
) -> list[_Node]:
    """The children of a node; with a table of log-probabilities it draws the edits and gives their priors."""
    if table is None:
        moves = landscape.edits.block(node.kind_of, rng, WIDTH)
    else:
        moves, likely = _likely_moves(landscape, node.kind_of, table, rng)
    if not len(moves):
        return []
    distances = landscape.distances(landscape.walker(node.kind_of), moves, account, archive)
    if not np.isfinite(distances.min()):
        return []
    weights = np.exp(-(distances - distances.min()) / TEMPERATURE_EV)
    if table is not None:
        weights = np.maximum(weights * likely, 1e-30)
    kept = np.lexsort((distances, -weights))[:BRANCHES]
    shares = weights[kept] / weights[kept].sum()
    children = [moves.applied(node.kind_of, int(row)) for row in kept]
    return [
        _Node(child, float(distances[k]), float(share)) for child, k, share in zip(children, kept, shares, strict=True)
    ]


def _likely_moves(
    landscape: Landscape, kind_of: Indices, table: Array, rng: np.random.Generator
) -> tuple[Moves, Array]:
    """Up to `WIDTH` distinct moves drawn without replacement by their probabilities, and these.

    A move is as likely as what it adds, divided by what it removes. Each block counts as much as another: that a
    decoration with fewer defects is likelier, as there are fewer of them, says nothing of its properties.
    """
    blocks = [block for _ in range(BLOCKS) if len(block := landscape.edits.block(kind_of, rng, BLOCK))]
    if not blocks:
        return Moves.of([]), np.zeros(0)
    logs = []
    for block in blocks:
        added = np.where(block.added >= 0, table[block.added, block.kinds], 0.0).sum(axis=1)
        removed = np.where(block.removed >= 0, table[block.removed, kind_of[block.removed]], 0.0).sum(axis=1)
        score = np.nan_to_num(added - removed, nan=-99.0, posinf=99.0, neginf=-99.0)
        logs.append(score - np.logaddexp.reduce(score))
    log_p = np.concatenate(logs)
    fields = [np.concatenate([getattr(block, name) for block in blocks]) for name in ("removed", "added", "kinds")]
    _, distinct = np.unique(np.hstack(fields), axis=0, return_index=True)
    # the largest with Gumbel noise are a draw without replacement (Kool et al. 2019, arXiv 1903.06059)
    order = np.argsort(-(log_p[distinct] + rng.gumbel(size=len(distinct))), kind="stable")[:WIDTH]
    chosen = distinct[order]
    return Moves(*(values[chosen] for values in fields)), np.exp(log_p[chosen])
