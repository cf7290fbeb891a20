"""Training on bulk records: the adapter knows what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crystal_files import made_up_crystals, published_rows, write_csv

from defectgen.errors import DefectgenError
from defectgen.llm.adapter import METADATA, MODEL_CARD, read_adapter, training_configurations
from defectgen_cli.app import main


def test_bulk_records_train_an_adapter_that_does_not_design_defects(
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,  # noqa: ARG001
) -> None:
    table = write_csv(tmp_path / "some.csv", published_rows(made_up_crystals(20, seed=12)))
    records, adapter = tmp_path / "records", tmp_path / "adapter"
    assert main(["build-data", "--task", "bulk", "--data", str(table), "-o", str(records)]) == 0
    words = ["bulk/smollm2-cpu", "--data", str(records), "-o", str(adapter), "--base-model", str(tiny_model_dir)]
    words += ["--max-steps", "2", "--set", "batch_size=2", "--set", "eval_steps=2", "--set", "dtype=float32"]
    assert main(["finetune", *words, "--json"]) == 0
    assert json.loads("{" + capsys.readouterr().out.partition("\n{")[2])["finished"]
    card = read_adapter(adapter)
    assert (card.encoding, card.hosts, card.max_defects, card.covered_ev) == ("bulk", (), {}, {})
    assert card.data["max_atoms"] <= 8
    assert set(card.data["covered"]) == {"formation_energy_per_atom_ev", "band_gap_ev", "e_above_hull_ev"}
    assert card.training["command"].startswith("defectgen finetune bulk/smollm2-cpu --data RECORDS")
    train = {json.loads(line)["id"] for line in (records / "train.jsonl").read_text().splitlines()}
    assert training_configurations(adapter) == {"bulk": train}
    text = (adapter / MODEL_CARD).read_text()
    assert "# LoRA adapter for bulk crystals" in text
    assert "by formula, seed 42: 16 crystals for training, 2 for validation, 2 for test" in text
    assert " ".join(card.data["elements"]) in text
    assert "build-data --task bulk --copies 1 --max-atoms 30 --split formula --seed 42" in text

    capsys.readouterr()
    asked = ["--host", "MoS2", "--homo", "0.05", "--lumo", "1.1", "--model", str(adapter), "-o", str(tmp_path / "d")]
    assert main(["design", *asked]) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line == "error: the model in adapter makes bulk crystals, not defects. Use: defectgen generate"

    more = ["--start-from", str(adapter), "--set", "lora.rank=32"]
    assert main(["finetune", *words[:3], "-o", str(tmp_path / "more"), *words[5:], *more]) == 0
    other = ["build-data", "--task", "bulk", "--data", str(table), "-o", str(tmp_path / "other"), "--seed", "1"]
    assert main(other) == 0
    capsys.readouterr()
    assert (
        main(["finetune", words[0], "--data", str(tmp_path / "other"), "-o", str(tmp_path / "x"), *words[5:], *more])
        == 2
    )
    assert "holds back" in capsys.readouterr().err

    values = json.loads((adapter / METADATA).read_text())
    (adapter / METADATA).write_text(json.dumps(values | {"prompt_version": 999}))
    with pytest.raises(DefectgenError, match="was trained on prompt version 999, this is"):
        read_adapter(adapter)
