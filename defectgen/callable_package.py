"""Packages that are verbs of the library too: ``defectgen.design`` holds modules, ``defectgen.design(...)`` designs.

Python sets a package's name in its parent whenever one of its modules is imported, so that a function of that name
would vanish then.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from defectgen.errors import UsageError

TABLE_THREAD = r"polars-\d+"
"""Name of a thread of polars that works on tables."""


class Forks:
    """Whether this process was forked from one in which polars has worked: its threads are gone, their locks are held.

    Attributes:
        waits: whether a table would be waited for without end here.
    """

    waits = False
    _working = False

    @classmethod
    def before(cls) -> None:
        """Look whether polars has threads; where the system does not tell (no ``/proc``), it counts as having none."""
        names = []
        with contextlib.suppress(OSError):
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # it has just ended
                    names.append((task / "comm").read_text().strip())
        cls._working = any(re.fullmatch(TABLE_THREAD, name) for name in names)

    @classmethod
    def in_child(cls) -> None:
        """Keep what was seen."""
        cls.waits = cls.waits or cls._working


if hasattr(os, "register_at_fork"):  # where processes can be forked
    os.register_at_fork(before=Forks.before, after_in_child=Forks.in_child)


class CallablePackage(ModuleType):
    """A package that hands calls on to one of its functions, which is imported with the first call."""

    _verb: tuple[str, str]

    @property
    def _function(self) -> Callable[..., Any]:
        module, name = self._verb
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if Forks.waits:
            raise UsageError(
                "this process was forked from one that has worked with tables, and would wait for ever.",
                "Start processes by spawn: multiprocessing.get_context('spawn').Pool().",
            )
        return self._function(*args, **kwargs)


def make_callable(package: str, module: str, function: str) -> None:
    """Let calls of a package call a function of one of its modules.

    Args:
        package: dotted name of a package that is being imported.
        module: dotted name of the module.
        function: its name there.
    """
    found = sys.modules[package]
    found.__class__ = CallablePackage
    found._verb = (module, function)  # type: ignore[attr-defined]
