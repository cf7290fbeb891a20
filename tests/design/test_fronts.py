"""Pareto fronts: nothing on them is dominated, everything else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from defectgen.core import Configuration, get_host
from defectgen.design.candidates import PRISTINE_VBM, DesignRun, Target
from defectgen.design.fronts import STEP_EV, Front, FrontFinder, FrontMember
from defectgen.design.ranking import Scored
from defectgen.design.wishes import parse_wish
from defectgen.report.front_plot import front_svgs
from defectgen.report.table import front_text

MOS2 = get_host("MoS2")
TARGET = Target.of("1", (parse_wish("homo_ev", "0.1"), parse_wish("lumo_ev", "1:1.1")))
SITES = [Configuration.of(MOS2, {0: "W", site: "Se"}) for site in range(64, 192)]


def scored(homo: np.ndarray, lumo: np.ndarray, width: float = 0.02, dft: dict[str, np.ndarray] | None = None) -> Scored:
    widths = np.full(len(homo), width)
    values, half_widths = {"homo_ev": homo, "lumo_ev": lumo}, {"homo_ev": widths, "lumo_ev": widths}
    return Scored(SITES[: len(homo)], values, half_widths, dft or {}, np.zeros(len(homo), dtype=bool))


def found(*batches: Scored, target: Target = TARGET, most: int = 256) -> Front:
    finder = FrontFinder(target, most)
    for batch in batches:
        finder.offer(batch)
    return finder.front(())


@pytest.mark.parametrize("seed", range(5))
def test_a_front_is_what_brute_force_finds_in_any_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    homo, lumo = rng.uniform(0, 0.3, 128), rng.uniform(0.8, 1.4, 128)
    away = np.stack([wish.distance_ev(v) for wish, v in zip(TARGET.wishes, (homo, lumo), strict=True)], axis=1)
    steps = np.round(away / STEP_EV).astype(int)
    best = {tuple(s) for s in steps if not any((o <= s).all() and (o < s).any() for o in steps)}
    whole = scored(homo, lumo)
    parts = [whole.subset(range(start, start + 32)) for start in range(0, 128, 32)]
    for front in (found(whole), found(*parts), found(*reversed(parts), whole)):
        assert front.is_whole
        got = [tuple(round(d / STEP_EV) for d in member.distances_ev.values()) for member in front.members]
        assert got == sorted(best)
    assert len(best) > 1


def test_labels_count_before_predictions_and_what_has_no_interval_is_left_out() -> None:
    predicted, label = np.array([0.1, 0.1]), np.array([np.nan, 0.3])
    dft = {"homo_ev": label, "lumo_ev": np.array([np.nan, 1.05])}
    both = scored(predicted, np.array([1.2, 1.05]), dft=dft)
    (member,) = found(both, target=Target("1", (("homo_ev", 0.1),))).members
    assert member.values == {"homo_ev": 0.1}
    assert not member.is_dft
    assert member.novel
    (labelled,) = found(both.subset([1])).members
    assert labelled.is_dft
    assert not labelled.novel
    assert labelled.distances_ev == pytest.approx({"homo_ev": 0.2, "lumo_ev": 0.0})
    assert found(scored(np.array([0.1]), np.array([1.05]), np.nan)).members == ()


def test_a_front_too_long_keeps_the_least_sums_and_says_so() -> None:
    ramp = np.arange(100) * 2 * STEP_EV
    front = found(scored(0.1 + ramp, 1.1 + 1.5 * ramp[::-1]), most=8)
    assert not front.is_whole
    assert [member.distances_ev["homo_ev"] for member in front.members] == pytest.approx(ramp[-8:].tolist())


def member(homo: float, lumo: float, site: int) -> FrontMember:
    away = {"homo_ev": homo, "lumo_ev": lumo}
    return FrontMember(SITES[site], away, away, {"homo_ev": 0.1, "lumo_ev": 0.1}, True)


def test_the_terminal_names_both_ends_and_the_nearest() -> None:
    front = Front("1", (member(0, 0.3, 0), member(0.02, 0.2, 1), member(0.05, 0.05, 2), member(0.4, 0, 3)))
    text = front_text(front, TARGET)
    assert "HOMO / LUMO" in text
    assert "0 / 300 meV" in text
    assert "50 / 50 meV" in text
    assert "400 / 0 meV" in text
    assert "4 structures" in text
    assert "20 / 200" not in text
    assert "4 / 0 meV" in front_text(Front("1", (member(0.003, 0.001, 0), member(0.004, -0.0001, 1))), TARGET)
    assert front_text(Front("1", front.members[:1]), TARGET) == ""


def test_distances_to_weighted_wishes_are_those_of_the_values() -> None:
    """Not times the weight: a reader compares them with the values in the table."""
    target = Target.of("1", (parse_wish("homo_ev", "0.1*0.01"), parse_wish("lumo_ev", "1:1.1*2")))
    front = found(scored(np.array([0.1, 0.9]), np.array([1.3, 1.05])), target=target)
    assert front_text(front, target).endswith("HOMO / LUMO off by 0 / 200 meV (W_Mo+Se_S), 800 / 0 meV (W_Mo+Se_S)")
    (plot,) = front_svgs(DesignRun(MOS2, PRISTINE_VBM, (), {}, targets=(target,), fronts=(front,)), target, [])
    assert "HOMO 800 meV off, LUMO 0 meV off" in plot
    assert "HOMO from 0.100 (meV)" in plot


def test_a_run_hands_its_fronts_on(tmp_path: Path) -> None:
    import defectgen as dg

    run = dg.design("MoS2", homo=0.2, lumo=1.0, max_defects=3, n=2)
    (front,) = run.fronts
    nearest = min(sum(member.distances_ev.values()) for member in front.members)
    assert len(front.members) > 1
    assert nearest == pytest.approx(run.verdicts[0].nearest_ev, abs=2 * STEP_EV)
    assert run.summary()["fronts"] == [front.to_dict()]
    run.write(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["fronts"] == [front.to_dict()]
    limits = [member.configuration.n_defects for member in front.members]
    assert max(limits) <= 3
