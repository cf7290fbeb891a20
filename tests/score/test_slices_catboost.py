"""The published baseline: what its words are, that it learns from them, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from synthetic import random_configuration

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError, UsageError
from defectgen.score import Scorer, slices_catboost, uncertainty_column
from defectgen.score.slices_catboost import (
    COLUMNS,
    FOLDER_VARIABLE,
    METADATA,
    SlicesCatBoost,
    load_slices_catboost,
    train,
    words_of,
)
from defectgen.score.surrogate.evaluation import PER_SITE, evaluate
from defectgen.score.trees import TreeSettings
from defectgen.slices import encode_configuration

FEW_TREES = TreeSettings(iterations=80, depth=3, learning_rate=0.2)


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return split_by_class(read_2dmd(tiny_2dmd, cache=False), (0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def folder(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("slices-catboost") / "model"
    train(frame, target, seed=1, trees=FEW_TREES)
    return target


@pytest.fixture(scope="module")
def scorer(folder: Path) -> SlicesCatBoost:
    return SlicesCatBoost.load(folder)


class TestWords:
    def test_atoms_bonds_and_surroundings_of_a_pristine_cell(self, mos2: Host) -> None:
        assert words_of(encode_configuration(Configuration(mos2, ()))) == {
            "Mo": 64, "S": 128, "Mo-S": 384, "Mo(S,S,S,S,S,S)": 64, "S(Mo,Mo,Mo)": 128, "space group": 187,
        }  # fmt: skip

    def test_one_vacancy_takes_its_bonds_away(self, mos2: Host) -> None:
        words = words_of(encode_configuration(Configuration.of(mos2, {64: VACANCY})))
        assert (words["S"], words["Mo-S"], words["Mo(S,S,S,S,S)"], words["space group"]) == (127, 381, 3, 156)

    def test_images_under_the_symmetry_have_the_same_words(self, wse2: Host) -> None:
        rng = np.random.default_rng(2)
        for n_defects in (1, 3, 10):
            item = random_configuration(wse2, n_defects, rng)
            assert words_of(encode_configuration(item)) == words_of(encode_configuration(item.random_image(rng)))


class TestContract:
    """What `Scorer` promises."""

    def test_every_property_has_a_value_and_an_uncertainty_in_the_order_of_the_input(
        self, scorer: SlicesCatBoost, mos2: Host, wse2: Host
    ) -> None:
        assert isinstance(scorer, Scorer)
        rng = np.random.default_rng(0)
        mixed = [random_configuration(host, n, rng) for n in (1, 2, 3) for host in (mos2, wse2, mos2)]
        scores = scorer.score(mixed)
        assert scores.columns == [n for c in COLUMNS for n in (c, uncertainty_column(c))] + ["in_domain"]
        assert scores.null_count().sum_horizontal().item() == 0
        assert all((scores[uncertainty_column(column)] > 0).all() for column in COLUMNS)
        for row, item in enumerate(mixed):
            assert scorer.score([item]).row(0) == pytest.approx(scores.row(row))
        assert scorer.score([]).height == 0

    def test_the_formation_energy_is_learnt_by_site(self, scorer: SlicesCatBoost, mos2: Host) -> None:
        pristine = scorer.score([Configuration(mos2, ())])
        assert pristine["formation_energy_ev"].item() == 0

    def test_in_domain_means_known_words_and_numbers_of_defects(self, scorer: SlicesCatBoost, mos2: Host) -> None:
        known = Configuration.of(mos2, {64: VACANCY})
        crowded = Configuration.of(mos2, dict.fromkeys(range(0, 64, 8), VACANCY))
        assert scorer.score([known, crowded])["in_domain"].to_list() == [True, False]

    def test_an_element_that_it_never_saw_has_no_number(self, scorer: SlicesCatBoost, mos2: Host) -> None:
        with pytest.raises(UsageError, match="never saw Cu_S in MoS2"):
            scorer.score([Configuration.of(mos2, {64: "Cu"})])

    def test_an_unknown_host_is_refused(self, scorer: SlicesCatBoost) -> None:
        with pytest.raises(UsageError, match=r"does not know GaSe 6x6.*MoS2 8x8, WSe2 8x8"):
            scorer.score([Configuration(get_host("GaSe"), ())])


class TestTraining:
    def test_it_finds_the_law_of_the_labels(self, scorer: SlicesCatBoost, frame: pl.DataFrame) -> None:
        rows = frame.filter(split="test")
        evaluated = evaluate(scorer, rows)
        assert set(evaluated) == set(rows["set"])
        for errors in evaluated.values():
            assert errors[PER_SITE]["n_failed"] == 0
            assert errors[PER_SITE]["r2"] > 0.5, "from 36 or 48 rows"

    def test_the_same_seed_gives_the_same_files(self, frame: pl.DataFrame, folder: Path, tmp_path: Path) -> None:
        train(frame.reverse(), tmp_path / "again", seed=1, trees=FEW_TREES)
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
        assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)

    def test_test_rows_have_no_say(self, frame: pl.DataFrame, folder: Path, tmp_path: Path) -> None:
        changed = frame.with_columns(
            pl.when(pl.col("split") == "test").then(99.0).otherwise(pl.col("band_gap_ev")).alias("band_gap_ev")
        )
        train(changed, tmp_path / "again", seed=1, trees=FEW_TREES)
        name = "MoS2-band_gap_ev.cbm"
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (folder / METADATA).read_bytes() == (tmp_path / "again" / METADATA).read_bytes()

    def test_wrong_calls(self, frame: pl.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no column 'split'"):
            train(frame.drop("split"), tmp_path / "a")
        with pytest.raises(DefectgenError, match="set MoS2 has no validation rows"):
            train(frame.filter(split="train"), tmp_path / "b")
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="holds other files"):
            train(frame, tmp_path)


class TestLoading:
    def test_shipped_or_from_the_folder_that_the_environment_names(
        self, folder: Path, mos2: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
        item = Configuration.of(mos2, {64: VACANCY})
        own = load_slices_catboost()
        assert {part.host.name for part in own.parts} == {"MoS2", "WSe2", "BN", "GaSe", "InSe", "P"}
        found = own.score([item]).row(0, named=True)
        assert found["in_domain"]
        assert found["band_gap_ev"] == pytest.approx(1.145, abs=0.1), "of a sulphur vacancy by DFT"
        monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
        assert load_slices_catboost().score([item]).equals(SlicesCatBoost.load(folder).score([item]))

    def test_models_are_checked_before_catboost_reads_them(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(folder, tmp_path / "models")
        file = sorted((tmp_path / "models").glob("*.cbm"))[0]
        content = bytearray(file.read_bytes())
        monkeypatch.setattr(slices_catboost, "load_trees", lambda path: pytest.fail(f"{path} was read"))
        for place in range(0, len(content), max(len(content) // 40, 1)):
            content[place] ^= 1 << (place % 8)
            file.write_bytes(content)
            with pytest.raises(DefectgenError, match=r"\.cbm is not the file that was written"):
                SlicesCatBoost.load(tmp_path / "models")
            content[place] ^= 1 << (place % 8)
        file.write_bytes(content[:-5])
        with pytest.raises(DefectgenError, match=r"\.cbm has \d+ bytes, slices_catboost\.json says"):
            SlicesCatBoost.load(tmp_path / "models")

    def test_missing_damaged_and_foreign_folders(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(DefectgenError, match="holds no trained SLICES models"):
            SlicesCatBoost.load(tmp_path)
        metadata = json.loads((folder / METADATA).read_text())
        for content, message in (
            ("{", "is damaged"),
            ("[]", "is damaged"),
            (json.dumps({**metadata, "format": 1}), "of format 1, expected 2.*docs/slices.md"),
            (json.dumps({"format": 2}), "is damaged"),
            (json.dumps({"format": 2, "parts": [{**metadata["parts"][0], "set": "../x"}]}), "is damaged"),
            (json.dumps({k: v for k, v in metadata.items() if k != "files"}), "has no checksum of MoS2-"),
            (json.dumps(metadata), r"\.cbm is missing"),
        ):
            (tmp_path / METADATA).write_text(content)
            with pytest.raises(DefectgenError, match=message) as caught:
                SlicesCatBoost.load(tmp_path)
            assert "\n" not in str(caught.value)
