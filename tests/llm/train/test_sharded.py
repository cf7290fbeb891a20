"""Runs on several GPUs, rehearsed by two processes on the processor: FSDP and QLoRA, killed and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cpu_fsdp import keep_four_bits_as_they_are
from tiny_model import save_tiny_llama, tiny_tokenizer
from training_runs import config, largest_difference

from defectgen.config import package_folder
from defectgen.core import get_host
from defectgen.llm.adapter import read_adapter
from defectgen.llm.decode.engines import load_generator
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.loading import Placement
from defectgen.llm.train.checkpoints import complete_checkpoints
from defectgen.llm.train.finetune import finetune
from defectgen.tasks.defect.defect_task import DefectTask

STEPS = 8
RESUMED = 1e-6
"""Largest difference of a float32 weight after a kill: the arithmetic is the same."""
ONE_PROCESS = 1e-4
"""From a run of one process: sums in another order, which Adam scales up at the learning rate of 5e-3."""


def fsdp_variables() -> dict[str, str]:
    """What `accelerate launch` sets by the shipped file."""
    values = yaml.safe_load((package_folder("defectgen_configs") / "accelerate-fsdp.yaml").read_text())["fsdp_config"]
    named = {key.removeprefix("fsdp_"): str(value) for key, value in values.items()}
    named["transformer_cls_to_wrap"] = named.pop("transformer_layer_cls_to_wrap")
    named["version"] = "2"
    return {"ACCELERATE_USE_FSDP": "true"} | {f"FSDP_{key.upper()}": value for key, value in named.items()}


def run(model: Path, records: Path, output: Path, quantization: str, more: dict[str, str]) -> int:
    """Train by two processes; the exit status."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["finetune", "smollm2-cpu", "--data", str(records), "-o", str(output), "--base-model", str(model)]
    words += ["--max-steps", str(STEPS), "--seed", "7"]
    for item in (
        "lora.rank=4", "lora.alpha=8", "learning_rate=5e-3", "batch_size=8", "eval_steps=4", "save_steps=2",
        "dtype=float32", "patience=null", "design.targets=0", f"quantization={quantization}",
    ):  # fmt: skip
        words += ["--set", item]
    script = str(Path(__file__).with_name("cpu_fsdp.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
    done = subprocess.run(
        [sys.executable, *launcher, script, *words], capture_output=True, text=True, timeout=600, env=environment
    )
    if done.returncode and "KILLED_AT_STEP" not in more:
        pytest.fail(done.stderr[-4000:])
    return done.returncode


def difference(one: Path, other: Path) -> float:
    """Between the last checkpoints of two runs."""
    return largest_difference(*(folder / "checkpoints" / f"checkpoint-{STEPS}" for folder in (one, other)))


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "sharded"), [("none", True), ("4bit", True), ("4bit", False)])
def test_two_processes_are_killed_and_end_where_an_unbroken_run_does(
    records: Path, tmp_path: Path, quantization: str, sharded: bool
) -> None:
    if quantization == "4bit":
        pytest.importorskip("bitsandbytes")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}  # bitsandbytes: multiples of 64
    model = save_tiny_llama(tiny_tokenizer(), tmp_path / "base", **shape)
    variables = fsdp_variables() if sharded else {}
    assert run(model, records, tmp_path / "broken", quantization, variables | {"KILLED_AT_STEP": "6"}) != 0
    kept = complete_checkpoints(tmp_path / "broken" / "checkpoints")
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-4"]
    assert run(model, records, tmp_path / "broken", quantization, variables) == 0
    keep_four_bits_as_they_are()
    whole = config(model, max_steps=STEPS, eval_steps=4, save_steps=2, quantization=quantization)
    finetune(whole, records, tmp_path / "one")
    assert difference(tmp_path / "broken", tmp_path / "one") <= ONE_PROCESS
    if quantization == "none":
        assert run(model, records, tmp_path / "unbroken", quantization, variables) == 0
        assert difference(tmp_path / "broken", tmp_path / "unbroken") <= RESUMED
    assert read_adapter(tmp_path / "broken").training["processes"] == 2

    host, task = get_host("MoS2", (8, 8)), DefectTask("edits")
    request = Request(task.prompt(host, {"homo_ev": 0.05}), task.grammar(host, 3), 4, 5)
    generator, _ = load_generator("transformers", tmp_path / "broken", placement=Placement(quantization))
    assert len({completion.text for completion in generator.generate([request], Sampling(1.0))}) > 1
