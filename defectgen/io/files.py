"""Files that appear complete or not at all, their checksums, and whether a place can be written to at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from defectgen.errors import DefectgenError, UsageError


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise a `UsageError` if the path is a folder, or a file that may not be replaced."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a file.", "Name another one.")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path} exists already.", "Name another file, or pass --overwrite to replace it.")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a part file beside `path`, then rename it; nothing is left behind if that fails.

    Raises:
        DefectgenError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DefectgenError(f"{path} cannot be written: {error.strerror or error}.", "Name another file.") from error


def file_hash(path: Path, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def require_writable(path: Path) -> None:
    """Make sure that a file or folder can be made, by making a folder beside it, or in it, for a moment.

    Raises:
        UsageError: it cannot.
    """
    whole = path.absolute()
    place = whole if whole.is_dir() else next(known for known in whole.parents if known.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".defectgen-", dir=place):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({place}: {error.strerror}).", "Name another place.") from error
