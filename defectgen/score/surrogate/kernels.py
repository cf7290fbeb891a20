"""Kernels between decorations: how much two cells have in common.

`energy_kernels` are sums over the defects of both cells, so that energies are sums of contributions of defects,
of pairs and of surroundings, and depend smoothly on the composition (charge goes from donors to acceptors
wherever they are). `level_kernels` compare cells as wholes, as band edges and gaps do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.score.surrogate.environments import Decorations, Environments

Array = NDArray[np.float64]

LEVEL_PAIRS_ANGSTROM = 8.0
"""Longest pair that `level_kernels` look at."""


def squared_distances(a: Array, b: Array) -> Array:
    """Between all rows of two matrices, shape (len(a), len(b))."""
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0))


def gaussian(a: Array, b: Array, length: float) -> Array:
    """``exp(-|a - b|^2 / 2 length^2)`` for all rows of two matrices, shape (len(a), len(b))."""
    return np.asarray(np.exp(squared_distances(a, b) / (-2 * length**2)))


def environment_kernel(a: Environments, b: Environments, sharpness: float) -> Array:
    """Sum of ``exp(-sharpness |x - y|^2)`` over the surroundings of all defects of one kind, shape (a.n, b.n)."""
    total = np.zeros((a.n, b.n))
    for (rows_a, points_a), (rows_b, points_b) in zip(a.by_kind, b.by_kind, strict=True):
        if not len(rows_a) or not len(rows_b):
            continue
        each = np.exp(-sharpness * squared_distances(points_a, points_b))
        found_a, first_a = np.unique(rows_a, return_index=True)
        found_b, first_b = np.unique(rows_b, return_index=True)
        total[np.ix_(found_a, found_b)] += np.add.reduceat(np.add.reduceat(each, first_a, axis=0), first_b, axis=1)
    return total


def energy_kernels(a: Decorations, b: Decorations) -> Array:
    """For energies per defect, shape (10, len(a), len(b))."""
    distances = a.distances_angstrom
    shares = a.counts / a.sizes[:, None], b.counts / b.sizes[:, None]
    alike_shares = gaussian(*shares, 0.5)

    def pairs(decay: float, smoothing: float) -> Array:
        weights = np.exp((distances[0] - distances) / decay)
        first, second = a.pair_counts * weights, b.pair_counts * weights
        if smoothing:
            first = first @ np.exp(-0.5 * ((distances[:, None] - distances) / smoothing) ** 2)
        return np.asarray(first.reshape(len(a), -1) @ second.reshape(len(b), -1).T)

    def surroundings(decay: float, smoothing: float, longest: float, sharpness: float) -> Array:
        chosen = decay, smoothing, longest
        return environment_kernel(a.environments(*chosen), b.environments(*chosen), sharpness)

    smooth, near = pairs(2.0, 3.0), surroundings(3.0, 0.0, 4.5, 0.5)
    composition = gaussian(a.counts, b.counts, 6.0) * np.sqrt(np.outer(a.sizes, b.sizes))
    both = np.outer(a.sizes, b.sizes)
    kernels = [
        a.counts @ b.counts.T,
        pairs(2.0, 0.0),
        smooth,
        pairs(5.0, 3.0),
        composition,
        gaussian(*shares, 1.0) * both,
        near,
        surroundings(4.0, 0.7, 9.0, 0.1),
        smooth * alike_shares,
        near * alike_shares,
    ]
    return np.stack(kernels) / both


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
        medians = [max(float(np.median(squared_distances(x, x))), 1e-9) for x in _pair_features(rows)]
        return cls(rows.pooled.mean(axis=0), rows.pooled.std(axis=0) + 1e-9, *medians)


def _pair_features(rows: Decorations) -> tuple[Array, Array]:
    """Which pairs are present, and the logarithms of their numbers; near ones count more."""
    weights = rows.weights
    distances = rows.distances_angstrom[rows.distances_angstrom <= LEVEL_PAIRS_ANGSTROM]
    both = np.array([weights[i] * weights[j] for i, j in rows.two_kinds])
    scale = np.outer(both, np.exp(-distances / 3.0))
    counts = rows.pair_counts[:, :, : len(distances)]
    flat = len(rows), -1
    return (np.minimum(counts, 1) * scale).reshape(flat), (np.log1p(counts) * scale).reshape(flat)


def level_kernels(a: Decorations, b: Decorations, scales: LevelScales) -> Array:
    """For levels, gaps and moments, shape (16, len(a), len(b))."""
    weights = a.weights
    has = np.exp(((a.counts > 0)[:, None] != (b.counts > 0)[None]) @ weights / -0.5)
    pooled_weights = a.pooled_weights / np.linalg.norm(a.pooled_weights)
    pooled = [(x.pooled - scales.mean) / scales.spread * pooled_weights for x in (a, b)]
    present, number = zip(_pair_features(a), _pair_features(b), strict=True)
    unit = np.sqrt(scales.present), np.sqrt(scales.number)
    shares = a.counts / a.sizes[:, None] * weights, b.counts / b.sizes[:, None] * weights
    chosen = 3.0, 0.7, 7.0
    around = a.environments(*chosen), b.environments(*chosen)
    fine = gaussian(pooled[0], pooled[1], 0.4)
    coarse = gaussian(pooled[0], pooled[1], 3.0)
    return np.stack(
        [
            has,
            gaussian(a.counts * weights, b.counts * weights, 0.7),
            gaussian(a.counts * weights, b.counts * weights, 2.5),
            gaussian(np.log1p(a.counts) * weights, np.log1p(b.counts) * weights, 0.5),
            gaussian(*shares, 0.5),
            fine,
            gaussian(pooled[0], pooled[1], 1.0),
            coarse,
            gaussian(*present, 0.3 * unit[0]),
            gaussian(*present, 1.0 * unit[0]),
            gaussian(*number, 0.3 * unit[1]),
            gaussian(*number, 1.0 * unit[1]),
            environment_kernel(*around, 0.1),
            environment_kernel(*around, 0.5),
            fine * has,
            coarse * has,
        ]
    )
