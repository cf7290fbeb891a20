"""Random structures for the high-density sets, with a scorer whose answers are known and with the shipped one."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from counting_scorer import CountingScorer
from synthetic import distinct_configurations, write_set

from defectgen.core import Configuration, Host, get_host
from defectgen.core.properties import COLUMNS
from defectgen.data.records import RecordSettings, make_records
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_dataset
from defectgen.design.enlarge import enlarge
from defectgen.errors import UsageError
from defectgen.llm.dataset import read_records
from defectgen.llm.design_metric import labels_of
from defectgen.tasks.defect import BY_DFT, BY_SURROGATE, VALUES_BY
from defectgen_cli.app import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mos2: Host) -> Path:
    root = tmp_path_factory.mktemp("both")
    write_set(root, "MoS2", distinct_configurations(mos2, 20, 1, (1, 2, 3)))
    write_set(root, "MoS2_500", distinct_configurations(mos2, 40, 2, (5, 9, 12)))
    return root


@pytest.fixture(scope="module")
def frame(folder: Path) -> pl.DataFrame:
    return split_by_class(read_dataset(folder), seed=1)


def test_new_structures_have_the_defects_of_training_structures_on_other_sites(frame: pl.DataFrame) -> None:
    larger = enlarge(frame, 300, CountingScorer(), seed=4)
    assert larger.head(frame.height).select(frame.columns).equals(frame)
    added = larger.tail(300)
    assert larger.height == frame.height + 300
    assert added.select(pl.col("set", "density", "split", VALUES_BY).n_unique()).row(0) == (1, 1, 1, 1)
    assert added.select("set", "density", "split", VALUES_BY).row(0) == ("MoS2_500", "high", "train", BY_SURROGATE)
    assert added["id"].n_unique() == added["configuration"].n_unique() == 300
    assert not set(added["configuration"]) & set(frame["configuration"]), "neither training nor held back"
    training = frame.filter((pl.col("set") == "MoS2_500") & (pl.col("split") == "train"))
    assert set(added["label"]) == set(training["label"])
    for row in added.head(20).iter_rows(named=True):
        configuration = Configuration.from_key(get_host("MoS2"), row["configuration"])
        assert configuration.canonical() == configuration
        assert (configuration.label, configuration.n_defects) == (row["label"], row["n_defects"])
        assert row["homo_ev"] == pytest.approx(0.1 * row["n_defects"])
        assert row["lumo_ev"] == 1.0
    again = enlarge(frame, 300, CountingScorer(), seed=4)
    assert again.equals(larger)
    other = enlarge(frame, 300, CountingScorer(), seed=5)["configuration"].tail(300)
    assert len(set(other) & set(added["configuration"])) < 30


def test_records_say_who_computed_their_values(frame: pl.DataFrame) -> None:
    larger = enlarge(frame, 25, CountingScorer(), seed=4)
    records = list(make_records(larger, "train", RecordSettings(enlarge=25)))
    marked = [record for record in records if record[VALUES_BY] == BY_SURROGATE]
    assert len(marked) == 25
    assert {record[VALUES_BY] for record in records} == {BY_DFT, BY_SURROGATE}
    assert list(make_records(larger, "test", RecordSettings(enlarge=25))) == list(
        make_records(frame, "test", RecordSettings())
    )
    labelled = {(r["host"], r["supercell"], r["configuration"]) for r in records if r[VALUES_BY] == BY_DFT}
    assert set(labels_of(records)) <= labelled, "a predicted value is no label"


def test_what_cannot_be_enlarged(frame: pl.DataFrame, mos2: Host, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no high-density training structures"):
        enlarge(frame.filter(pl.col("density") == "low"), 5, CountingScorer(), 0)
    write_set(tmp_path, "MoS2_500", distinct_configurations(mos2, 1, 3, (1,)))
    alone = read_dataset(tmp_path).with_columns(split=pl.lit("train"))
    with pytest.raises(UsageError, match="has few more structures like the labelled ones than 0"):
        enlarge(alone, 5, CountingScorer(), 0)


def test_the_command_adds_structures_with_values_of_the_shipped_surrogate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build-data", "--data", str(folder), "-o", str(tmp_path / "out"), "--enlarge", "12", "--json"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["settings"]["enlarge"] == 12
    assert len(made["settings"]["surrogate"]) == 64
    records = read_records(tmp_path / "out" / "train.jsonl")
    added = [record for record in records if record[VALUES_BY] == BY_SURROGATE]
    assert [record["set"] for record in added] == ["MoS2_500"] * 12
    assert any(0 < record["values"].get("lumo_ev", 0) < 3 for record in added)
    assert all(set(record["values"]) <= set(COLUMNS) for record in added)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["skipped"]
    for more, expected in (
        (("--enlarge", "0", "--surrogate", "x"), "Add --enlarge N or leave it out"),
        (("--enlarge", "3", "--surrogate", str(tmp_path / "none")), "none"),
        (("--enlarge", "3", "--sets", "MoS2"), "no high-density training structures"),
        (("--enlarge", "-1"), "greater than or equal to 0"),
    ):
        assert main([*words[:3], "-o", str(tmp_path / "no"), *more]) in (1, 2)
        assert expected in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
