"""HOMO, LUMO and gap that agree, as those of every label do.

The HOMO is the higher one of both spin channels, the LUMO the lower one and the gap the smaller one of the
channels' gaps, so LUMO - HOMO is never more than the gap; where there is one channel they are equal. Three models
that know nothing of each other break this. Their values are moved to the nearest ones that keep it: what obeys it is
a convex set, so that the distance to the label, measured by the covariance of the errors, does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev")
"""The columns that agree, in the order of the covariance."""

SIGNS = np.array([-1.0, 1.0, -1.0])
"""LUMO - HOMO - gap is these times `COLUMNS`; it is minus the slack."""

ONE_CHANNEL_EV = 1e-3
"""Labels whose gap is LUMO - HOMO to within this have one spin channel."""

FEWEST_ROWS = 10
"""With fewer left-out rows errors count as independent."""


@dataclass(frozen=True)
class Agreement:
    """Least squares under gap - (LUMO - HOMO) = slack >= 0 and gap >= 0.

    Attributes:
        covariance_ev2: of the errors of HOMO, LUMO and gap, in eV^2.
        slack_ev: mean of the slack of the labels, 0 where there is one channel.
        slack_variance_ev2: its variance, in eV^2.
    """

    covariance_ev2: tuple[tuple[float, ...], ...]
    slack_ev: float
    slack_variance_ev2: float

    @classmethod
    def fit(cls, labels: Mapping[str, Array], errors: Mapping[str, Array]) -> Agreement:
        """From labels and from errors on rows that the models have not seen.

        Args:
            labels: values of `COLUMNS` in eV, each of shape (n,), NaN where there is none.
            errors: predicted less true, in eV, of other rows or the same.
        """
        off = np.stack([errors[column] for column in COLUMNS], axis=1)
        known = off[~np.isnan(off).any(axis=1)]
        if len(known) >= FEWEST_ROWS:
            moments = known.T @ known / len(known)
        else:
            moments = np.diag([float(np.mean(e[~np.isnan(e)] ** 2)) if (~np.isnan(e)).any() else 1.0 for e in off.T])
        return cls.given(labels, moments)

    @classmethod
    def given(cls, labels: Mapping[str, Array], covariance: Array) -> Agreement:
        """From labels as in `fit` and a covariance in eV^2, shape (3, 3); no error is taken as less than 1 micro-eV."""
        slack = labels["band_gap_ev"] - labels["lumo_ev"] + labels["homo_ev"]
        slack = slack[~np.isnan(slack)]
        if np.abs(slack).max(initial=0.0) < ONE_CHANNEL_EV:
            slack = np.zeros(1)
        covariance = covariance + 1e-12 * np.eye(3)
        rows = tuple(tuple(row) for row in covariance.tolist())
        return cls(rows, max(float(slack.mean()), 0.0), float(slack.var()))

    @property
    def one_channel(self) -> bool:
        """Whether the gap is LUMO - HOMO in every label."""
        return self.slack_ev == 0 and self.slack_variance_ev2 == 0

    def apply(self, values: Mapping[str, Array], gap_stays: NDArray[np.bool_] | None = None) -> dict[str, Array]:
        """`COLUMNS` moved as little as possible, each of shape (n,); NaN where one of them is.

        Args:
            values: of `COLUMNS`, each of shape (n,).
            gap_stays: rows whose gap is not moved, as their levels are guesses, shape (n,); none by default.
        """
        start = np.stack([values[column] for column in COLUMNS], axis=-1)
        stays = np.zeros(len(start), dtype=bool) if gap_stays is None else gap_stays
        covariance = np.array(self.covariance_ev2)
        levels = covariance * np.outer([1, 1, 0], [1, 1, 0])
        pull = np.where(stays[:, None], levels @ SIGNS, covariance @ SIGNS)
        variance = pull @ SIGNS
        excess = start @ SIGNS
        step = (excess + self.slack_ev) / (variance + self.slack_variance_ev2)
        negative = self.slack_ev - self.slack_variance_ev2 * step < 0
        step = np.where(negative, excess / variance, step)
        homo, lumo, gap = (start - step[:, None] * pull).T
        if self.one_channel:
            middle, half = (homo + lumo) / 2, np.maximum(lumo - homo, 0.0) / 2
            homo, lumo = middle - half, middle + half
            return {"homo_ev": homo, "lumo_ev": lumo, "band_gap_ev": lumo - homo}
        return {"homo_ev": homo, "lumo_ev": lumo, "band_gap_ev": np.maximum(np.maximum(gap, lumo - homo), 0.0)}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Agreement:
        """The inverse of `to_dict`."""
        covariance = tuple(tuple(row) for row in values["covariance_ev2"])
        return cls(covariance, values["slack_ev"], values["slack_variance_ev2"])
