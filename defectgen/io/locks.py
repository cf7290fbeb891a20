"""Places that one run at a time writes to. The lock is the operating system's: it goes when a process ends, however."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from defectgen.errors import DefectgenError

WORKPLACE = ".defectgen"
"""Subfolder for what is on its way into a folder; beside a single file its name goes on with a checksum."""
LOCK = "lock"
POLL_S = 0.05
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}
"""What file systems without locks answer."""


def try_lock(file: BinaryIO) -> bool:
    """Take the lock of an open file unless another process, or another opening of the file, has it.

    Raises:
        DefectgenError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        raise DefectgenError(f"cannot lock {file.name} ({error.strerror}).", "Use a folder on a local disk.") from error
    return True


@dataclass(frozen=True)
class Workplace:
    """A folder that this process alone writes to while it holds the lock in it.

    Attributes:
        path: of the folder.
        lock: the open, locked file in it.
    """

    path: Path
    lock: BinaryIO

    @classmethod
    def take(cls, path: Path, wait_s: float = 0.0) -> Workplace | None:
        """Make the folder and lock it; None if another one has it for longer than `wait_s` seconds.

        One that a killed process left is taken over, with what is in it.

        Raises:
            OSError: it cannot be made.
            DefectgenError: the file system has no locks.
        """
        deadline = time.monotonic() + wait_s
        while True:
            path.mkdir(exist_ok=True)
            try:
                lock = (path / LOCK).open("ab")
            except FileNotFoundError:  # removed between the two calls by the run that had it
                continue
            if try_lock(lock):
                if _is_open(lock, path / LOCK):
                    return cls(path, lock)
                lock.close()  # of the run before, which has removed the file since
                continue
            lock.close()
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)

    def remove(self) -> None:
        """Remove the folder with what is left in it, and give the lock back."""
        if sys.platform == "win32":  # an open file cannot be removed there
            self.lock.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()


def _is_open(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that now has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Held:
    """A file or folder that this process has locked.

    Attributes:
        thread: that did so.
        workplace: in the folder, or beside the file.
        continued: whether a killed run had all but moved its files into the folder, which has been done since.
    """

    thread: int
    workplace: Workplace
    continued: bool = False


_HELD: dict[Path, Held] = {}
"""By the real path."""


def real_path(path: Path) -> Path:
    """A path without links in the folders above."""
    return path.parent.resolve() / path.name if path.name else path.resolve()


def held(place: Path) -> Held | None:
    """The lock that the calling thread has on a file or folder, by its real path; None if it has none."""
    found = _HELD.get(place)
    return found if found is not None and found.thread == threading.get_ident() else None


@contextmanager
def holding(place: Path, workplace: Workplace, continued: bool = False) -> Iterator[Held]:
    """Let `held` and `work_folder` know of a lock for a time."""
    _HELD[place] = Held(threading.get_ident(), workplace, continued)
    try:
        yield _HELD[place]
    finally:
        del _HELD[place]


def work_folder(path: Path) -> Path | None:
    """Where a file can be made that is to get this path, if this thread has locked it or a folder above it."""
    if not _HELD:
        return None
    real = real_path(path)
    found = next(filter(None, map(held, (real, *real.parents))), None)
    return None if found is None else found.workplace.path


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that hold nothing, the innermost first in the list."""
    for folder in folders:
        with suppress(OSError):  # not empty, or never made
            folder.rmdir()
