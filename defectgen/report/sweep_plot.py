"""Validity against coverage over temperatures and nucleus sizes, as one SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 420, 62, 52, 34, 118
COLOURS = ("#1b6ca8", "#c4572e", "#3a7d44", "#7b4fa3", "#8a6d1c")
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


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
    for number, top_p in enumerate(dict.fromkeys(row["top_p"] for row in shown)):
        colour = COLOURS[number % len(COLOURS)]
        line = sorted((row for row in shown if row["top_p"] == top_p), key=lambda row: float(row["temperature"]))
        places = [(_across(row[x]), _up(row[y])) for row in line]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for row, (a, b) in zip(line, places, strict=True):
            parts += _whiskers(row, x, y, a, b, colour)
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{a + 7:.1f}" y="{b - 6:.1f}" fill="#222222">T {row["temperature"]:g}</text>')
        at = TOP + 14 + 18 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{at - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 26}" y="{at}" fill="#222222">{escape(f"top-p {top_p:g}")}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


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
