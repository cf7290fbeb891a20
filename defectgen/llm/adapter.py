"""A trained adapter: LoRA weights, and beside them everything that sampling must know of training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.text.encodings import PROMPT_VERSION

METADATA = "defectgen.json"
WEIGHTS = "adapter_model.safetensors"
TRAINING_CONFIGURATIONS = "training_configurations.json"


@dataclass(frozen=True)
class AdapterCard:
    """What an adapter was trained on and for.

    Attributes:
        base_model: name that `base_model_path` resolves.
        encoding: prompt encoding of its records.
        prompt_version: version of the prompts; must equal the installed one.
        hosts: hosts in the training records.
        max_defects: for each host the most defects in a training record.
        covered_ev: for each host and property the least and largest value trained on, in eV.
        data: manifest of the records, without file list.
        training: configuration and figures of the run.
    """

    base_model: str
    encoding: str
    prompt_version: int
    hosts: tuple[str, ...]
    max_defects: dict[str, int]
    covered_ev: dict[str, dict[str, list[float]]]
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / METADATA).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_adapter(folder: Path) -> AdapterCard:
    """The card of an adapter folder.

    Raises:
        DefectgenError: no adapter there, unreadable, or made for other prompts than the installed.
    """
    path = folder / METADATA
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise DefectgenError(f"{folder} is no trained adapter.", f"Expected a folder with {WEIGHTS} and {METADATA}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        card = AdapterCard(**values | {"hosts": tuple(values["hosts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DefectgenError(f"{path}: not an adapter card ({error}).") from error
    if card.prompt_version != PROMPT_VERSION:
        raise DefectgenError(
            f"the adapter in {folder} was trained on prompt version {card.prompt_version}, this is {PROMPT_VERSION}.",
            "Train it again with `defectgen finetune`, or install the version that made it.",
        )
    return card


def training_configurations(folder: Path) -> dict[str, frozenset[str]]:
    """Canonical keys of the structures an adapter was trained on, by host and supercell (``MoS2 8x8``)."""
    path = folder / TRAINING_CONFIGURATIONS
    if not path.is_file():
        raise DefectgenError(f"{path} is missing, so that novelty cannot be told.")
    return {host: frozenset(keys) for host, keys in json.loads(path.read_text(encoding="utf-8")).items()}
