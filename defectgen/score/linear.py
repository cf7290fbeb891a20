"""Ridge regression on counts of defects, pairs and triangles: a cluster expansion of a property.

It extrapolates where trees cannot: to compositions with more defects, and to isolated ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Host
from defectgen.score.features import Features, frequent, histogram, pair_vocabulary

CUTOFFS_ANGSTROM = (0.0, 6.0, 8.0, 11.0)
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
        weights = [float(f"{weight:.7g}") for weight in self.weights]
        return {"pairs": self.pairs, "triangles": self.triangles, "weights": weights, "constant": self.constant}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LinearModel:
        return cls(tuple(values["pairs"]), tuple(values["triangles"]), tuple(values["weights"]), values["constant"])


def fit_linear(
    features: Features,
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    pairs: NDArray[np.int64],
    triangles: NDArray[np.int64],
    penalty: float,
) -> LinearModel:
    """Ridge regression; rows count by `weight`, pairs and triangles without a code in the list count nothing."""
    columns = _columns(features, pairs, triangles)
    n_kinds = features.counts.shape[1]
    full = np.hstack([columns, np.ones((len(columns), 1))])
    penalties = np.full(full.shape[1], penalty)
    penalties[:n_kinds] = COUNT_PENALTY
    penalties[-1] = COUNT_PENALTY
    gram = (full * weight[:, None]).T @ full + np.diag(penalties)
    solution = np.linalg.solve(gram, full.T @ (weight * target))
    codes = tuple(pairs.tolist()), tuple(triangles.tolist())
    return LinearModel(*codes, tuple(solution[:-1].tolist()), float(solution[-1]))


def candidates(
    host: Host, features: Features, target: NDArray[np.float64], weight: NDArray[np.float64]
) -> Sequence[LinearModel]:
    """Linear models of different range and penalty, fitted on the training rows."""
    near = frequent(features.triangles, LEAST_ROWS)
    models = []
    for cutoff in CUTOFFS_ANGSTROM:
        pairs = pair_vocabulary(host, cutoff, features.pairs, LEAST_ROWS)
        for triangles in (near[:0], near) if len(near) else (near,):
            for penalty in PENALTIES if len(pairs) + len(triangles) else PENALTIES[:1]:
                models.append(fit_linear(features, target, weight, pairs, triangles, penalty))
    return models


def _columns(features: Features, pairs: NDArray[np.int64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    n = len(features)
    return np.hstack(
        [features.counts, histogram(features.pairs, pairs, n), histogram(features.triangles, triangles, n)]
    )
