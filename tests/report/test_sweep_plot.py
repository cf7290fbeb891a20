"""The plot of a sweep: texts cover neither each other nor marks, however near the points are."""

from __future__ import annotations

import itertools
import re

import pytest

from defectgen.report.sweep_plot import sweep_plot

Box = tuple[float, float, float, float]


def boxes(page: str) -> list[Box]:
    """Of the names of the points, at 6 pixels a character of 11 high."""
    found = re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle" fill="#[0-9a-f]{6}">(T [\d.]+)</text>', page
    )
    return [(float(x) - 3 * len(text), float(y) - 10, float(x) + 3 * len(text), float(y) + 1) for x, y, text in found]


def meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("step", [0.0, 0.004, 0.02, 0.2])
def test_names_of_near_points_are_apart(step: float) -> None:
    rows = [
        {"temperature": 0.5 + 0.1 * k, "top_p": top_p, "cov_recall": 0.7 + step * k / 4, "valid": 0.9 - step * k / 3}
        for k in range(5)
        for top_p in (0.9, 1.0)
    ]
    page = sweep_plot(rows)
    names = boxes(page)
    assert len(names) == len(rows)
    assert not [pair for pair in itertools.combinations(names, 2) if meet(*pair)]
    marks = [
        (float(x) - 4, float(y) - 4, float(x) + 4, float(y) + 4)
        for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)
    ][: len(rows)]
    assert not [(name, mark) for name in names for mark in marks if meet(name, mark)]
    left, top, right, bottom = (
        column(values) for column, values in zip((min, min, max, max), zip(*names, strict=True), strict=True)
    )
    assert left > 62
    assert top > 0
    assert right < 640
    assert bottom < 368
