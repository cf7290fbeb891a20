"""Validity against coverage over temperatures and nucleus sizes: a table, and a plot as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.io.files import write_text, write_whole
from defectgen.io.tables import write_csv

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 420, 62, 52, 34, 118
COLOURS = ("#1b6ca8", "#c4572e", "#3a7d44", "#7b4fa3", "#8a6d1c")
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MARK, CHARACTER, LINE = 5.0, 6.6, 14.0
"""Half the width of a mark with its margin, width of a character, height of a line, in pixels."""

DISTANCES = (6.0, 14.0, 24.0, 36.0, 50.0, 66.0, 84.0, 104.0)
ANGLES = tuple(math.radians(angle) for angle in (35, 145, 325, 215, 0, 180, 90, 270))
"""Where a text is tried beside its mark."""

Box = tuple[float, float, float, float]


def write_sweep(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``sweep.csv`` and ``sweep.svg``.

    Raises:
        DefectgenError: they cannot be written.
    """
    table = pl.DataFrame(rows, infer_schema_length=None)
    write_whole(folder / "sweep.csv", lambda part: write_csv(table, part))
    write_text(folder / "sweep.svg", sweep_plot(rows))


def sweep_plot(rows: Sequence[Mapping[str, Any]], x: str = "cov_recall", y: str = "valid") -> str:
    """The plot: one line a nucleus size, one mark a temperature, whiskers for 95 % intervals.

    Args:
        rows: see `defectgen.generate.sweep.judge_points`; a row without one of both shares is left out.
        x: share on the horizontal axis.
        y: share on the vertical axis.
    """
    shown = [row for row in rows if row.get(x) is not None and row.get(y) is not None]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_axes(),
    ]
    sizes = list(dict.fromkeys(row["top_p"] for row in shown))
    colours = {top_p: COLOURS[number % len(COLOURS)] for number, top_p in enumerate(sizes)}
    marks = [(_across(row[x]), _up(row[y]), f"T {row['temperature']:g}", colours[row["top_p"]]) for row in shown]
    for number, (top_p, colour) in enumerate(colours.items()):
        line = sorted((row for row in shown if row["top_p"] == top_p), key=lambda row: float(row["temperature"]))
        places = [(_across(row[x]), _up(row[y])) for row in line]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for row, (a, b) in zip(line, places, strict=True):
            parts += _whiskers(row, x, y, a, b, colour)
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>')
        at = TOP + 14 + 18 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{at - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 26}" y="{at}" fill="#222222">{escape(f"top-p {top_p:g}")}</text>')
    return "\n".join([*parts, *_labels(marks), "</svg>"]) + "\n"


def _axes() -> list[str]:
    parts = []
    for tick in TICKS:
        a, b = _across(tick), _up(tick)
        parts.append(f'<line x1="{a}" y1="{_up(0)}" x2="{a}" y2="{_up(1)}" stroke="#e4e4e4"/>')
        parts.append(f'<line x1="{_across(0)}" y1="{b}" x2="{_across(1)}" y2="{b}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{a}" y="{_up(0) + 18}" text-anchor="middle" fill="#222222">{tick:g}</text>')
        parts.append(f'<text x="{_across(0) - 8}" y="{b + 4}" text-anchor="end" fill="#222222">{tick:g}</text>')
    middle, height = _across(0.5), _up(0.5)
    centred = 'text-anchor="middle" fill="#222222"'
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" {centred}>coverage of the reference (COV-R)</text>')
    parts.append(
        f'<text x="16" y="{height}" {centred} transform="rotate(-90 16 {height})">'
        "valid (structure and composition)</text>"
    )
    return parts


def _labels(marks: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """A text beside each mark, where it covers no other text and no mark; a line leads to one that is farther away.

    Args:
        marks: across and down in pixels, text and colour of each.
    """
    points = [(a - MARK, b - MARK, a + MARK, b + MARK) for a, b, *_ in marks]
    taken: list[Box] = []
    found = []
    for a, b, text, colour in marks:
        width = CHARACTER * len(text)
        boxes = [_box(a, b, width, angle, away) for away in DISTANCES for angle in ANGLES]
        free = [box for box in boxes if _inside(box) and not any(_meet(box, other) for other in (*points, *taken))]
        box = (free or boxes)[0]
        taken.append(box)
        middle, low = (box[0] + box[2]) / 2, box[3]
        if math.hypot(middle - a, (box[1] + low) / 2 - b) > DISTANCES[0] + width:
            end = min(max(a, box[0]), box[2]), min(max(b, box[1]), low)
            found.append(f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}"/>')
        found.append(f'<text x="{middle:.1f}" y="{low - 3:.1f}" text-anchor="middle" fill="{colour}">{text}</text>')
    return found


def _box(a: float, b: float, width: float, angle: float, away: float) -> Box:
    """Left, top, right and bottom of a text in some direction from a mark."""
    middle = a + math.cos(angle) * (away + width / 2), b - math.sin(angle) * (away + LINE / 2)
    return middle[0] - width / 2, middle[1] - LINE / 2, middle[0] + width / 2, middle[1] + LINE / 2


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(box: Box) -> bool:
    return _across(0) < box[0] and box[2] < WIDTH and box[1] > 0 and box[3] < _up(0)


def _whiskers(row: Mapping[str, Any], x: str, y: str, a: float, b: float, colour: str) -> list[str]:
    style = f'stroke="{colour}" stroke-width="1" stroke-opacity="0.55"'
    found = []
    if row.get(f"{x}_low") is not None:
        ends = _across(row[f"{x}_low"]), _across(row[f"{x}_high"])
        found.append(f'<line x1="{ends[0]:.1f}" y1="{b:.1f}" x2="{ends[1]:.1f}" y2="{b:.1f}" {style}/>')
    if row.get(f"{y}_low") is not None:
        ends = _up(row[f"{y}_low"]), _up(row[f"{y}_high"])
        found.append(f'<line x1="{a:.1f}" y1="{ends[0]:.1f}" x2="{a:.1f}" y2="{ends[1]:.1f}" {style}/>')
    return found


def _across(share: float) -> float:
    return LEFT + float(share) * (WIDTH - LEFT - RIGHT)


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - float(share) * (HEIGHT - BOTTOM - TOP)
