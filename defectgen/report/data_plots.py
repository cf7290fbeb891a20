"""Pictures of a table of labelled structures as inline SVG: pair plot, and gap against concentration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core.hosts import BUILT_IN, common_name
from defectgen.data.summary import LABELS, PAIRED, SetSummary

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#868e96", "#000000")
"""Okabe and Ito's palette, told apart with any kind of colour vision; grey and black last."""

CELL_PX, CELL_STEP_PX = 190, 204
LEFT_PX, TOP_PX, BOTTOM_PX = 62, 6, 44
PAIR_SIZE_PX = LEFT_PX + 3 * CELL_STEP_PX + CELL_PX + 8
N_BINS = 44
NAME_PX = 24
"""Room for the name above the histograms of a property."""
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
MAX_TICKS = 6
DENSE, DENSER = 2, 6
"""Structures on one pixel from which on its dot is drawn darker."""

GAP_WIDTH_PX, GAP_HEIGHT_PX = 340, 236
JITTER_PERCENT = {"low": 0.16, "high": 0.32}
"""Half of the sideways spread of dots that share a concentration, by density; sites of a cell are 0.5 % or more."""
MIN_BOX_ROWS = 10


def host_colours(hosts: Sequence[str]) -> dict[str, str]:
    """A colour for each host: the built-in ones always have the same, the others follow in their order."""
    order = [*BUILT_IN, *(host for host in hosts if host not in BUILT_IN)]
    return {host: PALETTE[order.index(host) % len(PALETTE)] for host in hosts}


def host_title(host: str) -> str:
    """The host as people write it: ``MoS\u2082``, ``hBN``, ``BP``."""
    return common_name(host).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def colour_class(item: SetSummary, sets: Sequence[SetSummary]) -> str:
    """CSS classes of a set's marks: its host's colour, darker for high density if the host has low density too."""
    both = any(other.host == item.host and other.density == "low" for other in sets)
    return f"c-{item.host}" + (" dark" if item.density == "high" and both else "")


def set_title(item: SetSummary) -> str:
    """Host and density of a set, e.g. ``MoS\u2082 low``."""
    return f"{host_title(item.host)} {item.density}"


def sample_rows(frame: pl.DataFrame, limit: int, seed: int) -> pl.DataFrame:
    """At most `limit` rows of each set, drawn with the seed, in the order of the table."""
    parts = []
    for rows in frame.partition_by("set", maintain_order=True):
        drawn = np.random.default_rng(seed).permutation(len(rows))[:limit]
        parts.append(rows[np.sort(drawn).tolist()])
    stacked: pl.DataFrame = pl.concat(parts)
    return stacked


def pair_svg(frame: pl.DataFrame, sets: Sequence[SetSummary], drawn: pl.DataFrame) -> str:
    """The four properties of `PAIRED` against each other: scatter, histograms and correlations.

    Below the diagonal one dot stands for each structure of `drawn` that has both properties, rounded to
    whole pixels and darker where several fall on one; on it are histograms of all rows, one
    below the other, each scaled to its own peak; above it Pearson's r.

    Args:
        frame: all rows of `sets`; histograms and ranges of the axes are theirs.
        sets: the sets to show, drawn in this order.
        drawn: the rows to draw as dots.
    """
    ranges = [_padded(frame[column].drop_nulls().to_numpy()) for column in PAIRED]
    parts = []
    for row in range(len(PAIRED)):
        for column in range(len(PAIRED)):
            left, top = LEFT_PX + column * CELL_STEP_PX, TOP_PX + row * CELL_STEP_PX
            parts.append(f'<g transform="translate({left} {top})">')
            if column > row:
                parts.append(_correlations(sets, PAIRED[row], PAIRED[column]))
            else:
                parts.append(_frame(ranges[column], ranges[row] if column < row else None))
                for lane, item in enumerate(sets):
                    marks = colour_class(item, sets)
                    rows = (frame if column == row else drawn).filter(set=item.name)
                    if column == row:
                        values = rows[PAIRED[row]].drop_nulls().to_numpy()
                        parts.append(_histogram(values, ranges[row], marks, lane, len(sets)))
                    else:
                        parts.append(_scatter(rows, PAIRED[column], PAIRED[row], ranges[column], ranges[row], marks))
                if column == row:
                    parts.append(f'<text class="name" x="{CELL_PX / 2:.0f}" y="16">{_title(PAIRED[row])}</text>')
            if column == 0 and row > 0:
                parts.append(_y_axis(ranges[row], PAIRED[row]))
            if row == len(PAIRED) - 1:
                parts.append(_x_axis(ranges[column], PAIRED[column]))
            parts.append("</g>")
    height = TOP_PX + 3 * CELL_STEP_PX + CELL_PX + BOTTOM_PX
    title = "Pair plot of " + ", ".join(LABELS[column][0] for column in PAIRED)
    hosts = ", ".join(dict.fromkeys(host_title(item.host) for item in sets))
    return (
        f'<svg class="plot pair" role="img" aria-label="{escape(title)} for {escape(hosts)}" '
        f'viewBox="0 0 {PAIR_SIZE_PX} {height}">{"".join(parts)}</svg>'
    )


