"""Folders of a few files, and processes that are killed while they write them, for tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from defectgen.io.folders import listing

FORK = multiprocessing.get_context("fork")


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def filler(files: dict[str, str]) -> Callable[[Path], None]:
    def fill(new: Path) -> None:
        for name, text in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)
        (new / "manifest.json").write_text(json.dumps({"files": listing(new)}))

    return fill


def run_child(work: Callable[[], Any]) -> int | None:
    """The exit code of a forked process; negative: the signal that ended it."""
    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


@contextmanager
def held_elsewhere(claim: Callable[[], Any]) -> Iterator[None]:
    """Another process has something for a time."""
    started, end = FORK.Event(), FORK.Event()

    def work() -> None:
        with claim():
            started.set()
            end.wait(60)

    child = FORK.Process(target=work)
    child.start()
    try:
        assert started.wait(60)
        yield
    finally:
        end.set()
        child.join(60)


def killed(work: Callable[[], Any], calls: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do some work in a process that is killed before its nth rename; whether it came so far."""

    def start() -> None:
        left = calls

        def counted(self: Path, target: Path, *, rename: Callable[[Path, Path], Path]) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        for name in ("rename", "replace"):
            before = getattr(Path, name)
            monkeypatch.setattr(Path, name, lambda self, target, before=before: counted(self, target, rename=before))
        work()

    code = run_child(start)
    assert code in (0, -signal.SIGKILL)
    return code != 0
