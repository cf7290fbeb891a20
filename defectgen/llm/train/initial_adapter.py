"""The trained adapter that a run goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import read_adapter, record_identity, training_configurations
from defectgen.llm.adapter_weights import put_weights, read_weights
from defectgen.llm.foreign_adapter import style_of
from defectgen.llm.lora_config import read_lora
from defectgen.llm.train.finetune_config import FinetuneConfig


def follow_adapter(config: FinetuneConfig) -> FinetuneConfig:
    """A run with the rank and alpha of the adapter that it starts from, where it names no rank of its own.

    Raises:
        DefectgenError: no adapter there.
    """
    if config.initial_adapter is None or "rank" in config.lora.model_fields_set:
        return config
    folder = Path(config.initial_adapter)
    read_adapter(folder)
    found = read_lora(folder)
    lora = config.lora.model_copy(update={"rank": found.rank, "alpha": max(round(found.alpha), 1)})
    return config.model_copy(update={"lora": lora})


def check_initial_adapter(
    config: FinetuneConfig, manifest: Mapping[str, Any], parts: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """How the adapter was trained that a run starts from; looks at no weights.

    Args:
        config: of the run.
        manifest: of its records.
        parts: its records, of `defectgen.llm.train.record_folder.read_parts`.

    Raises:
        UsageError: an adapter of another base model, of other prompts, or one that was trained on structures held
            back here.
    """
    folder = Path(str(config.initial_adapter))
    card = read_adapter(folder)
    if card.base_model != config.base_model:
        raise UsageError(
            f"{folder} is an adapter of {card.base_model}, the run is for {config.base_model}.",
            "Start from an adapter of the same base model.",
        )
    asked, trained = style_of(manifest["settings"]), style_of(card.data.get("settings", {}))
    if trained != asked:
        raise UsageError(
            f"{folder} was trained on records of {trained.options}, these are of {asked.options}.",
            f"Build the records with {trained.options}.",
        )
    known = training_configurations(folder)
    for part in ("validation", "test"):
        for record in parts[part]:
            group, key = record_identity(record)
            if key in known.get(group, frozenset()):
                raise UsageError(
                    f"{folder} was trained on {key} of {group}, which the {part} part holds back.",
                    "Build the records with the seed and fractions that the adapter was trained with.",
                )
    return earlier_run(card.training)


def earlier_run(training: Mapping[str, Any]) -> dict[str, Any]:
    """What the card of a run says of the one that it went on from, and so on back to the first."""
    kept = ("command", "steps", "best_step", "records_seen", "validation_losses", "initial_adapter")
    return {name: training[name] for name in kept if name in training}


def load_initial_adapter(model: Any, folder: Path, scale: float) -> None:
    """Put the weights of an earlier adapter into a model, so that it makes the same update.

    Args:
        model: with LoRA weights.
        folder: of the earlier adapter.
        scale: alpha / rank of the run, by which updates are multiplied; the earlier adapter's may be another.

    Raises:
        UsageError: an adapter of another shape.
    """
    lora = read_lora(folder)
    factor = lora.alpha / lora.rank / scale
    weights = {key: w * factor if ".lora_B." in key else w for key, w in read_weights(folder, lora).items()}
    try:
        put_weights(model, weights, folder, "the run")
    except DefectgenError as error:
        raise UsageError(
            f"the weights of {folder} (rank {lora.rank}) do not fit the run's base model and LoRA settings: {error}",
            f"Set lora.rank={lora.rank}, or leave it out of the configuration, and use the same lora.targets.",
        ) from error
