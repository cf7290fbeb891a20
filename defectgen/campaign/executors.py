"""Where the tasks of a run are done: here one by one, or by Parsl on this machine or a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from defectgen.campaign.task import Task, TaskOutcome, run_task
from defectgen.errors import UsageError

LOCAL = "local"


class Executor(Protocol):
    """Does tasks."""

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskOutcome]]:
        """Do tasks, and say what became of each as it ends: its number among them, and the outcome."""
        ...

    def close(self) -> None:
        """Let go of what it has."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """One after another in this process; each calculation in a process of its own."""

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskOutcome]]:
        """See `Executor`."""
        for number, task in enumerate(tasks):
            yield number, run_task(task)

    def close(self) -> None:
        """See `Executor`; there is nothing to let go of."""


def load_executor(name: str, run_folder: Path) -> Executor:
    """The executor ``local``, or that of a YAML file.

    Args:
        name: ``local``, a file, or the name of a shipped one (``two-workers``, ``slurm``, ``pbs``).
        run_folder: where Parsl keeps its logs.

    Raises:
        UsageError: no such file, or one that does not fit.
        DefectgenError: Parsl is not installed.
    """
    if name == LOCAL:
        return LocalExecutor()
    if not name:
        raise UsageError("got an empty executor, expected local or a YAML file.")
    from defectgen.campaign.clusters import ParslExecutor, read_cluster

    return ParslExecutor(read_cluster(name), run_folder)
