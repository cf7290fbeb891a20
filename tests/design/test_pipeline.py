"""The pipeline with proposers and a scorer whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pytest
from counting_scorer import CountingScorer

from defectgen.core import Configuration, Host
from defectgen.core.level_scale import LevelScale
from defectgen.design.candidates import PRISTINE_VBM, RAW, Target
from defectgen.design.evaluate import evaluate_pool, evaluate_proposer, level_errors, nearest_labelled
from defectgen.design.pipeline import DesignSettings, Stage, design
from defectgen.design.proposers import Ask, Proposal, RandomProposer
from defectgen.design.raw_reference import RawReference
from defectgen.design.seeds import seed_for

TARGET = Target("1", (("homo_ev", 0.5), ("lumo_ev", 1.0)))


class Interrupted:
    """Three random proposals, then Ctrl-C."""

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        yield from list(RandomProposer(4).propose(host, [Ask(asks[0].values, 3, asks[0].seed)]))
        raise KeyboardInterrupt


class OneStructure:
    """Symmetry images of one structure, and one proposal that is invalid."""

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        for index, ask in enumerate(asks):
            for site in range(ask.n - 1):
                yield Proposal(index, Configuration.of(host, {site: "VAC"}).canonical())
            yield Proposal(index, None, "broken")


def test_candidates_are_ranked_by_distance_and_distinct(mos2: Host) -> None:
    run = design(mos2, [TARGET], RandomProposer(5), CountingScorer(), (), DesignSettings(n=20, samples=80, seed=1))
    assert [c.rank for c in run.candidates] == list(range(1, 21))
    distances = [c.distance_ev for c in run.candidates]
    assert distances == sorted(distances)
    assert run.candidates[0].configuration.n_defects == 5
    assert distances[0] == pytest.approx(0.0)
    assert len({c.configuration.canonical() for c in run.candidates}) == 20
    assert run.reference == PRISTINE_VBM
    assert run.complete
    assert run.settings["proposed"] == run.settings["valid"] == 80


def test_symmetry_images_are_one_candidate_and_too_few_are_said(mos2: Host) -> None:
    run = design(mos2, [TARGET], OneStructure(), CountingScorer(), ("VAC@A00",), DesignSettings(n=4, samples=8))
    assert [c.configuration.key for c in run.candidates] == ["VAC@A00"]
    assert not run.candidates[0].novel
    assert run.settings["proposed"] == 4 * 8  # rounds of samples
    assert run.settings["valid"] == 4 * (8 - 3)  # three asks a round, each with one invalid proposal
    assert run.warnings == ("target 1: 1 distinct candidates found, 4 asked for.",)


def test_progress_counts_each_structure_once(mos2: Host) -> None:
    told: list[int] = []
    targets = [TARGET, Target("2", (("homo_ev", 0.3),))]
    stages = [Stage("first", OneStructure), Stage("again", OneStructure)]
    run = design(mos2, targets, stages, CountingScorer(), (), DesignSettings(n=4, samples=8), progress=told.append)
    assert sum(told) == len({candidate.configuration.key for candidate in run.candidates}) == 1
    assert run.settings["proposed"] > 8  # type: ignore[operator]


class ExtrapolatingScorer(CountingScorer):
    """Says that it never saw anything like it."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        return super().score(configurations).with_columns(in_domain=pl.lit(False))


def test_extrapolated_values_have_no_interval_and_are_said(mos2: Host) -> None:
    run = design(mos2, [TARGET], RandomProposer(3), ExtrapolatingScorer(), (), DesignSettings(n=3, samples=8))
    assert all(not candidate.uncertainty for candidate in run.candidates)
    assert any("3 of 3 candidates are unlike anything" in line for line in run.warnings)


def test_labels_are_not_said_to_be_extrapolated(mos2: Host) -> None:
    labels = {"VAC@A00": {"homo_ev": 0.5, "lumo_ev": 1.0, "band_gap_ev": 0.5}}
    settings = DesignSettings(n=1, samples=8)
    run = design(mos2, [TARGET], OneStructure(), ExtrapolatingScorer(), ("VAC@A00",), settings, labels=labels)
    assert run.candidates[0].dft["homo_ev"] == 0.5
    assert run.warnings == ()


class PlainScorer(CountingScorer):
    """Gives values and nothing else."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        return super().score(configurations).select("homo_ev", "lumo_ev")


def test_a_scorer_without_intervals_is_not_said_to_extrapolate(mos2: Host) -> None:
    run = design(mos2, [TARGET], RandomProposer(3), PlainScorer(), (), DesignSettings(n=3, samples=8))
    assert "3 of 3 candidates have values without an interval: what predicts them gives none." in run.warnings


class WidelyTrainedScorer(CountingScorer):
    """Was made for two defects, and gives no interval of anything."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        bare = super().score(configurations).with_columns(pl.selectors.contains("uncertainty") * float("nan"))
        return bare.with_columns(in_domain=pl.Series([item.n_defects == 2 for item in configurations]))


def test_what_a_scorer_was_made_for_is_not_said_to_be_extrapolated(mos2: Host) -> None:
    targets = [Target("two", (("homo_ev", 0.2),)), Target("three", (("homo_ev", 0.3),))]
    run = design(mos2, targets, RandomProposer(3), WidelyTrainedScorer(), (), DesignSettings(n=2, samples=32))
    sizes = [candidate.configuration.n_defects for candidate in run.candidates]
    assert sizes == [2, 2, 3, 3]
    assert "2 of 4 candidates have values without an interval: what predicts them gives none." in run.warnings
    assert any(line.startswith("2 of 4 candidates are unlike anything that") for line in run.warnings)


