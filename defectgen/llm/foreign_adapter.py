"""LoRA weights that another program trained, such as the published code of Gruver et al.: no card lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError, read_object
from defectgen.llm.adapter import AGAIN, BULK, LORA_CONFIG, METADATA, WEIGHTS, AdapterCard
from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION
from defectgen.tasks.bulk.prompts import OURS, STYLES, PromptStyle, prompt_style

BASE_KEY = "base_model_name_or_path"
"""Where peft writes which base model an adapter works on."""


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds LoRA weights without a card of this package."""
    return (folder / LORA_CONFIG).is_file() and (folder / WEIGHTS).is_file() and not (folder / METADATA).exists()


def prompts_of(settings: Mapping[str, Any]) -> str:
    """Name of the prompts of records, or of an adapter trained on them, by the settings of the records."""
    return str(settings.get("prompts", OURS.name))


def style_of(settings: Mapping[str, Any]) -> PromptStyle:
    """How prompts and completions of records are worded, by the settings of the records."""
    return prompt_style(prompts_of(settings), absolute=settings.get("absolute") is True)


def foreign_card(folder: Path, prompts: str | None) -> AdapterCard:
    """A card for LoRA weights on bulk crystals that have none.

    Args:
        folder: see `is_foreign`.
        prompts: name of the prompts that they were trained on.

    Raises:
        UsageError: `prompts` is missing.
        DefectgenError: the folder does not say which base model they work on.
    """
    if prompts is None:
        raise UsageError(
            f"{folder} holds LoRA weights without a card, so that its prompts are not known.",
            f"Name them: defectgen generate --prompts {' or '.join(sorted(STYLES, reverse=True))}.",
        )
    path = folder / LORA_CONFIG
    try:
        base = read_object(path, {BASE_KEY: str})[BASE_KEY]
    except DocumentError as error:
        raise DefectgenError(f"{path} does not name its base model ({error.reason}).", AGAIN) from error
    return AdapterCard(base, BULK, BULK_PROMPT_VERSION, (), {}, {}, {"settings": {"prompts": prompts}})
