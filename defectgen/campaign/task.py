"""One task of a run: the inputs of a calculation, if they are not there, and the calculation, if it is not done.

A task may be given to any process that sees the campaign's folder, and given again: what is done is not done again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectgen.core import Configuration, Host
from defectgen.dft.codes import CODES, EngineOptions
from defectgen.dft.compute import DONE, FAILED, HELD, LOG, JobLimits, compute, read_names
from defectgen.dft.inputs import MANIFEST, dft_inputs
from defectgen.dft.settings import DftSettings
from defectgen.errors import DefectgenError
from defectgen.io.documents import read_object
from defectgen.io.files import FULL
from defectgen.io.folders import FolderInUseError, claimed, contents

LEAST_FREE_BYTES = 100_000_000
"""With less room on the disk nothing is started."""

LOST = "lost"
"""Status of a task that no worker brought to its end, which says nothing of the structure."""

NO_ROOM = "no space left on the disk"


@dataclass(frozen=True)
class Task:
    """What a worker needs to know; plain values only.

    Attributes:
        folder: of the calculation, or of the references.
        only: one of the calculations in it; empty for all.
        host: see `Host.to_dict`.
        keys: configurations that inputs are written for.
        references: whether these are the host and the elemental phases of the configurations.
        code: the DFT code.
        settings: see `DftSettings`, as plain values.
        relax: potential that moves the atoms first; None for none.
        command: see `EngineOptions`.
        python: see `EngineOptions`.
        hours: most wall time of an attempt.
        memory_gib: most memory of a process.
        retry_failed: whether what failed is tried again.
    """

    folder: str
    only: str
    host: dict[str, Any]
    keys: tuple[str, ...]
    references: bool
    code: str
    settings: dict[str, Any]
    relax: str | None = None
    command: str | None = None
    python: str | None = None
    hours: float | None = None
    memory_gib: float | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task.

    Attributes:
        status: ``done``, ``failed``, ``held by another run`` or `LOST`.
        reason: why it failed.
        cpu_s: CPU time of its attempts, also of earlier runs.
        fresh: whether this run did it.
    """

    status: str
    reason: str = ""
    cpu_s: float = 0.0
    fresh: bool = False

    @property
    def no_room(self) -> bool:
        """Whether the disk was full, so that it says nothing of the structure."""
        return any(text in self.reason for text in (*FULL, NO_ROOM))


def run_task(task: Task) -> TaskOutcome:
    """Do a task unless it is done, has failed before, or another process has it."""
    folder = Path(task.folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < LEAST_FREE_BYTES:
            return TaskOutcome(FAILED, NO_ROOM)
        prepare(task, folder)
        return _compute(task, folder)
    except FolderInUseError:
        return TaskOutcome(HELD)
    except DefectgenError as error:
        return TaskOutcome(FAILED, str(error))
    except OSError as error:
        return TaskOutcome(FAILED, error.strerror or str(error))


def prepare(task: Task, folder: Path) -> None:
    """Write the inputs unless they are complete.

    Raises:
        FolderInUseError: another run is writing them.
        DefectgenError: what the code cannot do, or a potential that cannot relax the cell.
    """
    if (folder / MANIFEST).is_file():
        return
    host = Host.from_dict(task.host)
    with claimed(folder):
        if (folder / MANIFEST).is_file():  # another run has written them meanwhile, or what a killed one left is whole
            return
        dft_inputs(
            [Configuration.from_key(host, key) for key in task.keys],
            folder,
            task.code,
            settings=DftSettings.model_validate(task.settings),
            references="only" if task.references else False,
            relax=None if task.references else task.relax,
        )


def _compute(task: Task, folder: Path) -> TaskOutcome:
    outcomes = compute(
        folder,
        only=(task.only,) if task.only else (),
        options=EngineOptions(task.command, task.python),
        limits=JobLimits(task.hours, task.memory_gib),
        retry_failed=task.retry_failed or _was_full(folder),
    )
    if all(outcome.status == FAILED and not outcome.attempts for outcome in outcomes):
        _forget(folder)
    cpu_s = sum(attempt.cpu_s for outcome in outcomes for attempt in outcome.attempts)
    for status in (HELD, FAILED):
        if bad := [outcome for outcome in outcomes if outcome.status == status]:
            return TaskOutcome(status, bad[0].reason, cpu_s, bad[0].fresh)
    return TaskOutcome(DONE, "", cpu_s, any(outcome.fresh for outcome in outcomes))


def _forget(folder: Path) -> None:
    """Remove inputs that nothing was started with, e.g. for want of pseudopotentials: the next run writes them anew."""
    with contextlib.suppress(FolderInUseError), claimed(folder):
        if not any(folder.rglob(LOG)):
            for item in contents(folder):
                shutil.rmtree(item) if item.is_dir() else item.unlink()


def _was_full(folder: Path) -> bool:
    """Whether a calculation failed because the disk was full, which is no reason to leave it."""
    for name in read_names(folder):
        state = folder / name / "state.json"
        if state.is_file():
            values = read_object(state, {"status": str, "reason": str})
            if values["status"] == FAILED and any(text in values["reason"] for text in FULL):
                return True
    return False


def check_engine(code: str, command: str | None, python: str | None) -> Sequence[str]:
    """The words that start the code.

    Raises:
        DefectgenError: it is not installed; says how to get it.
    """
    return CODES.find(code).command(EngineOptions(command, python))
