"""LoRA fine-tuning on instruction records, with checkpoints that outlive a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.trainable_tokens import TrainableTokensLayer
from transformers import TrainerState

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.folders import claimed
from defectgen.llm.adapter import METADATA, make_card, read_adapter
from defectgen.llm.base import has_crystal_tokens
from defectgen.llm.crystal_tokens import trained_rows
from defectgen.llm.loading import context_length, is_sharded, load_base
from defectgen.llm.train.callbacks import (
    LOG,
    TENSORBOARD,
    LossFile,
    Report,
    TensorBoardFile,
    TrainingProgress,
    stop_on_signal,
    tensorboard_installed,
)
from defectgen.llm.train.checkpoints import (
    CHECKPOINTS,
    DESIGN_METRIC,
    LOSS_METRIC,
    best_step,
    check_checkpoint,
    check_claim,
    checkpoint,
    claim,
    clear_write_errors,
    complete_checkpoints,
    remove_unfinished,
    run_identity,
)
from defectgen.llm.train.dataset import CompletionDataset, drawn
from defectgen.llm.train.design_metric import DesignMetric
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.history import FinetuneResult, TrainingHistory
from defectgen.llm.train.initial_adapter import check_initial_adapter, follow_adapter, load_initial_adapter
from defectgen.llm.train.preferences import PairDataset, PreferenceTrainer, are_pairs, collate_pairs, reference_margins
from defectgen.llm.train.record_folder import read_manifest, read_parts
from defectgen.llm.train.trained_adapter import save_adapter, trained_on
from defectgen.llm.train.trainer import (
    CompletionTrainer,
    TrainingPlan,
    arguments,
    is_first_process,
)

STATE = "trainer_state.json"
"""In a checkpoint, written by transformers' trainer: steps and figures so far."""


