"""Processes of levels over cells of three defects: the law is found, the table is the mean, the share is earned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from synthetic import write_set

from defectgen.core import Configuration, Host
from defectgen.data.levels import fit_level_scales
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.score.surrogate import Surrogate, label_fitting
from defectgen.score.surrogate.features import describe
from defectgen.score.surrogate.label_fitting import fit_labels
from defectgen.score.surrogate.label_processes import LabelProcesses, triples
from defectgen.score.surrogate.labelled_rows import LabelledRows
from defectgen.score.surrogate.low_density import SparseModels
from defectgen.score.surrogate.training import train_surrogate
from defectgen.score.surrogate.triangle_process import Process, Triangles, fit_process, likelihood, ordered_orbits
from defectgen.score.trees import TreeSettings

Array = NDArray[np.float64]

VACANCY, TWO_KINDS, ALIKE = "VAC", ("VAC", "Se"), ("VAC", "VAC")


def cells(host: Host, others: Sequence[str], n: int, seed: int = 0) -> list[Configuration]:
    """A metal vacancy and two defects on the sulfur sites."""
    rng = np.random.default_rng(seed)
    sulfur = [site for site, element in enumerate(host.site_elements) if element == "S"]
    metal = host.site_elements.index("Mo")
    return [
        Configuration.of(host, {metal: VACANCY, **dict(zip(rng.choice(sulfur, 2, replace=False), others, strict=True))})
        for _ in range(n)
    ]


def law(host: Host, items: Sequence[Configuration]) -> Array:
    """A level that depends on the sides of the triangle and not on how the cell is turned."""
    [(_, sites)] = triples(host, items).values()
    lengths = np.linalg.norm(ordered_orbits(host).places, axis=1)
    table = ordered_orbits(host).table
    one, two, three = (np.exp(-lengths[table[sites[:, a], sites[:, b]]]) for a, b in ((0, 1), (0, 2), (1, 2)))
    return np.asarray(0.5 + one + two + 4 * one * two + 0.5 * three)


def rows_of(host: Host, items: Sequence[Configuration]) -> LabelledRows:
    homo = law(host, items)
    return LabelledRows(host, tuple(items), {"homo_ev": homo, "lumo_ev": 3 - homo, "band_gap_ev": 3 - 2 * homo})


def triangles_of(host: Host, items: Sequence[Configuration]) -> tuple[Triangles, NDArray[np.int64], Array]:
    [(kinds, (_, sites))] = triples(host, items).items()
    symmetry = describe(host, items).symmetry
    return Triangles.of(host, sites, kinds[1] == kinds[2], symmetry), sites, symmetry


def test_only_cells_of_three_defects_whose_first_is_of_another_kind_have_a_process(mos2: Host) -> None:
    metal = mos2.site_elements.index("Mo")
    sulfur = [site for site, element in enumerate(mos2.site_elements) if element == "S"][:3]
    three = Configuration.of(mos2, {metal: VACANCY, sulfur[0]: "Se", sulfur[1]: VACANCY})
    pair = Configuration.of(mos2, {metal: VACANCY, sulfur[0]: VACANCY})
    chalcogens = Configuration.of(mos2, dict.fromkeys(sulfur, VACANCY))
    found = triples(mos2, [pair, three, chalcogens])
    [(rows, sites)] = found.values()
    assert rows.tolist() == [1]
    assert sites.tolist() == [[metal, sulfur[0], sulfur[1]]], "in the order of the host's rules"


@pytest.mark.parametrize("others", [TWO_KINDS, ALIKE])
class TestProcess:
    def test_the_slope_is_that_of_the_likelihood(self, mos2: Host, others: tuple[str, str]) -> None:
        items = cells(mos2, others, 25)
        triangles, _, _ = triangles_of(mos2, items)
        y = law(mos2, items)
        loss, start, _ = likelihood(mos2, triangles, (y - y.mean()) / y.std())
        rng = np.random.default_rng(1)
        at, step = start + 0.2 * rng.normal(size=len(start)), 1e-5
        for _ in range(5):
            way = rng.normal(size=len(start))
            measured = (loss(at + step * way)[0] - loss(at - step * way)[0]) / (2 * step)
            assert loss(at)[1] @ way == pytest.approx(measured, rel=1e-4, abs=1e-4)

    def test_the_law_behind_the_labels_is_found(self, mos2: Host, others: tuple[str, str]) -> None:
        items = cells(mos2, others, 160)
        target = law(mos2, items)
        triangles, _, _ = triangles_of(mos2, items[:120])
        table = triangles.table(fit_process(mos2, triangles, target[:120]))
        [(_, (_, sites))] = triples(mos2, items[120:]).items()
        index = triangles.index(mos2, sites, describe(mos2, items[120:]).symmetry)
        errors = np.abs(table[tuple(index.T)] - target[120:])
        assert errors.mean() < 0.1 * target.std()

    def test_the_table_is_the_mean_of_the_process(self, mos2: Host, others: tuple[str, str]) -> None:
        items = cells(mos2, others, 40)
        triangles, _, _ = triangles_of(mos2, items)
        process = fit_process(mos2, triangles, law(mos2, items))
        covariance = triangles.covariance(process)
        assert np.linalg.eigvalsh(covariance).min() > 0.5 * process.noise
        assert covariance == pytest.approx(covariance.T)
        shared = covariance - process.noise * np.eye(len(items))
        expected = shared @ process.pulled * process.scale + process.mean
        assert triangles.table(process)[tuple(triangles.rows.T)] == pytest.approx(expected, abs=1e-9)

    def test_images_are_the_same_row(self, mos2: Host, others: tuple[str, str]) -> None:
        items, rng = cells(mos2, others, 30), np.random.default_rng(2)
        triangles, _, _ = triangles_of(mos2, items)
        process = fit_process(mos2, triangles, law(mos2, items))
        images = [item.random_image(rng) for item in items]
        [(_, (_, sites))] = triples(mos2, images).items()
        index = triangles.index(mos2, sites, describe(mos2, images).symmetry)
        table = triangles.table(process)
        assert np.array_equal(table[tuple(index.T)], table[tuple(triangles.rows.T)])


class TestShares:
    def fit(self, host: Host, wrong_by: Array) -> tuple[LabelProcesses, ...]:
        train, validation = (rows_of(host, cells(host, TWO_KINDS, n, seed=n)) for n in (210, 40))
        predicted = {column: values + wrong_by for column, values in validation.values.items()}
        return fit_labels(train, validation, predicted)

    def test_without_an_error_of_the_trees_there_is_no_process(self, mos2: Host) -> None:
        assert self.fit(mos2, np.zeros(40)) == ()

    def test_a_process_that_is_better_takes_all(self, mos2: Host) -> None:
        [found] = self.fit(mos2, np.random.default_rng(0).normal(size=40))
        assert set(found.shares) == {"homo_ev", "lumo_ev", "band_gap_ev"}
        assert set(found.shares.values()) == {1.0}

    def test_too_few_rows_have_none(self, mos2: Host) -> None:
        train, validation = (rows_of(mos2, cells(mos2, TWO_KINDS, n, seed=n)) for n in (150, 40))
        assert fit_labels(train, validation, {column: v + 1.0 for column, v in validation.values.items()}) == ()

    def test_json_and_back(self, mos2: Host) -> None:
        [found] = self.fit(mos2, np.ones(40))
        again = LabelProcesses.from_dict(json.loads(json.dumps(found.to_dict())))
        assert all(np.array_equal(again.tables[column], table) for column, table in found.tables.items())
        assert again.shares == found.shares

    def test_rows_that_no_orbit_has_are_refused(self, mos2: Host) -> None:
        [found] = self.fit(mos2, np.ones(40))
        values = found.to_dict()
        values["rows"][0][0] = 999
        with pytest.raises(ValueError, match="rows of shape"):
            LabelProcesses.from_dict(values)


def test_a_surrogate_with_processes_keeps_its_promises(
    mos2: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_fitting, "MIN_ROWS", 30)
    monkeypatch.setattr(label_fitting, "MIN_JUDGED", 5)
    items = list({item.key: item.canonical() for item in cells(mos2, ALIKE, 90)}.values())
    write_set(tmp_path, "MoS2", items)
    frame = split_by_class(read_2dmd(tmp_path, cache=False), (0.6, 0.2, 0.2))
    scales = {name: scale.to_dict() for name, scale in fit_level_scales(frame).items()}
    few = TreeSettings(iterations=2, depth=1, learning_rate=0.01)
    surrogate = train_surrogate(frame, tmp_path / "model", 1, level_scales=scales, low_trees=few, high_trees=few)
    loaded = Surrogate.load(tmp_path / "model")
    [models] = [part.models for part in loaded.parts]
    assert isinstance(models, SparseModels)
    [one] = models.processes
    assert max(one.shares.values()) > 0
    assert len(one.triangles.rows) == len(frame.filter(pl.col("split") != "test")), "fitted on both parts"
    scores = loaded.score(items)
    assert scores.equals(surrogate.score(items))
    assert scores.equals(loaded.score([item.random_image(np.random.default_rng(3)) for item in items]))
    assert (scores["lumo_ev"] - scores["homo_ev"] - scores["band_gap_ev"]).abs().max() < 1e-9  # type: ignore[operator]
    without = replace(models, processes=()).predict(items)
    test = frame.filter(split="test")
    errors = {}
    for title, values in (("without", without), ("with", models.predict(items))):
        by_key = dict(zip([item.key for item in items], values["homo_ev"], strict=True))
        errors[title] = np.mean(
            [abs(by_key[key] - label) for key, label in test.select("configuration", "homo_ev").rows()]
        )
    assert errors["with"] < 0.7 * errors["without"]


def test_a_process_takes_plain_values_and_gives_them_back(mos2: Host) -> None:
    items = cells(mos2, ALIKE, 20)
    triangles, _, _ = triangles_of(mos2, items)
    process = fit_process(mos2, triangles, law(mos2, items))
    again = Process.from_dict(json.loads(json.dumps(process.to_dict())))
    assert np.array_equal(triangles.table(again), triangles.table(process))


def test_the_way_back_of_every_orbit_is_an_orbit(mos2: Host) -> None:
    orbits = ordered_orbits(mos2)
    assert np.array_equal(orbits.turned[orbits.table], orbits.table.T)
    assert np.array_equal(orbits.turned[orbits.turned], np.arange(len(orbits.turned)))
    assert len(orbits.places) == len(orbits.turned) == orbits.table.max() + 1
