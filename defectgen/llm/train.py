"""LoRA fine-tuning on instruction records, with checkpoints that outlive a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import (
    METADATA,
    MODEL_CARD,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    AdapterCard,
    make_card,
    read_adapter,
    record_identity,
    training_configurations,
)
from defectgen.llm.config import FinetuneConfig
from defectgen.llm.dataset import IGNORED, CompletionDataset, collate, read_records
from defectgen.llm.loading import load_base

COMPLETE = "complete"
"""Written into a checkpoint after everything else: only such checkpoints are resumed from."""


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        adapter: folder of the adapter; None if the run was interrupted.
        steps: optimizer steps done, earlier sessions of the same run included.
        total_steps: optimizer steps of the whole run.
        losses: (step, training loss) in nats a token.
        validation_losses: (step, validation loss).
        seconds: wall time of this session.
    """

    adapter: Path | None
    steps: int
    total_steps: int
    losses: tuple[tuple[int, float], ...]
    validation_losses: tuple[tuple[int, float], ...]
    seconds: float


class CompletionTrainer(Trainer):
    """transformers' trainer with the output layer applied to the positions of the completion only."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        labels = inputs["labels"][:, 1:]
        if self.args.world_size > 1:  # gradients are exchanged in the wrapped model's own forward
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1][labels != IGNORED]
        else:
            causal = model.get_base_model()
            device = inputs["input_ids"].device.type
            with disable_input_dtype_casting(model), torch.autocast(device, torch.bfloat16, enabled=self.args.bf16):
                hidden = causal.base_model(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
                logits = causal.get_output_embeddings()(hidden[:, :-1][labels != IGNORED])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        loss = loss / count
        return (loss, {"loss": loss.detach()}) if return_outputs else loss


class _Progress(TrainerCallback):
    """Marks checkpoints complete, stops at a signal, and reports losses."""

    def __init__(self, report: Callable[[int, int, dict[str, float]], None]) -> None:
        self.report = report
        self.stop = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.report(state.global_step, state.max_steps, {})
        if self.stop:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
        for older in _checkpoints(Path(args.output_dir))[:-2]:
            shutil.rmtree(older, ignore_errors=True)

    def on_log(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        self.report(state.global_step, state.max_steps, about.get("logs") or {})


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


@contextmanager
def _stop_on_signal(progress: _Progress) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a last checkpoint; a second signal ends the process."""

    def handle(number: int, _: Any) -> None:
        if progress.stop:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        progress.stop = True

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finetune(
    config: FinetuneConfig,
    data: Path,
    output: Path,
    report: Callable[[int, int, dict[str, float]], None] = lambda *_: None,
    command: str = "",
) -> FinetuneResult:
    """Train a LoRA adapter on the records in `data` and leave it in `output`.

    A run that was stopped or killed continues from its last complete checkpoint when it is
    called again with the same configuration and data.

    Args:
        config: see `FinetuneConfig`.
        data: folder of `defectgen build-data`.
        output: folder of the adapter; checkpoints are in its subfolder ``checkpoints``.
        report: called with step, number of steps, and new figures.
        command: how to call this run again, for the model card.

    Raises:
        UsageError: `output` holds an adapter, or the checkpoints of another run.
        DefectgenError: missing records.
    """
    start = time.monotonic()
    manifest = json.loads(_manifest(data).read_text(encoding="utf-8"))
    if (output / METADATA).exists():
        raise UsageError(f"{output} already holds a trained adapter.", "Choose another folder for the new one.")
    run = {"config": config.model_dump(), "data": manifest["data_sha256"], "settings": manifest["settings"]}
    _check_claim(output, run)
    torch.manual_seed(config.seed)
    model, tokenizer, dtype = load_base(config.base_model, config.dtype, config.quantization)
    records = read_records(data / "train.jsonl")
    held_back = read_records(data / "validation.jsonl", config.eval_records)
    train = CompletionDataset(records, tokenizer, config.max_length)
    validation = CompletionDataset(held_back, tokenizer, config.max_length)
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)
    before = _start_from(model, config, data) if config.initial_adapter else None
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    checkpoints = output / "checkpoints"
    progress = _Progress(report)
    _tell_folder_from_library()
    trainer = CompletionTrainer(
        model=model,
        args=_arguments(config, checkpoints, dtype),
        train_dataset=train,
        eval_dataset=validation if len(validation) else None,
        data_collator=lambda examples: collate(examples, int(tokenizer.eos_token_id)),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)  # it prints on stdout, which is for results
    _claim(output, run)
    resumable = _checkpoints(checkpoints)
    with _stop_on_signal(progress):
        trainer.train(resume_from_checkpoint=str(resumable[-1]) if resumable else None)
    history = trainer.state.log_history
    losses = tuple((int(row["step"]), float(row["loss"])) for row in history if "loss" in row)
    validation_losses = tuple((int(row["step"]), float(row["eval_loss"])) for row in history if "eval_loss" in row)
    steps, total = trainer.state.global_step, trainer.state.max_steps
    finished = steps >= total
    if finished:
        training = {
            "defectgen": __version__,
            "command": command,
            "config": config.model_dump(exclude={"initial_adapter"}),
            "steps": steps,
            "records_seen": steps * config.batch_size * config.accumulation,
            "losses": losses[-1:],
            "validation_losses": validation_losses,
            **({"initial_adapter": before} if before else {}),
        }
        card = make_card(config.base_model, manifest, training)
        _save_adapter(model, card, records, output)
    return FinetuneResult(
        output if finished else None, steps, total, losses, validation_losses, time.monotonic() - start
    )


