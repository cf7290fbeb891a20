"""Wishes: their text, their distances, tables of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import defectgen as dg
from defectgen.design.candidates import Target
from defectgen.design.targets import counted_from, coverage_warnings, read_targets, single_target, wanted_values
from defectgen.design.wishes import GOAL_BESIDE, Wish, parse_wish
from defectgen.errors import UsageError

GAP = "band_gap_ev"


@pytest.mark.parametrize(
    ("text", "low", "high", "weight"),
    [
        ("0.6", 0.6, 0.6, 1),
        ("-0.25", -0.25, -0.25, 1),
        ("\u22120.25:0.1", -0.25, 0.1, 1),
        ("0.5:0.8", 0.5, 0.8, 1),
        ("0.5:", 0.5, math.inf, 1),
        (":0.8*2", -math.inf, 0.8, 2),
        ("0.6 +- 0.02", 0.58, 0.62, 1),
        ("0.6\u00b10.02", 0.58, 0.62, 1),
        ("0.6+/-0.02", 0.58, 0.62, 1),
        ("1e-1*0.5", 0.1, 0.1, 0.5),
    ],
)
def test_what_options_take(text: str, low: float, high: float, weight: float) -> None:
    wish = parse_wish(GAP, text)
    assert (wish.low, wish.high, wish.weight) == (pytest.approx(low), pytest.approx(high), weight)
    again = parse_wish(GAP, wish.text)
    assert (again.low, again.high, again.weight) == (pytest.approx(low), pytest.approx(high), weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wide", "band_gap is 'wide', expected a number in eV"),
        ("0.8:0.5", "upside down. Expected 0.5:0.8"),
        (":", "expected a number"),
        ("0.6+--1", "got a tolerance of -1"),
        ("0.6*0", "expected more than 0"),
        ("nan", "expected a number"),
        ("50 meV", r"expected a number in eV. 50 meV are 0\.05\. Or a number"),
        ("0.05eV", r"expected a number in eV. Leave the unit out: 0\.05\. "),
        ("0,05", r"Did you mean 0\.05\? "),
        ("0.1-0.3", r"Did you mean the range 0\.1:0\.3\? "),
        ("0.1 \u2013 0.3", r"Did you mean the range 0\.1:0\.3\? "),
        ("<=0.3", r"Did you mean :0\.3\? "),
        ("> 0.3", r"Did you mean 0\.3:\? "),
    ],
)
def test_what_is_no_wish_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_wish(GAP, text)
    assert "\n" not in str(caught.value)


def test_distances_are_those_outside_the_range() -> None:
    values = np.array([0.3, 0.5, 0.6, 0.8, 1.0, np.nan])
    found = Wish(GAP, 0.5, 0.8, weight=2).distance_ev(values)
    assert found[:5] == pytest.approx([0.4, 0, 0, 0, 0.4])
    assert np.isnan(found[5])
    assert Wish(GAP, -math.inf, 0.5).distance_ev(values)[:3] == pytest.approx([0, 0, 0.1])
    least = parse_wish(GAP, "min").counted_from(0.3, 1.0)
    assert least.distance_ev(values)[:5] == pytest.approx([0, 0.2, 0.3, 0.5, 0.7])
    most = parse_wish(GAP, "max").counted_from(0.3, 1.0)
    assert most.distance_ev(1.1) == pytest.approx(-0.1)


def test_expected_distances_are_means_over_the_interval() -> None:
    rng = np.random.default_rng(0)
    for wish in (Wish.value(GAP, 0.6), Wish(GAP, 0.55, 0.7), Wish(GAP, 0.5, math.inf, weight=3)):
        for value, half_width in ((0.61, 0.05), (0.4, 0.1), (0.9, 0.02)):
            drawn = rng.normal(value, half_width / 1.6449, 200_000)
            assert wish.expected_ev(value, half_width) == pytest.approx(wish.distance_ev(drawn).mean(), abs=5e-4)
            assert wish.expected_ev(value, 0.0) == pytest.approx(wish.distance_ev(value))
    assert Wish.value(GAP, 0.6).expected_ev(0.6, math.nan) == math.inf


def test_python_takes_numbers_ranges_and_text() -> None:
    target = single_target(wanted_values({"homo": 0.1, "band_gap": (0.5, 0.8), "lumo": "1.2+-0.1*2"}))
    assert target.text == "homo_ev=0.100 lumo_ev=1.100:1.300*2 band_gap_ev=0.500:0.800"
    assert target.values == (("homo_ev", 0.1), ("lumo_ev", pytest.approx(1.2)), (GAP, pytest.approx(0.65)))
    assert single_target({GAP: (None, 0.8)}).text == "band_gap_ev=:0.800"
    with pytest.raises(UsageError, match="upside down"):
        single_target(wanted_values({"band_gap": (0.8, 0.5)}))


def test_tables_hold_wishes_and_hand_on_what_else_they_say(tmp_path: Path) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("id,name,homo,gap_source,band_gap\na,qubit,0.1,Fig. 2,0.5:0.8\nb,,min,,\n")
    first, second = read_targets(table)
    assert first.text == "homo_ev=0.100 band_gap_ev=0.500:0.800"
    assert first.notes == (("name", "qubit"), ("gap_source", "Fig. 2"))
    assert second.wishes[0].towards == "min"
    (tmp_path / "targets.yaml").write_text("- {id: a, homo: 0.1, band_gap: '0.5:0.8', name: qubit}\n- {homo: min}\n")
    (tmp_path / "plain.yaml").write_text(
        "- {id: a, band_gap: 0:1.5, formation_energy: 1:3.5, magnetization: [1, 2], only: [v_S, W_Mo]}\n"
    )
    (plain,) = read_targets(tmp_path / "plain.yaml")
    assert [(wish.low, wish.high) for wish in plain.wishes] == [(0.0, 1.5), (1.0, 3.5), (1.0, 2.0)]
    assert dict(plain.own)["only"] == "v_S,W_Mo"
    again = read_targets(tmp_path / "targets.yaml")
    assert [item.text for item in again] == [first.text, second.text]
    table.write_text("homo,homo\n1,2\n")
    with pytest.raises(UsageError, match="two columns are named 'homo'"):
        read_targets(table)
    table.write_text("name\nqubit\n")
    with pytest.raises(UsageError, match="unknown column 'name'"):
        read_targets(table)


def test_least_and_most_count_from_what_is_known() -> None:
    target = Target.of("1", [parse_wish(GAP, "min"), Wish.value("homo_ev", 0.1)])
    (known,) = counted_from([target], {GAP: [0.2, 1.8], "homo_ev": [0.0, 1.0]})
    assert known.distance_ev({GAP: 0.5, "homo_ev": 0.1}) == pytest.approx(0.3 * GOAL_BESIDE)
    with pytest.raises(UsageError, match="no value of it is known"):
        counted_from([target], {})


def test_a_design_for_a_range_and_the_smallest_energy() -> None:
    run = dg.design("MoS2", band_gap="0.9:1.1", n=3, max_defects=2)
    for candidate in run.candidates:
        assert 0.9 <= candidate.best_values[GAP] <= 1.1
        assert candidate.expected_ev < 1e-3
    energies = [candidate.predicted["formation_energy_ev"] for candidate in run.candidates]
    assert energies == sorted(energies), "of equals the more stable comes first"
    run = dg.design("MoS2", formation_energy="min", n=3, max_defects=2, kinds="vacancy")
    energies = [candidate.best_values["formation_energy_ev"] for candidate in run.candidates]
    assert run.candidates[0].configuration.label == "v_S"
    assert energies == sorted(energies)


@pytest.mark.parametrize(
    ("gap", "energy", "weight"),
    [
        ("0.5:0.8", "min", GOAL_BESIDE),
        ("0.7", "max", GOAL_BESIDE),
        ("0.5:0.8", "min*1", 1.0),
        ("0.5:0.8", "min*3", 3.0),
        ("max", "min", 1.0),
    ],
)
def test_a_goal_orders_what_meets_the_rest(gap: str, energy: str, weight: float) -> None:
    target = single_target({GAP: gap, "formation_energy_ev": energy})
    weights = {wish.column: wish.weight for wish in target.wishes}
    assert weights == {GAP: 1.0, "formation_energy_ev": weight}


def test_of_cells_with_a_gap_in_the_range_the_stable_ones_come_first() -> None:
    run = dg.design("WSe2", band_gap="0.5:0.8", formation_energy="min", n=4, max_defects=3, proposer="known")
    for candidate in run.candidates:
        assert 0.5 <= candidate.best_values[GAP] <= 0.8
    energies = [candidate.best_values["formation_energy_ev"] for candidate in run.candidates]
    assert energies == sorted(energies)
    assert run.verdicts[0].text.startswith("the nearest is ")
    assert "(formation energy counted 0.01 times)" in run.verdicts[0].text


def test_a_column_that_is_misspelt_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("hommo,lumo\n0.1,1.1\n")
    with pytest.raises(UsageError, match=r"unknown column 'hommo'. Did you mean homo\? Known columns"):
        read_targets(table)


def test_values_in_millielectronvolts_are_told_what_they_are_in_electronvolts() -> None:
    with pytest.raises(
        UsageError, match=r"got lumo_ev=1150.000, expected electronvolts. If you mean 1150 meV, write 1.15"
    ):
        single_target({"homo_ev": 50.0, "lumo_ev": 1150.0})
    covered = {"homo_ev": [0.0, 1.4]}
    (line,) = coverage_warnings("MoS2", (single_target({"homo_ev": 50.0}),), covered)
    assert line.endswith("expect the nearest that there is. If you mean 50 meV, write 0.05.")
    (line,) = coverage_warnings("MoS2", (single_target({"homo_ev": 1.6}),), covered)
    assert "meV" not in line
