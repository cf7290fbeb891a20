"""Packages that are verbs of the library too: ``defectgen.design`` holds modules, ``defectgen.design(...)`` designs.

Python sets a package's name in its parent whenever one of its modules is imported, so that a function of that name
would vanish then.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


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
