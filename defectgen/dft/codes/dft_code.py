"""What a DFT code must do to be one of those that inputs, engines and results know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from defectgen.dft.calculation import Calculation
from defectgen.dft.result import DftResult
from defectgen.dft.settings import DftSettings


@dataclass(frozen=True)
class Remedy:
    """A change after which a calculation that did not converge is tried again.

    Attributes:
        name: for the record, e.g. ``slower mixing``.
        apply: changes the inputs in a calculation's folder.
    """

    name: str
    apply: Callable[[Path], None]


@dataclass(frozen=True)
class EngineOptions:
    """How a code is started.

    Attributes:
        command: program with its arguments, e.g. ``mpirun -n 8 vasp_std``; None to look for it.
        python: of a code that is a Python library, its interpreter; None to look for it.
    """

    command: str | None = None
    python: str | None = None

    def placed(self) -> EngineOptions:
        """The same for a process in another folder: a program given by a relative path gets its absolute one."""
        program, blank, rest = (self.command or "").partition(" ")
        return EngineOptions(
            None if self.command is None else f"{_absolute(program)}{blank}{rest}",
            None if self.python is None else _absolute(self.python),
        )


def _absolute(program: str) -> str:
    return str(Path(program).absolute()) if "/" in program and Path(program).is_file() else program


class DftCode(Protocol):
    """A DFT code: its inputs, how it is started, and its results.

    Attributes:
        title: for people.
        remedies: what is tried, in this order, after a calculation did not converge.
    """

    title: str
    remedies: Sequence[Remedy]

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        """Write a calculation's inputs into a folder that exists.

        Returns:
            What the user has to know, a line each.

        Raises:
            UsageError: what the code cannot do.
        """
        ...

    def command(self, options: EngineOptions) -> Sequence[str]:
        """The words that start the code in a calculation's folder.

        Raises:
            DefectgenError: it is not installed; says how to get it.
        """
        ...

    def missing(self, folder: Path) -> str:
        """What a calculation needs and does not find where its inputs say, in one clause; empty if nothing."""
        ...

    def resume(self, folder: Path) -> None:
        """Make a calculation that was started before go on from its last atoms, as far as the code does not itself."""
        ...

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        """Complete what a calculation that is done has left, as far as the code does not itself, and clear up.

        Args:
            folder: of the calculation.
            command: the words that started the code.
        """
        ...

    def claims(self, path: Path) -> int:
        """Whether a file is a result of this code by its name: 0 for no; of several the highest counts."""
        ...

    def outdated(self, path: Path) -> bool:
        """Whether a newer file, which this code claims too, in another folder of the same run holds the same."""
        ...

    def read(self, path: Path) -> DftResult:
        """The result in a file that this code claims.

        Raises:
            DefectgenError: it cannot be read.
        """
        ...
