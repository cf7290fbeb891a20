"""The steps for a lent GPU, rehearsed at toy scale on the processor, from the kit to adapters that load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from crystal_files import made_up_crystals, published_rows, write_csv

from defectgen.core import get_host
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.loading import load_base
from defectgen.llm.train.dataset import CompletionDataset
from defectgen.tasks.defect.defect_task import DefectTask

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    table = write_csv(folder / "crystals.csv", published_rows(made_up_crystals(30, seed=1)))
    call = [sys.executable, str(FOLDER / "prepare.py"), "--mp20", str(table), "-o", str(folder / "kit")]
    done = subprocess.run(
        [*call, "--copies", "2", "--no-wheels", "--no-weights"], capture_output=True, text=True, check=False,
        env=os.environ | {"DEFECTGEN_CACHE": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 files" in done.stdout
    return folder / "kit"


BLOCK = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"catboost", "polars", "pymatgen"}:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Absent())
"""
"""As sitecustomize.py: packages that the other machine lacks."""


def test_the_steps_run_from_one_folder_and_leave_adapters_that_load(
    kit: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    call = ["bash", str(FOLDER / "pack.sh"), str(kit), str(packed)]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, env=os.environ | {"PYTHON": sys.executable}
    )
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in packed.rglob("*") if path.is_file()) < 30 * 2**20
    assert not list(packed.rglob("*.cbm"))
    kit, hook = packed / "kit", tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(BLOCK)
    settings = {"PYTHONPATH": str(hook),
                "PYTHON": sys.executable, "WORK": str(tmp_path / "work"), "STEPS": "absent bulk llama", "BULK_S": "90",
                "LLAMA_S": "120", "TOTAL_S": "400", "BASE": str(tiny_model_dir), "OMP_NUM_THREADS": "1"}  # fmt: skip
    call = ["bash", str(packed / "benchmarks" / "gpu" / "run.sh"), str(kit), str(tmp_path / "out"), "toy"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=os.environ | settings)
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent missing: benchmarks/gpu/absent.py" in summary
    assert "bulk exit 0" in summary, done.stdout
    assert "llama exit 0" in summary, done.stdout
    call = [sys.executable, str(FOLDER / "collect.py"), str(tmp_path / "out"), "--kit", str(kit), "-o",
            str(tmp_path / "collected"), "--base-model", str(tiny_model_dir)]  # fmt: skip
    told = subprocess.run(call, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    generator, card = TransformersGenerator.from_adapter(tmp_path / "collected" / "bulk", "float32")
    assert card.encoding == "bulk"
    assert card.training["steps"] > 0
    losses = [loss for _, loss in card.training["validation_losses"]]
    assert min(losses) < losses[0]
    grammar = DefectTask().grammar(get_host("MoS2", (2, 2)), 2)
    [made] = generator.generate([Request("MoS2 2x2:", grammar, 1, 0)], Sampling())
    assert made.text
    figures = json.loads((tmp_path / "collected" / "llama" / "figures.json").read_text())
    assert figures["published"]["rows"] == 4
    assert figures["ratio"].keys() == {"low", "crowded"}
    assert figures["training"]["steps"] > 0
    assert figures["training"]["last_loss"] < figures["training"]["first_loss"]
    assert 5 <= figures["edits"]["crowded"]["mean_defects"] <= 8


def test_a_step_is_skipped_where_the_gpu_has_too_little_memory(kit: Path, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\ncase "$*" in *memory*) echo 7000;; *) echo Small GPU;; esac\n')
    tool.chmod(0o755)
    settings = {"PYTHON": sys.executable, "WORK": str(tmp_path / "work"), "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    call = ["bash", str(FOLDER / "run.sh"), str(kit), str(tmp_path / "out"), "full"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert lines[0].startswith("device Small GPU 7000 MiB, scale full")
    needs = {"networks": 8000, "crowded": 24000, "bulk": 38000, "llama": 70000}
    assert lines[1:5] == [f"{s} skipped: {n} MiB of memory needed, 7000 there" for s, n in needs.items()]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["summary.txt"]


def test_tokens_of_records_are_those_of_training(tiny_generator: Any, scripts: None) -> None:  # noqa: ARG001
    from lora import RecordTokens

    records = [
        {"prompt": "MoS2 8x8 HOMO 0.052:", "completion": " VAC A00 Se B14"},
        {"prompt": "WSe2 8x8:", "completion": " S C07"},
        {"prompt": "MoS2 8x8 HOMO 0.052:", "completion": " W A33"},
    ]
    wanted = [example["input_ids"] for example in CompletionDataset(records, tiny_generator.tokenizer, 100).examples]
    tokens = RecordTokens(tiny_generator.tokenizer)
    prompts = tokens.prompts([record["prompt"] for record in records])
    completions = [record["completion"] for record in records]
    assert [p + c for p, c in zip(prompts, tokens.texts(completions), strict=True)] == wanted


def test_a_run_learns(tiny_model_dir: Path, scripts: None) -> None:  # noqa: ARG001
    from lora import LoraRun

    base, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    run = LoraRun(base, tokenizer, 4, 8.0, learning_rate=3e-3, tokens_at_once=64)
    batch = [([5, 6, 7], [8, 9, 0], 1.0), ([5, 7], [9, 8, 9, 0], 1.0), (list(range(20)), [3, 0], 2.0)]
    first = float(run.step(batch))
    for _ in range(30):
        last = float(run.step(batch))
    assert last < 0.5 * first


def test_passes_hold_their_budget_and_weights_scale_the_loss(tiny_model_dir: Path, scripts: None) -> None:  # noqa: ARG001
    from lora import LoraRun

    base, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    run = LoraRun(base, tokenizer, 2, 4.0, tokens_at_once=64)
    batch = [(list(range(1, 1 + k % 7)) or [1], [3, 4, 0], 1.0) for k in range(30)]
    parts = list(run.passes(batch))
    assert sum(len(part) for part in parts) == len(batch)
    assert max(len(part) * max(len(p) + len(c) for p, c, _ in part) for part in parts) <= 64
    with torch.no_grad():
        one = run.losses(batch[:4]).sum()
        double = run.losses([(p, c, 2.0) for p, c, _ in batch[:4]]).sum()
        alone = sum(run.losses([example]).sum() for example in batch[:4])
    assert float(double) == pytest.approx(2 * float(one), rel=1e-5)
    assert float(alone) == pytest.approx(float(one), rel=1e-4)  # padding is not seen


def test_batches_of_crystals_fill_their_passes(scripts: None) -> None:  # noqa: ARG001
    from itertools import islice
    from types import SimpleNamespace

    import numpy as np
    from bulk import _batches

    rng = np.random.default_rng(0)
    widths = rng.choice([32, 64, 128], 400)
    passes: Any = SimpleNamespace(widths=[32, 64, 128], rows=lambda width: 512 // width)
    drawn = list(islice(_batches(widths, 100, passes, 2, rng), 400))
    counts = np.bincount(np.concatenate(drawn), minlength=400)
    assert counts.max() - counts.min() <= 2
    assert all(widths[batch].sum() == 1024 for batch in drawn)
    first = np.concatenate(drawn[:5])
    assert (first < 100).all()  # a copy before the next one
