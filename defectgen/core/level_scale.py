"""How the zero of the levels moves with the defects in a cell, and how well that is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.names import defect_name, parse_label
from defectgen.errors import DefectgenError

UNFITTED_SHIFT_EV = 0.035
"""Most that one defect whose coefficient could not be fitted is taken to move the zero: the largest
coefficient found where E_1 is a band edge (v_W in WSe2)."""

BEYOND = 3.0
"""Factor on the error of least squares in cells with more defects than any row of the fit: found over expected
error where the own orbital is known there, fitted up to 9 defects, is 1.8 in MoS2_500 and 2.8 in WSe2_500."""

OWN_SHARE = 0.9
"""From this share of own core levels on, cells with fitted kinds alone count as aligned by their own."""

NORMAL_90 = 1.645
"""Half-width of the 90 % interval of a normal distribution, in standard deviations."""

MAX_UNFITTED_EV = 0.2
"""Rows that may be misaligned by more than this are left without aligned levels."""


@dataclass(frozen=True)
class LevelScale:
    """How the zero of a set's cells moves with the defects in them.

    ``shift = intercept_ev + sum of coefficients[kind] * number of that kind``, and a level on the scale
    of the pristine host is ``raw - e_vbm_ev - shift``.

    Attributes:
        set_name: published folder name of the set, e.g. ``WSe2_500``.
        host: name of the host.
        e_vbm_ev: valence band maximum of the pristine cell on its own zero, in eV.
        e1_pristine_ev: lowest Kohn-Sham orbital of the pristine cell on its own zero, in eV.
        intercept_ev: shift without defects: another vacuum than the pristine cell's. 0 at low density.
        coefficients: shift for one defect of each kind, e.g. ``{"v_S": -0.026}``, in eV.
        unfitted: kinds that occur in the set but could not be fitted; they count as 0.
        scatter_ev: root mean square error of the fit on rows left out of it (10 folds), in eV.
        n_rows: number of rows of the fit.
        covariance_ev2: of the coefficients, in their order, and of the intercept where there is one.
        most_defects: in a row of the fit.
        own_share: of the set's rows with fitted kinds alone, how many have the host's own core level.
        window_ev: E_1 - E_1(pristine) of rows whose lowest orbital is the host's own, in eV; empty if not known.
        bounds_ev: for each unfitted kind the most that one defect of it is taken to move the zero, in eV.
    """

    set_name: str
    host: str
    e_vbm_ev: float
    e1_pristine_ev: float
    intercept_ev: float
    coefficients: Mapping[str, float]
    unfitted: tuple[str, ...]
    scatter_ev: float
    n_rows: int
    covariance_ev2: tuple[tuple[float, ...], ...] = ()
    most_defects: int = 0
    own_share: float = 0.0
    window_ev: tuple[float, ...] = ()
    bounds_ev: Mapping[str, float] = field(default_factory=dict)

    def shift(self, configuration: Configuration) -> float:
        """Shift of the zero of this configuration's cell against the pristine cell, in eV."""
        named = {defect_name(*kind): count for kind, count in configuration.kinds.items()}
        return self.intercept_ev + sum(self.coefficients.get(kind, 0.0) * count for kind, count in named.items())

    def fit_error(self, kinds: Sequence[str], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of `shift` in eV: scatter and uncertainty of the fit, more so beyond its rows.

        Args:
            kinds: the kinds that are counted; one without a coefficient is in `unfitted_bound`.
            counts: number of each in n cells, shape (n, n_kinds).

        Returns:
            Shape (n,).
        """
        if not self.covariance_ev2:
            return np.full(len(counts), self.scatter_ev)
        index = {kind: k for k, kind in enumerate(kinds)}
        nothing = np.zeros(len(counts))
        terms = [counts[:, index[kind]] if kind in index else nothing for kind in self.coefficients]
        terms += [nothing + 1.0] * (len(self.covariance_ev2) - len(terms))
        columns = np.stack(terms, axis=1)
        error = np.sqrt(self.scatter_ev**2 + ((columns @ np.array(self.covariance_ev2)) * columns).sum(axis=1))
        return np.asarray(np.where(counts.sum(axis=1) > self.most_defects, BEYOND * error, error))

    def unfitted_bound(self, kinds: Sequence[str], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Most that kinds without a coefficient are taken to move the zero, in eV; as in `fit_error`."""
        bound = [0.0 if kind in self.coefficients else self.bounds_ev.get(kind, UNFITTED_SHIFT_EV) for kind in kinds]
        return np.asarray(counts @ np.array(bound))

    def can_align(self, kinds: Sequence[str], counts: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether cells without a core level of their own are aligned; as in `fit_error`."""
        return np.asarray(self.unfitted_bound(kinds, counts) <= MAX_UNFITTED_EV)

    def half_widths(self, kinds: Sequence[str], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the zero of new cells may be off: half-width of the 90 % interval in eV; as in `fit_error`.

        0 where all kinds are fitted, a row of the fit has as many defects, and such cells of the set are aligned by
        their own core level. An unfitted kind counts as spread evenly up to its bound.
        """
        if not math.isfinite(self.scatter_ev):  # no fit, so that all known levels are on their own zero
            return np.zeros(len(counts))
        unfitted = self.unfitted_bound(kinds, counts)
        widths = np.hypot(NORMAL_90 * self.fit_error(kinds, counts), 0.9 * unfitted)
        certain = (unfitted == 0) & (counts.sum(axis=1) <= self.most_defects) & (self.own_share >= OWN_SHARE)
        return np.asarray(np.where(certain, 0.0, widths))

    def to_raw(self, level_ev: float, configuration: Configuration) -> float:
        """A level relative to the pristine host's VBM on the zero of its own cell, in eV."""
        return level_ev + self.e_vbm_ev + self.shift(configuration)

    def to_dict(self) -> dict[str, Any]:
        """The scale as plain values, for JSON."""
        return {
            **dataclasses.asdict(self),
            "coefficients": dict(self.coefficients),
            "unfitted": list(self.unfitted),
            "covariance_ev2": [list(row) for row in self.covariance_ev2],
            "window_ev": list(self.window_ev),
            "bounds_ev": dict(self.bounds_ev),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LevelScale:
        """The inverse of `to_dict`.

        Raises:
            DefectgenError: a field is missing or unknown.
        """
        try:
            covariance = tuple(tuple(row) for row in values.get("covariance_ev2", ()))
            lists = {"unfitted": tuple(values["unfitted"]), "window_ev": tuple(values.get("window_ev", ()))}
            return cls(**{**values, **lists, "covariance_ev2": covariance})
        except (TypeError, KeyError) as error:
            raise DefectgenError(f"not a level scale: {error}.") from error


def kind_counts(labels: Sequence[str], kinds: Sequence[str] | None = None) -> tuple[list[str], NDArray[np.float64]]:
    """Number of defects of each kind in each label.

    Args:
        labels: defect labels, e.g. ``v_Mo+2Se_S``.
        kinds: the kinds to count; by default all that occur, sorted.

    Returns:
        The kinds and an array of shape (n_labels, n_kinds).
    """
    parsed = {label: {defect_name(*k): n for k, n in parse_label(label).items()} for label in dict.fromkeys(labels)}
    columns = list(kinds) if kinds is not None else sorted({kind for counts in parsed.values() for kind in counts})
    table = {label: [float(counts.get(kind, 0)) for kind in columns] for label, counts in parsed.items()}
    return columns, np.array([table[label] for label in labels], dtype=np.float64).reshape(len(labels), len(columns))
