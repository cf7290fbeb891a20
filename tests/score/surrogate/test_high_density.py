"""Models of cells with many defects: exact features, kernels that are kernels, and a law that is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.linalg import eigvalsh
from synthetic import distinct_configurations, random_configuration, write_set

from defectgen.core import Configuration, Host, Rule, get_host, host_names
from defectgen.core.properties import MAGNETIZATION
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError
from defectgen.models import SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.cross_validation import class_folds
from defectgen.score.surrogate.environments import Decorations, DefectKinds
from defectgen.score.surrogate.evaluation import PER_SITE, evaluate, metrics
from defectgen.score.surrogate.features import describe, histogram, pair_orbits
from defectgen.score.surrogate.fitting import FitSettings, fit_dense
from defectgen.score.surrogate.gaussian_process import GaussianProcess, Weights, doubts, find_weights, left_out
from defectgen.score.surrogate.high_density import ENERGY, DenseModels, TrainingRows, tree_features
from defectgen.score.surrogate.host_models import learnt_columns
from defectgen.score.surrogate.kernel_table import NUMBER, POOLED, PRESENT
from defectgen.score.surrogate.kernels import (
    EnergySide,
    LevelScales,
    LevelSide,
    energy_kernels,
    level_kernels,
    own_energy_kernels,
    own_level_kernels,
)
from defectgen.score.surrogate.labelled_rows import LabelledRows
from defectgen.score.surrogate.model import METADATA
from defectgen.score.surrogate.training import fit_surrogate, train_surrogate
from defectgen.score.trees import TreeSettings

FEW_TREES = TreeSettings(iterations=20, depth=3, learning_rate=0.2)


def some(host: Host, n: int, seed: int = 0) -> list[Configuration]:
    rng = np.random.default_rng(seed)
    return [random_configuration(host, int(rng.integers(1, 13)), rng) for _ in range(n)]


@pytest.mark.parametrize("name", host_names())
def test_images_have_the_same_numbers_to_the_last_bit(name: str) -> None:
    host, rng = get_host(name), np.random.default_rng(1)
    items = some(host, 12)
    first, second = Decorations.of(host, items), Decorations.of(host, [item.random_image(rng) for item in items])
    for attribute in ("rows", "kinds", "sites", "pooled", "pair_counts"):
        assert np.array_equal(getattr(first, attribute), getattr(second, attribute)), attribute


def test_pairs_are_counted_as_the_pair_codes_say(mos2: Host) -> None:
    items = some(mos2, 10)
    rows, n_orbits = Decorations.of(mos2, items), len(pair_orbits(mos2).distances_angstrom)
    codes = histogram(describe(mos2, items).pairs, np.arange(len(rows.two_kinds) * n_orbits), len(items))
    near = len(rows.distances_angstrom)
    assert np.array_equal(rows.pair_counts, codes.reshape(len(items), -1, n_orbits)[:, :, :near])
    assert np.array_equal(rows.counts, describe(mos2, items).counts)


def test_pooled_features_are_those_of_each_configuration_alone(mos2: Host) -> None:
    items = [*some(mos2, 6), Configuration.of(mos2, {})]
    rows = Decorations.of(mos2, items)
    alone = np.concatenate([Decorations.of(mos2, [item]).pooled for item in items])
    assert rows.pooled == pytest.approx(alone)
    assert rows.pooled.shape[1] == len(rows.pooled_weights)
    assert tree_features(rows).shape[1] < rows.pooled.shape[1], "isovalent neighbours are not shown to the trees"


def test_kinds_of_defects_by_their_electrons() -> None:
    def kinds(host: Host) -> dict[str, tuple[float, bool]]:
        known = DefectKinds.of(host)
        names = [f"{rule.element}>{rule.replacement}" for rule in host.rules]
        return dict(zip(names, zip(known.weights, known.odd, strict=True), strict=True))

    mos2 = {"Mo>W": (0.2, False), "Mo>VAC": (1.0, False), "S>Se": (0.2, False), "S>VAC": (1.0, False)}
    assert kinds(get_host("MoS2")) == mos2
    assert kinds(get_host("BN")) == dict.fromkeys(("B>C", "B>VAC", "N>C", "N>VAC"), (1.0, True))
    assert kinds(get_host("P")) == {"P>N": (0.2, False), "P>VAC": (1.0, True)}
    some_rules = [Rule("Se", new) for new in ("Te", "As")] + [Rule("W", new) for new in ("Cr", "Nb", "Re", "VAC")]
    assert kinds(replace(get_host("WSe2"), rules=tuple(some_rules))) == {
        "Se>Te": (0.2, False),
        "Se>As": (1.0, True),
        "W>Cr": (0.2, False),
        "W>Nb": (1.0, True),
        "W>Re": (1.0, True),
        "W>VAC": (1.0, False),
    }


def test_cells_whose_electrons_differ_in_parity_are_far_apart() -> None:
    host = get_host("GaSe")
    rows = Decorations.of(host, some(host, 40))
    odd = rows.odd(rows.counts)
    gallium_vacancies = rows.counts[:, [(r.element, r.is_vacancy) for r in host.rules].index(("Ga", True))]
    assert np.array_equal(odd, gallium_vacancies % 2)
    assert 5 < odd.sum() < 35
    side = LevelSide.of(rows, LevelScales.of(rows))
    differ, others = odd[:, None] != odd, ~np.eye(40, dtype=bool)
    for kernel in (*POOLED, *PRESENT, *NUMBER):
        values = level_kernels(side, side)[kernel]
        assert values[differ].max() < 1e-12
        assert values[~differ & others].max() > 1e-3
    assert np.array_equal(tree_features(rows)[:, -1], odd)


@pytest.mark.parametrize("by_parity", [True, False])
def test_parity_counts_where_it_helps(by_parity: bool) -> None:
    host = get_host("GaSe")
    items = list(dict.fromkeys(some(host, 70, seed=5)))
    counts = Decorations.of(host, items).counts
    vacancies = counts[:, [(r.element, r.is_vacancy) for r in host.rules].index(("Ga", True))]
    levels = 0.02 * counts.sum(axis=1) + (0.8 * (vacancies % 2) if by_parity else 0.1 * np.sin(vacancies))
    values = {column: np.full(len(items), np.nan) for column in learnt_columns()}
    values |= {"homo_ev": levels, "fermi_level_ev": levels + 0.1}
    fit = fit_dense(LabelledRows(host, tuple(items), values), None, FitSettings(FEW_TREES, 1, 1), lambda _: None)
    assert any(fit.models.rows.kinds.odd) == by_parity
    assert np.abs(fit.left_out["homo_ev"] - levels).mean() < 0.1


def test_parity_does_not_count_where_it_makes_no_difference() -> None:
    host = replace(get_host("P"), rules=(Rule("P", "VAC"),))
    rng = np.random.default_rng(2)
    items = [random_configuration(host, n, rng) for n in (4, 6) * 20]
    values = {column: np.full(len(items), np.nan) for column in learnt_columns()}
    noise = rng.normal(size=len(items))
    for known, rows in (("homo_ev", items), (ENERGY, [random_configuration(host, n, rng) for n in (4, 5) * 20])):
        labelled = LabelledRows(host, tuple(rows), values | {known: noise})
        fit = fit_dense(labelled, None, FitSettings(FEW_TREES, 1, 1), lambda _: None)
        assert fit.models.rows.kinds.odd == (False,), f"{known}: only even numbers, or no levels"


def test_a_single_cell_with_another_value_is_fitted() -> None:
    host = get_host("GaSe")
    items = list(dict.fromkeys(some(host, 40, seed=5)))
    values = {column: np.full(len(items), np.nan) for column in learnt_columns()}
    moments = np.zeros(len(items))
    moments[3] = 1.0
    rows = LabelledRows(host, tuple(items), values | {"total_magnetization_mu_b": moments})
    fit = fit_dense(rows, None, FitSettings(FEW_TREES, 1, 1), lambda _: None)
    assert np.median(np.abs(fit.left_out["total_magnetization_mu_b"])) < 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda models: models.pop("odd_kinds"), "KeyError: 'odd_kinds'"),
        (lambda models: models.update(odd_kinds=[False]), "1 odd_kinds for 2 kinds of defects"),
        (lambda models: models.update(odd_kinds=[0.5, False]), r"odd_kinds \[0.5, False\], expected true or false"),
        (lambda models: models["models"]["homo_ev"].pop("doubt"), "KeyError: 'doubt'"),
        (lambda models: models["models"]["homo_ev"]["doubt"].pop(), "homo_ev: .* doubts of the rows chosen"),
        (lambda models: models["models"]["homo_ev"]["doubt"].__setitem__(0, 0), "homo_ev: doubts that are not above 0"),
    ],
)
def test_damaged_parities_and_doubts_are_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    for file in shipped(SHIPPED_SURROGATE).iterdir():
        (tmp_path / file.name).symlink_to(file)
    metadata = json.loads((tmp_path / METADATA).read_text())
    metadata["parts"] = [part for part in metadata["parts"] if part["set"] == "BP_spin_500"]
    change(metadata["parts"][0]["models"])
    (tmp_path / METADATA).unlink()
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(DefectgenError, match=said) as raised:
        Surrogate.load(tmp_path)
    assert str(raised.value).count("\n") == 0


def test_a_trained_model_keeps_what_it_was_trained_with() -> None:
    parts = {part.host: part.models for part in Surrogate.load().parts if isinstance(part.models, DenseModels)}
    # as it was trained when nitrogen did not count as isovalent
    once = {**parts["P"].to_dict(), "kind_weights": [1.0, 1.0], "models": {}}
    parts["P"] = DenseModels.from_dict(get_host("P"), once, {})
    assert parts["P"].rows.kinds == DefectKinds((1.0, 1.0), (False, False)), "parity did not help in P"
    assert parts["P"].rows.decorations.weights.tolist() == [1.0, 1.0]
    assert parts["GaSe"].rows.kinds == DefectKinds((0.2, 1.0, 0.2, 1.0), (False, True, False, False))
    item = Configuration.from_key(get_host("P"), "N@A00+N@A02+VAC@C31")
    today = TrainingRows(get_host("P"), (item.key,), np.ones(1), DefectKinds.of(get_host("P")))
    shown = [tree_features(rows.describe([item])).shape[1] for rows in (parts["P"].rows, today)]
    assert shown == [6 + 4 * 10 + 3, 6 + 10 + 1], "pairs with nitrogen are shown only to the trees of that time"
    for name in ("kind_weights", "odd_kinds"):
        with pytest.raises(ValueError, match=f"3 {name} for 2 kinds"):
            DenseModels.from_dict(get_host("P"), {**parts["P"].to_dict(), name: [1, 1, 1], "models": {}}, {})


@pytest.mark.parametrize("name", ["MoS2", "P"])
def test_kernels_are_symmetric_and_positive(name: str) -> None:
    host = get_host(name)
    rows = Decorations.of(host, some(host, 25))
    energy, level = EnergySide.of(rows), LevelSide.of(rows, LevelScales.of(rows))
    for kernels, own in (
        (energy_kernels(energy, energy), own_energy_kernels(energy)),
        (level_kernels(level, level), own_level_kernels(level)),
    ):
        for kernel, alone in zip(kernels, own, strict=True):
            assert kernel == pytest.approx(kernel.T)
            assert np.diagonal(kernel) == pytest.approx(alone)
            assert eigvalsh(kernel)[0] > -1e-8 * np.trace(kernel)


def noisy_line() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-3, 3, 60))
    y = np.sin(2 * x) + 0.1 * rng.normal(size=60)
    kernels = np.stack([np.exp(-0.5 * (x[:, None] - x) ** 2 / length**2) for length in (0.05, 0.7, 20.0)])
    return x, y, kernels, np.ones((1, 60)), np.ones((60, 60))


def test_weights_go_to_the_kernel_and_the_noise_behind_the_values() -> None:
    _, y, kernels, noise, prior = noisy_line()
    weights = find_weights(kernels, noise, prior, y)
    assert weights.kernels[1] > 3 * max(weights.kernels[0], weights.kernels[2])
    assert np.sqrt(weights.noise[0]) * weights.scale == pytest.approx(0.1, rel=0.3)


def test_left_out_rows_are_predicted_as_by_a_process_without_them() -> None:
    _, y, kernels, noise, prior = noisy_line()
    weights = find_weights(kernels, noise, prior, y)
    out = np.arange(0, 60, 7)
    rest = np.setdiff1d(np.arange(60), out)
    pick, cross = np.ix_(rest, rest), np.ix_(out, rest)
    own = np.full(len(out), sum(weights.kernels) + 1)
    shared = np.tensordot(weights.kernels, kernels[:, *cross], 1) + 1
    covariance = np.tensordot(weights.kernels, kernels[:, *pick], 1) + 1
    doubt = doubts(weights, covariance, weights.noise[0] * noise[0, rest], y[rest])
    for trust, (mean, spread) in (
        (None, GaussianProcess.given(weights, kernels, noise, prior, y).left_out([out])),
        (doubt, left_out(weights, kernels, noise, prior, y, [out])),
    ):
        fewer = GaussianProcess.given(weights, kernels[:, *pick], noise[:, rest], prior[pick], y[rest], trust)
        expected = fewer.predict(shared, own, noise[:, out])
        assert mean[out] == pytest.approx(expected[0])
        assert spread[out] == pytest.approx(expected[1])
        assert np.isnan(mean[rest]).all()


def test_a_label_that_none_of_its_neighbours_share_is_doubted() -> None:
    x, y, kernels, noise, prior = noisy_line()
    wrong = np.array([13, 40])
    y[wrong] += 3
    weights = find_weights(kernels, noise, prior, y)
    covariance = np.tensordot(weights.kernels, kernels, 1) + prior
    doubt = doubts(weights, covariance, np.array(weights.noise) @ noise, y)
    assert set(np.argsort(doubt)[-2:]) == set(wrong)
    assert doubt[wrong].min() > 5 * np.median(doubt)
    plain, trusting = (
        GaussianProcess.given(weights, kernels, noise, prior, y, d).mean(covariance) for d in (None, doubt)
    )
    off = [np.abs(values - np.sin(2 * x))[wrong].mean() for values in (plain, trusting)]
    assert off[1] < 0.7 * off[0]


def test_a_process_is_unsure_far_away() -> None:
    x, y, kernels, noise, prior = noisy_line()
    weights = find_weights(kernels, noise, prior, y)
    process = GaussianProcess.given(weights, kernels, noise, prior, y)
    far = np.array([0.0, 9.0])
    cross = np.stack([np.exp(-0.5 * (far[:, None] - x) ** 2 / length**2) for length in (0.05, 0.7, 20.0)])
    shared = np.tensordot(weights.kernels, cross, 1) + 1
    _, spread = process.predict(shared, np.full(2, sum(weights.kernels) + 1), np.ones((1, 2)))
    assert spread[1] > 3 * spread[0]
    assert Weights.from_dict(json.loads(json.dumps(vars(weights)))) == weights


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory, mos2: Host) -> pl.DataFrame:
    """60 low-density and 120 high-density structures with made-up labels; vacancies of the latter are magnetic."""
    root = tmp_path_factory.mktemp("dense")
    sparse = distinct_configurations(mos2, 60, 1, (1, 2, 3))
    write_set(root, "MoS2", sparse + distinct_configurations(mos2, 120, 2, (4, 6, 8, 10, 12)))
    many = pl.col("n_defects") > 3
    table = read_2dmd(root, cache=False).with_columns(
        pl.when(many).then(pl.lit("MoS2_500")).otherwise(pl.lit("MoS2")).alias("set"),
        pl.when(many).then(pl.lit("high")).otherwise(pl.lit("low")).alias("density"),
        pl.when(many).then(pl.col("configuration").str.count_matches("VAC") / 3).otherwise(0.0).alias(MAGNETIZATION),
    )
    return split_by_class(table, (0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def surrogate(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    folder = tmp_path_factory.mktemp("dense") / "model"
    train_surrogate(frame, folder, 1, low_trees=FEW_TREES, high_trees=FEW_TREES)
    return Surrogate.load(folder)


def test_the_law_behind_the_labels_is_found(surrogate: Surrogate, frame: pl.DataFrame) -> None:
    found = evaluate(surrogate, frame.filter(set="MoS2_500", split="test"))["MoS2_500"]
    assert found[PER_SITE]["mae_mev"] < 25, "pairs contribute up to 300 meV each"
    assert found["formation_energy_ev"]["r2"] > 0.99
    assert found[MAGNETIZATION]["mae_mu_b"] < 0.2
    assert "mae_mev" not in found[MAGNETIZATION]
    assert 0.7 <= np.mean([values["coverage_90"] for values in found.values()]) <= 1


def test_high_density_is_scored_by_its_own_models_and_images_alike(surrogate: Surrogate, mos2: Host) -> None:
    rng = np.random.default_rng(3)
    items = [random_configuration(mos2, 8, rng) for _ in range(9)]
    assert {surrogate.part_for(item).density for item in items} == {"high"}
    scores = surrogate.score(items)
    assert scores.equals(surrogate.score([item.random_image(rng) for item in items]))
    for row, item in enumerate(items):
        assert surrogate.score([item]).row(0) == pytest.approx(scores.row(row))
    assert (scores["lumo_ev"] - scores["homo_ev"] - scores["band_gap_ev"]).abs().max() < 1e-9  # type: ignore[operator]


def test_intervals_widen_away_from_the_training_rows(surrogate: Surrogate, mos2: Host) -> None:
    usual = Configuration.of(mos2, dict.fromkeys(range(64, 136, 9), "Se"))
    crowded = Configuration.of(mos2, dict.fromkeys(range(12), "VAC"))
    scores = surrogate.score([usual, crowded])
    assert scores["in_domain"].to_list() == [True, False]
    for column in ("formation_energy_uncertainty_ev", "homo_uncertainty_ev"):
        assert scores[column][1] > 2 * scores[column][0]


def test_more_changed_sites_than_any_training_row_have_no_value(surrogate: Surrogate, mos2: Host) -> None:
    most = Configuration.of(mos2, dict.fromkeys(range(12), "VAC"))
    beyond = Configuration.of(mos2, dict.fromkeys(range(13), "VAC"))
    scores = surrogate.score([beyond, most])
    assert scores["in_domain"].to_list() == [False, False]
    for column in ("homo_ev", "homo_uncertainty_ev", "formation_energy_ev", "energy_per_atom_ev"):
        assert scores[column].is_null().to_list() == [True, False]
    assert surrogate.why_not(most) == ""
    assert "MoS2 8x8 with 12 changed sites at most, got 13" in surrogate.why_not(beyond)


def test_low_density_rows_of_the_host_help(frame: pl.DataFrame) -> None:
    many = frame.filter(set="MoS2_500")
    test = many.filter(split="test")
    few = pl.concat([many.filter(split=name).head(12) for name in ("train", "validation")])
    alone, both = (
        fit_surrogate(table, 1, low_trees=FEW_TREES, high_trees=FEW_TREES)
        for table in (few, pl.concat([frame.filter(set="MoS2"), few]))
    )
    models = next(part for part in both.parts if part.density == "high").models
    assert isinstance(models, DenseModels)
    assert (models.rows.own == 0).sum() == 48, "training and validation rows, none of the test part"
    errors = [evaluate(fitted, test)["MoS2_500"][PER_SITE]["mae_mev"] for fitted in (alone, both)]
    assert errors[1] < 0.7 * errors[0]
    assert models.models[ENERGY].trees is None


def test_folds_keep_classes_together_and_sets_even(frame: pl.DataFrame) -> None:
    doubled = pl.concat([frame, frame.with_columns(pl.lit("copy").alias("set"))])
    folds = class_folds(doubled, 5, 0)
    assert folds[: len(frame)].to_list() == folds[len(frame) :].to_list()
    counts = frame.with_columns(fold=class_folds(frame, 5, 0)).group_by("set", "fold").len()
    assert set(counts.filter(set="MoS2_500")["len"]) == {24}


def test_coverage_counts_failures_as_misses() -> None:
    rows = {"set": ["A"] * 4, "property": ["homo_ev"] * 4, "id": list("abcd")}
    numbers = {"true": [0.0] * 4, "predicted": [0.01, 0.03, None, 0.1], "half_width": [0.05, 0.02, None, 0.2]}
    found = metrics(pl.DataFrame(rows | numbers))["A"]["homo_ev"]
    assert found["coverage_90"] == 0.5
    assert found["within_20_mev"] == 0.25
    assert (found["n"], found["n_failed"]) == (4, 1)


def test_the_folder_is_the_same_for_the_same_seed(frame: pl.DataFrame, surrogate: Surrogate, tmp_path: Path) -> None:
    again = train_surrogate(frame[::-1], tmp_path / "again", 1, low_trees=FEW_TREES, high_trees=FEW_TREES)
    first, second = (
        next(part for part in found.metadata["parts"] if part["density"] == "high") for found in (surrogate, again)
    )
    assert first["models"]["keys"] == second["models"]["keys"]
    weights = [part["models"]["models"][ENERGY]["weights"]["kernels"] for part in (first, second)]
    assert weights[0] == pytest.approx(weights[1], rel=1e-6)
