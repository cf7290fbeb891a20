"""Weighted sums of the kernels between configurations and training rows, without the kernels themselves.

What is linear in the numbers of pairs is summed over the kernels beforehand, so that one product is enough; the rest is
added block by block while it is in a core's cache. The values are those of `energy_kernels` and `level_kernels` times
their weights, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from defectgen.score.surrogate.kernel_table import (
    AROUND,
    ENERGY_LENGTHS,
    LEVEL_POWERS,
    LIKE_SHARES,
    EnergyKernel,
    LevelKernel,
)
from defectgen.score.surrogate.kernels import (
    BLOCK,
    EnergySide,
    LevelSide,
    fill_level_kernels,
    gaussian,
    level_distances,
)
from defectgen.score.surrogate.surroundings import environment_kernels

Array = NDArray[np.float64]


class EnergyCovariance:
    """Covariances of energies per defect between any configurations and n training rows, without the prior."""

    def __init__(self, rows: EnergySide, weights: Sequence[float]) -> None:
        """Sum what is linear.

        Args:
            rows: the training rows.
            weights: of each of `EnergyKernel`.
        """
        self._rows, self._weights = rows, weights
        short, long, root = rows.lengths
        n_two = rows.pairs.shape[1] // len(short)
        plain, smooth, far = (x.reshape(rows.n, n_two, -1) for x in (rows.pairs, rows.smooth, rows.long))
        pairs = (
            weights[EnergyKernel.PAIRS] * plain
            + weights[EnergyKernel.SMOOTH_PAIRS] * smooth @ root.T
            + weights[EnergyKernel.LONG_PAIRS] * far @ root.T * (long / short)
        )
        linear = np.hstack([weights[EnergyKernel.COUNTS] * rows.counts, pairs.reshape(rows.n, -1)])
        self._linear = np.ascontiguousarray((linear / rows.sizes[:, None]).T)
        self._smooth = np.ascontiguousarray((weights[EnergyKernel.SMOOTH_PAIRS_IN_LIKE_SHARES] * rows.smooth).T)

    def of(self, a: EnergySide) -> Array:
        """Shape (a.n, n)."""
        b, weights, kernel = self._rows, self._weights, EnergyKernel
        near, wide = np.empty((2, 1, a.n, b.n))
        environment_kernels(a.near, b.near, (1,), near)
        environment_kernels(a.wide, b.wide, (1,), wide)
        found = np.hstack([a.counts, a.pairs]) / a.sizes[:, None] @ self._linear
        smooth = a.smooth @ self._smooth
        for start in range(0, a.n, BLOCK):
            rows = slice(start, start + BLOCK)
            close, both = near[0, rows], np.outer(1 / a.sizes[rows], 1 / b.sizes)
            shares = a.shares.minus_squared_distances(b.shares, rows)
            alike = np.empty_like(shares)
            gaussian(shares, LIKE_SHARES, alike)
            some = smooth[rows]
            some += weights[kernel.NEAR_IN_LIKE_SHARES] * close
            some *= alike
            close *= weights[kernel.NEAR]
            some += close
            some += np.multiply(wide[0, rows], weights[kernel.WIDE], out=close)
            some *= both
            gaussian(shares, ENERGY_LENGTHS[kernel.SHARES], shares)
            shares *= weights[kernel.SHARES]
            some += shares
            composition = a.composition.minus_squared_distances(b.composition, rows)
            gaussian(composition, ENERGY_LENGTHS[kernel.COMPOSITION], composition)
            composition *= np.sqrt(both, out=both)
            composition *= weights[kernel.COMPOSITION]
            some += composition
            found[rows] += some
        return np.asarray(found)


def level_covariances(a: LevelSide, b: LevelSide, weights: Array) -> Array:
    """Covariances of p properties that `level_kernels` are for, without the prior.

    Args:
        a: some configurations.
        b: the training rows.
        weights: of each of `LevelKernel`, shape (p, 16).

    Returns:
        Shape (p, a.n, b.n).
    """
    around = np.empty((len(LEVEL_POWERS), a.n, b.n))
    environment_kernels(a.around, b.around, LEVEL_POWERS, around)
    compared, found = level_distances(a, b), np.empty((len(weights), a.n, b.n))
    kernels = np.empty((len(LevelKernel), min(BLOCK, a.n), b.n))
    for start in range(0, a.n, BLOCK):
        rows = slice(start, start + BLOCK)
        part = around[:, rows]
        block = kernels[:, : part.shape[1]]
        block[AROUND] = part
        fill_level_kernels(compared, rows, block)
        found[:, rows] = (weights @ block.reshape(len(block), -1)).reshape(-1, *part.shape[1:])
    return found
