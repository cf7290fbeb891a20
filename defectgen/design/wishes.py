"""One wish for one property: a value, a range, or as little or as much as there is; how far a prediction is from it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr  # type: ignore[import-untyped]

from defectgen.core.properties import BY_COLUMN
from defectgen.errors import UsageError
from defectgen.one_line import shown
from defectgen.tasks.numbers import format_number

Towards = Literal["", "min", "max"]

Z_90 = 1.6449
"""Half-width of the interval that holds nine tenths of a normal distribution, in standard deviations."""

GOAL_BESIDE = 0.01
"""Weight of ``min`` and ``max`` beside values and ranges: they order what meets these, as 1 eV counts 10 meV."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wish:
    """What is wanted of one property.

    Attributes:
        column: of `defectgen.core.properties`.
        low: least value that is as wanted, in the property's unit; minus infinity for no bound.
        high: largest one; infinity for no bound. The same as `low` for a value.
        towards: ``min`` or ``max`` where as little or as much as there is is wanted; `low` and `high` are then the
            value that the distance counts from, NaN until it is known.
        weight: factor of the distance.
        usual: whether the weight is only the usual one, which a target may replace; see `beside`.
    """

    column: str
    low: float
    high: float
    towards: Towards = ""
    weight: float = 1.0
    usual: bool = False

    def __post_init__(self) -> None:
        if self.column not in BY_COLUMN:
            raise ValueError(f"got property {self.column!r}, expected one of {list(BY_COLUMN)}")
        if self.low > self.high:
            raise ValueError(f"got a range from {self.low:g} to {self.high:g}, expected the lower end first")
        if not self.towards and (math.isnan(self.low + self.high) or (math.isinf(self.low) and math.isinf(self.high))):
            raise ValueError(f"got {self.column}={self.low}, expected a finite number of {self.unit}")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"got weight {self.weight:g} of {self.column}, expected more than 0")

    @classmethod
    def value(cls, column: str, value: float) -> Wish:
        """One value."""
        return cls(column, value, value)

    @property
    def unit(self) -> str:
        return BY_COLUMN[self.column].unit

    @property
    def is_value(self) -> bool:
        """Whether one value is wanted, and nothing beside it."""
        return not self.towards and self.low == self.high and self.weight == 1

    @property
    def point(self) -> float:
        """The value that stands for the wish where one is needed: of a range its middle, or its only end."""
        if math.isinf(self.low):
            return self.high
        return self.low if math.isinf(self.high) else (self.low + self.high) / 2

    @property
    def text(self) -> str:
        """The wish as an option takes it, e.g. ``0.050`` or ``0.500:0.800*2``."""

        def number(value: float) -> str:
            return format_number(value, BY_COLUMN[self.column].decimals) if math.isfinite(value) else ""

        ends = number(self.low) if self.low == self.high else f"{number(self.low)}:{number(self.high)}"
        some = self.towards or ends
        return some if self.weight == 1 else f"{some}*{self.weight:g}"

    def beside(self, others: bool) -> Wish:
        """The wish with its weight settled: ``min`` and ``max`` of the usual one count `GOAL_BESIDE` beside others.

        Args:
            others: whether a value or a range is wanted too.
        """
        if not self.usual:
            return self
        return replace(self, weight=GOAL_BESIDE if self.towards and others else self.weight, usual=False)

    def counted_from(self, low: float, high: float) -> Wish:
        """A wish for ``min`` or ``max`` with its zero: the least or largest value that is known of the host."""
        if not self.towards:
            return self
        zero = low if self.towards == "min" else high
        return replace(self, low=zero, high=zero)

    def moved(self, by: float) -> Wish:
        """The wish on a scale whose zero is lower by so much."""
        return replace(self, low=self.low + by, high=self.high + by)

    @property
    def scale_ev(self) -> float:
        """Electronvolts that a difference of one unit counts."""
        return self.weight * BY_COLUMN[self.column].weight_ev

    def deviation(self, values: Array | float) -> Array:
        """How far values are above what is wanted (below: negative), in the property's unit; 0 inside a range."""
        found = np.asarray(values, dtype=np.float64)
        return np.maximum(found - self.high, 0.0) + np.minimum(found - self.low, 0.0)

    def distance_ev(self, values: Array | float) -> Array:
        """How far values are from what is wanted, in eV; 0 inside a range, negative beyond the zero of a ``min``."""
        away = self.deviation(values) * self.scale_ev
        if self.towards:
            return away if self.towards == "min" else -away
        return np.abs(away)

    def expected_ev(self, values: Array | float, half_widths: Array | float) -> Array:
        """The mean distance in eV if the values are normal around the predicted ones.

        Nine tenths lie inside the half-widths. For a value this is the mean of the folded normal distribution, doi
        10.1080/00401706.1961.10489974.

        Args:
            values: predicted, in the property's unit.
            half_widths: of the 90 % intervals; NaN for none, which gives infinity.
        """
        found, spread = np.asarray(values, dtype=np.float64), np.asarray(half_widths, dtype=np.float64) / Z_90
        if self.towards:
            return np.where(np.isnan(spread), np.inf, self.distance_ev(found))
        total = _beyond(self.low - found, spread) + _beyond(found - self.high, spread)
        return np.where(np.isnan(spread), np.inf, total * self.scale_ev)


