"""The adapter that a run ends with: weights of a checkpoint, card, and what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from defectgen.errors import DefectgenError
from defectgen.io.documents import read_object
from defectgen.llm.adapter import (
    LORA_CONFIG,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    AdapterCard,
    record_identity,
    training_configurations,
    write_adapter,
)


def _tidy_config(path: Path, base_model: str) -> None:
    """Name the base model instead of this machine's folder, and put what peft keeps as a set in order."""
    config = read_object(path)
    config["base_model_name_or_path"] = base_model
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def trained_on(records: Sequence[Mapping[str, Any]], initial: Path | None) -> dict[str, set[str]]:
    """By group the keys of what an adapter was trained on, by the one that it started from too."""
    found = {group: set(keys) for group, keys in (training_configurations(initial) if initial else {}).items()}
    for record in records:
        group, key = record_identity(dict(record))
        found.setdefault(group, set()).add(key)
    return found


def save_adapter(source: Path, card: AdapterCard, seen: Mapping[str, set[str]], output: Path) -> None:
    """Write weights, card and the list of training configurations; the card, last, makes it an adapter.

    Args:
        source: checkpoint that holds the weights.
        card: of the adapter.
        seen: see `trained_on`.
        output: folder of the adapter.
    """

    def fill(new: Path) -> None:
        weights = {key: weight.to(torch.bfloat16) for key, weight in load_file(source / WEIGHTS).items()}
        if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
            raise DefectgenError(f"training ended in numbers that are not finite ({source}).", "Lower learning_rate.")
        save_file(weights, new / WEIGHTS, metadata={"format": "pt"})
        (new / LORA_CONFIG).write_bytes((source / LORA_CONFIG).read_bytes())
        _tidy_config(new / LORA_CONFIG, card.base_model)
        text = json.dumps({host: sorted(keys) for host, keys in sorted(seen.items())}, separators=(",", ":"))
        (new / TRAINING_CONFIGURATIONS).write_text(text, encoding="utf-8")
        card.write(new)

    write_adapter(output, fill)
