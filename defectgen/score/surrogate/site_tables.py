"""What stands where around a site, for all sites of a host: orbits of pairs, and codes of surroundings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Host
from defectgen.score.surrogate.environments import FIELD_LENGTHS_ANGSTROM, LONGEST_ANGSTROM
from defectgen.score.surrogate.features import pair_orbits, two_kinds_table
from defectgen.score.surrogate.kernel_table import LEVEL_SURROUNDINGS, NEAR, WIDE

RANGES = NEAR, WIDE, LEVEL_SURROUNDINGS
"""The surroundings that `Numbers.codes` tell apart."""


def surrounding_codes(n_kinds: int, distances_angstrom: NDArray[np.float64]) -> NDArray[np.int64]:
    """Random numbers whose sums over a defect's neighbours tell its surroundings apart, in each of `RANGES`.

    Returns:
        Shape (n_kinds, n_orbits + 1, 3); 0 beyond the range, and for the last orbit, which stands for none.
    """
    rng = np.random.default_rng(20)
    codes = rng.integers(-(2**62), 2**62, size=(n_kinds, len(distances_angstrom) + 1, len(RANGES)), dtype=np.int64)
    for place, surroundings in enumerate(RANGES):
        codes[:, :-1][:, distances_angstrom > surroundings.longest_angstrom, place] = 0
    codes[:, -1] = 0
    return codes


class Tables:
    """What all states of a host share: orbits and codes, with one more site and orbit that stand for none."""

    def __init__(self, host: Host) -> None:
        """Of one host."""
        orbits = pair_orbits(host)
        self.host = host
        self.distances_angstrom = orbits.distances_angstrom[orbits.distances_angstrom <= LONGEST_ANGSTROM]
        self.n_orbits, self.n_kinds = len(self.distances_angstrom), len(host.rules)
        near = (orbits.table >= 0) & (orbits.table < self.n_orbits)
        self.orbits = np.full((host.n_sites + 1, host.n_sites + 1), self.n_orbits, dtype=np.int64)
        self.orbits[:-1, :-1][near] = orbits.table[near]
        self.two = two_kinds_table(self.n_kinds)
        self.n_two = self.n_kinds * (self.n_kinds + 1) // 2
        self.codes = surrounding_codes(self.n_kinds, self.distances_angstrom)
        lengths = np.array(FIELD_LENGTHS_ANGSTROM)
        self.fields = np.exp((self.distances_angstrom[0] - self.distances_angstrom)[:, None] / lengths)
        self.one_field = np.zeros((self.n_kinds, self.n_orbits + 1, self.n_kinds, len(lengths)))
        for kind in range(self.n_kinds):
            self.one_field[kind, :-1, kind] = self.fields