def gap_svg(frame: pl.DataFrame, sets: Sequence[SetSummary], highest_ev: float, highest_percent: float) -> str:
    """Gap against defect concentration of one host: dots, and for each concentration its quantiles.

    Args:
        frame: rows of the host.
        sets: the sets of the host.
        highest_ev: upper end of the gap axis.
        highest_percent: upper end of the concentration axis.
    """
    left, top, bottom = 44, 8, 40
    width, height = GAP_WIDTH_PX - left - 8, GAP_HEIGHT_PX - top - bottom
    x_range, y_range = (0.0, highest_percent), (0.0, highest_ev)
    parts = [f'<g transform="translate({left} {top})">', f'<rect class="cell" width="{width}" height="{height}"/>']
    for tick, text in _ticks(*y_range):
        y = height - height * tick / highest_ev
        parts.append(
            f'<path class="grid" d="M0 {y:.1f}H{width}"/><text class="yt" x="-6" y="{y + 4:.1f}">{text}</text>'
        )
    for tick, text in _ticks(*x_range, most=8):
        x = width * tick / highest_percent
        parts.append(f'<text class="xt" x="{x:.1f}" y="{height + 15}">{text}</text>')
    rng = np.random.default_rng(0)
    boxes = []
    for item in sets:
        rows = frame.filter(set=item.name).select("concentration", "band_gap_ev").drop_nulls()
        share, gap = rows["concentration"].to_numpy() * 100, rows["band_gap_ev"].to_numpy()
        jitter = JITTER_PERCENT[item.density]
        spread = share + rng.uniform(-jitter, jitter, len(share))
        points = np.column_stack([spread / highest_percent * width, height - gap / highest_ev * height])
        parts.append(_dots(points, colour_class(item, sets)))
        for value in np.unique(share):
            inside = gap[share == value]
            if len(inside) >= MIN_BOX_ROWS:
                x = value / highest_percent * width
                q10, q25, q50, q75, q90 = (
                    height - np.quantile(inside, (0.1, 0.25, 0.5, 0.75, 0.9)) / highest_ev * height
                )
                boxes.append(
                    f'<path class="thin" d="M{x:.1f} {q10:.1f}V{q90:.1f}"/>'
                    f'<path class="thick" d="M{x:.1f} {q25:.1f}V{q75:.1f}"/>'
                    f'<circle cx="{x:.1f}" cy="{q50:.1f}" r="3"/>'
                )
    parts.append(f'<g class="box">{"".join(boxes)}</g>')
    parts.append(f'<text class="axis" x="{width / 2:.0f}" y="{height + 33}">defect concentration, % of sites</text>')
    parts.append(f'<text class="axis" transform="translate(-34 {height / 2:.0f}) rotate(-90)">gap (eV)</text></g>')
    title = f"Gap against defect concentration of {host_title(sets[0].host)}"
    return (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {GAP_WIDTH_PX} {GAP_HEIGHT_PX}">{"".join(parts)}</svg>'
    )


def _title(column: str) -> str:
    """Title of a property for SVG, with its index lowered."""
    name, _, index = escape(LABELS[column][0]).partition("_")
    if not index:
        return name
    index, slash, rest = index.partition("/")
    after = f'<tspan dy="-3">{slash}{rest}</tspan>' if slash else ""
    return f'{name}<tspan dy="3" font-size="75%">{index}</tspan>{after}'


def _padded(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of an axis that holds the values with a margin; 0 to 1 without values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = max(0.04 * (high - low), 0.01)
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int = MAX_TICKS) -> list[tuple[float, str]]:
    """Round values between the ends, with their text."""
    step = next((s for s in STEPS if (high - low) / s <= most), STEPS[-1])
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:z.{digits}f}".replace("-", "\u2212")) for value in values]


def _place(values: NDArray[np.float64], ends: tuple[float, float]) -> NDArray[np.float64]:
    return (values - ends[0]) / (ends[1] - ends[0]) * CELL_PX


def _frame(x_range: tuple[float, float], y_range: tuple[float, float] | None) -> str:
    lines = [f"M{CELL_PX * (v - x_range[0]) / (x_range[1] - x_range[0]):.1f} 0V{CELL_PX}" for v, _ in _ticks(*x_range)]
    if y_range is not None:
        span = y_range[1] - y_range[0]
        lines += [f"M0 {CELL_PX - CELL_PX * (v - y_range[0]) / span:.1f}H{CELL_PX}" for v, _ in _ticks(*y_range)]
    return f'<rect class="cell" width="{CELL_PX}" height="{CELL_PX}"/><path class="grid" d="{"".join(lines)}"/>'


