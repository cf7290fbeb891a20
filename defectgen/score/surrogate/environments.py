"""Many-defect decorations as numbers: who neighbours whom, at which distance.

All numbers follow from one table: for each defect the number of its neighbours of each kind in each pair
orbit. Configurations are brought to their canonical form first, so two symmetry images give the same
numbers to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.elements import isovalent
from defectgen.score.surrogate.features import encode, pair_orbits

LONGEST_ANGSTROM = 12.0
"""Neighbours further away are not looked at."""

ABSENT_ANGSTROM = 15.0
"""Stands for the distance to the nearest defect of a kind that is absent."""

FIELD_LENGTHS_ANGSTROM = (1.0, 3.0)
"""Lengths on which the influence of a neighbour decays in the pooled features."""

ISOVALENT_WEIGHT = 0.2
"""How much a substitution by an element of the same group counts as a neighbour, beside any other defect."""


def kind_weights(host: Host) -> NDArray[np.float64]:
    """1 for each kind of defect that breaks bonds or changes the number of electrons, else `ISOVALENT_WEIGHT`.

    In the order of the host's rules. A trained model stores its own.
    """
    alike = [not rule.is_vacancy and isovalent(rule.element, rule.replacement) for rule in host.rules]
    return np.where(alike, ISOVALENT_WEIGHT, 1.0)


@dataclass(frozen=True, eq=False)
class Decorations:
    """n configurations of one host, as flat lists of their N defects.

    Attributes:
        host: the pristine supercell.
        n: number of configurations.
        rows: configuration of each defect, ascending, shape (N,).
        kinds: kind of each defect as the number of the host's rule, shape (N,).
        sites: site of each defect, shape (N,).
        weights: how much each kind counts as a neighbour, shape (n_kinds,).
    """

    host: Host
    n: int
    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    sites: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def of(
        cls, host: Host, configurations: Sequence[Configuration], weights: NDArray[np.float64] | None = None
    ) -> Decorations:
        """Configurations in their order; `weights` are `kind_weights` if none are given.

        Raises:
            UsageError: a configuration of another host or supercell, or a defect that the rules do not know.
        """
        encode(host, configurations)  # refuse before images are looked for
        encoded = encode(host, canonicalize(configurations))
        flat = [(row, kind, site) for row, defects in enumerate(encoded) for kind, site in defects]
        rows, kinds, sites = np.array(flat, dtype=np.int64).reshape(-1, 3).T
        return cls(host, len(encoded), rows, kinds, sites, kind_weights(host) if weights is None else weights)

    def __len__(self) -> int:
        return self.n

    def take(self, start: int, stop: int) -> Decorations:
        """The configurations from one number to before another."""
        chosen = (self.rows >= start) & (self.rows < stop)
        n = min(stop, self.n) - start
        rows, kinds, sites = self.rows[chosen] - start, self.kinds[chosen], self.sites[chosen]
        return Decorations(self.host, n, rows, kinds, sites, self.weights)

    @cached_property
    def n_kinds(self) -> int:
        """Number of kinds of defects."""
        return len(self.host.rules)

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Number of defects of each kind, shape (n, n_kinds)."""
        flat = np.bincount(self.rows * self.n_kinds + self.kinds, minlength=self.n * self.n_kinds)
        return flat.reshape(self.n, self.n_kinds).astype(np.float64)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Number of defects, at least 1, shape (n,)."""
        return np.asarray(np.maximum(self.counts.sum(axis=1), 1.0))

    @cached_property
    def distances_angstrom(self) -> NDArray[np.float64]:
        """Distance of each orbit that is looked at, ascending, shape (n_orbits,)."""
        distances = pair_orbits(self.host).distances_angstrom
        return distances[distances <= LONGEST_ANGSTROM]

    @cached_property
    def neighbours(self) -> NDArray[np.float32]:
        """Number of neighbours of each defect by kind and orbit, shape (N, n_kinds, n_orbits)."""
        table, n_orbits = pair_orbits(self.host).table, len(self.distances_angstrom)
        first = np.searchsorted(self.rows, np.arange(self.n + 1))
        sizes = np.diff(first)[self.rows]
        centre = np.repeat(np.arange(len(self.rows)), sizes)
        start = np.repeat(np.cumsum(sizes) - sizes, sizes)
        other = np.arange(len(centre)) - start + first[self.rows[centre]]
        orbit = table[self.sites[centre], self.sites[other]]
        near = (orbit >= 0) & (orbit < n_orbits)
        code = (centre[near] * self.n_kinds + self.kinds[other[near]]) * n_orbits + orbit[near]
        flat = np.bincount(code, minlength=len(self.rows) * self.n_kinds * n_orbits)
        return flat.reshape(len(self.rows), self.n_kinds, n_orbits).astype(np.float32)

    @cached_property
    def two_kinds(self) -> list[tuple[int, int]]:
        """Each two kinds, in the order of `pair_counts`."""
        return list(itertools.combinations_with_replacement(range(self.n_kinds), 2))

    @cached_property
    def pair_counts(self) -> NDArray[np.float64]:
        """Number of pairs of each two kinds in each orbit, shape (n, n_two_kinds, n_orbits)."""
        total = np.zeros((self.n * self.n_kinds, *self.neighbours.shape[1:]))
        np.add.at(total, self.rows * self.n_kinds + self.kinds, self.neighbours)
        by_kind = total.reshape(self.n, self.n_kinds, *self.neighbours.shape[1:])
        return np.stack([by_kind[:, a, b] / (1 + (a == b)) for a, b in self.two_kinds], axis=1)

    def environments(self, decay_angstrom: float, smoothing_angstrom: float, longest_angstrom: float) -> Environments:
        """The surroundings of each defect as points whose distances tell how different they are.

        Args:
            decay_angstrom: length on which a neighbour's influence decays.
            smoothing_angstrom: how similar neighbours at similar distances are; 0 keeps orbits apart.
            longest_angstrom: farthest neighbour.
        """
        distances = self.distances_angstrom[self.distances_angstrom <= longest_angstrom]
        decay = np.exp((distances[0] - distances) / decay_angstrom)
        if smoothing_angstrom:
            alike = np.exp(-0.5 * ((distances[:, None] - distances) / smoothing_angstrom) ** 2)
            values, vectors = np.linalg.eigh(alike * np.outer(decay, decay))
            kept = values > 1e-6 * values.max()
            basis = vectors[:, kept] * np.sqrt(values[kept])
        else:
            basis = np.diag(decay)
        weighted = self.neighbours[:, :, : len(distances)] * self.weights[:, None]
        points = (weighted @ basis).reshape(len(self.rows), self.n_kinds * basis.shape[1])
        members = [np.nonzero(self.kinds == kind)[0] for kind in range(self.n_kinds)]
        return Environments(self.n, tuple((self.rows[m], points[m]) for m in members))

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """Features of a fixed number, shape (n, n_features); `pooled_weights` goes with it.

        Counts, shares, and for each two kinds: the influence of one on the other, summed, largest, least,
        squared and averaged over the defects, for each of `FIELD_LENGTHS_ANGSTROM`; the nearest distance.
        """
        distances = self.distances_angstrom
        columns = [self.counts, self.sizes[:, None], self.counts / self.sizes[:, None]]
        for length in FIELD_LENGTHS_ANGSTROM:
            influence = self.neighbours @ np.exp((distances[0] - distances) / length)
            for a, b in itertools.product(range(self.n_kinds), repeat=2):
                columns.append(self._pool(self.kinds == a, influence[:, b]))
        exists = self.pair_counts > 0
        nearest = np.where(exists.any(axis=2), distances[exists.argmax(axis=2)], ABSENT_ANGSTROM)
        return np.hstack([*columns, nearest])

    @cached_property
    def pooled_weights(self) -> NDArray[np.float64]:
        """How much each pooled feature counts: the product of the weights of its kinds, shape (n_features,)."""
        weights = self.weights
        both = [w for a, b in itertools.product(range(self.n_kinds), repeat=2) for w in [weights[a] * weights[b]] * 5]
        nearest = [weights[a] * weights[b] for a, b in self.two_kinds]
        return np.array([*weights, 0.5, *weights, *both * len(FIELD_LENGTHS_ANGSTROM), *nearest])

    def _pool(self, chosen: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum, largest, least, sum of squares and mean over the chosen defects of each row; -1 for none."""
        result = np.tile([0.0, -1.0, -1.0, 0.0, 0.0], (self.n, 1))
        rows, values = self.rows[chosen], values[chosen]
        if len(rows):
            found, first, number = np.unique(rows, return_index=True, return_counts=True)
            total = np.add.reduceat(values, first)
            extremes = np.maximum.reduceat(values, first), np.minimum.reduceat(values, first)
            result[found] = np.stack([total, *extremes, np.add.reduceat(values**2, first), total / number], axis=1)
        return np.round(result, 9)


@dataclass(frozen=True)
class Environments:
    """Surroundings of the defects of n configurations.

    Attributes:
        n: number of configurations.
        by_kind: for each kind the rows (ascending) and the points of its defects.
    """

    n: int
    by_kind: tuple[tuple[NDArray[np.int64], NDArray[np.float64]], ...]
