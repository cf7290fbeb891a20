"""`defectgen finetune`: LoRA on instruction records."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from defectgen_cli.options import JsonOption, SetOption
from defectgen_cli.output import EXIT_INTERRUPTED, emit, say, size_text, span

if TYPE_CHECKING:
    from defectgen.llm.train.finetune_config import FinetuneConfig


def finetune(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="YAML file, or a shipped one: smollm2-cpu, bulk/smollm2-cpu, ..."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Records of build-data, or pairs of feedback.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the adapter.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--start-from", metavar="DIR|NAME", help="Go on from this adapter instead of from nothing."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Registered name, folder, or name on the hub.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check records and config, count steps and memory; train nothing.")
    ] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a language model with LoRA.

    It learns instruction records, or pairs of its own proposals. The loss counts the completion only.
    Checkpoints are written on the way: after Ctrl-C, SIGTERM
    or a kill, the same command goes on from the last one. Several GPUs are used through torchrun or
    accelerate launch, see docs/training.md.
    """
    from defectgen.config import config_name, find_config, load_config
    from defectgen.errors import UsageError
    from defectgen.llm.train.finetune_config import FinetuneConfig
    from defectgen.llm.train.record_folder import read_manifest
    from defectgen.models import adapter_folder

    path = find_config(config, "defect")
    settings = load_config(
        FinetuneConfig,
        path,
        overrides or (),
        initial_adapter=None if start_from is None else str(adapter_folder(start_from)),
        base_model=base_model,
        max_steps=max_steps,
        seed=seed,
    )
    read_manifest(data)  # what is wrong with it shows before the libraries are loaded, which takes seconds
    if dry_run:
        _show_dry_run(settings, data, as_json)
        return
    if output is None:
        raise UsageError("no folder for the adapter.", "Add -o DIR, or --dry-run to train nothing.")
    first = os.environ.get("RANK", "0") == "0"  # of several processes the first one speaks
    if first:
        say("loading libraries and base model ...")
    from defectgen.llm.train.callbacks import LOG, TENSORBOARD, tensorboard_installed
    from defectgen.llm.train.finetune import finetune as train

    curves = f"tensorboard --logdir {output / TENSORBOARD}" if tensorboard_installed() else "extra tensorboard missing"
    if first:
        say(f"losses go to {output / LOG}; curves: {curves}")
    given = [("--base-model", base_model), ("--max-steps", max_steps), ("--seed", seed)]
    changes = [f"{name} {value}" for name, value in given if value is not None]
    changes += ["--start-from ADAPTER"] if start_from is not None else []
    changes += [f"--set {item}" for item in overrides or ()]
    name = config_name(path).removeprefix("defect/")
    command = " ".join(["defectgen finetune", name, "--data RECORDS -o ADAPTER", *changes])
    result = train(settings, data, output, _Figures() if first else _nothing, command)
    if not first:
        raise typer.Exit(0 if result.adapter else EXIT_INTERRUPTED)
    summary = {
        "adapter": result.adapter,
        "steps": result.steps,
        "total_steps": result.total_steps,
        "best_step": result.best_step,
        "validation_losses": result.validation_losses,
        "design": result.design,
        "seconds": round(result.seconds, 1),
        "finished": result.adapter is not None,
    }
    if result.adapter is None:
        emit(summary, as_json)
        say(f"stopped after step {result.steps} of {result.total_steps}; the same command goes on from there.")
        raise typer.Exit(EXIT_INTERRUPTED)
    last = f", validation loss {result.validation_losses[-1][1]:.4f}" if result.validation_losses else ""
    kept = f"; the weights are those after step {result.best_step}" if result.best_step != result.steps else ""
    emit(summary, as_json, f"adapter in {result.adapter} after {result.steps} steps{last}{kept}")


def _nothing(*_: object) -> None:
    """Where a report goes that nobody reads."""


class _Figures:
    """Prints the figures of a run as they come, with the time that is left."""

    TITLES: ClassVar = {
        "loss": "loss",
        "eval_loss": "validation loss",
        "eval_design_error_ev": "design error (eV)",
        "eval_design_within_20mev": "within 20 meV",
    }

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first: int | None = None

    def __call__(self, step: int, total: int, figures: dict[str, float]) -> None:
        self.first = step if self.first is None else self.first
        if "rows_at_once" in figures:
            say(f"step {step}/{total}: out of memory, going on with {figures['rows_at_once']:.0f} records at once")
        shown = [f"{title} {float(figures[key]):.4f}" for key, title in self.TITLES.items() if key in figures]
        if shown:
            pace = (time.monotonic() - self.started) / max(step - self.first + 1, 1)
            say(f"step {step}/{total}: {', '.join(shown)}, about {span((total - step) * pace)} left")


def _show_dry_run(settings: FinetuneConfig, data: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from defectgen.llm.train.dry_run import dry_run

    found = dry_run(settings, data)
    memory = size_text(found.memory_bytes)
    text = (
        f"{found.train_records} training and {found.validation_records} validation records, longest "
        f"{found.longest_tokens} tokens (prompt {found.longest_prompt_tokens}, max_length {settings.max_length})\n"
        f"{found.steps} steps of {found.records_per_step} records, {found.epoch_tokens} tokens a pass\n"
        f"{found.trained_weights} weights trained beside {found.weights}, about {memory} of memory"
    )
    emit(asdict(found), as_json, text)
