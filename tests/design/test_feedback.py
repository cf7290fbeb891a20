"""Pairs out of a model's proposals, with a proposer and a scorer whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counting_scorer import CountingScorer

from defectgen.core import Configuration, Host, get_host
from defectgen.data.records import RecordSettings, build_data
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.design.engine import SHIPPED
from defectgen.design.feedback import (
    PROPOSALS,
    FeedbackSettings,
    JudgedProposals,
    choose_pair,
    choose_targets,
    likeness,
    write_feedback,
)
from defectgen.design.feedback_run import feedback_of_model
from defectgen.design.proposers import Ask, Proposal, RandomProposer
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.train.record_folder import read_manifest, read_records
from defectgen.tasks.defect.defect_task import LEVEL_PAIR, DefectTask

SETTINGS = FeedbackSettings(targets=30, n=6, temperature=0.8, within_ev=0.3, sets=("MoS2", "WSe2"), seed=0)
SOURCES = {"model": "random", "surrogate": "counting"}


@pytest.fixture(scope="module")
def records(tiny_2dmd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    build_data(split_by_class(read_dataset(tiny_2dmd), seed=1), folder, RecordSettings(seed=3))
    return folder


class Counted:
    """Random structures; counts what was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked = 0
        self.stop_after = stop_after

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        if self.stop_after is not None and self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += len(asks)
        return RandomProposer(3).propose(host, asks)


def write(records: Path, output: Path, proposer: Any, settings: FeedbackSettings = SETTINGS, **more: Any) -> Any:
    training = read_records(records / "train.jsonl")
    held_back = [row for part in ("validation", "test") for row in read_records(records / f"{part}.jsonl")]
    return write_feedback(
        records, output, training, held_back, settings, SOURCES, DefectTask(), lambda _: (proposer, CountingScorer()),
        **more,
    )  # fmt: skip


def test_pairs_are_records_of_better_and_worse_proposals(records: Path, tmp_path: Path) -> None:
    made = write(records, tmp_path / "pairs", RandomProposer(3))
    rows = read_records(tmp_path / "pairs" / "train.jsonl")
    assert 0 < len(rows) == made["pairs"] <= made["targets"] <= 30
    assert read_manifest(tmp_path / "pairs")["settings"]["feedback"]["model"] == "random"
    labels = {r["configuration"]: r["values"] for r in read_records(records / "train.jsonl")}
    hidden = {r["configuration"] for part in ("validation", "test") for r in read_records(records / f"{part}.jsonl")}
    for row in rows:
        assert row["rejected_distance_ev"] > max(0.3, 2 * row["distance_ev"])
        for name, text in (("configuration", row["completion"]), ("rejected_configuration", row["rejected"])):
            host = get_host(row["host"], row["supercell"])
            assert DefectTask().parse(host, text).key == row[name]
            assert row[name] not in hidden
            label = labels.get(row[name], {})
            if set(LEVEL_PAIR) <= set(label):
                off = sum(abs(label[c] - row["values"][c]) for c in LEVEL_PAIR)
            else:
                off = abs(0.1 * Configuration.from_key(host, row[name]).n_defects - row["values"]["homo_ev"])
                off += abs(1.0 - row["values"]["lumo_ev"])
            assert row["distance_ev" if name == "configuration" else "rejected_distance_ev"] == pytest.approx(
                off, abs=1e-5
            )
    for part in ("validation.jsonl", "test.jsonl"):
        assert read_records(tmp_path / "pairs" / part) == read_records(records / part)
    assert write(records, tmp_path / "pairs", None)["skipped"]


