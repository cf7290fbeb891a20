"""The JSON file that says what a folder of trained models holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, read_object
from defectgen.one_line import shown


def read_metadata(path: Path, version: int, models: str, advice: str) -> dict[str, Any]:
    """What the file says.

    Args:
        path: of the file.
        version: of the format that it must have.
        models: what the folder holds, e.g. ``a surrogate``.
        advice: how to get one.

    Raises:
        DefectgenError: no file, a damaged one, or another format.
    """
    try:
        metadata = read_object(path)
    except OSError as error:
        raise DefectgenError(
            f"{path.parent} holds no trained {models} ({path.name} cannot be read).", advice
        ) from error
    except DocumentError as error:
        raise DefectgenError(f"{path} is damaged ({error.reason}).", advice) from error
    found = metadata.get("format")
    if found != version:
        raise DefectgenError(f"{path.parent} holds {models} of format {shown(found)}, expected {version}.", advice)
    return metadata