def _beyond(away: Array, spread: Array) -> Array:
    """Mean of ``max(x, 0)`` for x normal around `away`."""
    safe = np.where(spread > 0, spread, 1.0)
    ratio = away / safe
    tail = np.where(np.isfinite(away), away, 0.0) * ndtr(ratio)
    some = safe * np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi) + tail
    return np.where(spread > 0, np.maximum(some, 0.0), np.maximum(away, 0.0))


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WISH = re.compile(
    rf"(?:(?P<goal>min|max)|(?P<value>{_NUMBER})(?:(?:\+-|\+/-|±)(?P<tolerance>{_NUMBER}))?"
    rf"|(?P<low>{_NUMBER})?:(?P<high>{_NUMBER})?)(?:\*(?P<weight>{_NUMBER}))?"
)
FORMS = "a number, a range such as 0.5:0.8 or 0.5:, a tolerance such as 0.6+-0.02, min or max, each with *WEIGHT"


_MILLI = re.compile(rf"({_NUMBER})\s*mev")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_DASH = re.compile(rf"({_NUMBER})(?:-|\u2013|\u2014|\.\.|to)({_NUMBER})")
_BELOW, _ABOVE = (re.compile(rf"{sign}=?\s*({_NUMBER})") for sign in "<>")


def _meant(text: str) -> str:
    """What a number that is none most likely means: one with its unit, or with a decimal comma."""
    plain = text.strip().lower()
    if found := _MILLI.fullmatch(plain):
        return f"{found[1]} meV are {float(found[1]) / 1000:g}. "
    if _COMMA.fullmatch(plain):
        return f"Did you mean {plain.replace(',', '.')}? "
    if found := _DASH.fullmatch(plain.replace(" ", "")):
        return f"Did you mean the range {found[1]}:{found[2]}? "
    if found := _BELOW.fullmatch(plain):
        return f"Did you mean :{found[1]}? "
    if found := _ABOVE.fullmatch(plain):
        return f"Did you mean {found[1]}:? "
    return f"Leave the unit out: {plain.removesuffix('ev').strip()}. " if plain.endswith("ev") else ""


def parse_wish(column: str, text: str) -> Wish:
    """A wish from text such as ``0.6``, ``0.5:0.8``, ``0.5:``, ``0.6+-0.02``, ``min`` or ``0.6*2``.

    Raises:
        UsageError: none of these, a range upside down, a tolerance or weight that is none.
    """
    name, unit = BY_COLUMN[column].name, BY_COLUMN[column].unit
    match = _WISH.fullmatch(text.strip().lower().replace(" ", "").replace("\N{MINUS SIGN}", "-"))
    if match is None or text.strip() == ":":
        raise UsageError(f"{name} is {shown(text)}, expected a number in {unit}.", f"{_meant(text)}Or {FORMS}.")
    weight = float(match["weight"] or 1)
    towards: Towards = "min" if match["goal"] == "min" else "max" if match["goal"] == "max" else ""
    if towards:
        low = high = math.nan
    elif match["value"]:
        tolerance = float(match["tolerance"] or 0)
        if tolerance < 0:
            raise UsageError(f"{name}: got a tolerance of {tolerance:g}, expected 0 or more.")
        low, high = float(match["value"]) - tolerance, float(match["value"]) + tolerance
    else:
        low, high = float(match["low"] or -math.inf), float(match["high"] or math.inf)
    if low > high:
        raise UsageError(f"{name}: got the range {shown(text)}, which is upside down.", f"Expected {high:g}:{low:g}.")
    try:
        return Wish(column, low, high, towards, weight, usual=match["weight"] is None)
    except ValueError as error:
        raise UsageError(f"{name}: {error}.") from error
