"""Tree search over edits: the surrogate is the value, and a model of edits may be the prior.

Banik et al., ACS Appl. Mater. Interfaces 13, 22, 25865 (2021), doi 10.1021/acsami.1c07545, search arrangements of
vacancies by Monte Carlo tree search. Here every node is a whole decoration, so that its predicted distance takes the
place of a playout; nodes are chosen as by Silver et al., Nature 550, 354 (2017), doi 10.1038/nature24270.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration
from defectgen.design.landscape import STAY, Account, Archive, Landscape

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

Prior = Callable[[Configuration, list[Configuration]], Array]
"""From a decoration and its neighbours to a probability of each, shape (n,)."""

WIDTH = 96
"""Edits that are scored when a node is opened."""

BRANCHES = 12
"""Of these, how many become children: the nearest ones; with a prior half of them are the likeliest."""

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
        prior: probabilities of neighbours; None for what their distances say.
    """
    root = _Node(start, float(landscape.distances(landscape.walker(start), STAY, account, archive)[0]))
    while account.spent < until:
        path = [root]
        while path[-1].children:
            path.append(path[-1].chosen())
        leaf = path[-1]
        leaf.children = _opened(landscape, leaf, account, archive, rng, prior)
        found = max((value_of(node.distance) for node in (leaf, *leaf.children)), default=0.0)
        for node in path:
            node.visits += 1
            node.total += found
            node.best = max(node.best, found)
        if not leaf.children and leaf is root:
            return


def _opened(
    landscape: Landscape,
    node: _Node,
    account: Account,
    archive: Archive,
    rng: np.random.Generator,
    prior: Prior | None,
) -> list[_Node]:
    moves = landscape.edits.block(node.kind_of, rng, WIDTH)
    if not len(moves):
        return []
    distances = landscape.distances(landscape.walker(node.kind_of), moves, account, archive)
    children = [moves.applied(node.kind_of, row) for row in range(len(moves))]
    if not np.isfinite(distances.min()):
        return []
    weights = np.exp(-(distances - distances.min()) / TEMPERATURE_EV)
    nearest = np.argsort(distances, kind="stable")
    kept = nearest[:BRANCHES]
    if prior is not None:
        make = landscape.edits.configuration
        weights = np.maximum(prior(make(node.kind_of), [make(child) for child in children]), 1e-9)
        likeliest = np.argsort(-weights, kind="stable")
        kept = np.unique(np.concatenate([likeliest[: BRANCHES // 2], nearest[: BRANCHES // 2]]))
    shares = weights[kept] / weights[kept].sum()
    return [_Node(children[k], float(distances[k]), float(share)) for k, share in zip(kept, shares, strict=True)]
