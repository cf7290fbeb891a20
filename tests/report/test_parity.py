"""The page of parity plots: every point where its values say, and nothing from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import polars as pl
import pytest

from defectgen.report.parity import MAX_POINTS, SIDE_PX, parity_page, parity_svg
from defectgen.score.surrogate.evaluation import means, metrics

ROWS = pl.DataFrame(
    {
        "set": ["MoS2"] * 3 + ["hBN<1>"] * 2,
        "property": ["homo_ev"] * 3 + ["total_magnetization_mu_b"] * 2,
        "id": list("abcde"),
        "true": [0.0, 0.5, 1.0, 1.0, 2.0],
        "predicted": [0.0, 0.6, None, 1.5, 2.0],
        "half_width": [0.05, 0.05, None, 1.0, 1.0],
    }
)


def test_points_lie_where_they_should() -> None:
    svg = ElementTree.fromstring(parity_svg(ROWS.filter(set="MoS2").drop_nulls(), "MoS2", "homo_ev"))
    points = [node.attrib for node in svg.iter("circle")]
    x, y = ([float(point[axis]) for point in points] for axis in ("cx", "cy"))
    assert x[0] + y[0] == pytest.approx(SIDE_PX, abs=0.2), "equal values are on the diagonal"
    assert x[1] + y[1] < SIDE_PX, "too high a prediction is above it"
    assert ["class" in point for point in points] == [False, True], "the second lies outside its interval"


def test_the_page_holds_all_sets_and_needs_nothing_else() -> None:
    found = metrics(ROWS)
    page = parity_page(ROWS, found, means(found), "5 structures & more")
    assert page.count("<svg") == 2
    assert "hBN&lt;1&gt;" in page
    assert "hBN<1>" not in page
    assert "5 structures &amp; more" in page
    assert "0.25 μB MAE" in page
    assert "50 meV MAE" in page
    assert "1 without a prediction" in page
    assert not re.search(r"(?:src|href)=|https?:|<script", page)


def test_large_sets_are_thinned_out_evenly() -> None:
    values = [k / 5000 for k in range(5000)]
    rows = pl.DataFrame({"true": values, "predicted": values, "half_width": [0.1] * 5000})
    svg = parity_svg(rows, "MoS2", "homo_ev")
    assert svg.count("<circle") == MAX_POINTS


def test_a_plot_without_points_is_a_plot() -> None:
    empty = pl.DataFrame(schema=dict.fromkeys(("true", "predicted", "half_width"), pl.Float64))
    svg = ElementTree.fromstring(parity_svg(empty, "MoS2", "homo_ev"))
    assert svg.tag.endswith("svg")
    assert list(svg.iter("circle")) == []
    assert [node for node in svg.iter() if node.get("class") == "diagonal"], "the diagonal is there without points"
