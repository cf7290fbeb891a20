"""The whole way of the bulk task on real crystals: records, 60 steps of a tiny model, crystals that all parse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pymatgen.core import Structure
from tiny_model import tiny_model_dir

from defectgen.data.mp20 import crystal_of, read_crystals
from defectgen.tasks.bulk.crystal_text import parse_crystal, write_crystal
from defectgen_cli.app import main

__all__ = ["tiny_model_dir"]  # a fixture

STEPS = 60


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_sixty_steps_on_mp20_lower_the_loss_and_all_crystals_parse(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.environ.get("DEFECTGEN_MP20"):
        pytest.skip("DEFECTGEN_MP20 is not set: tests on the real MP-20 data left out")
    records, adapter, samples = tmp_path / "records", tmp_path / "adapter", tmp_path / "samples"
    told(capsys, "build-data", "--task", "bulk", "-o", records, "--copies", 1, "--max-atoms", 20)
    rows = [json.loads(line) for line in (records / "train.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) > 100
    formulas = {crystal_of(row).formula for row in read_crystals(Path(os.environ["DEFECTGEN_MP20"])).frame.to_dicts()}
    written = [parse_crystal(row["completion"]) for row in rows if row["task"] == "generation"]
    assert {crystal.formula for crystal in written} <= formulas, "every record is a crystal of the data"

    settings = tmp_path / "tiny.yaml"
    chosen = {
        "base_model": str(tiny_model_dir), "lora": {"rank": 4, "alpha": 8}, "learning_rate": 5e-3,
        "max_steps": STEPS, "batch_size": 4, "max_length": 2048, "eval_steps": 20, "eval_records": 16,
        "save_steps": 20, "dtype": "float32", "seed": 7,
    }  # fmt: skip
    settings.write_text(json.dumps(chosen))  # JSON is YAML
    result = told(capsys, "finetune", settings, "--data", records, "-o", adapter)
    assert (result["steps"], result["finished"]) == (STEPS, True)
    steps = [json.loads(line) for line in (adapter / "losses.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in steps if "loss" in row]
    assert len(losses) >= 5
    assert losses[-1] < 0.8 * losses[0], losses

    made = told(capsys, "generate", "--model", adapter, "-n", 8, "--max-draws", 8, "--max-atoms", 6,
                "--min-distance", 0, "--radii", 0, "--batch-size", 8, "-o", samples)  # fmt: skip
    assert (made["trained"], made["draws"], made["parsed"]) == (True, 8, 8)
    table = pl.read_parquet(samples / "samples.parquet")
    for row in table.iter_rows(named=True):
        crystal = parse_crystal(row["raw_text"])
        assert parse_crystal(write_crystal(crystal)).formula == crystal.formula
    files = sorted((samples / "structures").glob("*.cif"))
    assert len(files) == made["valid"] > 0
    assert {Structure.from_file(file).composition.reduced_formula for file in files}
