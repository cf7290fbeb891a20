"""Size and checksum of files, written down beside them and checked before another library reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, require_object
from defectgen.io.files import file_hash

Stamps = dict[str, dict[str, Any]]
"""By name of a file ``size_bytes`` and ``sha256``."""


def stamps(folder: Path, names: Iterable[str]) -> Stamps:
    """The stamps of those of some files in a folder that are there, by name."""
    found = sorted(name for name in set(names) if (folder / name).is_file())
    return {name: stamp(folder / name) for name in found}


def stamp(path: Path) -> dict[str, Any]:
    """The stamp of one file."""
    return {"size_bytes": path.stat().st_size, "sha256": file_hash(path)}


def check_stamps(folder: Path, expected: object, names: Iterable[str], source: str, advice: str) -> None:
    """Compare files with their stamps.

    Args:
        folder: of the files.
        expected: `Stamps` as they were read.
        names: of the files that must have one.
        source: where the stamps stand, e.g. ``surrogate.json``.
        advice: what to do.

    Raises:
        DefectgenError: no stamps, or a file that is missing or another one than was written.
    """
    for name in names:
        if not isinstance(expected, Mapping) or name not in expected:
            raise DefectgenError(f"{folder / source} has no checksum of {name}.", advice)
        try:
            wanted = require_object(expected[name], name, {"size_bytes": int, "sha256": str})
        except DocumentError as error:
            raise DefectgenError(f"{folder / source} is damaged ({error.reason}).", advice) from error
        path = folder / name
        if not path.is_file():
            raise DefectgenError(f"{path} is missing.", advice)
        if (size := path.stat().st_size) != wanted["size_bytes"]:
            raise DefectgenError(f"{path} has {size} bytes, {source} says {wanted['size_bytes']}.", advice)
        if file_hash(path) != wanted["sha256"]:
            raise DefectgenError(f"{path} is not the file that was written ({source} has another sha256).", advice)
