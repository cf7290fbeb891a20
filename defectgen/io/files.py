"""Files that appear complete or not at all, their checksums, and whether a place can be written to at all."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.locks import WORKPLACE, Workplace, holding, real_path, remove_empty, work_folder

LONGEST_WAIT_S = 60.0
"""How long a file waits for another run that writes the same one."""

_numbers = itertools.count()


def refuse_existing(path: Path, overwrite: bool | None) -> None:
    """Raise a `UsageError` if the path is a folder, or a file that may not be replaced.

    Args:
        path: of the file.
        overwrite: whether it may be; None for a command without that option.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder, expected a file.", "Name another one.")
        if not overwrite and (path.exists() or path.is_symlink()):
            advice = "Choose another file." if overwrite is None else "Name another file, or pass --overwrite."
            raise UsageError(f"{path} exists already.", advice)
    except OSError as error:  # e.g. a name that is too long
        raise UsageError(f"{path} cannot be written ({error.strerror}).", "Name another file.") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file in a folder of ours, then rename it to `path`; nothing is left behind if that fails.

    What a killed process leaves is removed when the same file is written again.

    Args:
        path: of the file, or of a folder that is not there yet.
        write: makes the file or folder at the path that it is given.

    Raises:
        DefectgenError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_folder(path) as folder:
            part = folder / f"{next(_numbers)}.part"
            try:
                write(part)
                part.replace(path)
            finally:
                if part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                else:
                    part.unlink(missing_ok=True)
    except Exception as error:
        reason = write_problem(error)
        if reason is None:
            raise
        advice = "Free some space, then give the same command again." if reason in FULL else "Name another file."
        raise DefectgenError(f"{path} cannot be written: {reason}.", advice) from error


FULL = ("No space left on device", "No space left", "disk is full", "File too large", "Disk quota exceeded")
"""What libraries say, each with an error of its own, of a disk that takes no more."""

BROKEN_PARQUET = "Invalid thrift: transport error"
"""What polars says where it cannot write the end of a parquet file."""


def write_problem(error: Exception) -> str | None:
    """Why a file cannot be written, if an error says that."""
    if isinstance(error, DefectgenError):
        return None
    said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if BROKEN_PARQUET in said:
        return FULL[0]
    return next((text for text in FULL if text in said), said if isinstance(error, OSError) else None)


def write_resumed(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill ``NAME.part`` beside the file, then rename it to `path`; it stays if that fails.

    Args:
        path: of the file.
        write: adds what is missing to the path that it is given, which an earlier attempt may have left, and checks it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with its line ends as they are; see `write_whole`."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


@contextmanager
def _part_folder(path: Path) -> Iterator[Path]:
    """A folder to make a file in, on its own disk: that of the locked folder that it goes to, or one for a moment."""
    found = work_folder(path)
    if found is not None:
        yield found
        return
    place = _own_workplace(path)
    workplace = Workplace.take(place, LONGEST_WAIT_S)
    if workplace is None:
        raise DefectgenError(f"another run is writing {path}.", "Wait for it to end, or name another file.")
    try:
        yield place
    finally:
        workplace.remove()


def _own_workplace(path: Path) -> Path:
    name = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:8]
    return path.parent / f"{WORKPLACE}-{name}"


@contextmanager
def claimed_files(*paths: Path | None, overwrite: bool | None = None) -> Iterator[None]:
    """Keep other runs away from files that this one is going to write; meant to last as long as the work.

    Args:
        paths: of the files; None stands for one that is not wanted.
        overwrite: whether those that are there may be replaced; None for a command without that option.

    Raises:
        UsageError: a file is there, cannot be written, or has a name that is too long.
        DefectgenError: another run is going to write one of them.
    """
    with ExitStack() as claims:
        for path in paths:
            if path is not None:
                claims.enter_context(_claimed_file(path))
                refuse_existing(path, overwrite)
        yield


@contextmanager
def _claimed_file(path: Path) -> Iterator[None]:
    place = path.absolute().parent
    made: list[Path] = []
    try:
        made = [folder for folder in (place, *place.parents) if not folder.exists()]
        place.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # a name that is too long shows here
        workplace = Workplace.take(_own_workplace(path))
    except OSError as error:
        remove_empty(made)
        raise UsageError(f"{path} cannot be written ({error.strerror}).", "Name another file.") from error
    if workplace is None:
        raise DefectgenError(f"another run is writing {path}.", "Wait for it to end, or name another file.")
    try:
        with holding(real_path(path), workplace):
            yield
    finally:
        workplace.remove()
        remove_empty(made)


def file_hash(path: Path, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def require_writable(path: Path) -> None:
    """Make sure that a file or folder can be made, by making a folder beside it, or in it, for a moment.

    Raises:
        UsageError: it cannot.
    """
    place = path.absolute()
    try:
        while not place.exists():
            place = place.parent
        if place.is_file() and place != path.absolute():
            raise UsageError(f"{path} cannot be written: {place} is a file, expected a folder.", "Name another place.")
        place = place if place.is_dir() else place.parent
        with tempfile.TemporaryDirectory(prefix=f"{WORKPLACE}-", dir=place):
            pass
    except OSError as error:
        where = "" if place == path.absolute() else f"{place}: "
        raise UsageError(f"{path} cannot be written ({where}{error.strerror}).", "Name another place.") from error
