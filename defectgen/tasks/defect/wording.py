"""How one long prompt is written: its sentences, the rules that it states, and its coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host, Rule
from defectgen.tasks.numbers import format_number

OPENINGS = (
    "Material: {name}, a 2D crystal in a supercell of size [{n_a}, {n_b}, 1].",
    "A monolayer of {name} is given as a supercell of size [{n_a}, {n_b}, 1].",
    "Below is a {n_a} x {n_b} x 1 supercell of the 2D material {name}.",
)
RULES = (
    "Point defects of {name} follow these rules: {rules}.",
    "In {name} a site may change in these ways only: {rules}.",
    "Allowed point defects of {name}: {rules}.",
)
WANTED = ("Wanted properties:", "The finished crystal should have these properties:", "Targets:")
KINDS = (
    "Make defects of these kinds: {kinds}.",
    "Use these kinds of defects: {kinds}.",
    "The kinds of defects to place are: {kinds}.",
)
INSTRUCTIONS = (
    "Only a symbol may change: write each {mask} as its element, a vacancy as {vacancy}, and leave the rest.",
    "Replace every {mask} by an element, or by {vacancy} where the site is empty; change nothing else.",
    "Fill in each {mask} with the symbol of its atom ({vacancy} for none) and keep all else as it is.",
)
N_WORDINGS = 3**5
"""Combinations of the sentences above; the first of each make number 0, the one used for design."""


@dataclass(frozen=True)
class Writing:
    """One way to write a long prompt (the ``edits`` encoding has one way only).

    Attributes:
        wording: which sentences, 0 to `N_WORDINGS` - 1.
        rules: the rules that are stated, None for all of the host's.
        cartesian: coordinates in angstrom instead of fractions of the cell.
        angle_deg: by how much the Cartesian axes are turned about the layer's normal.
    """

    wording: int = 0
    rules: tuple[Rule, ...] | None = None
    cartesian: bool = False
    angle_deg: float = 0.0

    def sentence(self, number: int) -> str:
        """The chosen one of the five groups of sentences, in the order above."""
        groups = (OPENINGS, RULES, WANTED, KINDS, INSTRUCTIONS)
        return groups[number][self.wording // 3**number % 3]

    def turned(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cartesian vectors of shape (n, 3) in the turned axes."""
        angle = np.radians(self.angle_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.asarray(vectors @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]))

    def coordinates(self, host: Host) -> tuple[str, ...]:
        """The coordinates of each site as they stand after its symbol."""
        return _coordinates(host, Writing(cartesian=self.cartesian, angle_deg=self.angle_deg))

    def header(self, host: Host) -> str:
        """The line before the sites."""
        if self.cartesian:
            vectors = "; ".join(numbers(row, 2) for row in self.turned(host.supercell_lattice))
            return f"Crystal with cell vectors {vectors} angstrom, one site a line, symbol and position in angstrom:"
        lengths = numbers(np.linalg.norm(host.supercell_lattice, axis=1), 2)
        return f"Crystal with cell lengths {lengths} angstrom, one site a line, symbol and fractional coordinates:"


PLAIN = Writing()


@lru_cache(maxsize=32)
def _coordinates(host: Host, writing: Writing) -> tuple[str, ...]:
    if writing.cartesian:
        return tuple(numbers(row, 2) for row in writing.turned(host.site_cart_coords))
    return tuple(numbers(row, 3) for row in host.site_frac_coords)


def draw_writing(host: Host, made: frozenset[tuple[str, str]], cartesian: bool, rng: np.random.Generator) -> Writing:
    """A random wording; in half of the cases some rules that the answer does not need are left out.

    Args:
        host: the supercell.
        made: the kinds of defects in the answer (host element, species instead).
        cartesian: see `Writing`; the angle is uniform.
        rng: of the draws.
    """
    wording = int(rng.integers(N_WORDINGS))
    rules = None
    if rng.random() < 0.5:
        rules = tuple(r for r in host.rules if (r.element, r.replacement) in made or rng.random() < 0.5) or None
    return Writing(wording, rules, cartesian, round(float(rng.uniform(0, 360)), 1) if cartesian else 0.0)


def numbers(values: NDArray[np.float64], decimals: int) -> str:
    """Numbers with spaces between them."""
    return " ".join(format_number(float(x), decimals) for x in values)
