"""Small training runs on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from defectgen.llm.adapter import WEIGHTS
from defectgen.llm.train.finetune_config import FinetuneConfig, LoraSettings


def config(model: Path, **changes: Any) -> FinetuneConfig:
    values: dict[str, Any] = {
        "base_model": str(model),
        "lora": LoraSettings(rank=4, alpha=8),
        "learning_rate": 5e-3,
        "max_steps": 12,
        "batch_size": 8,
        "eval_steps": 6,
        "save_steps": 4,
        "dtype": "float32",
        "seed": 7,
    }
    return FinetuneConfig(**(values | changes))


def largest_difference(one: Path, other: Path) -> float:
    """Between the float32 weights of two checkpoints."""
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(weight.dtype == torch.float32 for weight in ours.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
