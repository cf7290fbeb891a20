"""Axes of plots as inline SVG: where values lie, and the frame with its ticks and titles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
    2000.0, 5000.0,
)  # fmt: skip
"""Round distances of ticks."""

MAX_TICKS = 6
MARGIN = 0.06
"""Room beyond the first and the last value, by their distance."""


@dataclass(frozen=True)
class Axis:
    """One axis: calling it with a value gives its place in px.

    Attributes:
        low: value at `start_px`.
        high: value at `end_px`.
        start_px: lower end in the drawing.
        end_px: upper end; less than `start_px` on an axis that points upwards.
        title: text beside it.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    title: str

    def __call__(self, value: float) -> float:
        """Place in px of a value."""
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values between the ends, with their text."""
        step = next((s for s in STEPS if (self.high - self.low) / s <= MAX_TICKS), (self.high - self.low) / MAX_TICKS)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(n * step, f"{n * step:z.{digits}f}".replace("-", "\u2212")) for n in range(first, last + 1)]


def span(values: Iterable[float], *, least: float, margin: float = MARGIN) -> tuple[float, float]:
    """Ends of an axis that holds the finite ones of some values with a margin; at least `least` wide."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    extra = max(margin * (high - low), (least - (high - low)) / 2)
    return low - extra, high + extra


def frame_svg(x: Axis, y: Axis) -> str:
    """Grid, ticks and titles; classes as in the shared style."""
    left, right, bottom, top = x.start_px, x.end_px, y.start_px, y.end_px
    parts = [
        f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" height="{bottom - top:.0f}"/>'
    ]
    for value, text in x.ticks:
        place = x(value)
        parts.append(
            f'<path class="grid" d="M{place:.1f} {bottom:.0f}V{top:.0f}"/>'
            f'<text x="{place:.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{text}</text>'
        )
    for value, text in y.ticks:
        place = y(value)
        parts.append(
            f'<path class="grid" d="M{left:.0f} {place:.1f}H{right:.0f}"/>'
            f'<text x="{left - 6:.0f}" y="{place + 4:.1f}" text-anchor="end">{text}</text>'
        )
    parts.append(f'<text class="axis" x="{(left + right) / 2:.0f}" y="{bottom + 36:.0f}">{x.title}</text>')
    parts.append(f'<text class="axis" transform="translate(13 {(top + bottom) / 2:.0f}) rotate(-90)">{y.title}</text>')
    return "".join(parts)
