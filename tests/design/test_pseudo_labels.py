"""Random structures for the high-density sets, with a scorer whose answers are known and with the shipped one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from counting_scorer import CountingScorer
from synthetic import distinct_configurations, write_set

from defectgen.core import Configuration, Host, get_host
from defectgen.core.classes import class_from_label
from defectgen.core.enumeration import enumerate_class
from defectgen.core.properties import COLUMNS
from defectgen.data.records import RecordSettings, make_records
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.design.pseudo_labels import enlarge
from defectgen.errors import UsageError
from defectgen.llm.train.design_metric import labels_of
from defectgen.llm.train.record_folder import read_records
from defectgen.tasks.defect.defect_task import BY_DFT, BY_SURROGATE, VALUES_BY
from defectgen_cli.app import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mos2: Host) -> Path:
    root = tmp_path_factory.mktemp("both")
    write_set(root, "MoS2", distinct_configurations(mos2, 20, 1, (1, 2, 3)))
    write_set(root, "MoS2_500", distinct_configurations(mos2, 40, 2, (5, 7, 9)))
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
    assert labels_of(records)
    assert set(labels_of(records)) <= labelled, "a predicted value is no label"


def test_structures_around_searches_are_valued_and_new(frame: pl.DataFrame) -> None:
    larger = enlarge(frame, 5, CountingScorer(), seed=4, around=30)
    assert larger.head(frame.height + 5).equals(enlarge(frame, 5, CountingScorer(), seed=4))
    added = larger.tail(30)
    assert added.select("set", "split", VALUES_BY).unique().rows() == [("MoS2_500", "train", BY_SURROGATE)]
    assert larger.filter(set="MoS2_500")["configuration"].n_unique() == larger.filter(set="MoS2_500").height
    training = frame.filter(set="MoS2_500", split="train")
    kinds = {kind for key in training["configuration"] for kind in Configuration.from_key(get_host("MoS2"), key).kinds}
    for row in added.iter_rows(named=True):
        item = Configuration.from_key(get_host("MoS2"), row["configuration"])
        assert item == item.canonical()
        assert 5 <= item.n_defects <= 9, "as many defects as labelled ones"
        if set(item.kinds) <= kinds:
            assert row["homo_ev"] == pytest.approx(0.1 * item.n_defects)
    assert set(added["label"]) - set(training["label"]), "searches are not bound to labels"
    assert enlarge(frame, 0, CountingScorer(), seed=4, around=30).tail(30)["configuration"].n_unique() == 30


def test_searched_structures_with_a_kind_that_has_no_level_get_none(frame: pl.DataFrame) -> None:
    host = get_host("MoS2")
    tungsten = [("Mo", "W") in Configuration.from_key(host, key).kinds for key in frame["configuration"]]
    without = frame.with_columns(homo_ev=pl.when(pl.Series(tungsten)).then(None).otherwise("homo_ev"))
    added = enlarge(without, 0, CountingScorer(), seed=4, around=60).tail(60)
    has = pl.Series([("Mo", "W") in Configuration.from_key(host, key).kinds for key in added["configuration"]])
    assert 0 < has.sum() < 60
    assert added.filter(has)["homo_ev"].null_count() == has.sum()
    assert added.filter(~has)["homo_ev"].null_count() == 0


def test_labelled_structures_are_repeated_so_that_they_count(frame: pl.DataFrame) -> None:
    larger = enlarge(frame, 25, CountingScorer(), seed=4)
    counts = {}
    for repeat in (1, 4):
        records = list(make_records(larger, "train", RecordSettings(enlarge=25, copies=2, repeat=repeat)))
        by = [(r["set"] == "MoS2_500", r[VALUES_BY]) for r in records]
        counts[repeat] = [by.count(key) for key in ((True, BY_DFT), (True, BY_SURROGATE), (False, BY_DFT))]
    assert counts[1][1] == counts[4][1] == 50
    assert counts[1][2] == counts[4][2]
    assert counts[4][0] == 4 * counts[1][0]
    drawn = [r["prompt"] for r in records if r["id"] == records[-1]["id"]]
    assert len(drawn) == 8
    assert len(set(drawn)) > 1, "each asks for a draw of its own"


@pytest.fixture
def pairs_of_vacancies(mos2: Host, tmp_path: Path) -> tuple[pl.DataFrame, set[str]]:
    """All but five of the 2v_S in MoS2: in training, in test and in the other set of the host; and those five."""
    every = [found.configuration for found in enumerate_class(mos2, class_from_label(mos2, "2v_S"))]
    write_set(tmp_path, "MoS2_500", every[5:12])
    write_set(tmp_path, "MoS2", every[12:])
    held_back = pl.int_range(pl.len()).over("set") > 3
    frame = read_dataset(tmp_path).with_columns(
        split=pl.when(held_back).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    return frame, {c.canonical().key for c in every[:5]}


def test_no_structure_of_the_host_comes_again(pairs_of_vacancies: tuple[pl.DataFrame, set[str]]) -> None:
    frame, left = pairs_of_vacancies
    assert set(enlarge(frame, 5, CountingScorer(), 0)["configuration"].tail(5)) == left
    with pytest.raises(UsageError, match="found only 5 new structures of MoS2 8x8 with the defects of labelled ones"):
        enlarge(frame, 6, CountingScorer(), 0)


def test_values_that_cannot_be_trusted_stay_out(frame: pl.DataFrame) -> None:
    first = frame.filter((pl.col("set") == "MoS2_500") & (pl.col("split") == "train"))["label"][0]
    without = frame.with_columns(homo_ev=pl.when(pl.col("label") != first).then("homo_ev"))
    added = enlarge(without, 100, CountingScorer(), seed=4).tail(100)
    assert 0 < (added["label"] == first).sum() < 100
    assert added["homo_ev"].is_null().equals(added["label"] == first), "no labelled structure of this kind has one"
    assert added["lumo_ev"].null_count() == 0

    class Odd(CountingScorer):
        def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
            few = pl.col("homo_ev") < 0.6  # five defects
            return (
                super()
                .score(configurations)
                .with_columns(in_domain=pl.col("homo_ev") < 0.8, homo_ev=pl.when(few).then(1.5).otherwise("homo_ev"))
            )

    added = enlarge(frame, 100, Odd(), seed=4).tail(100)
    counts = added.group_by("n_defects").agg(pl.col("homo_ev", "formation_energy_ev").count(), n=pl.len())
    known = {n: (levels / total, energies / total) for n, levels, energies, total in counts.iter_rows()}
    assert known == {5: (0, 1), 7: (1, 1), 9: (0, 0)}, "LUMO below HOMO; trusted; out of its domain"


def test_data_without_high_density_cannot_be_enlarged(frame: pl.DataFrame) -> None:
    with pytest.raises(UsageError, match="no high-density training structures"):
        enlarge(frame.filter(pl.col("density") == "low"), 5, CountingScorer(), 0)


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
        (("--enlarge", "0", "--surrogate", "x"), "--enlarge and --around add. Add one of these"),
        (("--enlarge", "3", "--pilot"), "got --data with --pilot"),
        (("--around", "3", "--sets", "MoS2"), "no high-density training structures"),
        (("--repeat", "0"), "got --repeat '0', expected a number of at least 1."),
        (("--enlarge", "3", "--surrogate", str(tmp_path / "none")), "holds no trained surrogate"),
        (("--enlarge", "3", "--split", "density"), "the split density trains on no high-density structures"),
        (("--enlarge", "3", "--sets", "MoS2"), "no high-density training structures"),
        (("--enlarge", "-1"), "got --enlarge '-1', expected a number of at least 0."),
    ):
        assert main([*words[:3], "-o", str(tmp_path / "no"), *more]) in (1, 2)
        assert expected in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
    for option in ("--enlarge", "--around"):
        assert main(["build-data", "-o", str(tmp_path / "no"), option, "3", "--pilot"]) == 2
        assert f"the pilot sample has no high-density structures for {option}" in capsys.readouterr().err
