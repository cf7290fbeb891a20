"""Predicted HOMO and LUMO of the first candidates against the levels asked for, as an inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target
from defectgen.design.wishes import Wish

Scale = Callable[[float], float]
"""Height in the drawing, in px, of an energy in eV."""

LEVELS = ("homo_ev", "lumo_ev")
HEIGHT_PX = 260.0
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 56.0, 96.0, 14.0, 28.0
STEPS_EV = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
MIN_LABEL_STEP_PX = 13.0
BAR_SHARE = 0.56
"""Width of a level by the room of a candidate."""


def level_svg(run: DesignRun, target: Target, candidates: Sequence[Candidate], width_px: int = 760) -> str:
    """One column a candidate: HOMO and LUMO by DFT or with 90 % intervals, dashed lines where the target wants them.

    What lies between the ends of a wanted range is shaded.
    With levels relative to the pristine VBM the valence band is shaded; the conduction band too if
    the run's settings give ``pristine_band_gap_ev``. Styled by the classes of the report's page.

    Args:
        run: the design run.
        target: what was asked for.
        candidates: those to show, best first.
        width_px: width of the drawing.

    Returns:
        The SVG, or nothing if no candidate has a level.
    """
    shown = [c for c in candidates if any(math.isfinite(_level(c, column)[0]) for column in LEVELS)]
    if not shown:
        return ""
    wishes = [wish for wish in target.wishes if BY_COLUMN[wish.column].is_level]
    asked = [(wish, end) for wish in wishes for end in sorted({wish.low, wish.high}) if math.isfinite(end)]
    gap = run.settings.get("pristine_band_gap_ev")
    bands = {"VBM": 0.0} if run.reference == PRISTINE_VBM else {}
    if bands and isinstance(gap, int | float) and math.isfinite(gap):
        bands["CBM"] = float(gap)
    low, high = _range(shown, [*(end for _, end in asked), *bands.values()])
    inner = HEIGHT_PX - TOP_PX - BOTTOM_PX
    right = width_px - RIGHT_PX

    def y(value_ev: float) -> float:
        return TOP_PX + (high - value_ev) / (high - low) * inner

    parts = []
    for name, edge, other in (("VBM", low, "valence band"), ("CBM", high, "conduction band")):
        if name in bands:
            upper, lower = sorted((y(bands[name]), y(edge)))
            parts.append(
                f'<rect class="band" x="{LEFT_PX:.0f}" y="{upper:.1f}" width="{right - LEFT_PX:.0f}" '
                f'height="{lower - upper:.1f}"><title>{other} of the pristine host</title></rect>'
            )
    parts += _axis(low, high, y, right)
    room = (right - LEFT_PX) / max(len(shown), 6)
    for number, candidate in enumerate(shown):
        parts.append(_column(candidate, run.labels_by, LEFT_PX + room * (number + 0.5), room * BAR_SHARE / 2, y))
    for wish in wishes:
        if wish.low < wish.high:
            top, bottom = y(min(wish.high, high)), y(max(wish.low, low))
            parts.append(
                f'<rect class="goal-range" x="{LEFT_PX:.0f}" y="{top:.1f}" width="{right - LEFT_PX:.0f}" '
                f'height="{bottom - top:.1f}"/>'
            )
    for _, end in asked:
        parts.append(f'<path class="goal" d="M{LEFT_PX:.0f} {y(end):.1f}H{right:.0f}"/>')
    wanted = [(f"{BY_COLUMN[wish.column].title} {_end_text(wish, end)}", end, "goal-text") for wish, end in asked]
    edges = [(f"{name} {value:z.2f}", value, "edge-text") for name, value in bands.items()]
    parts += _labels([*wanted, *edges], y, right + 6)
    title = escape(f"Levels of {len(shown)} candidates for target {target.id}")
    return (
        f'<svg class="levels" role="img" aria-label="{title}" viewBox="0 0 {width_px} {HEIGHT_PX:.0f}">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def _end_text(wish: Wish, end: float) -> str:
    """An end of a wanted range, or the value that is wanted."""
    if wish.towards:
        return wish.towards
    sign = "\u2264 " if math.isinf(wish.low) else "\u2265 " if math.isinf(wish.high) else ""
    return f"{sign}{end:z.3f}"


def _level(candidate: Candidate, column: str) -> tuple[float, float]:
    """A level by DFT where there is a value, else as predicted with its half-width."""
    if column in candidate.dft:
        return candidate.dft[column], 0.0
    return candidate.predicted.get(column, math.nan), candidate.uncertainty.get(column, 0.0)


def _range(candidates: Sequence[Candidate], others: Sequence[float]) -> tuple[float, float]:
    values = list(others)
    for candidate in candidates:
        for column in LEVELS:
            value, error = _level(candidate, column)
            values += [v for v in (value - error, value + error) if math.isfinite(v)]
    low, high = min(values), max(values)
    margin = max(0.08 * (high - low), 0.1)
    return low - margin, high + margin


def _axis(low: float, high: float, y: Scale, right: float) -> list[str]:
    step = next((s for s in STEPS_EV if (high - low) / s <= 7), STEPS_EV[-1])
    digits = 2 if step < 0.1 else 1
    parts = []
    for tick in range(math.ceil(low / step), math.floor(high / step) + 1):
        place = y(tick * step)
        parts.append(
            f'<path class="grid" d="M{LEFT_PX:.0f} {place:.1f}H{right:.0f}"/>'
            f'<text x="{LEFT_PX - 6:.0f}" y="{place + 4:.1f}" text-anchor="end">{tick * step:z.{digits}f}</text>'
        )
    middle = (TOP_PX + HEIGHT_PX - BOTTOM_PX) / 2
    parts.append(f'<text transform="translate(10 {middle:.0f}) rotate(-90)" text-anchor="middle">energy (eV)</text>')
    return parts


def _column(candidate: Candidate, labels_by: str, x: float, half: float, y: Scale) -> str:
    parts = []
    for column in LEVELS:
        value, error = _level(candidate, column)
        if not math.isfinite(value):
            continue
        name = column.removesuffix("_ev")
        interval = f" \u00b1 {error:.3f}" if error > 0 else ""
        source = f", {escape(labels_by)}" if column in candidate.dft else ""
        if error > 0:
            parts.append(
                f'<rect class="{name} interval" x="{x - half:.1f}" y="{y(value + error):.1f}" '
                f'width="{2 * half:.1f}" height="{y(value - error) - y(value + error):.1f}" rx="2"/>'
            )
        parts.append(
            f'<path class="{name} level" d="M{x - half:.1f} {y(value):.1f}h{2 * half:.1f}">'
            f"<title>#{candidate.rank} {BY_COLUMN[column].title} {value:z.3f}{interval} eV{source}</title></path>"
        )
    return f'{"".join(parts)}<text x="{x:.1f}" y="{HEIGHT_PX - 9:.0f}" text-anchor="middle">#{candidate.rank}</text>'


def _labels(labels: Sequence[tuple[str, float, str]], y: Scale, x: float) -> list[str]:
    """Texts beside their lines, moved apart where they would overlap."""
    parts = []
    last = -math.inf
    for text, value, kind in sorted(labels, key=lambda label: (-label[1], label[0])):
        place = max(y(value), last + MIN_LABEL_STEP_PX)
        last = place
        parts.append(f'<text class="{kind}" x="{x:.0f}" y="{place + 4:.1f}">{text}</text>')
    return parts
