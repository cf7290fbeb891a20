"""What networks add to the processes of a crowded set: a share in the values, and its disagreement.

A process and a network err in different ways. Their mean is nearer to the labels than either, and where they differ it
is surely off: the half-width of an interval grows with the difference. A search that has found what the process is too
optimistic about is told so by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]

from defectgen.score.intervals import quantile
from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.agreement import Agreement

Array = NDArray[np.float64]

ENERGY = "formation_energy_ev"
SHARED = (ENERGY, *AGREEING)
"""The columns that both know well enough."""

GRID = tuple(k / 20 for k in range(21))
"""Shares that are tried."""

SMALLEST = 1e-3
"""Least factor of a half-width, so that none vanishes."""


@dataclass(frozen=True)
class NetworkShare:
    """How one set's values follow from both.

    Attributes:
        shares: of the network in each of `SHARED`, 0 to 1; one for HOMO, LUMO and gap, so that they agree.
        own: factor of the process's half-width by column, and...
        apart: ...of the difference of both; the squares of the two are added.
        agreement: how HOMO, LUMO and gap are made to agree; None unless all three are modelled.
        errors: mean absolute error of rows left out by column, in its unit.
    """

    shares: Mapping[str, float]
    own: Mapping[str, float]
    apart: Mapping[str, float]
    agreement: Agreement | None
    errors: Mapping[str, float]

    @classmethod
    def fit(
        cls,
        labels: Mapping[str, Array],
        sizes: Array,
        process: Mapping[str, tuple[Array, Array]],
        network: Mapping[str, Array],
    ) -> NetworkShare | None:
        """From rows that neither has seen; None where no column is known by both.

        Args:
            labels: by column in its unit, NaN where there is none, each of shape (n,).
            sizes: number of defects, which errors of the energy are divided by, shape (n,).
            process: values and half-widths of the processes, likewise.
            network: values of the networks, likewise.
        """
        columns = [column for column in SHARED if column in process and column in network]
        if not columns:
            return None
        shares: dict[str, float] = {}
        for together in ([column for column in columns if column != ENERGY], [ENERGY] if ENERGY in columns else []):
            relative = np.zeros(len(GRID))
            for column in together:
                unit = sizes if column == ENERGY else 1.0
                off = [np.abs(_mixed(process[column][0], network[column], s) - labels[column]) / unit for s in GRID]
                tried = np.nanmean(off, axis=1)
                relative += tried / tried[0]
            shares |= dict.fromkeys(together, GRID[int(relative.argmin())])
        mixed = {column: _mixed(process[column][0], network[column], shares[column]) for column in columns}
        agreement = None
        if set(AGREEING) <= mixed.keys():
            agreement = Agreement.fit(labels, {column: mixed[column] - labels[column] for column in AGREEING})
            for column, values in agreement.apply(mixed).items():
                mixed[column] = np.where(np.isnan(values), mixed[column], values)
        own, apart, errors = {}, {}, {}
        for column in columns:
            error = np.abs(mixed[column] - labels[column])
            known = ~np.isnan(error)
            difference = np.abs(network[column] - process[column][0])[known]
            own[column], apart[column] = _factors(error[known], process[column][1][known], difference)
            errors[column] = float(error[known].mean())
        return cls(shares, own, apart, agreement, errors)

    def apply(
        self, values: Mapping[str, Array], widths: Mapping[str, Array], network: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values and half-widths of both, in the columns' units, each of shape (n,); other columns stay.

        Args:
            values: of the processes.
            widths: half-widths of their 90 % intervals.
            network: values of the network.
        """
        found, half = dict(values), dict(widths)
        for column, share in self.shares.items():
            found[column] = _mixed(values[column], network[column], share)
            difference = np.abs(network[column] - values[column])
            half[column] = np.hypot(self.own[column] * widths[column], self.apart[column] * difference)
        return found, half

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "shares": dict(self.shares),
            "own": dict(self.own),
            "apart": dict(self.apart),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "errors": dict(self.errors),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkShare:
        """The inverse of `to_dict`.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: values that no `to_dict` gives.
        """
        agreement = values["agreement"]
        numbers = (
            {str(column): float(value) for column, value in values[name].items()}
            for name in ("shares", "own", "apart", "errors")
        )
        shares, own, apart, errors = numbers
        if not shares.keys() <= set(SHARED) or not shares.keys() == own.keys() == apart.keys() == errors.keys():
            raise ValueError(f"a network's share in {', '.join(shares)}, factors of {', '.join(own)}")
        factors = [*own.values(), *apart.values(), *errors.values()]
        if not all(0 <= share <= 1 for share in shares.values()) or not all(0 <= f < np.inf for f in factors):
            raise ValueError(f"shares of a network out of range: {shares}")
        return cls(shares, own, apart, None if agreement is None else Agreement.from_dict(agreement), errors)


def _mixed(process: Array, network: Array, share: float) -> Array:
    return (1 - share) * process + share * network


def _factors(errors: Array, widths: Array, differences: Array) -> tuple[float, float]:
    """Factors of both in the half-width: by likelihood of the errors, then so that nine of ten lie within."""
    squares = np.stack([widths**2, differences**2])

    def cost(logarithms: Array) -> float:
        variance = np.exp(logarithms) @ squares + 1e-12
        return float(np.mean(errors**2 / variance + np.log(variance)))

    starts = [np.log([a, b]) for a, b in ((0.3, 0.05), (0.1, 0.3), (0.3, 1e-4))]
    best = min((minimize(cost, start, method="Nelder-Mead") for start in starts), key=lambda found: found.fun)
    factors = np.maximum(np.sqrt(np.exp(best.x)), SMALLEST)
    width = quantile(errors / np.sqrt(factors**2 @ squares))
    scale = np.inf if width is None else width
    return float(scale * factors[0]), float(scale * factors[1])