def test_an_interrupted_run_goes_on_and_ends_the_same(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defectgen.design.feedback.CHUNK", 5)
    whole = write(records, tmp_path / "whole", Counted())
    with pytest.raises(KeyboardInterrupt):
        write(records, tmp_path / "cut", Counted(stop_after=10))
    path = tmp_path / "cut" / PROPOSALS
    path.write_text(path.read_text() + '{"half of a li')
    rest = Counted()
    assert write(records, tmp_path / "cut", rest)["data_sha256"] == whole["data_sha256"]
    assert rest.asked == whole["targets"] - 10
    for name in (PROPOSALS, "train.jsonl", "manifest.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_settings_and_foreign_files_are_refused(records: Path, tmp_path: Path) -> None:
    write(records, tmp_path / "pairs", RandomProposer(3))
    other = replace(SETTINGS, seed=1)
    with pytest.raises(UsageError, match="proposals made with other settings"):
        write(records, tmp_path / "pairs", RandomProposer(3), other)
    write(records, tmp_path / "pairs", RandomProposer(3), other, overwrite=True)
    assert json.loads((tmp_path / "pairs" / PROPOSALS).read_text().splitlines()[0])["settings"]["feedback"]["seed"] == 1
    training = read_records(records / "train.jsonl")
    with pytest.raises(UsageError, match="proposals made with other settings"):
        write_feedback(records, tmp_path / "pairs", training, [], other, SOURCES | {"surrogate": "another judge"},
                       DefectTask(), lambda _: (RandomProposer(3), CountingScorer()))  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other files"):
        write(records, tmp_path / "mine", RandomProposer(3))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("distances", "better", "worse"),
    [
        ({"a": 0.1, "b": 0.2, "c": 0.5}, {"a", "b"}, {"c"}),
        ({"a": 0.1, "b": 0.2}, None, None),  # all good enough
        ({"a": 0.4, "b": 0.5}, None, None),  # none clearly better
        ({"a": 0.4, "b": 0.9, "c": 0.6}, {"a"}, {"b"}),
        ({}, None, None),
    ],
)
def test_which_proposals_become_a_pair(
    distances: dict[str, float], better: set[str] | None, worse: set[str] | None
) -> None:
    pair = choose_pair(JudgedProposals({"set": "MoS2", "id": "1"}, distances), SETTINGS)
    if better is None or worse is None:
        assert pair is None
    else:
        assert pair is not None
        assert pair[0] in better
        assert pair[1] in worse


def test_records_of_another_encoding_are_refused(tiny_2dmd: Path, tmp_path: Path) -> None:
    frame = split_by_class(read_dataset(tiny_2dmd), seed=1)
    build_data(frame.head(30), tmp_path / "symbols", RecordSettings("symbols"))
    with pytest.raises(UsageError, match=r"the model writes edits, .*symbols holds records of symbols"):
        feedback_of_model(tmp_path / "symbols", tmp_path / "pairs", SETTINGS, SHIPPED, None)  # type: ignore[arg-type]
    assert not (tmp_path / "pairs").exists()


def test_diversity_prefers_what_is_unlike_the_others() -> None:
    alike, other = ["VAC@A00+Se@B14", "VAC@A00+Se@B15", "VAC@A00+Se@B14+W@A05"], "W@A03+Se@C01"
    found = likeness([*alike, other])
    assert found[other] == 0
    assert found[alike[0]] == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    judged = JudgedProposals({"set": "MoS2", "id": "1"}, {alike[0]: 0.1, alike[1]: 0.1, other: 0.11, alike[2]: 0.9})
    for weight, better in ((0.01, set(alike[:2])), (0.5, {other})):
        pair = choose_pair(judged, replace(SETTINGS, diversity_ev=weight))
        assert pair is not None
        assert pair[0] in better
        assert pair[1] == alike[2]
    far = JudgedProposals(judged.record, {alike[0]: 0.40, alike[1]: 0.41, other: 0.42, alike[2]: 0.95})
    assert choose_pair(far, SETTINGS) == (alike[0], alike[2])
    assert choose_pair(far, replace(SETTINGS, diversity_ev=0.5)) == (other, alike[2])
    assert likeness([other]) == {other: 0.0}


def test_targets_are_structures_whose_levels_a_record_asks_for(records: Path) -> None:
    rows = read_records(records / "train.jsonl")
    chosen = choose_targets(rows + rows, SETTINGS)
    assert len({(row["set"], row["id"]) for row in chosen}) == len(chosen) == 30
    assert all(set(row["values"]) == set(LEVEL_PAIR) and not row["kinds"] for row in chosen)
    few = choose_targets(rows, replace(SETTINGS, sets=("MoS2",), targets=3))
    assert [row["set"] for row in few] == ["MoS2"] * 3
    with pytest.raises(DefectgenError, match="no training record asks for HOMO and LUMO alone"):
        choose_targets(rows, replace(SETTINGS, sets=("hBN",)))
