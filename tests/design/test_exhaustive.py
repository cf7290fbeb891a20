"""Listing of every structure that limits leave, and the mix of proposers around it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from counting_scorer import CountingScorer

import defectgen as dg
from defectgen.core import Configuration, Host, get_host
from defectgen.core.selection import select
from defectgen.data.known_labels import labels_of
from defectgen.design import mix as mixing
from defectgen.design.engine import Models
from defectgen.design.exhaustive import MAX_LISTED, ExhaustiveProposer, plan_listing
from defectgen.design.limits import Limits, Space, nearest_pair_angstrom
from defectgen.design.mix import _away_text
from defectgen.design.proposers import Ask, Budget, parse_budget
from defectgen.design.run import DesignRequest, Ranking, prepare_design
from defectgen.design.targets import single_target
from defectgen.errors import UsageError
from defectgen.models import SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate import Surrogate

LOW = Limits(max_defects=3)
SMALL = get_host("MoS2", (3, 3))


def keys(space: Space, budget: Budget | None = None) -> list[str]:
    listing = plan_listing(space)
    proposals = ExhaustiveProposer(listing, budget or Budget()).propose(space.host, [Ask({}, 1, 0)])
    return [p.configuration.key for p in proposals if p.configuration is not None]


def everything(host: Host, most: int) -> set[str]:
    found = set()
    for number in range(1, most + 1):
        for sites in itertools.combinations(range(host.n_sites), number):
            for news in itertools.product(*(host.allowed[host.site_cell(s)[0]] for s in sites)):
                found.add(Configuration.of(host, zip(sites, news, strict=True)).canonical().key)
    return found


def test_the_listing_is_every_class_once() -> None:
    listed = keys(Space.of(SMALL, Limits(max_defects=2), 24))
    assert len(listed) == len(set(listed))
    assert set(listed) == everything(SMALL, 2)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_defects=2, kinds=("vacancy",)),
        Limits(max_defects=2, only=("v_S", "W_Mo")),
        Limits(max_defects=2, without=("Se", "v_Mo")),
        Limits(max_defects=2, defects=("v_S",)),
        Limits(max_defects=2, defects=("v_S=2",)),
        Limits(min_defects=2, max_defects=2, side="top"),
        Limits(max_defects=2, least_distance_angstrom=4.0),
        Limits(concentration=(0.0, 0.04)),
    ],
)
def test_limits_leave_what_they_say(limits: Limits) -> None:
    space = Space.of(SMALL, limits, 24)
    listed = set(keys(space))
    assert listed == {k for k in everything(SMALL, 2) if space.admits(Configuration.from_key(SMALL, k))}
    assert listed
    for key in listed:
        item = Configuration.from_key(SMALL, key)
        if limits.only:
            assert set(item.label.replace("2", "").split("+")) <= set(limits.only)
        if limits.side:
            heights = {SMALL.site_cart_coords[site][2] for site, _ in item.edits if SMALL.site_element(site) == "S"}
            assert len({round(height, 3) for height in heights}) <= 1
        if limits.least_distance_angstrom:
            assert nearest_pair_angstrom(item) >= 4.0
        if limits.defects == ("v_S=2",):
            assert item.label == "2v_S"
        if limits.concentration:
            assert item.n_defects == 1
    rng = np.random.default_rng(0)
    assert {space.draw(rng).canonical().key for _ in range(60)} <= listed


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(only=("v_S",), without=("VAC",)), r"leave no defect of MoS2: --only v_S --without VAC"),
        (Limits(only=("v_Se",)), "'v_Se' is no defect of MoS2. It has: W_Mo, v_Mo, Se_S, v_S"),
        (Limits(without=("Te",)), "'Te' is no defect of MoS2 and no species"),
        (Limits(defects=("v_S",), only=("W_Mo",)), "v_S is wanted and excluded at once"),
        (Limits(defects=("v_S=4",), max_defects=3), "these limits leave nothing"),
        (Limits(defects=("v_S=1", "v_S=2")), "v_S is named twice"),
        (Limits(defects=("v_S=3:1",)), "upside down. Expected v_S=1:3"),
        (Limits(defects=("v_S=",)), "expected e.g. v_S, v_S=2 or v_S=1:3"),
        (Limits(min_defects=5, concentration=(0.0, 0.01)), "these limits leave nothing"),
        (Limits(max_defects=500), "got at most 500 defects"),
    ],
)
def test_limits_that_leave_nothing_are_one_line(limits: Limits, message: str) -> None:
    with pytest.raises(dg.UsageError, match=message) as caught:
        Space.of(get_host("MoS2"), limits, 24)
    assert "\n" not in str(caught.value)


def test_bad_limits_are_refused() -> None:
    for bad, message in (
        ({"side": "left"}, "expected top or bottom"),
        ({"least_distance_angstrom": -1.0}, "expected 0 or more angstrom"),
        ({"concentration": (0.2, 0.1)}, "0.2 to 0.1, which is upside down"),
        ({"concentration": (0.1, 1.2)}, "a range within 0 to 1"),
    ):
        with pytest.raises(dg.UsageError, match=message):
            Limits(**bad)  # type: ignore[arg-type]


def test_only_what_is_small_is_listed(mos2: Host) -> None:
    listing = plan_listing(Space.of(mos2, Limits(), 24))
    assert (listing.most, listing.is_whole, listing.left_out) == (3, False, 0)
    assert listing.count == sum(select(mos2, max_defects=3).counts.values()) == 13609 <= MAX_LISTED
    narrow = plan_listing(Space.of(mos2, Limits(max_defects=4, only=("v_S", "W_Mo")), 24))
    assert narrow.is_whole
    assert narrow.count == sum(1 for _ in dg.enumerate(mos2, [c.label for c in narrow.classes]))
    assert plan_listing(Space.of(mos2, Limits(min_defects=6), 24)).classes == ()


def test_classes_that_the_scorer_was_not_made_for_are_left_out(mos2: Host) -> None:
    listing = plan_listing(Space.of(mos2, Limits(max_defects=3), 24), Surrogate.load())
    assert listing.count + listing.left_out == 13609
    assert listing.count > 5900
    assert "2v_Mo" not in {one.label for one in listing.classes}


def test_a_budget_ends_the_listing() -> None:
    space = Space.of(SMALL, Limits(max_defects=2), 24)
    assert keys(space, Budget(evaluations=7)) == keys(space)[:7]
    assert keys(space, Budget(seconds=0.0)) == []


@pytest.mark.parametrize(
    ("text", "budget"),
    [("30s", Budget(30.0)), ("1.5m", Budget(90.0)), ("2h", Budget(7200.0)), ("100,000", Budget(evaluations=100000))],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["0", "0s", "", "soon", "-3s"])
def test_budgets_of_nothing(text: str) -> None:
    with pytest.raises(dg.UsageError, match="got a budget of"):
        parse_budget(text)


def test_the_first_is_the_best_there_is(mos2: Host) -> None:
    request = DesignRequest(mos2, (single_target({"homo_ev": 0.05, "lumo_ev": 1.15}),), Ranking(n=4), LOW, labels={})
    run = prepare_design(request).run()
    scores = dg.score(dg.enumerate(mos2, rules="2dmd-low"))
    distances = (scores["homo_ev"] - 0.05).abs() + (scores["lumo_ev"] - 1.15).abs()
    assert run.verdicts[0].nearest_ev == pytest.approx(distances.min(), abs=1e-6)
    assert run.candidates[0].distance_ev < distances.min() + 0.005  # type: ignore[operator]
    assert "no structure with up to 3 defects has this" in run.verdicts[0].text
    assert {candidate.origin for candidate in run.candidates} == {("exhaustive",)}
    assert run.settings["proposers"] == "exhaustive"
    merits = [candidate.expected_ev for candidate in run.candidates]
    assert merits == sorted(merits)


def test_the_verdict_counts_every_structure_once(mos2: Host) -> None:
    target = single_target({"homo_ev": 0.05, "lumo_ev": 1.15})
    run = prepare_design(DesignRequest(mos2, (target,), Ranking(n=2), Limits(max_defects=2))).run()
    found = re.search(r"all (\d+) were looked at, but for (\d+) of kinds", run.verdicts[0].text)
    assert found
    assert int(found[1]) + int(found[2]) == sum(select(mos2, max_defects=2).counts.values()) == 163
    assert int(found[2]) == sum(select(mos2, ["2v_Mo", "2W_Mo", "v_Mo+W_Mo"]).counts.values())


def test_the_verdict_denies_only_what_no_interval_leaves_open() -> None:
    """One label at 5 meV; the other structures are predicted 40 meV away, surely (20 meV) or not (45 meV)."""
    target, limits = single_target({"homo_ev": 0.2 - 0.005}), Limits(max_defects=1)
    label = next(iter(keys(Space.of(SMALL, limits, 24))))
    texts = []
    for half_width in (0.02, 0.2):

        class Scorer(CountingScorer):
            width = half_width

            def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
                return super().score(configurations).with_columns(pl.lit(self.width).alias("homo_uncertainty_ev"))

        request = DesignRequest(
            SMALL, (target,), Ranking(n=2), limits, scorer=Scorer(), labels={label: {"homo_ev": 0.2}}
        )
        texts.append(prepare_design(request).run().verdicts[0].text)
    assert texts[0].startswith("no structure with 1 defect has this: the nearest that exists is 5.0 meV away (all 4")
    assert texts[1].startswith(
        "no structure with 1 defect surely has this: the nearest known is 5.0 meV away; others may"
    )


@pytest.mark.parametrize(("homo_ev", "by"), [(0.1, "DFT"), (0.3, "a surer prediction")])
def test_the_verdict_says_why_the_nearest_is_not_first(mos2: Host, homo_ev: float, by: str) -> None:
    target = single_target({"homo_ev": homo_ev, "lumo_ev": 1.0})
    run = prepare_design(DesignRequest(mos2, (target,), Ranking(n=4), Limits(8, 14))).run()
    first, verdict = run.candidates[0], run.verdicts[0]
    assert verdict.nearest_ev is not None
    assert verdict.nearest_ev < first.best_distance_ev - 1e-3
    assert f"behind row 1, {1e3 * first.best_distance_ev:.1f} meV away by {by}" in verdict.text
    by_distance = prepare_design(DesignRequest(mos2, (target,), Ranking(n=4, rank_by="distance"), LOW)).run()
    assert by_distance.candidates[0].best_distance_ev == pytest.approx(by_distance.verdicts[0].nearest_ev, abs=1e-6)
    assert "behind row 1" not in by_distance.verdicts[0].text


def test_alike_structures_stand_behind_one(mos2: Host) -> None:
    wish = {"homo": 0.05, "lumo": 1.15, "max_defects": 3}
    chosen = dg.design(mos2, n=12, **wish).candidates  # type: ignore[arg-type]
    every = dg.design(mos2, ranking=Ranking(n=12, diverse=False), **wish).candidates  # type: ignore[arg-type]
    assert len(chosen) == len(every) == 12
    assert chosen[0].configuration == every[0].configuration
    assert sum(candidate.similar for candidate in chosen) > 12
    assert not any(candidate.similar for candidate in every)
    for first, second in itertools.combinations(chosen, 2):
        if first.configuration.label == second.configuration.label:
            assert any(
                abs(first.best_values[c] - second.best_values[c]) > first.uncertainty[c] for c in ("homo_ev", "lumo_ev")
            )


def test_the_language_model_is_not_loaded_where_it_cannot_add(mos2: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, _: object) -> object:
        raise AssertionError(f"{name} was made")

    targets = (single_target({"homo_ev": 0.05, "lumo_ev": 1.15}),)
    names = [stage.name for stage in prepare_design(DesignRequest(mos2, targets)).mix.stages]
    assert names == ["known", "exhaustive", "random", "search"]
    crowded = prepare_design(DesignRequest(mos2, targets, limits=Limits(min_defects=9)))
    assert [stage.name for stage in crowded.mix.stages] == ["known", "random", "search", "llm"]
    assert crowded.mix.stages[2].gains is not None, "only where nothing is near enough yet"
    limits = Limits(min_defects=9)
    given = prepare_design(DesignRequest(mos2, targets, Ranking(budget=Budget(evaluations=500)), limits))
    assert given.mix.stages[2].gains is None, "who gives a budget has it used"
    monkeypatch.setattr(mixing, "make_proposer", fail)
    with pytest.raises(AssertionError, match="llm was made"):
        prepare_design(DesignRequest(mos2, targets, Ranking(samples=8)))


def test_named_proposers_are_all_asked(mos2: Host) -> None:
    run = dg.design(mos2, homo=0.3, n=3, max_defects=2, proposer="random,exhaustive", scorer=CountingScorer())
    assert run.candidates[0].origin == ("random", "exhaustive")
    assert set(run.settings["proposed_by"]) == {"random", "exhaustive"}  # type: ignore[call-overload]
    with pytest.raises(dg.UsageError, match="'random' is named twice"):
        dg.design(mos2, homo=0.3, max_defects=2, proposer="random,random")


def test_ties_are_broken_by_stability(mos2: Host) -> None:
    class Heavy(CountingScorer):
        def score(self, configurations: list[Configuration]) -> pl.DataFrame:  # type: ignore[override]
            energy = [float(sum(site for site, _ in item.edits)) for item in configurations]
            return super().score(configurations).with_columns(formation_energy_ev=pl.Series(energy))

    run = dg.design(mos2, homo=0.2, n=5, max_defects=2, proposer="exhaustive", scorer=Heavy())
    energies = [candidate.predicted["formation_energy_ev"] for candidate in run.candidates]
    assert energies == sorted(energies)
    assert len(set(energies)) > 1


def test_known_structures_are_shown_with_their_dft_values(mos2: Host) -> None:
    run = dg.design(mos2, homo=0.05, lumo=1.15, n=8, max_defects=3)
    labels = labels_of(mos2)
    found = [candidate for candidate in run.candidates if candidate.dft]
    assert found
    for candidate in found:
        assert candidate.dft == labels[candidate.configuration.key]
        assert candidate.origin == ("known", "exhaustive")
        assert not candidate.novel
        by_dft = abs(candidate.dft["homo_ev"] - 0.05) + abs(candidate.dft["lumo_ev"] - 1.15)
        assert candidate.expected_ev == pytest.approx(by_dft)
        assert candidate.distance_ev != by_dft
    merits = [candidate.expected_ev for candidate in run.candidates]
    assert merits == sorted(merits)


def test_novel_leaves_out_what_is_labelled(mos2: Host) -> None:
    run = dg.design(mos2, homo=0.05, lumo=1.15, max_defects=3, ranking=Ranking(n=8, novel=True))
    assert len(run.candidates) == 8
    assert all(candidate.novel and not candidate.dft for candidate in run.candidates)
    assert not {candidate.configuration.key for candidate in run.candidates} & set(labels_of(mos2))


def test_labels_of_ones_own_take_the_place_of_the_known_ones(mos2: Host) -> None:
    request = DesignRequest(
        mos2,
        (single_target({"homo_ev": 0.7}),),
        Ranking(n=1),
        LOW,
        scorer=CountingScorer(),
        labels={"VAC@A00": {"homo_ev": 0.7}},
    )
    run = prepare_design(request).run()
    assert run.candidates[0].configuration.key == "VAC@A00"
    assert run.candidates[0].dft == {"homo_ev": 0.7}
    assert run.candidates[0].expected_ev == 0.0


def test_labels_of_2dmd_stand_beside_models_of_2dmd_only(tmp_path: Path) -> None:
    """Values of another code have another zero."""
    own = tmp_path / "own"
    shutil.copytree(shipped(SHIPPED_SURROGATE), own)
    facts = json.loads((own / "surrogate.json").read_text())
    (own / "surrogate.json").write_text(json.dumps(facts | {"data": "mine.csv, 60 structures of MoS2 8x8"}))
    request = DesignRequest(get_host("MoS2"), (single_target({"homo_ev": 0.1}),), limits=LOW)
    known = prepare_design(request)
    assert len(known.labels) > 5000
    assert known.facts["trained_on"] == "2DMD"
    other = prepare_design(replace(request, models=Models(surrogate=own)))
    assert other.labels == {}
    assert other.facts["trained_on"] == "other values"
    with pytest.raises(UsageError, match="no labelled structures of MoS2 8x8 are known"):
        prepare_design(replace(request, models=Models(surrogate=own), proposer="known"))


@pytest.mark.parametrize(
    ("wishes", "nearest_ev", "text"),
    [
        ({"homo_ev": 0.1}, 0.03, "30.0 meV away"),
        ({"formation_energy_ev": "min"}, 0.03, "30.0 meV away from the lowest value known"),
        ({"formation_energy_ev": "min"}, -0.195, "195.0 meV beyond the lowest value known"),
        ({"lumo_ev": "max"}, -0.195, "195.0 meV beyond the highest value known"),
        ({"homo_ev": "min", "lumo_ev": "max"}, 0.004, "4.0 meV away from the extreme value known"),
        ({"homo_ev": 0.1, "formation_energy_ev": "min"}, 0.03, "30.0 meV away (formation energy counted 0.01 times)"),
        ({"homo_ev": 0.1, "formation_energy_ev": "min*1"}, 0.03, "30.0 meV away"),
        ({"homo_ev": 0.1, "lumo_ev": "1.2*2"}, 0.03, "30.0 meV away (lumo counted 2 times)"),
        ({"total_magnetization_mu_b": 1.0}, 0.03, "30.0 meV away (1 \u03bcB counts 100 meV)"),
        ({"lumo_ev": "max*3"}, 0.03, "30.0 meV away from the highest value known (lumo counted 3 times)"),
    ],
)
def test_distances_from_an_extreme_are_said_to_be_that(wishes: dict[str, Any], nearest_ev: float, text: str) -> None:
    assert _away_text(single_target(wishes), nearest_ev) == text


def test_warnings_call_a_host_as_people_do() -> None:
    (line,) = (item for item in dg.design("BN", band_gap=2.5, max_defects=1, n=1).warnings if "outside" in item)
    assert "is outside what the data of hBN covers" in line
