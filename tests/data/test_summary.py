"""The numbers of a table of labelled structures against numbers found another way."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from defectgen.core import Configuration, get_host
from defectgen.data.summary import (
    LABELS,
    PAIRED,
    PUBLISHED_CLASSES,
    PUBLISHED_ROWS,
    Correlation,
    SetSummary,
    Summary,
    summarize,
)
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return read_2dmd(tiny_2dmd, cache=False)


def of(summary: Summary, name: str) -> SetSummary:
    return next(item for item in summary.sets if item.name == name)


def r(item: SetSummary, first: str, second: str) -> Correlation:
    return next(c for c in item.correlations if (c.first, c.second) == (first, second))


def test_counts_and_ranges_are_those_of_the_rows(frame: pl.DataFrame) -> None:
    summary = summarize(frame, {"WSe2": 0.25})
    assert (summary.n_rows, summary.hosts) == (140, ("MoS2", "WSe2"))
    assert [(item.name, item.n_rows, item.n_published) for item in summary.sets] == [
        ("MoS2", 60, 5933),
        ("WSe2", 80, 5933),
    ]
    for item in summary.sets:
        rows = [row for row in frame.iter_rows(named=True) if row["set"] == item.name]
        assert item.by_defects == dict(sorted(Counter(row["n_defects"] for row in rows).items()))
        assert item.concentration_percent.high == pytest.approx(100 * max(item.by_defects) / 192)
        for column in LABELS:
            values = [row[column] for row in rows]
            found = item.ranges[column]
            assert found is not None
            assert (found.low, found.high) == (min(values), max(values))
            assert found.median == pytest.approx(statistics.median(values))
            assert item.missing[column] == 0
        assert sum(count.n_rows for count in item.classes) == item.n_rows
        assert {count.n_published for count in item.classes} == {None}
    assert [item.formation_energy_error_ev for item in summary.sets] == [None, 0.25]


def test_images_under_symmetry_count_once(frame: pl.DataFrame) -> None:
    host = get_host("MoS2")
    twice = pl.concat([frame.filter(set="MoS2"), frame.filter(set="MoS2").head(7)])
    assert of(summarize(twice), "MoS2").n_distinct == 60
    keys = {Configuration.from_key(host, key).canonical().key for key in twice["configuration"]}
    assert len(keys) == 60


def test_missing_and_not_finite_values_are_counted_and_left_out(frame: pl.DataFrame) -> None:
    number = pl.int_range(pl.len()).over("set")
    holes = frame.with_columns(
        homo_ev=pl.when(number < 5).then(None).otherwise("homo_ev"),
        band_gap_ev=pl.when(number < 3).then(float("nan")).when(number < 4).then(float("inf")).otherwise("band_gap_ev"),
        lumo_ev=pl.lit(None, pl.Float64),
    )
    sets = summarize(holes).sets
    assert len(sets) == frame["set"].n_unique()
    for item in sets:
        assert (item.missing["homo_ev"], item.missing["band_gap_ev"], item.missing["energy_ev"]) == (5, 4, 0)
        assert item.missing["lumo_ev"] == item.n_rows
        assert item.ranges["lumo_ev"] is None
        gap = item.ranges["band_gap_ev"]
        assert gap is not None
        assert gap.high < 10
        assert r(item, "homo_ev", "band_gap_ev").n_rows == item.n_rows - 5
        assert r(item, "homo_ev", "lumo_ev") == Correlation("homo_ev", "lumo_ev", 0, None)


def test_correlation_is_pearsons_within_each_set(frame: pl.DataFrame) -> None:
    for item in summarize(frame).sets:
        rows = frame.filter(set=item.name)
        assert len(item.correlations) == 6
        for found in item.correlations:
            expected = statistics.correlation(rows[found.first].to_list(), rows[found.second].to_list())
            assert found.pearson_r == pytest.approx(expected)
            assert found.n_rows == item.n_rows
    constant = frame.with_columns(band_gap_ev=pl.lit(1.0), lumo_ev=2 - pl.col("homo_ev"))
    item = of(summarize(constant), "WSe2")
    assert r(item, "homo_ev", "lumo_ev").pearson_r == pytest.approx(-1)
    assert r(item, "homo_ev", "band_gap_ev").pearson_r is None
    assert r(of(summarize(frame.filter(set="WSe2").head(2)), "WSe2"), "homo_ev", "lumo_ev").pearson_r is None


def test_each_row_was_aligned_in_one_way(frame: pl.DataFrame) -> None:
    summary = summarize(frame)
    mos2, wse2 = of(summary, "MoS2").alignment, of(summary, "WSe2").alignment
    assert (mos2.core_level, mos2.fitted_shift, mos2.missing, mos2.error_ev) == (60, 0, 0, None)
    foreign = frame.filter((pl.col("set") == "WSe2") & pl.col("label").str.contains("Mo_W"))
    assert (wse2.fitted_shift, wse2.core_level) == (len(foreign), 80 - len(foreign))
    assert wse2.error_ev is not None
    assert (wse2.error_ev.low, wse2.error_ev.high) == (foreign["level_error_ev"].min(), foreign["level_error_ev"].max())
    lost = frame.with_columns(
        pl.when(pl.col("label").str.contains("Mo_W")).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("level_method", "level_error_ev")
    )
    wse2 = of(summarize(lost), "WSe2").alignment
    assert (wse2.missing, wse2.fitted_shift, wse2.error_ev) == (len(foreign), 0, None)


def test_published_classes_that_do_not_occur_are_listed(frame: pl.DataFrame) -> None:
    named = frame.filter(set="MoS2").with_columns(
        defect_class=pl.when(pl.col("label") == "2v_S").then(pl.lit("X2")).otherwise(pl.lit("Q9"))
    )
    classes = {count.name: count for count in of(summarize(named), "MoS2").classes}
    assert list(classes) == [*PUBLISHED_CLASSES, "Q9"]
    n_double = int((named["label"] == "2v_S").sum())
    assert n_double > 0
    assert (classes["X2"].label, classes["X2"].n_rows, classes["X2"].n_published) == ("2v_S", n_double, 19)
    assert (classes["V3"].n_rows, classes["V3"].n_published) == (0, 743)
    assert (classes["Q9"].n_rows, classes["Q9"].n_published) == (60 - n_double, None)
    high = named.with_columns(defect_class=pl.lit(None, pl.String))
    assert of(summarize(high), "MoS2").classes == ()


def test_the_published_counts_add_up() -> None:
    assert sum(PUBLISHED_CLASSES.values()) == PUBLISHED_ROWS["MoS2"] == PUBLISHED_ROWS["WSe2"] == 5933
    assert sum(PUBLISHED_ROWS.values()) == 14_866


def test_the_numbers_are_plain_json(frame: pl.DataFrame) -> None:
    shown = json.loads(json.dumps(summarize(frame).to_dict(), allow_nan=False))
    assert shown["n_rows"] == 140
    assert shown["sets"][0]["ranges"]["band_gap_ev"]["low"] == frame.filter(set="MoS2")["band_gap_ev"].min()


def test_a_table_without_rows_is_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(DefectgenError, match="without rows"):
        summarize(frame.clear())


def test_the_real_data_is_what_its_authors_describe(twodmd: pl.DataFrame) -> None:
    summary = summarize(twodmd)
    assert [item.name for item in summary.sets] == list(PUBLISHED_ROWS)
    for item in summary.sets:
        assert item.n_published is not None
        assert 0.8 * item.n_published <= item.n_rows <= item.n_published
        assert item.n_distinct == item.n_rows
        levels = item.alignment
        assert levels.core_level + levels.fitted_shift + levels.missing == item.n_rows
        assert item.missing["homo_ev"] == levels.missing
        assert item.missing["band_gap_ev"] == item.missing["formation_energy_ev"] == 0
        if item.density == "low":
            assert max(item.by_defects) == 3
            assert all(0 < count.n_rows <= (count.n_published or 0) for count in item.classes)
        else:
            assert item.concentration_percent.high == 12.5
            assert item.classes == ()
    mos2 = of(summary, "MoS2")
    homo, lumo = mos2.ranges["homo_ev"], mos2.ranges["lumo_ev"]
    assert homo is not None
    assert lumo is not None
    assert (homo.low, homo.high) == (pytest.approx(0.005, abs=0.01), pytest.approx(0.886, abs=0.01))
    assert (lumo.low, lumo.high) == (pytest.approx(0.726, abs=0.01), pytest.approx(1.817, abs=0.01))
    assert r(mos2, PAIRED[0], "band_gap_ev").pearson_r == pytest.approx(-0.92, abs=0.02)
    bp = of(summary, "BP_spin_500").alignment
    assert bp.missing > 100
    assert bp.error_ev is not None
    assert bp.error_ev.high < 0.25
