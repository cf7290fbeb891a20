"""Where tasks are done: here one by one, or by Parsl on this machine or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from defectgen.errors import UsageError

LOCAL = "local"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Lost:
    """What became of a task that no worker brought to its end.

    Attributes:
        reason: what is known of it.
    """

    reason: str


class Executor(Protocol):
    """Does tasks."""

    def outcomes(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R | Lost]]:
        """Do tasks, and say what became of each as it ends.

        Args:
            work: a function of a module, which does one task; any process may be told to do it again.
            tasks: values that can be sent to another process.

        Yields:
            The number of a task among them, and what `work` returned.
        """
        ...

    def close(self) -> None:
        """Let go of what it has."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """One after another in this process."""

    def outcomes(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R | Lost]]:
        """See `Executor`."""
        for number, task in enumerate(tasks):
            yield number, work(task)

    def close(self) -> None:
        """See `Executor`; there is nothing to let go of."""


def load_executor(name: str, run_folder: Path) -> Executor:
    """The executor ``local``, or that of a YAML file.

    Args:
        name: ``local``, a file, or the name of a shipped one (``two-workers``, ``slurm``, ``pbs``).
        run_folder: where Parsl keeps its logs.

    Raises:
        UsageError: no such file, one that does not fit, or a scheduler that is not here.
        DefectgenError: Parsl is not installed.
    """
    if name == LOCAL:
        return LocalExecutor()
    if not name:
        raise UsageError("got an empty executor, expected local or a YAML file.")
    from defectgen.execution.clusters import ParslExecutor, read_cluster, require_scheduler

    cluster = read_cluster(name)
    require_scheduler(cluster)
    return ParslExecutor(cluster, run_folder)
