"""`defectgen evaluate defect`: refusals, and one small run on the real data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

import defectgen
from defectgen.llm.adapter import METADATA, WEIGHTS, installed_prompt_version
from defectgen_cli.app import main


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["evaluate", "defect", *map(str, words)])
    return code, capsys.readouterr().err


def test_wrong_calls_are_refused_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    there = tmp_path / "metrics.json"
    there.write_text("mine")
    for words, expected in (
        (("--split", "train"), "expected validation or test"),
        (("-o", there), "exists already"),
        (("--page", there), "exists already"),
        (("--sets", "MoS3"), "Did you mean MoS2?"),
        (("--sets", ","), "expected all or some of"),
        (("--proposers", "random", "--page", tmp_path / "p.html"), "got --page with --proposers"),
        (("--proposers", "random", "-n", "4"), "got -n with --proposers"),
        (("--novel",), "got --novel without --proposers"),
        (("--hide", "targets"), "got --hide without --proposers"),
        (("--proposers", "llm", "--model", "defect-smollm2", "--model", "crowded-smollm2"), "got 2 models with"),
        (("--data", tmp_path / "none"), "is not a folder"),
    ):
        data = () if "--data" in words else ("--data", tmp_path)
        code, text = refused(capsys, *data, *words)
        assert code == 2
        assert expected in text
        assert "Traceback" not in text
    assert there.read_text() == "mine"


def test_models_that_cannot_be_compared_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shipped = json.loads((Path(defectgen.__file__).parent / "models" / "defect-smollm2" / METADATA).read_text())
    changes = {
        "bulk": {"encoding": "bulk", "prompt_version": installed_prompt_version("bulk"), "hosts": []},
        "a": {"hosts": ["MoS2"]},
        "b": {"hosts": ["WSe2"]},
    }
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / METADATA).write_text(json.dumps(shipped | change))
        (tmp_path / name / WEIGHTS).touch()
    for names, expected in (
        (["bulk"], "got 1 models of bulk crystals, expected models of defects"),
        (["a", "b"], "no host in common (MoS2; WSe2)"),
    ):
        models = [word for name in names for word in ("--model", tmp_path / name)]
        code, text = refused(capsys, "--data", tmp_path, *models)
        assert code == 2
        assert expected in text
    (tmp_path / "file").touch()
    code, text = refused(capsys, "--data", tmp_path, "-o", tmp_path / "file" / "m.json")
    assert code
    assert "file" in text, "before anything is computed"


def test_proposers_stand_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path, twodmd: pl.DataFrame) -> None:
    assert twodmd.height
    assert main(["fetch", "smollm2-135m"]) == 0
    capsys.readouterr()
    files = tmp_path / "m.json", tmp_path / "p.html"
    words = ["--sets", "MoS2", "--targets", "3", "-n", "4", "-o", str(files[0]), "--page", str(files[1])]
    assert main(["evaluate", "defect", "--data", os.environ["DEFECTGEN_2DMD"], *words]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    found = json.loads(files[0].read_text())["sets"]["MoS2"]
    assert list(found) == ["model", "random", "best of 1000 random", "nearest labelled"]
    for title in ("model", "random"):
        assert found[title]["proposals"] == 12
        assert found[title]["valid_share"] == 1.0
        assert found[title]["samples"]["distance"]["n"] == 12
    assert found["nearest labelled"]["first"]["dft"]["median_mev"] < 5
    assert found["nearest labelled"]["first_novel_share"] == 0
    page = files[1].read_text()
    assert page.count("<svg") == 8
    assert "http:" not in page
    assert "https:" not in page
