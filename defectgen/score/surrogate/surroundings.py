"""Surroundings of defects as points, and the kernels that sum over those of two cells.

A defect has few neighbours, so what the product of its point with those of the training rows is follows from a few
rows of a table, which takes less time than a dense product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack  # type: ignore[import-untyped]

from defectgen.score.surrogate.kernel_table import LEVEL_POWERS

Array = NDArray[np.float64]

BLOCK_POINTS = 120
"""Points of training rows that are compared in one step: the numbers of a batch stay in a core's cache."""

FEW_NUMBERS = 2**15
"""So few are found in one step."""

LARGEST_EXPONENT = 600.0
"""Exponentials of more are not taken apart into factors, which might overflow."""


@dataclass(frozen=True, eq=False)
class Points:
    """Rows of a matrix whose squared distances to others are wanted.

    Attributes:
        values: shape (n, m).
    """

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        return np.asarray(np.einsum("ij,ij->i", self.values, self.values)[:, None])

    @cached_property
    def _left(self) -> NDArray[np.float64]:
        return np.hstack([2 * self.values, -self._squares, np.ones((len(self.values), 1))])

    @cached_property
    def _right(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(np.hstack([self.values, np.ones((len(self.values), 1)), -self._squares]).T)

    def minus_squared_distances(self, other: Points, rows: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Of some rows to all rows of another matrix, to rounding, by one product, shape (rows, len(other))."""
        return np.asarray(self._left[rows] @ other._right)


@dataclass(frozen=True, eq=False)
class KindSurroundings:
    """Surroundings of N defects of one kind, U of them different.

    Attributes:
        rows: configuration of each defect, ascending, shape (N,).
        number: which surroundings it has, shape (N,).
        counts: numbers of neighbours by kind and orbit, sparse, shape (U, n_kinds * n_orbits).
        points: their product with the basis, shape (U, n_dimensions).
    """

    rows: NDArray[np.int64]
    number: NDArray[np.int64]
    counts: csr_array
    points: Array

    @cached_property
    def squares(self) -> Array:
        """Squared lengths of the points, shape (U,)."""
        return np.asarray(np.einsum("ij,ij->i", self.points, self.points))

    def summed(self, powers: Sequence[int], n: int) -> list[csr_array]:
        """What sums over the defects x of each of n configurations, each times ``exp(-power |x|^2)``, shape (n, U)."""
        ends = np.searchsorted(self.rows, np.arange(n + 1))
        factors = [np.exp(-power * self.squares)[self.number] for power in powers]
        return [csr_array((each, self.number, ends), shape=(n, len(self.points))) for each in factors]


@dataclass(frozen=True, eq=False)
class Compared:
    """What defects of one kind are compared with.

    Attributes:
        counts: how often each of the P different points is in each of n configurations, sparse, shape (n, P).
        points: these points.
        table: twice the product of the basis with them, shape (n_kinds * n_orbits, P).
    """

    counts: csr_array
    points: Points
    table: Array

    @cached_property
    def squares(self) -> Array:
        """Squared lengths of the points, shape (P,)."""
        return np.asarray(np.einsum("ij,ij->i", self.points.values, self.points.values))

    def blocks(self, n: int) -> Sequence[tuple[Array, Array]]:
        """The table in blocks of columns for n points, each with the squared lengths of its points."""
        return [(self.table, self.squares)] if n * len(self.points) <= FEW_NUMBERS else self._blocks

    @cached_property
    def _blocks(self) -> Sequence[tuple[Array, Array]]:
        parts = [slice(start, start + BLOCK_POINTS) for start in range(0, len(self.points), BLOCK_POINTS)]
        return [(np.ascontiguousarray(self.table[:, part]), self.squares[part]) for part in parts]


@dataclass(frozen=True, eq=False)
class Environments:
    """Surroundings of the defects of n configurations.

    Attributes:
        n: number of configurations.
        basis: takes numbers of neighbours to points, shape (n_kinds * n_orbits, n_dimensions).
        by_kind: of the defects of each kind.
    """

    n: int
    basis: Array
    by_kind: tuple[KindSurroundings, ...]

    @classmethod
    def of(
        cls,
        n: int,
        n_kinds: int,
        kinds: NDArray[np.int64],
        rows: NDArray[np.int64],
        counts: csr_array,
        basis: Array,
        codes: NDArray[np.int64],
    ) -> Environments:
        """Find which surroundings are the same.

        Args:
            n: number of configurations.
            n_kinds: number of kinds of defects.
            kinds: of each defect, ascending, shape (N,).
            rows: configuration of each, ascending within a kind, shape (N,).
            counts: whole numbers of neighbours, sparse, shape (N, n_kinds * n_orbits).
            basis: see above.
            codes: whole numbers whose sums over the neighbours tell surroundings apart, shape (n_kinds * n_orbits,).
        """
        code = counts @ codes
        order = np.lexsort((code, kinds))
        new = (np.diff(code[order], prepend=0) != 0) | (np.diff(kinds[order], prepend=-1) != 0)
        new[:1] = True
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.cumsum(new) - 1
        first = order[new]
        different = counts[first].astype(np.float64)
        points = different @ basis
        ends = np.searchsorted(kinds, np.arange(n_kinds + 1))
        point_ends = np.searchsorted(kinds[first], np.arange(n_kinds + 1))
        found = []
        for defects, surroundings in zip(pairwise(ends), pairwise(point_ends), strict=True):
            part, (start, end) = slice(*defects), surroundings
            data = slice(different.indptr[start], different.indptr[end])
            indptr = different.indptr[start : end + 1] - data.start
            some = csr_array((different.data[data], different.indices[data], indptr), shape=(end - start, len(basis)))
            found.append(KindSurroundings(rows[part], number[part] - start, some, points[start:end]))
        return cls(n, basis, tuple(found))

    @cached_property
    def distinct(self) -> tuple[Compared, ...]:
        """For each kind the different points, and how often each is in each configuration."""
        found = []
        for kind in self.by_kind:
            _, first, which = np.unique(np.round(kind.points, 9), axis=0, return_index=True, return_inverse=True)
            places = kind.rows, which.ravel()[kind.number]
            counts = csr_array((np.ones(len(kind.rows)), places), shape=(self.n, len(first)))
            counts.sum_duplicates()
            points = kind.points[first]
            found.append(Compared(counts, Points(points), np.ascontiguousarray(2 * self.basis @ points.T)))
        return tuple(found)

    @cached_property
    def counts(self) -> csr_array:
        """How often each of all kinds' `distinct` points is in each configuration, sparse, shape (n, P)."""
        return csr_array(hstack([kind.counts for kind in self.distinct]))

    @cached_property
    def weighted(self) -> Mapping[int, csr_array]:
        """`counts`, for each power that kernels have times ``exp(-power |y|^2)`` of the point y; by power."""
        squares = np.concatenate([kind.squares for kind in self.distinct])[self.counts.indices]
        indices, ends, shape = self.counts.indices, self.counts.indptr, self.counts.shape
        return {
            power: csr_array((self.counts.data * np.exp(-power * squares), indices, ends), shape=shape)
            for power in {1, *LEVEL_POWERS}
        }

    def own(self, powers: Sequence[int]) -> Array:
        """Sums of ``exp(-power |x - y|^2)`` over the surroundings x, y of all defects of one kind of each row.

        Returns:
            Shape (len(powers), n).
        """
        total = np.zeros((len(powers), self.n))
        for kind in self.by_kind:
            first, second = pairs_within(kind.rows, self.n)
            twice = first < second
            a, b = (kind.points[kind.number[some[twice]]] for some in (first, second))
            apart = a - b
            each = np.exp(-np.einsum("ij,ij->i", apart, apart))
            rows = kind.rows[first[twice]]
            total += np.bincount(kind.rows, minlength=self.n)
            total += [2 * np.bincount(rows, small_power(each, power), minlength=self.n) for power in powers]
        return total


def environment_kernels(a: Environments, b: Environments, powers: Sequence[int], out: Array) -> None:
    """Sums of ``exp(-power |x - y|^2)`` over the surroundings x, y of all defects of one kind.

    Args:
        a: some configurations.
        b: the others, whose `distinct` surroundings are kept.
        powers: of each kernel: 1 or those of levels.
        out: where each kernel is written to, shape (len(powers), a.n, b.n).
    """
    squares = [kind.squares for kind in a.by_kind] + [kind.squares for kind in b.distinct]
    longest = max((float(some.max(initial=0.0)) for some in squares), default=0.0)
    factored = 2 * longest * max(powers) < LARGEST_EXPONENT
    sums = np.empty((len(powers), sum(len(theirs.points) for theirs in b.distinct), a.n))
    start = 0
    for ours, theirs in zip(a.by_kind, b.distinct, strict=True):
        rows = ours.summed(powers if factored else (0,) * len(powers), a.n)
        for block, their_squares in theirs.blocks(len(ours.points)):
            part = slice(start, start + block.shape[1])
            start = part.stop
            each = ours.counts @ block
            if not factored:
                each -= ours.squares[:, None]
                each -= their_squares
            np.exp(each, out=each)
            for power, row, kept in zip(powers, rows, sums, strict=True):
                kept[part] = (row @ small_power(each, power)).T
    for power, kept, kernel in zip(powers, sums, out, strict=True):
        kernel[...] = ((b.weighted[power] if factored else b.counts) @ kept).T


def small_power(values: Array, power: int) -> Array:
    """A small power by multiplications, which are faster than another exponential."""
    result, square = None, values
    while power:
        if power & 1:
            result = square if result is None else result * square
        power >>= 1
        if power:
            square = square * square
    assert result is not None
    return result


def pairs_within(rows: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All ordered pairs of things with the same row, each with itself too; `rows` ascend, below n."""
    first = np.searchsorted(rows, np.arange(n + 1))
    sizes = np.diff(first)[rows]
    centre = np.repeat(np.arange(len(rows)), sizes)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return centre, np.arange(len(centre)) - start + first[rows[centre]]
