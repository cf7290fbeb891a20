"""`defectgen feedback`: refusals, and one small run with the shipped models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import defectgen
from defectgen.data.assets import asset_path
from defectgen.data.records import RecordSettings, build_data
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.errors import DefectgenError
from defectgen.llm.adapter import METADATA, WEIGHTS, installed_prompt_version
from defectgen.llm.train.record_folder import read_records
from defectgen_cli.app import main


@pytest.fixture(scope="module")
def records(tiny_2dmd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    build_data(split_by_class(read_dataset(tiny_2dmd), seed=1), folder, RecordSettings(seed=3))
    return folder


def test_wrong_calls_are_refused_in_one_line(capsys: pytest.CaptureFixture[str], records: Path, tmp_path: Path) -> None:
    shipped = json.loads((Path(defectgen.__file__).parent / "models" / "defect-smollm2" / METADATA).read_text())
    bulk = {"encoding": "bulk", "prompt_version": installed_prompt_version("bulk"), "hosts": []}
    (tmp_path / "bulk").mkdir()
    (tmp_path / "bulk" / METADATA).write_text(json.dumps(shipped | bulk))
    (tmp_path / "bulk" / WEIGHTS).touch()
    pairs = tmp_path / "pairs"
    shutil.copytree(records, pairs)
    manifest = json.loads((pairs / "manifest.json").read_text())
    manifest["settings"]["feedback"] = {}
    (pairs / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "file").touch()
    for data, words, code, expected in (
        (tmp_path / "none", (), 1, "holds no records"),
        (records, ("--sets", "MoS3"), 2, "has no set MoS3. Expected some of: MoS2, WSe2"),
        (records, ("--model", tmp_path / "none"), 1, "is no trained adapter"),
        (records, ("--model", tmp_path / "bulk"), 2, "the model writes bulk"),
        (pairs, (), 2, "holds pairs of proposals"),
        (records, ("-n", "1"), 2, "got -n '1', expected a number of at least 2."),
        (records, ("--surrogate", tmp_path / "none"), 1, "holds no trained surrogate"),
        (records, ("-o", tmp_path / "file" / "out"), 2, "cannot be written"),
    ):
        out = () if "-o" in words else ("-o", tmp_path / "out")
        assert main(["feedback", "--data", str(data), *map(str, (*out, *words))]) == code
        text = capsys.readouterr().err
        assert expected in text
        assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_proposals_of_the_shipped_model_become_pairs(
    capsys: pytest.CaptureFixture[str], records: Path, tmp_path: Path
) -> None:
    try:
        asset_path("smollm2-135m")
    except DefectgenError as error:
        pytest.skip(f"feedback with the shipped model left out: {error}")
    words = ["--data", records, "-o", tmp_path / "pairs", "--targets", 6, "-n", 6, "--temperature", 1.5, "--json"]
    assert main(["feedback", *map(str, words)]) == 0
    made = json.loads(capsys.readouterr().out)
    rows = read_records(tmp_path / "pairs" / "train.jsonl")
    assert 0 < made["pairs"] == len(rows) <= 6
    assert all(row["rejected_distance_ev"] > max(0.02, 2 * row["distance_ev"]) for row in rows)
    assert main(["feedback", *map(str, words)]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"]
