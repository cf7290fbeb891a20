"""Shares of counts with their 95 % interval."""

from __future__ import annotations

import math
from typing import Any

Z_95 = 1.959964
"""Of the normal distribution: 95 % lie within so many standard deviations."""


def interval_95(n: int, of: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a share, between 0 and 1.

    That of Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi 10.1080/01621459.1927.10502953.

    Args:
        n: hits.
        of: of how many, at least one.

    Raises:
        ValueError: of none, or more hits than there are.
    """
    if not 0 <= n <= of or not of:
        raise ValueError(f"got {n} of {of}, expected 0 to all of one or more")
    value, z2 = n / of, Z_95**2
    middle = (value + z2 / (2 * of)) / (1 + z2 / of)
    width = Z_95 / (1 + z2 / of) * math.sqrt(value * (1 - value) / of + z2 / (4 * of**2))
    return max(middle - width, 0.0), min(middle + width, 1.0)


def counted_share(n: int, of: int) -> dict[str, Any]:
    """A share with what it was counted from: ``value`` (None of none), ``n``, ``of``, ``interval_95``."""
    if not of:
        return {"value": None, "n": n, "of": of, "interval_95": None}
    return {"value": n / of, "n": n, "of": of, "interval_95": list(interval_95(n, of))}


def percent_text(n: int, of: int) -> str:
    """A share for people, as ``25.0 %, 95 % interval 4.6 to 69.9``."""
    low, high = interval_95(n, of)
    return f"{100 * n / of:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
