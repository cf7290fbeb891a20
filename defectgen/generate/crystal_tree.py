"""A tree of the decisions by which crystals are written: the lattice, then atom by atom.

Antunes et al., Nature Communications 15, 10570 (2024), doi 10.1038/s41467-024-54639-7, search the tokens of crystals
by Monte Carlo tree search with a predicted energy as value. Here a decision is a whole lattice or atom, as the model
draws it, so that its probabilities are the prior. There is no end of lattices, so that a node gets more children the
more often it is visited (progressive widening; Couetoux et al. 2011, doi 10.1007/978-3-642-25566-3_32).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDENING = 0.6
"""A node visited v times has at most one and this times the square root of v children before one of them is chosen."""

EXPLORATION = 0.3
"""How much visits count beside worths."""

STALE = 2
"""A node from which so many draws in a row gave crystals that were known is left alone."""


@dataclass(eq=False)
class Beginning:
    """The beginning of a crystal.

    Attributes:
        begin: its text; empty at the root.
        children: longer beginnings that were drawn, by their text.
        visits: draws that went through it, those under way included.
        energies_ev: above the hull, eV/atom, of the crystals below that have one.
        stale: draws from here, the latest ones, that gave nothing new.
    """

    begin: str
    children: dict[str, Beginning] = field(default_factory=dict)
    visits: int = 0
    energies_ev: list[float] = field(default_factory=list)
    stale: int = 0

    def worth(self, known_ev: Sequence[float]) -> float:
        """Mean of the mean and the best worth below, 0 to 1; a draw without an energy is worth nothing.

        Args:
            known_ev: all energies found, in ascending order; one is worth the share of them that is not lower.
        """
        worths = [1 - bisect_left(known_ev, energy) / len(known_ev) for energy in self.energies_ev]
        return 0.5 * (max(worths, default=0.0) + sum(worths) / max(self.visits, 1))


class CrystalTree:
    """What was drawn so far, and from where to draw next."""

    def __init__(self) -> None:
        self.root = Beginning("")
        self._nodes = {"": self.root}

    def choose(self) -> str:
        """The beginning to draw from next; counted as a visit, so that the next call may choose another one."""
        node, known = self.root, sorted(self.root.energies_ev)
        while True:
            widened = len(node.children) >= 1 + int(WIDENING * math.sqrt(node.visits))
            node.visits += 1
            open_ones = [child for child in node.children.values() if child.stale < STALE]
            if not widened or not open_ones:
                return node.begin
            scale = math.log(node.visits)
            node = max(
                open_ones,
                key=lambda c: c.worth(known) + EXPLORATION * math.sqrt(scale / max(c.visits, 1)),
            )

    def add(self, begin: str, text: str, energy_ev: float | None, *, new: bool) -> None:
        """Note what came of a draw.

        Args:
            begin: that it was drawn from, as `choose` gave it.
            text: of the whole crystal, which begins so.
            energy_ev: above the hull, eV/atom; None if it has none.
            new: whether no draw before gave this text.
        """
        source = self._nodes[begin]
        source.stale = 0 if new else source.stale + 1
        path = [self.root]
        for longer in beginnings(text)[:-1]:  # the whole text leaves nothing, or little, to decide
            path.append(path[-1].children.setdefault(longer, self._nodes.get(longer) or Beginning(longer)))
            self._nodes[longer] = path[-1]
        for node in path:
            node.visits += len(node.begin) > len(begin)  # those before were counted when they were chosen
            if energy_ev is not None and new:
                node.energies_ev.append(energy_ev)


def beginnings(text: str) -> list[str]:
    """The texts after each decision: with the lattice, then with one atom more each; see `write_crystal`."""
    lines = text.strip("\n").split("\n")
    return ["\n".join(lines[:2]) + "\n", *("\n".join(lines[:end]) for end in range(4, len(lines) + 1, 2))]
