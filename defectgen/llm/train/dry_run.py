"""What a training run would take, without its weights: records and tokenizer checked, steps and memory counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from defectgen.errors import DefectgenError
from defectgen.llm.loading import context_length, load_model_config, load_tokenizer, pick_dtype
from defectgen.llm.train.dataset import IGNORED, CompletionDataset, drawn
from defectgen.llm.train.design_metric import DesignMetric
from defectgen.llm.train.finetune import foreign_targets
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.initial_adapter import check_initial_adapter, follow_adapter
from defectgen.llm.train.preferences import PairDataset, are_pairs
from defectgen.llm.train.record_folder import read_manifest, read_parts
from defectgen.llm.train.trainer import LOGITS_AT_ONCE, processes, share_out

BYTES_A_TRAINED_WEIGHT = 16
"""float32 weight, gradient and the two moments of Adam."""
BYTES_A_4BIT_WEIGHT = 0.55
"""NF4 with the scales of its blocks."""
ACTIVATIONS = 34
"""Bytes a token, layer and unit of width in 16 bit without attention scores (Korthikanti et al. 2022,
doi 10.48550/arXiv.2205.05198); doubled in 32 bit."""


@dataclass(frozen=True)
class DryRun:
    """What a run would take.

    Attributes:
        train_records: records to train on.
        validation_records: records for the validation loss.
        longest_tokens: tokens of the longest record.
        longest_prompt_tokens: tokens of its prompt.
        epoch_tokens: tokens of all training records.
        epoch_completion_tokens: those of them that carry a loss.
        records_per_step: records in an optimizer step, all processes together.
        steps: optimizer steps.
        weights: weights of the base model.
        trained_weights: weights of the adapter.
        memory_bytes: estimate for one process; good to a factor of two.
    """

    train_records: int
    validation_records: int
    longest_tokens: int
    longest_prompt_tokens: int
    epoch_tokens: int
    epoch_completion_tokens: int
    records_per_step: int
    steps: int
    weights: int
    trained_weights: int
    memory_bytes: int


def dry_run(config: FinetuneConfig, data: Path) -> DryRun:
    """Check a run as far as that goes without its weights.

    Args:
        config: of the run.
        data: folder of its records.

    Raises:
        UsageError: a record that is too long, or settings that do not fit the base model or each other.
        DefectgenError: missing records, or no such base model.
    """
    config = follow_adapter(config)
    manifest = read_manifest(data)
    parts = read_parts(data, manifest)
    records, held_back = parts["train"], parts["validation"]
    if not records:
        raise DefectgenError(f"{data} has no training records.", "Make them with `defectgen build-data`.")
    pairs = are_pairs(records, config)
    if config.design.targets:
        DesignMetric.of(config.design, manifest, [] if pairs else records, held_back, config.seed)
    if config.initial_adapter:
        check_initial_adapter(config, manifest, parts)
    tokenizer, shape = load_tokenizer(config.base_model), load_model_config(config.base_model)
    examples = (PairDataset if pairs else CompletionDataset)(
        records, tokenizer, config.max_length, context_length(shape)
    ).examples
    kept = CompletionDataset(
        drawn(held_back, config.eval_records, config.seed), tokenizer, config.max_length, context_length(shape)
    )
    longest = max(examples, key=lambda example: len(example["input_ids"]))
    scored = [sum(label != IGNORED for label in example["labels"]) for example in examples]
    per_step = config.batch_size * config.accumulation
    weights, trained = _count_weights(config, shape)
    rows, _ = share_out(config.batch_size, config.accumulation, processes())
    return DryRun(
        train_records=len(examples),
        validation_records=len(kept),
        longest_tokens=len(longest["input_ids"]),
        longest_prompt_tokens=longest["labels"].count(IGNORED),
        epoch_tokens=sum(len(example["input_ids"]) for example in examples),
        epoch_completion_tokens=sum(scored),
        records_per_step=per_step,
        steps=config.max_steps or math.ceil(math.ceil(len(examples) / per_step) * config.epochs),
        weights=weights,
        trained_weights=trained,
        memory_bytes=_memory_bytes(
            config, shape, weights, trained, rows * (1 + pairs), len(longest["input_ids"]), max(scored)
        ),
    )


def _count_weights(config: FinetuneConfig, shape: Any) -> tuple[int, int]:
    """Weights of the base model and of the adapter, from their shapes alone."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
        weights = sum(weight.numel() for weight in base.parameters())
        lora = LoraConfig(r=config.lora.rank, target_modules=config.lora.targets, task_type="CAUSAL_LM")
        try:
            model: Any = get_peft_model(base, lora)
        except ValueError as error:
            raise foreign_targets(config, error) from error
    return weights, sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _memory_bytes(
    config: FinetuneConfig, shape: Any, weights: int, trained: int, rows: int, length: int, scored: int
) -> int:
    """Weights, adapter, activations of the longest batch, and its logits."""
    width = 2 if pick_dtype(config.dtype) == torch.bfloat16 else 4
    base = weights * (BYTES_A_4BIT_WEIGHT if config.quantization == "4bit" else width)
    layer = rows * length * shape.hidden_size * ACTIVATIONS * width / 2
    kept = rows * length * shape.hidden_size * width
    layers = int(shape.num_hidden_layers)
    activations = layers * kept + layer if config.gradient_checkpointing else layers * layer
    logits = min(rows * scored * shape.vocab_size, LOGITS_AT_ONCE) * 3 * 4
    return round(base + trained * BYTES_A_TRAINED_WEIGHT + activations + logits)
