"""What happens beside the steps of a training run: signals, checkpoint markers, logs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from defectgen.io.files import write_text
from defectgen.llm.train.checkpoints import best_step, complete

LOG = "losses.jsonl"
TENSORBOARD = "tensorboard"
FIGURES = ("loss", "grad_norm", "learning_rate", "eval_loss", "rows_at_once")
"""What is logged besides the design metric."""

Report = Callable[[int, int, dict[str, float]], None]


class TrainingProgress(TrainerCallback):
    """Marks checkpoints complete, stops at a signal, and reports figures; in every process of a run."""

    def __init__(self, report: Report, metric: str | None) -> None:
        """Start with nothing to stop for.

        Args:
            report: called with step, number of steps, and new figures.
            metric: what the best checkpoint is chosen by; None if none is.
        """
        self.report = report
        self.metric = metric
        self.stop = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step; all processes stop after the same one."""
        self.report(state.global_step, state.max_steps, {})
        if args.world_size > 1:
            stop = torch.tensor([int(self.stop)], device=args.device)
            torch.distributed.all_reduce(stop, torch.distributed.ReduceOp.MAX)
            self.stop = bool(stop.item())
        if self.stop:
            control.should_save = control.should_training_stop = True
        elif state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Mark what every process has finished writing."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            best = None if self.metric is None else best_step(state.log_history, self.metric)
            complete(Path(args.output_dir), state.global_step, best)

    def on_log(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Hand new figures on."""
        self.report(state.global_step, state.max_steps, about.get("logs") or {})


class LossFile(TrainerCallback):
    """One JSON object a line: step, epoch and figures; a resumed run drops what came after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Write the history of the checkpoint, which is the truth, over whatever a killed run left."""
        if state.is_world_process_zero:
            write_text(self.path, "".join(_line(row) for row in state.log_history))

    def on_log(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Append one line."""
        if state.is_world_process_zero:
            row = {"step": state.global_step, "epoch": state.epoch} | (about.get("logs") or {})
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    """What is logged of a step; numbers that are not finite are null, as JSON has none."""
    named = {name: row[name] for name in row if name in FIGURES or name.startswith("eval_design_")}
    kept = {name: value if math.isfinite(value) else None for name, value in named.items()}
    return json.dumps({"step": row["step"], "epoch": row.get("epoch")} | kept) + "\n" if kept else ""


def tensorboard_installed() -> bool:
    """Whether event files can be written (extra ``tensorboard``)."""
    return importlib.util.find_spec("tensorboard") is not None


class TensorBoardFile(TrainerCallback):
    """Event files for TensorBoard; a resumed run hides what came after its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Open the file."""
        if state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, **about: Any) -> None:  # noqa: ARG002
        """Write the figures as ``train/...`` and ``eval/...``."""
        for name, value in (about.get("logs") or {}).items():
            if self.writer is not None and (name in FIGURES or name.startswith("eval_design_")):
                title = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
                self.writer.add_scalar(title, float(value), state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


@contextmanager
def stop_on_signal(progress: TrainingProgress) -> Iterator[None]:
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
