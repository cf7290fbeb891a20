"""One zero for the levels of different cells."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from defectgen.core import Configuration, Host, get_host
from defectgen.core.level_scale import LevelScale, kind_counts
from defectgen.data.levels import (
    align_levels,
    fit_level_scale,
    fit_level_scales,
    is_host_orbital,
    reference_scale,
    scale_of,
)
from defectgen.data.twodmd import SET_NAMES
from defectgen.errors import DefectgenError

LABELS = ["v_S", "2v_S", "Se_S", "v_Mo", "v_Mo+2Se_S", "v_S+Se_S", "W_Mo", "W_Mo+v_S", "2Se_S", "v_Mo+v_S"] * 8
SHIFTS_EV = {"v_S": -0.026, "Se_S": 0.006, "v_Mo": -0.18, "W_Mo": -0.007}


def rows(labels: list[str], set_name: str = "MoS2", noise_ev: float = 0.0) -> pl.DataFrame:
    """Rows whose E_1 follows SHIFTS_EV."""
    kinds, counts = kind_counts(labels)
    shift = counts @ np.array([SHIFTS_EV[k] for k in kinds])
    shift += np.random.default_rng(0).normal(scale=noise_ev, size=len(labels)) if noise_ev else 0.0
    return pl.DataFrame(
        {
            "id": [f"{k:04d}" for k in range(len(labels))],
            "set": set_name,
            "host": "MoS2",
            "density": "high" if set_name.endswith("500") else "low",
            "label": labels,
            "core_level_raw_ev": -61.587 + shift - (1.4 if set_name.endswith("500") else 0.0),
            "core_level_pristine_ev": -61.587,
            "vbm_pristine_ev": -0.709,
            "homo_raw_ev": -0.709 + shift + 0.1,
            "lumo_raw_ev": -0.709 + shift + 1.5,
            "fermi_level_raw_ev": -0.709 + shift + 0.6,
        }
    )


def test_kinds_are_counted_with_their_multiplicity() -> None:
    kinds, counts = kind_counts(["v_Mo+2Se_S", "v_S", "pristine"])
    assert kinds == ["Se_S", "v_Mo", "v_S"]
    assert counts.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_fit_finds_the_shift_of_each_kind() -> None:
    scale = fit_level_scale(rows(LABELS))
    assert scale.coefficients == pytest.approx(SHIFTS_EV)
    assert scale.intercept_ev == 0
    assert scale.scatter_ev < 1e-9
    assert scale.unfitted == ()


def test_cells_with_another_vacuum_get_an_intercept() -> None:
    scale = fit_level_scale(rows(LABELS, "MoS2_500"))
    assert scale.intercept_ev == pytest.approx(-1.4)
    assert scale.coefficients == pytest.approx(SHIFTS_EV)


def test_the_scatter_is_the_noise_of_rows_left_out() -> None:
    assert fit_level_scale(rows(LABELS * 4, noise_ev=0.02)).scatter_ev == pytest.approx(0.02, rel=0.15)


def test_a_foreign_core_level_is_never_used() -> None:
    frame = rows(LABELS)
    deep = pl.col("label").str.contains("W_Mo")
    frame = frame.with_columns(core_level_raw_ev=pl.when(deep).then(-110.0).otherwise("core_level_raw_ev"))
    scale = fit_level_scale(frame)
    assert scale.unfitted == ("W_Mo",)
    aligned = align_levels(frame, scale)
    foreign = aligned.filter(deep)
    assert set(foreign["level_method"]) == {"fitted_shift"}
    assert (foreign["homo_ev"] - 0.1).abs().max() <= 0.007 + 1e-9  # type: ignore[operator]
    assert (foreign["level_error_ev"] >= 0.035).all(), "the bound on a kind that could not be fitted"
    own = aligned.filter(~deep)
    assert (own["homo_ev"] - 0.1).abs().max() < 1e-9  # type: ignore[operator]
    assert (own["level_error_ev"] == 0).all()


def test_rows_that_cannot_be_aligned_are_null() -> None:
    frame = rows([*LABELS, "7W_Mo"])
    deep = pl.col("label").str.contains("W_Mo")
    frame = frame.with_columns(core_level_raw_ev=pl.when(deep).then(-110.0).otherwise("core_level_raw_ev"))
    row = align_levels(frame, fit_level_scale(frame)).row(-1, named=True)
    columns = ("homo_ev", "lumo_ev", "fermi_level_ev", "level_shift_ev", "level_error_ev", "level_method")
    assert [row[name] for name in columns] == [None] * 6
    assert row["homo_raw_ev"] is not None


def test_an_aligned_level_on_the_zero_of_its_cell(mos2: Host) -> None:
    scale = fit_level_scale(rows(LABELS))
    item = Configuration.of(mos2, {0: "VAC", 64: "Se", 70: "Se"})
    assert scale.shift(item) == pytest.approx(-0.18 + 2 * 0.006)
    assert scale.to_raw(-0.5 + 0.709 + 0.18 - 0.012, item) == pytest.approx(-0.5)


def test_a_scale_survives_json() -> None:
    scale = fit_level_scale(rows(LABELS))
    assert LevelScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
    with pytest.raises(DefectgenError, match="not a level scale"):
        LevelScale.from_dict({"set_name": "MoS2"})


ONE_SIZE = ["3v_S", "2v_S+Se_S", "v_S+2Se_S", "3Se_S", "v_S+W_Mo+Se_S", "2v_S+W_Mo"] * 4


def test_cells_of_one_size_get_no_intercept_as_they_cannot_tell_it_from_their_defects() -> None:
    frame = rows(ONE_SIZE, "InSe_spin_500").with_columns(pl.col("core_level_raw_ev") + 1.4)  # the pristine vacuum
    scale = fit_level_scale(frame)
    assert scale.intercept_ev == 0
    assert scale.coefficients == pytest.approx({k: SHIFTS_EV[k] for k in ("v_S", "Se_S", "W_Mo")})
    assert len(scale.covariance_ev2) == 3


def test_another_vacuum_is_not_taken_for_a_shift_of_defects() -> None:
    with pytest.raises(DefectgenError, match="3 independent terms of 4"):
        fit_level_scale(rows(ONE_SIZE, "MoS2_500"))


def test_kinds_that_always_come_together_share_no_coefficients() -> None:
    scale = fit_level_scale(rows(["v_S+Se_S", "v_S+Se_S+v_Mo", "2v_S+2Se_S", "v_Mo"] * 6))
    assert scale.unfitted == ("v_S",)
    assert scale.coefficients["Se_S"] == pytest.approx(SHIFTS_EV["v_S"] + SHIFTS_EV["Se_S"])


def test_the_error_of_the_fit_grows_away_from_its_rows() -> None:
    scale = fit_level_scale(rows(LABELS * 4, noise_ev=0.02))
    error = scale.fit_error(["v_S"], np.array([[1.0], [2.0], [3.0], [9.0], [18.0]]))
    assert scale.most_defects == 3
    assert error[0] == pytest.approx(scale.scatter_ev, rel=0.05)
    assert error[1] < error[2]
    assert error[3] > 2.9 * scale.scatter_ev, "beyond the rows of the fit"
    assert error[4] > 1.2 * error[3]


def test_the_zero_is_certain_where_cells_have_their_own_core_level() -> None:
    frame = rows(LABELS)
    deep = pl.col("label").str.contains("W_Mo")
    scale = fit_level_scale(
        frame.with_columns(core_level_raw_ev=pl.when(deep).then(-110.0).otherwise("core_level_raw_ev"))
    )
    assert scale.own_share == 1
    widths = scale.half_widths(["v_S", "W_Mo"], np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
    assert widths[0] == 0
    assert widths[1:] == pytest.approx([0.9 * 0.035, 0.9 * 0.07], rel=1e-6)


def test_too_few_rows_or_several_sets_are_refused() -> None:
    with pytest.raises(DefectgenError, match="expected more than"):
        fit_level_scale(rows(["v_S"]).with_columns(core_level_raw_ev=pl.lit(-90.0)))
    with pytest.raises(DefectgenError, match="2 sets"):
        fit_level_scale(pl.concat([rows(LABELS), rows(LABELS, "MoS2_500")]))


def test_a_table_too_small_for_a_scale_keeps_the_levels_that_need_none() -> None:
    frame = rows(["v_S", "v_S"], "MoS2_500").with_columns(vbm_pristine_ev=pl.lit(-0.5))  # none of the published cells
    deep = frame.with_columns(core_level_raw_ev=pl.Series([frame["core_level_raw_ev"][0], -90.0]))
    found = align_levels(deep, scale_of(deep))
    assert found["level_method"].to_list() == ["core_level", None]
    assert found["homo_ev"].is_null().to_list() == [False, True]


class TestRealData:
    """What the published core levels show."""

    def test_the_reference_scales_are_those_of_the_data(self, twodmd: pl.DataFrame) -> None:
        for name in SET_NAMES:
            rows_of_set = twodmd.filter(set=name)
            fitted, reference = fit_level_scale(rows_of_set), reference_scale(name)
            assert reference is not None
            assert fitted.coefficients == pytest.approx(reference.coefficients, abs=1e-5)
            assert fitted.e_vbm_ev == reference.e_vbm_ev
            assert fitted.unfitted == reference.unfitted
            assert scale_of(rows_of_set.sample(40, seed=1)) is reference  # a small part is on the scale of the whole

    @pytest.mark.parametrize(("name", "scatter_ev"), [("MoS2", 0.010), ("WSe2", 0.003), ("WSe2_500", 0.015)])
    def test_the_fitted_shift_agrees_with_the_core_level_where_both_are_known(
        self, twodmd: pl.DataFrame, name: str, scatter_ev: float
    ) -> None:
        rows_of_set = twodmd.filter(set=name)
        own = rows_of_set.filter(is_host_orbital(rows_of_set))
        half = own.with_row_index().with_columns(pl.col("index") % 2)
        scale = fit_level_scale(half.filter(index=0))
        other = half.filter(index=1)
        host = get_host(own["host"][0])
        shift = np.array([scale.shift(Configuration.from_key(host, key)) for key in other["configuration"]])
        error = other["level_shift_ev"].to_numpy() - shift
        assert np.sqrt(np.mean(error**2)) < scatter_ev

    @pytest.mark.parametrize("name", ["MoS2_500", "WSe2_500"])
    def test_the_error_covers_cells_with_more_defects_than_the_fit_has_seen(
        self, twodmd: pl.DataFrame, name: str
    ) -> None:
        rows_of_set = twodmd.filter(set=name)
        own = rows_of_set.filter(is_host_orbital(rows_of_set))
        scale, beyond = fit_level_scale(own.filter(pl.col("n_defects") <= 9)), own.filter(pl.col("n_defects") >= 14)
        kinds, counts = kind_counts(beyond["label"].to_list())
        shift = scale.intercept_ev + counts @ np.array([scale.coefficients.get(kind, 0.0) for kind in kinds])
        found = np.sqrt(np.mean((beyond["level_shift_ev"].to_numpy() - shift) ** 2))
        assert found < np.sqrt(np.mean(scale.fit_error(kinds, counts) ** 2)) < 3 * found

    def test_indium_selenide_has_no_arbitrary_slope(self, twodmd: pl.DataFrame) -> None:
        scale = fit_level_scale(twodmd.filter(set="InSe_spin_500"))
        assert scale.intercept_ev == 0
        assert len(scale.covariance_ev2) == len(scale.coefficients) == 2

    def test_both_alignments_agree_on_mixed_wse2(self, twodmd: pl.DataFrame) -> None:
        """Substitutions leave the band edge where it is, whichever way a row was aligned."""
        rows_of_set = twodmd.filter(pl.col("set") == "WSe2", ~pl.col("label").str.contains("v_"))
        by_method = rows_of_set.group_by("level_method").agg(pl.median("homo_ev"), pl.len())
        assert by_method.height == 2
        assert by_method["homo_ev"].max() - by_method["homo_ev"].min() < 0.01  # type: ignore[operator]

    def test_every_set_has_a_scale_and_says_what_it_could_not_fit(self, twodmd: pl.DataFrame) -> None:
        scales = fit_level_scales(twodmd)
        assert set(scales) == set(SET_NAMES)
        assert scales["WSe2"].unfitted == ("Mo_W",)
        assert scales["BP_spin_500"].unfitted == ("N_P",)
        assert max(scale.scatter_ev for scale in scales.values()) < 0.1


def test_what_is_known_of_a_set_is_in_its_record() -> None:
    for name in SET_NAMES:
        scale = reference_scale(name)
        assert scale is not None
        low, high = scale.window_ev
        assert low < scale.intercept_ev < high
        assert set(scale.bounds_ev) == set(scale.unfitted)
        assert LevelScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
    assert reference_scale("WSe2").unfitted_bound(["Mo_W", "v_W"], np.array([[2.0, 1.0]])) == pytest.approx(0.014)
    assert reference_scale("hBN_spin_500").unfitted_bound(["C_B"], np.array([[2.0]])) == pytest.approx(0.07)


def test_core_levels_of_a_set_that_is_not_known_are_refused() -> None:
    with pytest.raises(DefectgenError, match=r"the set mine has core levels, .* expected one of BP_spin_500.*homo_ev"):
        is_host_orbital(rows(LABELS, "mine"))
    with pytest.raises(DefectgenError, match="the set mine has core levels"):
        align_levels(rows(LABELS, "mine"), scale_of(rows(LABELS, "mine")))
