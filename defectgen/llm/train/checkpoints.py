"""The folder of a training run: whose it is, its checkpoints, and which of them is the best."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defectgen.config import StageConfig
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError, read_json, read_object
from defectgen.io.files import write_text
from defectgen.io.folders import contents
from defectgen.io.stamps import check_stamps, stamps

COMPLETE = "complete"
"""Written into a checkpoint after everything else: only such checkpoints are resumed from."""
CHECKPOINTS = "checkpoints"
RUN = "run.json"
DESIGN_METRIC = "eval_design_error_ev"
LOSS_METRIC = "eval_loss"
KEPT = 2
"""Checkpoints that are kept besides the best."""


def checkpoint(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after this step."""
    return folder / f"checkpoint-{step}"


def step_of(path: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(path.name.rpartition("-")[2])


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")), key=step_of)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)


def complete(folder: Path, step: int, best: int | None) -> None:
    """Mark the checkpoint of this step complete, and remove all others but the last `KEPT` and the best.

    The marker goes first out of a checkpoint that is removed, so that half of one never looks whole.
    """
    made = checkpoint(folder, step)
    names = [path.name for path in made.iterdir() if path.name != COMPLETE]
    write_text(made / COMPLETE, json.dumps(stamps(made, names), indent=1) + "\n")
    for path in complete_checkpoints(folder)[:-KEPT]:
        if step_of(path) != best:
            (path / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def check_checkpoint(path: Path) -> None:
    """Compare a complete checkpoint with what was written.

    Raises:
        DefectgenError: a file of it is missing or damaged.
    """
    advice = f"Remove the folder {path}: the run goes on from the checkpoint before."
    try:
        expected = read_object(path / COMPLETE)
    except DocumentError as error:
        raise DefectgenError(str(error), advice) from error
    check_stamps(path, expected, sorted(expected), COMPLETE, advice)


def best_step(history: Sequence[Mapping[str, float]], metric: str) -> int | None:
    """The step of the smallest finite value of a metric, the first of equals; None if there is none."""
    rows = [row for row in history if metric in row and math.isfinite(row[metric])]
    return int(min(rows, key=lambda row: row[metric])["step"]) if rows else None


def evaluations_since_best(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """How many evaluations in a row have not bettered the metric."""
    best = best_step(history, metric) or 0
    return sum(metric in row and row["step"] > best for row in history)


def run_identity(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the same run: configuration, records and their settings."""
    return {"config": dict(config), "data": manifest["data_sha256"], "settings": manifest["settings"]}


def _comparable(run: Mapping[str, Any], model: type[StageConfig]) -> Any:
    """A run without what does not change its result: how a step is shared out, and how often it is saved.

    Keys that are newer than the run have their default values in it.
    """
    config = model.model_validate(run["config"]).model_dump(mode="json")
    records = config.pop("batch_size") * config.pop("accumulation")
    for name in ("gradient_checkpointing", "save_steps"):
        config.pop(name)
    return json.loads(json.dumps({**run, "config": config, "records_per_step": records}))


def check_claim(output: Path, run: Mapping[str, Any], model: type[StageConfig]) -> None:
    """Check that a run may write into this folder; writes nothing.

    Args:
        output: folder of the adapter.
        run: see `run_identity`.
        model: of the run's configuration.

    Raises:
        UsageError: it holds other files, or belongs to another run.
    """
    path = output / RUN
    if not path.is_file():
        if (output / CHECKPOINTS).is_dir() and any((output / CHECKPOINTS).iterdir()):
            raise UsageError(
                f"{output} holds checkpoints of an unknown run ({RUN} is missing).", "Choose another folder."
            )
        if contents(output):
            raise UsageError(f"{output} holds other files.", "Choose another folder, which may be new.")
        return
    try:
        same = _comparable(read_json(path), model) == _comparable(run, model)
    except (ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise UsageError(f"{output} holds another run (other configuration or records).", "Choose another folder.")


def claim(output: Path, run: Mapping[str, Any]) -> None:
    """Note what run this folder is for."""
    write_text(output / RUN, json.dumps(run, indent=1))


@contextmanager
def clear_write_errors(output: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written, into one line.

    Raises:
        DefectgenError: in place of the error that says so.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        number = error.errno if isinstance(error, OSError) else None
        # safetensors and torch.save have error types of their own for what the system refuses.
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in text
        if full or "PytorchStreamWriter failed writing" in text or "inline_container" in text:
            raise DefectgenError(
                f"the disk of {output} is full.",
                "Free some space; the same command goes on from the last complete checkpoint.",
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise DefectgenError(f"{output} cannot be written ({error}).", "Choose another folder.") from error
        raise
