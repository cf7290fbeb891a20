"""Many-defect decorations as numbers: who neighbours whom, at which distance.

All numbers follow from one table: for each defect the number of its neighbours of each kind in each pair
orbit. Configurations are brought to their canonical form first, so two symmetry images give the same
numbers to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from defectgen.core import Configuration, Host
from defectgen.core.elements import isovalent
from defectgen.core.symmetry import site_group
from defectgen.score.surrogate.features import encode_flat, pair_orbits, two_kinds_table
from defectgen.score.surrogate.surroundings import Environments, pairs_within

LONGEST_ANGSTROM = 12.0
"""Neighbours further away are not looked at."""

ABSENT_ANGSTROM = 15.0
"""Stands for the distance to the nearest defect of a kind that is absent."""

FIELD_LENGTHS_ANGSTROM = (1.0, 3.0)
"""Lengths on which the influence of a neighbour decays in the pooled features."""

ISOVALENT_WEIGHT = 0.2
"""How much a substitution by an element of the same group counts as a neighbour, beside any other defect."""


@dataclass(frozen=True)
class DefectKinds:
    """What the models know of each kind of defect, in the order of the host's rules. A trained model stores its own.

    Attributes:
        weights: how much it counts as a neighbour: 1 if it breaks bonds or changes the number of valence electrons,
            else `ISOVALENT_WEIGHT`.
        odd: whether it adds or takes an odd number of electrons.
    """

    weights: tuple[float, ...]
    odd: tuple[bool, ...]

    @classmethod
    def of(cls, host: Host) -> DefectKinds:
        """From the elements of a host's rules."""
        alike = [not rule.is_vacancy and isovalent(rule.element, rule.replacement) for rule in host.rules]
        return cls(
            tuple(ISOVALENT_WEIGHT if same else 1.0 for same in alike),
            tuple(rule.changes_parity for rule in host.rules),
        )