def _x_axis(ends: tuple[float, float], column: str) -> str:
    ticks = "".join(
        f'<text class="xt" x="{CELL_PX * (v - ends[0]) / (ends[1] - ends[0]):.1f}" y="{CELL_PX + 15}">{text}</text>'
        for v, text in _ticks(*ends)
    )
    return f'{ticks}<text class="axis" x="{CELL_PX / 2:.0f}" y="{CELL_PX + 35}">{_title(column)} (eV)</text>'


def _y_axis(ends: tuple[float, float], column: str) -> str:
    ticks = "".join(
        f'<text class="yt" x="-6" y="{CELL_PX - CELL_PX * (v - ends[0]) / (ends[1] - ends[0]) + 4:.1f}">{text}</text>'
        for v, text in _ticks(*ends)
    )
    middle = CELL_PX / 2
    return f'{ticks}<text class="axis" transform="translate(-46 {middle:.0f}) rotate(-90)">{_title(column)} (eV)</text>'


def _histogram(values: NDArray[np.float64], ends: tuple[float, float], marks: str, lane: int, lanes: int) -> str:
    """Histogram of one set in its own lane of the cell, as high as the lane."""
    counts, edges = np.histogram(values, N_BINS, ends)
    if not counts.any():
        return ""
    height = (CELL_PX - NAME_PX) / lanes
    ground = NAME_PX + height * (lane + 1)
    heights = ground - counts / counts.max() * height * 0.92
    first, last = (int(v) for v in np.flatnonzero(counts)[[0, -1]])
    places = _place(edges, ends)
    steps = "".join(f"V{heights[k]:.1f}H{places[k + 1]:.1f}" for k in range(first, last + 1))
    return f'<path class="bars {marks}" d="M{places[first]:.1f} {ground:.1f}{steps}V{ground:.1f}z"/>'


def _scatter(
    rows: pl.DataFrame, x: str, y: str, x_range: tuple[float, float], y_range: tuple[float, float], marks: str
) -> str:
    both = rows.select(x, y).drop_nulls().to_numpy()
    points = np.column_stack([_place(both[:, 0], x_range), CELL_PX - _place(both[:, 1], y_range)])
    return _dots(points, marks)


def _dots(points: NDArray[np.float64], marks: str) -> str:
    """One dot for each pixel with points, in three depths of colour; shape of `points`: (n, 2)."""
    if not len(points):
        return ""
    pixels, counts = np.unique(np.rint(points).astype(int), axis=0, return_counts=True)
    parts = []
    for depth, inside in enumerate((counts < DENSE, (counts >= DENSE) & (counts < DENSER), counts >= DENSER)):
        chosen = pixels[inside]
        if len(chosen):
            moves = np.diff(chosen, axis=0, prepend=np.zeros((1, 2), dtype=int))
            text = "".join(f"m{dx} {dy}h0" for dx, dy in moves.tolist())
            parts.append(f'<path class="dots n{depth} {marks}" d="{text}"/>')
    return "".join(parts)


def _correlations(sets: Sequence[SetSummary], first: str, second: str) -> str:
    """Pearson's r of each set as a bar from the middle to the left or right, with its value."""
    middle, half = 105, 40
    step = min(21.0, (CELL_PX - 30) / max(len(sets), 1))
    top = 26 + (CELL_PX - 30 - step * len(sets)) / 2
    parts = [
        f'<text class="head" x="0" y="{top - 8:.0f}">Pearson r</text>'
        f'<path class="grid" d="M{middle} {top - 4:.0f}V{top + step * len(sets):.0f}"/>'
    ]
    for number, item in enumerate(sets):
        y = top + step * (number + 0.5)
        found = next(c for c in item.correlations if (c.first, c.second) == (first, second))
        parts.append(f'<text x="0" y="{y + 4:.1f}">{escape(set_title(item))}</text>')
        if found.pearson_r is None:
            parts.append(f'<text class="yt" x="{CELL_PX}" y="{y + 4:.1f}">\u2013</text>')
            continue
        width = half * found.pearson_r
        start = middle + min(width, 0.0)
        parts.append(
            f'<rect class="r {colour_class(item, sets)}" x="{start:.1f}" y="{y - step * 0.3:.1f}" '
            f'width="{abs(width):.1f}" height="{step * 0.6:.1f}"/>'
            f'<text class="yt" x="{CELL_PX}" y="{y + 4:.1f}">{found.pearson_r:z.2f}</text>'.replace(">-", ">\u2212")
        )
    return "".join(parts)
