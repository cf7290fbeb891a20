"""Libraries that come with an extra of this package, imported where they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from defectgen.errors import DefectgenError


def import_extra(module: str, extra: str, wanted_for: str) -> ModuleType:
    """A module of an extra.

    Raises:
        DefectgenError: the extra is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(
            f"{wanted_for} needs {module.partition('.')[0]}, which cannot be imported ({reason:.120}).",
            f"Install it with: pip install 'defectgen[{extra}]'",
        ) from error
