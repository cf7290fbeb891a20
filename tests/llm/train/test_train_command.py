"""`defectgen finetune` as a command: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import config

from defectgen_cli.app import main


@pytest.fixture
def file(tiny_model_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(config(tiny_model_dir, max_steps=2, eval_steps=1).model_dump()))  # JSON is YAML
    return path


def test_a_dry_run_prints_what_training_would_take(
    capsys: pytest.CaptureFixture[str], file: Path, records: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["finetune", str(file), "--data", str(records), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "112 training and 14 validation records" in text
    assert "2 steps of 8 records" in text
    assert main(["finetune", str(file), "--data", str(records), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert sorted(tmp_path.rglob("*")) == before
    short = ["--set", "max_length=12"]
    assert main(["finetune", str(file), "--data", str(records), "--dry-run", *short]) == 2
    assert "max_length is 12" in capsys.readouterr().err


def test_training_says_where_its_logs_are_and_needs_a_folder(
    capsys: pytest.CaptureFixture[str], file: Path, records: Path, tmp_path: Path
) -> None:
    assert main(["finetune", str(file), "--data", str(records)]) == 2
    assert "Add -o DIR" in capsys.readouterr().err
    run = tmp_path / "run"
    assert main(["finetune", str(file), "--data", str(records), "-o", str(run), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["steps"], result["best_step"], result["finished"]) == (2, 2, True)
    assert f"losses go to {run / 'losses.jsonl'}" in captured.err
    assert (run / "losses.jsonl").is_file()
    assert "step 2/2: validation loss" in captured.err
