"""How uncertain predictions are, guessed from the numbers of defects: what a search can afford at every step.

The exact interval of a crowded cell costs several times as much as its value. Most of what makes it wide or narrow is
the composition, so a ridge regression on it, learnt from the cells that were scored in full, stands for it in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

RIDGE = 1.0
"""Strength of the penalty, for standardized features."""

LEAST_ROWS = 16
"""Cells from which something is learnt."""

MOST_ROWS = 4096
"""Of the cells that were scored, the last ones are learnt from."""


class WidthModel:
    """Guesses half-widths of 90 % intervals from numbers of defects."""

    def __init__(self, columns: Sequence[str]) -> None:
        """For some properties; knows nothing yet."""
        self.columns = tuple(columns)
        self._rows: Array = np.zeros((0, 0))
        self._widths: Array = np.zeros((0, len(self.columns)))
        self._mean: Array = np.zeros(0)
        self._scale: Array = np.zeros(0)
        self._weights: Array = np.zeros((0, 0))
        self._level: Array = np.zeros(0)
        self._low: Array = np.zeros(0)
        self._high: Array = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether it has seen enough cells with intervals."""
        return len(self._weights) > 0

    def learn(self, counts: Indices, half_widths: Sequence[Array]) -> None:
        """Take cells into account.

        Args:
            counts: number of defects of each kind, shape (n, n_kinds).
            half_widths: of each property in its unit, each of shape (n,); rows with NaN or 0 are left out.
        """
        new = np.column_stack(half_widths)
        fine = np.isfinite(new).all(axis=1) & (new > 0).all(axis=1)
        if not fine.any():
            return
        rows = _features(counts[fine])
        self._rows = np.vstack([self._rows, rows])[-MOST_ROWS:] if self._rows.size else rows
        self._widths = np.vstack([self._widths, np.log(new[fine])])[-MOST_ROWS:]
        if len(self._rows) < LEAST_ROWS:
            return
        self._mean, self._scale = self._rows.mean(axis=0), np.maximum(self._rows.std(axis=0), 1e-9)
        points = (self._rows - self._mean) / self._scale
        self._level = self._widths.mean(axis=0)
        square = points.T @ points + RIDGE * np.eye(points.shape[1])
        self._weights = np.asarray(np.linalg.solve(square, points.T @ (self._widths - self._level)), dtype=np.float64)
        self._low, self._high = self._widths.min(axis=0), self._widths.max(axis=0)

    def guess(self, counts: Indices) -> dict[str, Array]:
        """Half-widths of each property in its unit, each of shape (n,), within the range of those learnt from."""
        points = (_features(counts) - self._mean) / self._scale
        logs = np.clip(points @ self._weights + self._level, self._low, self._high)
        return dict(zip(self.columns, np.exp(logs).T, strict=True))


def _features(counts: Indices) -> Array:
    """Numbers, shares and presence of the kinds, and products of two of the latter, shape (n, n_features)."""
    numbers = counts.astype(np.float64)
    sizes = np.maximum(numbers.sum(axis=1, keepdims=True), 1.0)
    shares, present = numbers / sizes, (numbers > 0).astype(np.float64)
    first, second = np.triu_indices(counts.shape[1])
    apart = first != second
    return np.hstack(
        [
            numbers,
            np.sqrt(numbers),
            shares,
            np.log(sizes),
            1 / sizes,
            shares[:, first] * shares[:, second],
            present,
            present[:, first[apart]] * present[:, second[apart]],
        ]
    )
