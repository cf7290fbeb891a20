"""Intervals from errors on rows that a model has not seen (split conformal prediction, doi 10.1561/2200000101)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.9
"""Share of true values that an interval is made to hold."""

LEAST_ROWS = math.ceil(LEVEL / (1 - LEVEL) - 1e-9)
"""Errors that `quantile` needs."""

MIN_TRAIN_ROWS = 20
"""A property with fewer training rows in a set is not learnt."""


def quantile(errors: NDArray[np.float64]) -> float | None:
    """The error that a new row exceeds with probability at most 1 - `LEVEL`; None with too few rows."""
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return None if rank > len(errors) else float(np.sort(errors)[rank - 1])
