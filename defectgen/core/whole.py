"""Numbers as they are given in calls: Python's or NumPy's, nothing that only looks like one."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard

from defectgen.errors import UsageError
from defectgen.one_line import shown


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(value: object, name: str, least: int) -> int:
    """A whole number as Python's.

    Args:
        value: what was given.
        name: how the message calls it.
        least: smallest one allowed.

    Raises:
        UsageError: it is none, or smaller.
    """
    if is_whole(value) and int(value) >= least:
        return int(value)
    raise UsageError(f"got {name}={shown(value)}, expected a whole number of {least} or more.")
