"""Kernels between decorations: how much two cells have in common.

`energy_kernels` are sums over the defects of both cells, so that energies are sums of contributions of defects,
of pairs and of surroundings, and depend smoothly on the composition (charge goes from donors to acceptors
wherever they are). `level_kernels` compare cells as wholes, as band edges and gaps do not add up.

Both take what `EnergySide` and `LevelSide` have prepared of each side: the training rows are prepared once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.score.surrogate.environments import Decorations
from defectgen.score.surrogate.kernel_table import (
    AROUND,
    ENERGY_LENGTHS,
    LEVEL_DECAY_ANGSTROM,
    LEVEL_LENGTHS,
    LEVEL_PAIRS_ANGSTROM,
    LEVEL_POWERS,
    LEVEL_SURROUNDINGS,
    LIKE_SHARES,
    LONG_ANGSTROM,
    NEAR,
    NUMBER,
    OTHER_PARITY,
    POOLED,
    PRESENT,
    SHORT_ANGSTROM,
    SMOOTHING_ANGSTROM,
    TIMES_HAS,
    WIDE,
    EnergyKernel,
    LevelKernel,
)
from defectgen.score.surrogate.surroundings import Environments, Points, environment_kernels

Array = NDArray[np.float64]

BLOCK = 32
"""Configurations that are compared with the others in one step."""


def gaussian(distances: Array, length: float, out: Array) -> None:
    """``exp(-d^2 / 2 length^2)`` from the negative squared distances, written to `out`."""
    np.exp(np.multiply(distances, 0.5 / length**2, out=out), out=out)


@dataclass(frozen=True, eq=False)
class EnergySide:
    """What `energy_kernels` need of n configurations.

    Attributes:
        n: number of configurations.
        counts: number of defects of each kind, shape (n, n_kinds).
        composition: the same, as points.
        shares: of the kinds in the defects, as points.
        sizes: number of defects, shape (n,).
        pairs: numbers of pairs, near ones counting more, shape (n, m).
        smooth: the same, pairs of similar length being alike, with a short range, shape (n, k).
        long: likewise, with a long range, shape (n, k).
        lengths: how pairs count by orbit: with a short range, a long one, and what makes similar lengths alike.
        near: surroundings, as the next one.
        wide: those of a longer range.
    """

    n: int
    counts: Array
    composition: Points
    shares: Points
    sizes: Array
    pairs: Array
    smooth: Array
    long: Array
    lengths: tuple[Array, Array, Array]
    near: Environments
    wide: Environments

    @classmethod
    def of(cls, rows: Decorations) -> EnergySide:
        """Of some configurations."""
        short, long, root = _pair_lengths(tuple(rows.distances_angstrom.tolist()))
        flat = len(rows), -1
        pairs = rows.pair_counts * short
        return cls(
            len(rows),
            rows.counts,
            Points(rows.counts),
            Points(rows.counts / rows.sizes[:, None]),
            rows.sizes,
            pairs.reshape(flat),
            (pairs @ root).reshape(flat),
            ((rows.pair_counts * long) @ root).reshape(flat),
            (short, long, root),
            rows.environments(*NEAR),
            rows.environments(*WIDE),
        )

    def smoothed(self, pair_counts: Array) -> Array:
        """What `smooth` is, of other configurations, from their numbers of pairs."""
        short, _, root = self.lengths
        return np.asarray(((pair_counts * short) @ root).reshape(len(pair_counts), -1))

    def pair_sums(self, shares: Array) -> tuple[Array, Array, Array]:
        """What one pair adds to the sum of the kernels of `pairs`, `smooth` and `long` over all rows.

        Args:
            shares: of each row in the sum, shape (n,).

        Returns:
            Each of shape (n_two_kinds, n_orbits).
        """
        short, long, root = self.lengths
        n_two = self.pairs.shape[1] // len(short)
        plain, smooth, far = ((shares @ x).reshape(n_two, -1) for x in (self.pairs, self.smooth, self.long))
        return plain * short, smooth @ root.T * short, far @ root.T * long


@lru_cache(maxsize=64)
def _pair_lengths(distances_angstrom: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """`EnergySide.lengths` of orbits."""
    distances = np.array(distances_angstrom)
    short, long = (np.exp((distances[0] - distances) / decay) for decay in (SHORT_ANGSTROM, LONG_ANGSTROM))
    alike = np.exp(-0.5 * ((distances[:, None] - distances) / SMOOTHING_ANGSTROM) ** 2)
    values, vectors = np.linalg.eigh(alike)
    kept = values > 1e-14 * values.max()
    return short, long, vectors[:, kept] * np.sqrt(values[kept])


def energy_kernels(a: EnergySide, b: EnergySide) -> Array:
    """For energies per defect, those of `EnergyKernel`, shape (10, a.n, b.n)."""
    kernel = EnergyKernel
    out = np.empty((len(kernel), a.n, b.n))
    environment_kernels(a.near, b.near, (1,), out[kernel.NEAR, None])
    environment_kernels(a.wide, b.wide, (1,), out[kernel.WIDE, None])
    for start in range(0, a.n, BLOCK):
        rows = slice(start, start + BLOCK)
        block, both = out[:, rows], np.outer(a.sizes[rows], b.sizes)
        shares = a.shares.minus_squared_distances(b.shares, rows)
        composition = a.composition.minus_squared_distances(b.composition, rows)
        block[kernel.COUNTS] = a.counts[rows] @ b.counts.T
        block[kernel.PAIRS] = a.pairs[rows] @ b.pairs.T
        block[kernel.SMOOTH_PAIRS] = a.smooth[rows] @ b.smooth.T
        block[kernel.LONG_PAIRS] = a.long[rows] @ b.long.T
        gaussian(composition, ENERGY_LENGTHS[kernel.COMPOSITION], block[kernel.COMPOSITION])
        block[kernel.COMPOSITION] *= np.sqrt(both)
        gaussian(shares, ENERGY_LENGTHS[kernel.SHARES], block[kernel.SHARES])
        block[kernel.SHARES] *= both
        alike = block[kernel.NEAR_IN_LIKE_SHARES]
        gaussian(shares, LIKE_SHARES, alike)
        np.multiply(block[kernel.SMOOTH_PAIRS], alike, out=block[kernel.SMOOTH_PAIRS_IN_LIKE_SHARES])
        alike *= block[kernel.NEAR]
        block /= both
    return out


def own_energy_kernels(a: EnergySide) -> Array:
    """`energy_kernels` of each configuration with itself, shape (10, a.n)."""
    smooth, both = (a.smooth**2).sum(axis=1), a.sizes**2
    (near,), (wide,) = a.near.own((1,)), a.wide.own((1,))
    kernels = {
        EnergyKernel.COUNTS: (a.counts**2).sum(axis=1),
        EnergyKernel.PAIRS: (a.pairs**2).sum(axis=1),
        EnergyKernel.SMOOTH_PAIRS: smooth,
        EnergyKernel.LONG_PAIRS: (a.long**2).sum(axis=1),
        EnergyKernel.COMPOSITION: a.sizes,
        EnergyKernel.SHARES: both,
        EnergyKernel.NEAR: near,
        EnergyKernel.WIDE: wide,
        EnergyKernel.SMOOTH_PAIRS_IN_LIKE_SHARES: smooth,
        EnergyKernel.NEAR_IN_LIKE_SHARES: near,
    }
    return np.stack([kernels[kernel] for kernel in EnergyKernel]) / both


@dataclass(frozen=True)
class LevelScales:
    """Units of the features of `level_kernels`, taken from the training rows.

    Attributes:
        mean: of each pooled feature.
        spread: its standard deviation, at least 1e-9.
        present: median squared distance of the features that say which pairs are present.
        number: likewise, of those that say how many.
    """

    mean: Array
    spread: Array
    present: float
    number: float

    @classmethod
    def of(cls, rows: Decorations) -> LevelScales:
        """From training rows."""
        points = [Points(values) for values in _pair_features(rows, rows.pair_counts)]
        medians = [max(float(np.median(-x.minus_squared_distances(x, slice(None)))), 1e-9) for x in points]
        return cls(rows.pooled.mean(axis=0), rows.pooled.std(axis=0) + 1e-9, *medians)


def _pair_features(rows: Decorations, pair_counts: Array) -> tuple[Array, Array]:
    """Which pairs are present, and the logarithms of their numbers; near ones count more."""
    weights = rows.weights
    distances = rows.distances_angstrom[rows.distances_angstrom <= LEVEL_PAIRS_ANGSTROM]
    both = np.array([weights[i] * weights[j] for i, j in rows.two_kinds])
    scale = np.outer(both, np.exp(-distances / LEVEL_DECAY_ANGSTROM))
    counts = pair_counts[:, :, : len(distances)]
    flat = len(counts), -1
    return (np.minimum(counts, 1) * scale).reshape(flat), (np.log1p(counts) * scale).reshape(flat)


@dataclass(frozen=True, eq=False)
class LevelSide:
    """What `level_kernels` need of n configurations; all but the last as points.

    Attributes:
        n: number of configurations.
        has: which kinds there are.
        counts: number of defects of each kind.
        logs: logarithms of these numbers.
        shares: of the kinds in the defects.
        pooled: the pooled features in units of their spread.
        present: which pairs there are, in units of the median distance, as the next one.
        number: how many pairs.
        around: surroundings.
    """

    n: int
    has: Points
    counts: Points
    logs: Points
    shares: Points
    pooled: Points
    present: Points
    number: Points
    around: Environments

    @classmethod
    def of(cls, rows: Decorations, scales: LevelScales) -> LevelSide:
        """Of some configurations."""
        weights = rows.weights
        return cls(
            len(rows),
            Points(np.where(rows.counts > 0, np.sqrt(weights), 0.0)),
            Points(rows.counts * weights),
            Points(np.log1p(rows.counts) * weights),
            Points(rows.counts / rows.sizes[:, None] * weights),
            *level_points(rows, scales, rows.pooled, rows.pair_counts),
            rows.environments(*LEVEL_SURROUNDINGS),
        )


def level_points(
    rows: Decorations, scales: LevelScales, pooled: Array, pair_counts: Array
) -> tuple[Points, Points, Points]:
    """Pooled features, pairs that are present and their numbers, as `LevelSide` has them.

    Args:
        rows: of the same host as what follows.
        scales: of the training rows.
        pooled: as `Decorations.pooled`.
        pair_counts: as `Decorations.pair_counts`.
    """
    weights = rows.pooled_weights / np.linalg.norm(rows.pooled_weights)
    present, number = _pair_features(rows, pair_counts)
    odd = rows.odd(pooled[:, : rows.n_kinds])[:, None] * OTHER_PARITY
    return (
        Points(np.hstack([(pooled - scales.mean) / scales.spread * weights, odd])),
        Points(np.hstack([present / np.sqrt(scales.present), odd])),
        Points(np.hstack([number / np.sqrt(scales.number), odd])),
    )


def level_kernels(a: LevelSide, b: LevelSide) -> Array:
    """For levels, gaps and moments, those of `LevelKernel`, shape (16, a.n, b.n)."""
    out = np.empty((len(LevelKernel), a.n, b.n))
    environment_kernels(a.around, b.around, LEVEL_POWERS, out[AROUND])
    compared = level_distances(a, b)
    for start in range(0, a.n, BLOCK):
        rows = slice(start, start + BLOCK)
        fill_level_kernels(compared, rows, out[:, rows])
    return out


Compared = Sequence[tuple[tuple[LevelKernel, ...], Array]]
"""Kernels, and the negative squared distances that they follow from, of shape (a.n, b.n)."""


def level_distances(a: LevelSide, b: LevelSide) -> Compared:
    """For all but the kernels of surroundings."""
    everything = slice(None)
    return (
        ((LevelKernel.HAS,), a.has.minus_squared_distances(b.has, everything)),
        ((LevelKernel.COUNTS, LevelKernel.COUNTS_COARSE), a.counts.minus_squared_distances(b.counts, everything)),
        ((LevelKernel.LOG_COUNTS,), a.logs.minus_squared_distances(b.logs, everything)),
        ((LevelKernel.SHARES,), a.shares.minus_squared_distances(b.shares, everything)),
        (POOLED, a.pooled.minus_squared_distances(b.pooled, everything)),
        (PRESENT, a.present.minus_squared_distances(b.present, everything)),
        (NUMBER, a.number.minus_squared_distances(b.number, everything)),
    )


def fill_level_kernels(compared: Compared, rows: slice, out: Array) -> None:
    """All but the kernels of surroundings, of some rows, written to `out`, shape (16, number of rows, b.n)."""
    for kernels, distances in compared:
        for kernel in kernels:
            np.multiply(distances[rows], 0.5 / LEVEL_LENGTHS[kernel] ** 2, out=out[kernel])
    smooth = out[: LevelKernel.AROUND]
    np.exp(smooth, out=smooth)
    for kernel, product in TIMES_HAS.items():
        np.multiply(out[kernel], out[LevelKernel.HAS], out=out[product])


def own_level_kernels(a: LevelSide) -> Array:
    """`level_kernels` of each configuration with itself, shape (16, a.n)."""
    out = np.ones((len(LevelKernel), a.n))
    out[AROUND] = a.around.own(LEVEL_POWERS)
    return out