def test_the_same_seed_gives_the_same_candidates(mos2: Host) -> None:
    def keys(seed: int) -> list[str]:
        settings = DesignSettings(n=8, samples=16, seed=seed)
        run = design(mos2, [TARGET], RandomProposer(3), CountingScorer(), (), settings)
        return [c.configuration.key for c in run.candidates]

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)
    assert seed_for(1, "a", 0) != seed_for(1, "a", 1)


def test_an_interrupted_run_keeps_what_was_there(mos2: Host) -> None:
    run = design(mos2, [TARGET], Interrupted(), CountingScorer(), (), DesignSettings(n=8, samples=16))
    assert not run.complete
    assert len(run.candidates) == 3


def test_raw_targets_are_compared_on_the_raw_scale(mos2: Host) -> None:
    scale = LevelScale("MoS2", "MoS2", -0.7, -61.6, 0.0, {"v_S": -0.03}, (), 0.01, 100)
    raw = RawReference(scale, -0.02)
    moved = raw.target_to_vbm(Target("1", (("homo_ev", -0.2), ("band_gap_ev", 1.0))))
    assert dict(moved.values) == pytest.approx({"homo_ev": 0.52, "band_gap_ev": 1.0})
    target = Target("1", (("homo_ev", -0.2),))
    run = design(mos2, [target], RandomProposer(3), CountingScorer(), (), DesignSettings(n=4, samples=8), raw=raw)
    assert run.reference == RAW
    for candidate in run.candidates:
        expected = 0.1 * candidate.configuration.n_defects - 0.7 + scale.shift(candidate.configuration)
        assert candidate.predicted["homo_ev"] == pytest.approx(expected)
        assert candidate.distance_ev == pytest.approx(abs(expected + 0.2))
        assert candidate.uncertainty["homo_ev"] == pytest.approx((0.02**2 + (1.645 * 0.01) ** 2) ** 0.5)
        assert candidate.uncertainty["band_gap_ev"] == 0.02


def test_evaluation_counts_what_its_definitions_say(mos2: Host) -> None:
    labels = {"VAC@A00": {"homo_ev": 0.45, "lumo_ev": 1.0}}
    found = evaluate_proposer(mos2, [TARGET], OneStructure(), CountingScorer(), (), labels, n=10, seed=0)
    result = found.metrics
    assert result["proposals"] == 10
    assert result["valid_share"] == pytest.approx(0.9)
    assert result["distinct_share"] == pytest.approx(0.1)
    assert result["novel_share"] == pytest.approx(0.9)
    assert result["samples"]["surrogate"] == pytest.approx(
        {"n": 9, "median_mev": 400.0, "p90_mev": 400.0, "within_20_mev": 0.0}
    )
    assert result["first"]["surrogate"]["n"] == result["first"]["dft"]["n"] == 1
    assert result["first"]["distance"]["median_mev"] == pytest.approx(50.0)
    assert result["first_novel_share"] == 1.0
    assert found.samples["dft_homo_ev"].to_list() == [0.45] * 9
    nearest = nearest_labelled(mos2, [TARGET], CountingScorer(), {"VAC@A00"}, labels).metrics
    assert nearest["first"]["dft"]["median_mev"] == pytest.approx(50.0)


def test_the_best_of_a_pool_is_by_the_surrogate(mos2: Host) -> None:
    pool = [Configuration.of(mos2, dict.fromkeys(range(k), "VAC")).canonical() for k in (1, 3, 6)]
    target = Target("1", (("homo_ev", 0.31), ("lumo_ev", 1.0)))
    found = evaluate_pool(mos2, [target], pool, CountingScorer(), (), {})
    assert found.samples["key"].to_list() == [pool[1].key]
    assert found.metrics["first"]["distance"]["median_mev"] == pytest.approx(10.0)
    assert found.metrics["best"]["distance"]["within_20_mev"] == 1.0


def test_level_errors_are_those_of_the_slides() -> None:
    """R2 and RMSE over the quarter with the least squared error, and over everything."""
    target = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    error = np.array([0.1, -0.2, 0.5, 1.0, -1.0, 2.0, 3.0, 4.0])
    frame = pl.DataFrame({"target_homo_ev": target, "surrogate_homo_ev": target + error})
    found = level_errors(frame, "homo_ev")
    assert found["n"] == 8
    assert found["rmse_mev"] == pytest.approx(1e3 * np.sqrt((error**2).mean()))
    assert found["r2"] == pytest.approx(1 - (error**2).sum() / ((target - 3.5) ** 2).sum())
    assert found["rmse_25_mev"] == pytest.approx(1e3 * np.sqrt((0.1**2 + 0.2**2) / 2))
    assert found["r2_25"] == pytest.approx(1 - (0.1**2 + 0.2**2) / 0.5)


def test_nothing_valid_is_measured_as_nothing(mos2: Host) -> None:
    class Broken:
        def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:  # noqa: ARG002
            yield Proposal(0, None, "broken")

    result = evaluate_proposer(mos2, [TARGET], Broken(), CountingScorer(), (), {}, n=1, seed=0).metrics
    assert result["valid_share"] == 0
    assert result["samples"]["distance"]["n"] == 0
    assert result["samples"]["distance"]["within_20_mev"] is None