@dataclass(frozen=True, eq=False)
class Decorations:
    """n configurations of one host, as flat lists of their N defects.

    Attributes:
        host: the pristine supercell.
        n: number of configurations.
        rows: configuration of each defect, ascending, shape (N,).
        kinds: kind of each defect as the number of the host's rule, ascending within a configuration, shape (N,).
        sites: site of each defect, shape (N,).
        known: what is known of each kind.
    """

    host: Host
    n: int
    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    sites: NDArray[np.int64]
    known: DefectKinds

    @classmethod
    def of(cls, host: Host, configurations: Sequence[Configuration], known: DefectKinds | None = None) -> Decorations:
        """Configurations in their order; `known` is that of the host if none is given.

        Raises:
            UsageError: a configuration of another host or supercell, or a defect that the rules do not know.
        """
        sizes, sites, kinds = encode_flat(host, configurations)
        first = np.cumsum(sizes) - sizes
        parts = [np.zeros((3, 0), dtype=np.int64)]
        for size in np.unique(sizes[sizes > 0]):
            rows = np.flatnonzero(sizes == size)
            places = first[rows][:, None] + np.arange(size)
            images = site_group(host).smallest_images(sites[places], kinds[places])
            parts.append(np.stack([np.repeat(rows, size), images.codes.ravel(), images.sites.ravel()]))
        flat = np.concatenate(parts, axis=1)
        rows, kinds, sites = flat[:, np.lexsort(flat[::-1])]
        return cls(host, len(configurations), rows, kinds, sites, DefectKinds.of(host) if known is None else known)

    def __len__(self) -> int:
        return self.n

    def some(self, chosen: NDArray[np.int64]) -> Decorations:
        """Some of the configurations, in this order."""
        first = np.searchsorted(self.rows, np.arange(self.n + 1))
        sizes = np.diff(first)[chosen]
        before = np.cumsum(sizes) - sizes
        places = np.arange(sizes.sum()) + np.repeat(first[chosen] - before, sizes)
        rows = np.repeat(np.arange(len(chosen)), sizes)
        return Decorations(self.host, len(chosen), rows, self.kinds[places], self.sites[places], self.known)

    def padded(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sites and kinds of the defects of each configuration, -1 beyond its number of them, shape (n, most) each."""
        number = np.bincount(self.rows, minlength=self.n)
        there = np.arange(number.max(initial=1)) < number[:, None]
        sites, kinds = (np.full(there.shape, -1, dtype=np.int64) for _ in range(2))
        sites[there], kinds[there] = self.sites, self.kinds
        return sites, kinds

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """How much each kind counts as a neighbour, shape (n_kinds,)."""
        return np.array(self.known.weights)

    def odd(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 for cells with an odd number more or less of electrons than the pristine one, else 0, shape (n,).

        Args:
            counts: as `counts`, of any configurations of the host.
        """
        return np.asarray((counts @ np.array(self.known.odd, dtype=np.float64)) % 2)

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
    def near_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All ordered pairs of defects of one configuration that are looked at: both defects, and their orbit."""
        table, n_orbits = pair_orbits(self.host).table, len(self.distances_angstrom)
        first, second = self._pairs
        orbit = table[self.sites[first], self.sites[second]]
        near = (orbit >= 0) & (orbit < n_orbits)
        return first[near], second[near], orbit[near]

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All ordered pairs of defects of one configuration, each with itself too."""
        return pairs_within(self.rows, self.n)

    @cached_property
    def neighbours(self) -> NDArray[np.float32]:
        """Number of neighbours of each defect by kind and orbit, shape (N, n_kinds, n_orbits)."""
        n_orbits = len(self.distances_angstrom)
        first, second, orbit = self.near_pairs
        found = np.zeros((len(self.rows), self.n_kinds * n_orbits), dtype=np.float32)
        np.add.at(found.reshape(-1), (first * self.n_kinds + self.kinds[second]) * n_orbits + orbit, np.float32(1))
        return found.reshape(len(self.rows), self.n_kinds, n_orbits)

    @cached_property
    def two_kinds(self) -> list[tuple[int, int]]:
        """Each two kinds, in the order of `pair_counts`."""
        return list(itertools.combinations_with_replacement(range(self.n_kinds), 2))

    @cached_property
    def pair_counts(self) -> NDArray[np.float64]:
        """Number of pairs of each two kinds in each orbit, shape (n, n_two_kinds, n_orbits)."""
        n_orbits, n_two = len(self.distances_angstrom), len(self.two_kinds)
        first, second, orbit = self.near_pairs
        two = two_kinds_table(self.n_kinds)[self.kinds[first], self.kinds[second]]
        code = (self.rows[first] * n_two + two) * n_orbits + orbit
        return np.bincount(code, minlength=self.n * n_two * n_orbits).reshape(self.n, n_two, n_orbits) / 2

    def environments(self, *chosen: float) -> Environments:
        """The surroundings of each defect as points whose distances tell how different they are.

        Args:
            chosen: see `environment_basis`.
        """
        weights = tuple(self.weights.tolist())
        basis = environment_basis(self.host, weights, *chosen)
        codes = environment_codes(self.host, weights, *chosen)
        n_orbits, (order, first, code, orbit) = len(basis) // self.n_kinds, self._neighbours_by_kind
        near = orbit < n_orbits
        before = np.concatenate([[0], np.cumsum(np.bincount(first[near], minlength=len(order)))])
        columns = code[near] * n_orbits + orbit[near]
        counts = csr_array((np.ones(len(columns), dtype=np.int64), columns, before), shape=(len(order), len(basis)))
        return Environments.of(self.n, self.n_kinds, self.kinds[order], self.rows[order], counts, basis, codes)

    @cached_property
    def _neighbours_by_kind(self) -> tuple[NDArray[np.int64], ...]:
        """Defects sorted by kind, and `near_pairs` in this order: the defect, the other's kind, the orbit."""
        first, second, orbit = self.near_pairs
        order = np.argsort(self.kinds, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        pairs = np.argsort(place[first], kind="stable")
        return order, place[first[pairs]], self.kinds[second[pairs]], orbit[pairs]

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """Features of a fixed number, shape (n, n_features); `pooled_weights` goes with it.

        Counts, shares, and for each two kinds: the influence of one on the other, summed, largest, least,
        squared and averaged over the defects, for each of `FIELD_LENGTHS_ANGSTROM`; the nearest distance.
        """
        distances, kinds, n_lengths = self.distances_angstrom, self.n_kinds, len(FIELD_LENGTHS_ANGSTROM)
        fields = np.exp((distances[0] - distances)[:, None] / np.array(FIELD_LENGTHS_ANGSTROM))
        influence = (self.neighbours @ fields).transpose(0, 2, 1).reshape(len(self.rows), n_lengths * kinds)
        statistics = self._pool(influence).reshape(self.n, kinds, n_lengths, kinds, 5).transpose(0, 2, 1, 3, 4)
        exists = self.pair_counts > 0
        nearest = np.where(exists.any(axis=2), distances[exists.argmax(axis=2)], ABSENT_ANGSTROM)
        shares = self.counts / self.sizes[:, None]
        return np.hstack([self.counts, self.sizes[:, None], shares, statistics.reshape(self.n, -1), nearest])

    @cached_property
    def pooled_weights(self) -> NDArray[np.float64]:
        """How much each pooled feature counts: the product of the weights of its kinds, shape (n_features,)."""
        weights = self.weights
        both = [w for a, b in itertools.product(range(self.n_kinds), repeat=2) for w in [weights[a] * weights[b]] * 5]
        nearest = [weights[a] * weights[b] for a, b in self.two_kinds]
        return np.array([*weights, 0.5, *weights, *both * len(FIELD_LENGTHS_ANGSTROM), *nearest])

    def _pool(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum, largest, least, sum of squares and mean over the defects of each kind in each row; -1 for none.

        Args:
            values: of each defect, shape (N, m).

        Returns:
            Shape (n, n_kinds, m, 5).
        """
        result = np.tile([0.0, -1.0, -1.0, 0.0, 0.0], (self.n * self.n_kinds, values.shape[1], 1))
        found, first, number = np.unique(self.rows * self.n_kinds + self.kinds, return_index=True, return_counts=True)
        if len(found):
            total = np.add.reduceat(values, first)
            extremes = np.maximum.reduceat(values, first), np.minimum.reduceat(values, first)
            squares = np.add.reduceat(values**2, first)
            result[found] = np.stack([total, *extremes, squares, total / number[:, None]], axis=2)
        return np.round(result, 9).reshape(self.n, self.n_kinds, values.shape[1], 5)


@lru_cache(maxsize=64)
def environment_basis(
    host: Host,
    weights: tuple[float, ...],
    decay_angstrom: float,
    smoothing_angstrom: float,
    longest_angstrom: float,
    sharpness: float,
) -> NDArray[np.float64]:
    """What takes a defect's numbers of neighbours to its point, see `Decorations.environments`.

    Args:
        host: the pristine supercell.
        weights: how much each kind of defect counts as a neighbour.
        decay_angstrom: length on which a neighbour's influence decays.
        smoothing_angstrom: how similar neighbours at similar distances are; 0 keeps orbits apart.
        longest_angstrom: farthest neighbour.
        sharpness: what squared distances are multiplied with.

    Returns:
        Shape (n_kinds * n_orbits, n_dimensions), for the orbits up to the longest distance.
    """
    distances = pair_orbits(host).distances_angstrom
    distances = distances[distances <= min(longest_angstrom, LONGEST_ANGSTROM)]
    decay = np.exp((distances[0] - distances) / decay_angstrom)
    if smoothing_angstrom:
        alike = np.exp(-0.5 * ((distances[:, None] - distances) / smoothing_angstrom) ** 2)
        values, vectors = np.linalg.eigh(alike * np.outer(decay, decay))
        kept = values > 1e-6 * values.max()
        basis = vectors[:, kept] * np.sqrt(values[kept])
    else:
        basis = np.diag(decay)
    return np.asarray(np.kron(np.diag(weights), basis) * np.sqrt(sharpness))


@lru_cache(maxsize=64)
def environment_codes(host: Host, weights: tuple[float, ...], *chosen: float) -> NDArray[np.int64]:
    """Random numbers whose sums over a defect's neighbours tell its points apart, shape (n_kinds * n_orbits,).

    Args:
        host: as in `environment_basis`, like all others; rows of the basis that are equal have one number.
        weights: likewise.
        chosen: likewise.
    """
    _, which = np.unique(environment_basis(host, weights, *chosen), axis=0, return_inverse=True)
    rng = np.random.default_rng(21)
    return np.asarray(rng.integers(-(2**62), 2**62, size=which.max(initial=0) + 1, dtype=np.int64)[which.ravel()])