def finetune(
    config: FinetuneConfig,
    data: Path,
    output: Path,
    report: Report = lambda *_: None,
    command: str = "",
) -> FinetuneResult:
    """Train a LoRA adapter on the records in `data` and leave it in `output`.

    A run that was stopped or killed continues from its last complete checkpoint when it is
    called again with the same configuration and data. Started by `torchrun` or `accelerate launch`,
    every process calls this; the first one writes.

    Args:
        config: see `FinetuneConfig`.
        data: folder of `defectgen build-data`.
        output: folder of the adapter; checkpoints are in its subfolder ``checkpoints``.
        report: called with step, number of steps, and new figures.
        command: how to call this run again, for the model card.

    Raises:
        UsageError: `output` holds an adapter, or the checkpoints of another run, or cannot be written.
        DefectgenError: missing records, a full disk, or another run has the folder.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, expected a folder.")
    if not is_first_process():
        return _finetune(config, data, output, report, command)
    with claimed(output) as claim:
        if (output / METADATA).exists() and not claim.continued:
            raise UsageError(f"{output} already holds a trained adapter.", "Choose another folder for the new one.")
        return _finetune(config, data, output, report, command)


def _finetune(config: FinetuneConfig, data: Path, output: Path, report: Report, command: str) -> FinetuneResult:
    """See `finetune`; the first process has claimed the folder."""
    start = time.monotonic()
    config = follow_adapter(config)
    inputs = _read(config, data)
    run = run_identity(config.model_dump(), inputs.manifest)
    check_claim(output, run, FinetuneConfig)
    design = None
    if config.design.targets and is_first_process():
        labelled = [] if inputs.pairs else inputs.records  # pairs state what was asked for, not what the structure has
        design = DesignMetric.of(config.design, inputs.manifest, labelled, inputs.held_back, config.seed)
    before = check_initial_adapter(config, inputs.manifest, inputs.parts) if config.initial_adapter else None
    torch.manual_seed(config.seed)
    model, tokenizer, dtype = load_base(config.base_model, config.dtype, config.quantization, place=False)
    train, validation = _datasets(config, inputs, tokenizer, context_length(model.config))
    model = _with_adapter(model, config, tokenizer)
    if is_first_process():
        claim(output, run)
    measure = None
    if config.design.targets:  # all processes wait for what the first one measures
        measure = lambda causal: {} if design is None else design.measure(causal, tokenizer)  # noqa: E731
    plan = TrainingPlan(
        config.batch_size * config.accumulation,
        validation.completion_tokens / max(len(validation), 1),
        measure,
        _metric(config),
        config.patience,
        config.preference,
    )
    checkpoints = output / CHECKPOINTS
    progress = TrainingProgress(report, plan.metric)
    trainer = (PreferenceTrainer if inputs.pairs else CompletionTrainer)(
        plan,
        model=model,
        args=arguments(config, checkpoints, dtype, len(validation) > 0),
        train_dataset=train,
        eval_dataset=validation if len(validation) else None,
        data_collator=lambda examples: collate_pairs(examples, int(tokenizer.eos_token_id)),
        callbacks=_callbacks(progress, output),
    )
    with clear_write_errors(output):
        if is_first_process():
            remove_unfinished(checkpoints)
        trainer.accelerator.wait_for_everyone()
        if isinstance(train, PairDataset):
            train.margins = reference_margins(model.get_base_model(), tokenizer, inputs.records, output)
        state = _train(trainer, checkpoints, progress)
        history = TrainingHistory.of(state, plan)
        if history.is_over and plan.metric and best_step(state.log_history, plan.metric) is None:
            raise DefectgenError(
                f"no evaluation gave a finite number, the last one at step {history.steps}.",
                "Take a lower learning_rate, and another folder.",
            )
        if history.is_over and is_first_process():
            initial = Path(config.initial_adapter) if config.initial_adapter else None
            card = make_card(config.base_model, inputs.manifest, history.for_card(config, command, before))
            if initial:
                card = card.after(read_adapter(initial))
            seen = trained_on(inputs.records, initial)
            save_adapter(checkpoint(checkpoints, history.best_step), card, seen, output)
    return history.result(output, time.monotonic() - start)


@dataclass(frozen=True)
class _Inputs:
    """What a run learns from.

    Attributes:
        manifest: of the folder of records.
        parts: the records of each part by its name.
        pairs: whether the records are pairs of a better and a worse completion.
    """

    manifest: dict[str, Any]
    parts: Mapping[str, list[dict[str, Any]]]
    pairs: bool

    @property
    def records(self) -> list[dict[str, Any]]:
        """The training part."""
        return self.parts["train"]

    @property
    def held_back(self) -> list[dict[str, Any]]:
        """The validation part."""
        return self.parts["validation"]


def _read(config: FinetuneConfig, data: Path) -> _Inputs:
    """The records of a folder, checked against its manifest and the configuration."""
    if config.design.targets and is_sharded():
        raise UsageError("the design metric needs the whole model in one process.", "Set design.targets=0 with FSDP.")
    manifest = read_manifest(data)
    parts = read_parts(data, manifest)
    if not parts["validation"] and (config.patience or config.design.targets):
        raise UsageError(f"{data} has no validation records.", "Leave out patience and design.targets.")
    return _Inputs(manifest, parts, are_pairs(parts["train"], config))


def _datasets(
    config: FinetuneConfig, inputs: _Inputs, tokenizer: Any, context: int | None
) -> tuple[CompletionDataset | PairDataset, CompletionDataset]:
    """Training and validation part as tokens."""
    train = (PairDataset if inputs.pairs else CompletionDataset)(inputs.records, tokenizer, config.max_length, context)
    held_back = drawn(inputs.held_back, config.eval_records, config.seed)
    return train, CompletionDataset(held_back, tokenizer, config.max_length, context)


def _metric(config: FinetuneConfig) -> str | None:
    """What the best checkpoint is chosen by; None where the last one is taken."""
    if config.design.targets:
        return DESIGN_METRIC
    return LOSS_METRIC if config.patience is not None else None


def _callbacks(progress: TrainingProgress, output: Path) -> list[Any]:
    callbacks: list[Any] = [progress, LossFile(output / LOG)]
    if tensorboard_installed():
        callbacks.append(TensorBoardFile(output / TENSORBOARD))
    return callbacks


def _train(trainer: CompletionTrainer, checkpoints: Path, progress: TrainingProgress) -> TrainerState:
    """Train from the last complete checkpoint to the end, or until a signal comes."""
    resumable = complete_checkpoints(checkpoints)
    if resumable:
        check_checkpoint(resumable[-1])
        last = TrainerState.load_from_json(str(resumable[-1] / STATE))
        if TrainingHistory.of(last, trainer.plan).is_over:  # all but the adapter was written
            return last
    with stop_on_signal(progress):
        trainer.train(resume_from_checkpoint=str(resumable[-1]) if resumable else None)
    return trainer.state


def _with_adapter(model: Any, config: FinetuneConfig, tokenizer: Any) -> Any:
    """The base model with LoRA weights to train, and the rows of tokens that it does not know yet."""
    if config.quantization == "4bit":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        task_type="CAUSAL_LM",
    )
    if has_crystal_tokens(config.base_model):
        lora.trainable_token_indices = trained_rows(model, tokenizer)
    try:
        model = get_peft_model(model, lora)
    except ValueError as error:
        raise foreign_targets(config, error) from error
    if lora.trainable_token_indices:  # else peft saves whole embeddings, since the base's own are smaller
        model.peft_config["default"].base_model_name_or_path = ""
    rows: list[Any] = [module for module in model.modules() if isinstance(module, TrainableTokensLayer)]
    for module in rows:
        module.cast_input_dtype_enabled = True  # peft's `disable_input_dtype_casting` asks every layer for it
        module.trainable_tokens_delta.float()  # they have the arithmetic of the base
    if config.initial_adapter:
        load_initial_adapter(model, Path(config.initial_adapter), config.lora.alpha / config.lora.rank)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def foreign_targets(config: FinetuneConfig, error: ValueError) -> UsageError:
    """The error of ``lora.targets`` that the base model does not have."""
    reason = str(error).splitlines()[0]
    return UsageError(f"lora.targets {config.lora.targets!r} do not fit {config.base_model} ({reason:.200}).")