def _start_from(model: Any, config: FinetuneConfig, data: Path) -> dict[str, Any]:
    """Load the weights of an earlier adapter, and tell how that one was trained.

    Raises:
        UsageError: an adapter of another shape, or one that was trained on structures held back here.
    """
    folder = Path(str(config.initial_adapter))
    card = read_adapter(folder)
    known = training_configurations(folder)
    for part in ("validation", "test"):
        for record in read_records(data / f"{part}.jsonl"):
            group, key = record_identity(record)
            if key in known.get(group, frozenset()):
                raise UsageError(
                    f"{folder} was trained on {key} of {group}, which {data} holds back.",
                    "Build the records with the seed and fractions that the adapter was trained with.",
                )
    try:
        found: Any = set_peft_model_state_dict(model, load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise UsageError(f"the weights of {folder} do not fit the run's base model and LoRA settings.") from error
    if found.unexpected_keys or card.base_model != config.base_model:
        raise UsageError(
            f"{folder} is an adapter of {card.base_model}, the run is for {config.base_model}.",
            "Start from an adapter of the same base model and LoRA targets.",
        )
    kept = ("command", "steps", "records_seen", "validation_losses", "initial_adapter")
    return {name: card.training[name] for name in kept if name in card.training}


def _tell_folder_from_library() -> None:
    """Keep transformers from taking a folder ``datasets`` in the working directory for the library.

    This project's own checkout has such a folder; the library is not used here.
    """
    found = importlib.util.find_spec("datasets")
    if found is not None and found.origin is None:
        transformers.trainer.is_datasets_available = lambda: False  # type: ignore[attr-defined]


def _manifest(data: Path) -> Path:
    path = data / "manifest.json"
    if not path.is_file():
        raise DefectgenError(f"{data} holds no records.", "Make them with `defectgen build-data`.")
    return path


def _check_claim(output: Path, run: dict[str, Any]) -> None:
    """Check that the folder is not the one of another run."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, expected a folder.")
    path = output / "run.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(run)):
        raise UsageError(f"{output} holds another run (other configuration or records).", "Choose another folder.")


def _claim(output: Path, run: dict[str, Any]) -> None:
    """Note what run this folder is for."""
    path = output / "run.json"
    output.mkdir(parents=True, exist_ok=True)
    temporary = output / ".run.json"
    temporary.write_text(json.dumps(run, indent=1), encoding="utf-8")
    temporary.replace(path)


def _arguments(config: FinetuneConfig, folder: Path, dtype: torch.dtype) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        bf16=dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        prediction_loss_only=True,
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )


def _tidy_config(path: Path, base_model: str) -> None:
    """Name the base model instead of this machine's folder, and put what peft keeps as a set in order."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _save_adapter(model: Any, card: AdapterCard, records: list[dict[str, Any]], output: Path) -> None:
    """Write weights, card and the list of training configurations; the card, last, makes it an adapter."""
    configurations: dict[str, set[str]] = {}
    for record in records:
        group, key = record_identity(record)
        configurations.setdefault(group, set()).add(key)
    with tempfile.TemporaryDirectory(dir=output) as name:
        temporary = Path(name)
        model.to(torch.bfloat16).save_pretrained(temporary, save_embedding_layers=False)
        _tidy_config(temporary / "adapter_config.json", card.base_model)
        text = json.dumps({host: sorted(keys) for host, keys in sorted(configurations.items())}, separators=(",", ":"))
        (temporary / TRAINING_CONFIGURATIONS).write_text(text, encoding="utf-8")
        card.write(temporary)
        for file in (WEIGHTS, "adapter_config.json", TRAINING_CONFIGURATIONS, MODEL_CARD, METADATA):
            (temporary / file).chmod((temporary / METADATA).stat().st_mode)  # safetensors writes for the owner only
            (temporary / file).replace(output / file)
