"""LoRA fine-tuning on instruction records, with checkpoints that outlive a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerState

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.folders import claimed
from defectgen.llm.adapter import (
    LORA_CONFIG,
    METADATA,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    AdapterCard,
    make_card,
    read_adapter,
    record_identity,
    training_configurations,
    write_adapter,
)
from defectgen.llm.loading import context_length, load_base
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
    evaluations_since_best,
    remove_unfinished,
    run_identity,
)
from defectgen.llm.train.dataset import CompletionDataset, drawn
from defectgen.llm.train.design_metric import DesignMetric
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.initial_adapter import check_initial_adapter, follow_adapter, load_initial_adapter
from defectgen.llm.train.preferences import PairDataset, PreferenceTrainer, are_pairs, collate_pairs, reference_margins
from defectgen.llm.train.record_folder import read_manifest, read_parts
from defectgen.llm.train.trainer import (
    CompletionTrainer,
    arguments,
    is_first_process,
    is_sharded,
    processes,
)

STATE = "trainer_state.json"
"""In a checkpoint, written by transformers' trainer: steps and figures so far."""


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        adapter: folder of the adapter; None if the run was interrupted.
        steps: optimizer steps done, earlier sessions of the same run included.
        total_steps: optimizer steps of the whole run.
        best_step: step whose weights the adapter has.
        losses: (step, training loss) in nats a token.
        validation_losses: (step, validation loss).
        design: (step, figures of the design metric), see `DesignMetric.measure`.
        seconds: wall time of this session.
    """

    adapter: Path | None
    steps: int
    total_steps: int
    best_step: int
    losses: tuple[tuple[int, float], ...]
    validation_losses: tuple[tuple[int, float], ...]
    design: tuple[tuple[int, dict[str, float]], ...]
    seconds: float


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
    manifest = read_manifest(data)
    run = run_identity(config.model_dump(), manifest)
    check_claim(output, run, FinetuneConfig)
    if config.design.targets and is_sharded():
        raise UsageError("the design metric needs the whole model in one process.", "Set design.targets=0 with FSDP.")
    parts = read_parts(data, manifest)
    records, held_back = parts["train"], parts["validation"]
    pairs = are_pairs(records, config)
    if not held_back and (config.patience or config.design.targets):
        raise UsageError(f"{data} has no validation records.", "Leave out patience and design.targets.")
    design = None
    if config.design.targets and is_first_process():
        labelled = [] if pairs else records  # pairs state what was asked for, not what the structure has
        design = DesignMetric.of(config.design, manifest, labelled, held_back, config.seed)
    before = check_initial_adapter(config, parts) if config.initial_adapter else None
    torch.manual_seed(config.seed)
    model, tokenizer, dtype = load_base(config.base_model, config.dtype, config.quantization, place=False)
    context = context_length(model.config)
    train = (PairDataset if pairs else CompletionDataset)(records, tokenizer, config.max_length, context)
    validation = CompletionDataset(
        drawn(held_back, config.eval_records, config.seed), tokenizer, config.max_length, context
    )
    model = _with_adapter(model, config)
    metric = (DESIGN_METRIC if config.design.targets else LOSS_METRIC) if _chooses(config) else None
    checkpoints = output / CHECKPOINTS
    if is_first_process():
        claim(output, run)
    progress = TrainingProgress(report, metric)
    callbacks: list[Any] = [progress, LossFile(output / LOG)]
    if tensorboard_installed():
        callbacks.append(TensorBoardFile(output / TENSORBOARD))
    trainer = (PreferenceTrainer if pairs else CompletionTrainer)(
        model=model,
        args=arguments(config, checkpoints, dtype, len(validation) > 0),
        train_dataset=train,
        eval_dataset=validation if len(validation) else None,
        data_collator=lambda examples: collate_pairs(examples, int(tokenizer.eos_token_id)),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # it prints on stdout, which is for results
    trainer.records_per_step = config.batch_size * config.accumulation
    trainer.tokens_a_record = validation.completion_tokens / max(len(validation), 1)
    trainer.rows_at_once = trainer.args.per_device_train_batch_size
    trainer.metric, trainer.patience = metric, config.patience
    if config.design.targets:
        trainer.design = lambda causal: {} if design is None else design.measure(causal, tokenizer)
    with clear_write_errors(output):
        if is_first_process():
            remove_unfinished(checkpoints)
        trainer.accelerator.wait_for_everyone()
        if isinstance(train, PairDataset) and isinstance(trainer, PreferenceTrainer):
            trainer.preference = config.preference
            train.margins = reference_margins(model.get_base_model(), tokenizer, records, output)
        resumable = complete_checkpoints(checkpoints)
        if resumable:
            check_checkpoint(resumable[-1])
        last = TrainerState.load_from_json(str(resumable[-1] / STATE)) if resumable else None
        if last is not None and _is_over(last, config, metric):  # all but the adapter was written
            state = last
        else:
            with stop_on_signal(progress):
                trainer.train(resume_from_checkpoint=str(resumable[-1]) if resumable else None)
            state = trainer.state
        history, steps, total = state.log_history, state.global_step, state.max_steps
        best = (best_step(history, metric) if metric else None) or steps
        finished = _is_over(state, config, metric)
        losses = tuple((int(row["step"]), float(row["loss"])) for row in history if "loss" in row)
        validation_losses = tuple((int(row["step"]), float(row["eval_loss"])) for row in history if "eval_loss" in row)
        figures = tuple((int(row["step"]), _design_figures(row)) for row in history if DESIGN_METRIC in row)
        if finished and is_first_process():
            training = {
                "defectgen": __version__,
                "command": command,
                "config": config.model_dump(exclude={"initial_adapter"}),
                "steps": steps,
                "best_step": best,
                "records_seen": steps * config.batch_size * config.accumulation,
                "losses": [row for row in losses if math.isfinite(row[1])][-1:],
                "validation_losses": [row for row in validation_losses if math.isfinite(row[1])],
                **({"design": _finite(figures)} if figures else {}),
                **({"processes": processes()} if processes() > 1 else {}),
                **({"initial_adapter": before} if before else {}),
            }
            initial = Path(config.initial_adapter) if config.initial_adapter else None
            card = make_card(config.base_model, manifest, training)
            if initial:
                card = card.after(read_adapter(initial))
            seen = _seen(records, initial)
            _save_adapter(checkpoint(checkpoints, best), card, seen, output)
    return FinetuneResult(
        adapter=output if finished else None,
        steps=steps,
        total_steps=total,
        best_step=best,
        losses=losses,
        validation_losses=validation_losses,
        design=figures,
        seconds=time.monotonic() - start,
    )


def _finite(figures: Sequence[tuple[int, dict[str, float]]]) -> list[tuple[int, dict[str, float]]]:
    """The figures that are finite numbers: a card holds no others."""
    return [(step, {name: x for name, x in row.items() if math.isfinite(x)}) for step, row in figures]


def _is_over(state: TrainerState, config: FinetuneConfig, metric: str | None) -> bool:
    """Whether a run has done its steps, or stopped early by `FinetuneConfig.patience`."""
    waited = evaluations_since_best(state.log_history, metric) if metric else 0
    return state.global_step >= state.max_steps or (config.patience is not None and waited >= config.patience)


def _chooses(config: FinetuneConfig) -> bool:
    """Whether the best checkpoint is taken and not the last."""
    return config.patience is not None or config.design.targets > 0


def _design_figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name.startswith("eval_design_")}


def _with_adapter(model: Any, config: FinetuneConfig) -> Any:
    """The base model with LoRA weights to train."""
    if config.quantization == "4bit":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(model, lora)
    except ValueError as error:
        raise foreign_targets(config, error) from error
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


def _tidy_config(path: Path, base_model: str) -> None:
    """Name the base model instead of this machine's folder, and put what peft keeps as a set in order."""
    config = read_object(path)
    config["base_model_name_or_path"] = base_model
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _seen(records: Sequence[Mapping[str, Any]], initial: Path | None) -> dict[str, set[str]]:
    """By group the keys of what an adapter was trained on, by the one that it started from too."""
    found = {group: set(keys) for group, keys in (training_configurations(initial) if initial else {}).items()}
    for record in records:
        group, key = record_identity(dict(record))
        found.setdefault(group, set()).add(key)
    return found


def _save_adapter(source: Path, card: AdapterCard, seen: Mapping[str, set[str]], output: Path) -> None:
    """Write weights, card and the list of training configurations; the card, last, makes it an adapter.

    Args:
        source: checkpoint that holds the weights.
        card: of the adapter.
        seen: see `_seen`.
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
