"""Few numbers a structure, for models of a handful of rows and for distances between structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.score.surrogate.features import describe as describe_exactly
from defectgen.score.surrogate.features import displacements, pair_orbits, two_kinds_table

Array = NDArray[np.float64]

DECAYS_ANGSTROM = (1.5, 4.0)
"""Lengths over which two defects stop to feel each other: chemical bonds, strain."""

NEAREST_ANGSTROM = 2.4
"""Distance from which the decay of a pair is counted."""

LEVEL_ANGSTROM = 0.5
"""Two sites whose heights differ by less are in one atomic plane."""


@dataclass(frozen=True, eq=False)
class Described:
    """n structures as numbers.

    Attributes:
        counts: defects of each kind in the order of the host's rules, shape (n, n_kinds).
        pairs: for each two kinds, decay and same or other atomic plane the sum over their pairs, about 1 for a pair
            of neighbours, shape (n, n_pairs).
    """

    counts: Array
    pairs: Array

    def __len__(self) -> int:
        return len(self.counts)

    def some(self, rows: NDArray[np.int64]) -> Described:
        """Some of the structures."""
        return Described(self.counts[rows], self.pairs[rows])

    @property
    def all(self) -> Array:
        """All numbers side by side; a pair's count as much as the counts of its kinds."""
        return np.hstack([self.counts, self.pairs])


def describe(host: Host, configurations: Sequence[Configuration]) -> Described:
    """The numbers of configurations of one host; images under its symmetry have the same.

    Raises:
        UsageError: a configuration of another host, or a defect that its rules do not know.
    """
    found = describe_exactly(host, configurations)
    orbits = pair_orbits(host)
    n_orbits = len(orbits.distances_angstrom)
    rows, codes = found.pairs
    distance = orbits.distances_angstrom[codes % n_orbits]
    other = _other_plane(host)[codes % n_orbits].astype(np.int64)
    n_two = int(two_kinds_table(len(host.rules)).max(initial=0)) + 1
    pairs = np.zeros((len(DECAYS_ANGSTROM), len(found), 2, n_two))
    for place, decay in enumerate(DECAYS_ANGSTROM):
        np.add.at(pairs[place], (rows, other, codes // n_orbits), np.exp(-(distance - NEAREST_ANGSTROM) / decay))
    pairs = pairs.transpose(1, 0, 2, 3)
    return Described(found.counts, pairs.reshape(len(found), 2 * len(DECAYS_ANGSTROM) * n_two))


def _other_plane(host: Host) -> NDArray[np.bool_]:
    """Whether the two sites of each pair orbit lie in different atomic planes, shape (n_orbits,)."""
    orbits = pair_orbits(host)
    _, first = np.unique(orbits.table.ravel(), return_index=True)
    first = first[orbits.table.ravel()[first] >= 0]
    vectors = displacements(host, first // host.n_sites, first % host.n_sites)
    return np.asarray(np.abs(vectors[:, 2]) > LEVEL_ANGSTROM)
