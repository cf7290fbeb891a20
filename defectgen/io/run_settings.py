"""The settings of a run that may be stopped and goes on: a file in its folder, which other settings are refused by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defectgen.errors import UsageError
from defectgen.io.documents import read_object
from defectgen.io.files import write_text
from defectgen.io.folders import contents


def claim_settings(folder: Path, name: str, settings: Mapping[str, Any]) -> None:
    """Note the settings of a run in its folder, which is empty or of a run of this kind with the same ones.

    Args:
        folder: of the run, claimed.
        name: of the kind of run, e.g. ``sweep``; the file is ``NAME.json``.
        settings: in types of JSON.

    Raises:
        UsageError: it holds a run with other settings, or other files.
    """
    path = folder / f"{name}.json"
    if path.is_file():
        try:
            before = read_object(path)
        except (OSError, ValueError):
            before = {}
        if changed := sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k)):
            got = ", ".join(f"{key} {before.get(key)}" for key in changed)
            raise UsageError(f"{folder} holds a {name} with {got}.", "Name another folder, or the same settings.")
        return
    if contents(folder):
        raise UsageError(f"{folder} is not empty and holds no {name}.", "Name another folder.")
    write_text(path, json.dumps(settings, indent=1) + "\n")
