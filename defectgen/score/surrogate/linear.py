"""Ridge regression on counts of defects, pairs and triangles: a cluster expansion of a property.

It extrapolates where trees cannot: to compositions with more defects, and to isolated ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Host
from defectgen.score.surrogate.features import Features, frequent, histogram, pair_vocabulary

CUTOFFS_ANGSTROM = (6.0, 8.0, 11.0)
"""Longest pair of the candidates."""

PENALTIES = (0.03, 0.3, 3.0, 30.0)
"""Ridge penalties of pairs and triangles of the candidates."""

COUNT_PENALTY = 1e-6
"""Penalty of the counts of defects and of the constant."""

LEAST_ROWS = 5
"""Pairs and triangles in fewer training rows get no weight."""


@dataclass(frozen=True)
class LinearModel:
    """``constant + weights . (counts, pairs, triangles)``.

    Attributes:
        pairs: codes of the pairs that have a weight, sorted.
        triangles: codes of the triangles that have a weight, sorted.
        weights: of kinds, pairs and triangles in this order, in the unit of the property.
        constant: value of the pristine host, in the unit of the property.
    """

    pairs: tuple[int, ...]
    triangles: tuple[int, ...]
    weights: tuple[float, ...]
    constant: float

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Values for n configurations, shape (n,)."""
        columns = _columns(features, np.array(self.pairs, dtype=np.int64), np.array(self.triangles, dtype=np.int64))
        return np.asarray(columns @ np.array(self.weights) + self.constant)

    def to_dict(self) -> dict[str, Any]:
        """The model as plain values, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LinearModel:
        """The inverse of `to_dict`."""
        return cls(tuple(values["pairs"]), tuple(values["triangles"]), tuple(values["weights"]), values["constant"])


@dataclass(frozen=True)
class LinearSettings:
    """Longest pair (angstrom), whether triangles count, and the ridge penalty of both."""

    cutoff_angstrom: float
    triangles: bool
    penalty: float


CANDIDATES = (
    LinearSettings(0.0, False, PENALTIES[0]),
    *(
        LinearSettings(cutoff, triangles, penalty)
        for cutoff in CUTOFFS_ANGSTROM
        for triangles in (False, True)
        for penalty in PENALTIES
    ),
)


def fit_linear(
    host: Host,
    features: Features,
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    settings: LinearSettings,
) -> LinearModel:
    """Ridge regression on training rows.

    Args:
        host: the host of all rows.
        features: of n rows.
        target: shape (n,), in the unit of the property.
        weight: how much each row counts, shape (n,).
        settings: see `LinearSettings`.
    """
    pairs = pair_vocabulary(host, settings.cutoff_angstrom, features.pairs, LEAST_ROWS)
    triangles = frequent(features.triangles, LEAST_ROWS if settings.triangles else len(features) + 1)
    columns = _columns(features, pairs, triangles)
    full = np.hstack([columns, np.ones((len(columns), 1))])
    penalties = np.full(full.shape[1], settings.penalty)
    penalties[: features.counts.shape[1]] = COUNT_PENALTY
    penalties[-1] = COUNT_PENALTY
    gram = (full * weight[:, None]).T @ full + np.diag(penalties)
    solution = np.linalg.solve(gram, full.T @ (weight * target))
    codes = tuple(pairs.tolist()), tuple(triangles.tolist())
    return LinearModel(*codes, tuple(solution[:-1].tolist()), float(solution[-1]))


def _columns(features: Features, pairs: NDArray[np.int64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    n = len(features)
    return np.hstack(
        [features.counts, histogram(features.pairs, pairs, n), histogram(features.triangles, triangles, n)]
    )
