"""Instruction records: draws from the seed, images that stay in their class, splits, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from defectgen.core import Configuration, get_host
from defectgen.data.records import RecordSettings, build_data, make_records
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import UsageError
from defectgen.tasks.defect.encodings import ENCODINGS
from defectgen.tasks.defect.wording import Writing


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return split_by_class(read_2dmd(tiny_2dmd, cache=False))


def records(frame: pl.DataFrame, split: str = "train", **settings: Any) -> list[dict[str, Any]]:
    return list(make_records(frame, split, RecordSettings(**settings)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_records_come_from_the_seed(encoding: str, frame: pl.DataFrame) -> None:
    settings = {"encoding": encoding, "rotations": True}
    assert records(frame, **settings) == records(frame, **settings)
    other = records(frame, **settings, seed=43)
    assert [r["prompt"] for r in other] != [r["prompt"] for r in records(frame, **settings)]


@pytest.mark.parametrize("cartesian", [False, True])
@pytest.mark.parametrize("encoding", ["symbols", "crystal"])
def test_rotated_records_hold_images_of_their_structure(encoding: str, cartesian: bool, frame: pl.DataFrame) -> None:
    settings = RecordSettings(encoding=encoding, rotations=True, cartesian=cartesian)
    turned = 0
    for record in make_records(frame, "train", settings):
        host = get_host(record["host"])
        about = record["writing"] or {}
        writing = Writing(**{k: v for k, v in about.items() if k != "rules"})
        shown = settings.task.parse(host, record["completion"], writing)
        assert shown.canonical() == Configuration.from_key(host, record["configuration"])
        turned += shown.key != record["configuration"]
    assert turned > 80  # of 112


def test_copies_differ_in_what_they_ask_for(frame: pl.DataFrame) -> None:
    made = records(frame, copies=4)
    by_id: dict[str, set[str]] = {}
    for record in made:
        by_id.setdefault(record["id"], set()).add(record["prompt"])
    assert sum(len(prompts) > 1 for prompts in by_id.values()) > 0.9 * len(by_id)
    asked = {tuple(record["values"]) for record in made}
    assert ("homo_ev", "lumo_ev") in asked
    assert len(asked) > 10


def test_settings_that_fit_no_record_are_refused() -> None:
    with pytest.raises(UsageError, match="edits shows no coordinates"):
        RecordSettings(cartesian=True)
    with pytest.raises(UsageError, match="expected at least 1"):
        RecordSettings(copies=0)


def test_a_folder_keeps_what_it_was_made_for(tmp_path: Path, frame: pl.DataFrame) -> None:
    made = build_data(frame, tmp_path / "r", RecordSettings())
    assert build_data(frame, tmp_path / "r", RecordSettings())["skipped"]
    with pytest.raises(UsageError, match="other settings or data"):
        build_data(frame, tmp_path / "r", RecordSettings(split="density"))
    assert json.loads((tmp_path / "r" / "manifest.json").read_text()) == made
    (tmp_path / "r" / "train.jsonl").unlink()  # a file that is gone is made again, one that was changed is not
    assert build_data(frame, tmp_path / "r", RecordSettings()) == made
    (tmp_path / "r" / "test.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"holds test\.jsonl, changed since"):
        build_data(frame, tmp_path / "r", RecordSettings())
    assert (tmp_path / "r" / "test.jsonl").read_text() == "{}\n"
    assert build_data(frame, tmp_path / "r", RecordSettings(), overwrite=True) == made
    (tmp_path / "r" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="holds other files"):
        build_data(frame, tmp_path / "r", RecordSettings())
    assert build_data(frame, tmp_path / "s", RecordSettings()) == made
