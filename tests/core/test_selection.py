"""Decorations that are wanted: as many as are counted, each once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from defectgen.core import get_host
from defectgen.core.classes import class_from_label
from defectgen.core.selection import MAX_LISTED, select
from defectgen.design.limits import Limits, Space
from defectgen.errors import UsageError

MOS2 = get_host("MoS2", (3, 3))


@pytest.mark.parametrize("way", [{"labels": ["2v_S", "v_Mo+Se_S"]}, {"rules": "2dmd-low"}, {"max_defects": 2}])
def test_as_many_are_listed_as_are_counted(way: dict[str, Any]) -> None:
    selection = select(MOS2, **way)
    rows = list(selection.listed())
    assert len({row.configuration for row in rows}) == len(rows) == sum(selection.counts.values())
    for name, number in selection.counts.items():
        assert sum(row.defect_class == name for row in rows) == number
    assert {name for name, number in selection.counts.items() if number} == {row.defect_class for row in rows}


def test_random_ones_are_distinct_and_come_from_the_generator() -> None:
    selection = select(MOS2, ["2v_S", "2Se_S"])
    rows = list(selection.sampled(3, np.random.default_rng(1)))
    assert [row.defect_class for row in rows] == ["2v_S"] * 3 + ["2Se_S"] * 3
    assert len({row.configuration for row in rows}) == 6
    assert rows == list(selection.sampled(3, np.random.default_rng(1)))
    by_size = select(MOS2, concentration=0.1)
    assert by_size.n_defects == 3
    assert {row.configuration.n_defects for row in by_size.sampled(5, np.random.default_rng(0), "decorations")} == {3}
    assert by_size.counts == select(MOS2, n_defects=3).counts


def test_what_is_asked_in_no_or_two_ways_is_refused() -> None:
    for way in ({}, {"labels": ["v_S"], "rules": "2dmd-low"}, {"n_defects": 2, "concentration": 0.1}):
        with pytest.raises(UsageError, match="say which structures in one way"):
            select(MOS2, **way)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="goes with --max-defects"):
        select(MOS2, ["v_S"], min_defects=2)
    with pytest.raises(UsageError, match="are for random structures"):
        select(MOS2, n_defects=2).listed()
    with pytest.raises(UsageError, match="expected classes or decorations"):
        select(MOS2, n_defects=2).sampled(1, np.random.default_rng(0), "sites")  # type: ignore[arg-type]


def test_millions_need_a_limit() -> None:
    selection = select(get_host("MoS2"), ["4v_S+4Se_S"])
    assert selection.counts["4v_S+4Se_S"] > MAX_LISTED
    with pytest.raises(UsageError, match=r"more than 5,000,000\. Add --limit N"):
        selection.listed()
    assert next(selection.listed(limit=1)).configuration.label == "4v_S+4Se_S"


def test_spaces_about_a_label_do_not_matter_and_vanadium_is_told_from_a_vacancy() -> None:
    host = get_host("MoS2")
    assert class_from_label(host, "v_S + Se_S") == class_from_label(host, "v_S+Se_S")
    with pytest.raises(UsageError, match=r"no rule makes V_S. V is vanadium, a vacancy is v_S. Its rules: "):
        class_from_label(host, "V_S")
    with pytest.raises(UsageError, match="'v_C' is no defect class of hBN: no rule makes v_C"):
        class_from_label(get_host("hBN"), "v_C")
    with pytest.raises(UsageError, match=r"'V_S' is no defect of MoS2. V is vanadium, a vacancy is v_S. It has: "):
        Space.of(host, Limits(only=("V_S",)), 2)
