"""Commands in forked children of one process that has everything imported, with a fault at a chosen file operation.

The faults live here and not in the package: an audit hook sees every open for writing, rename, unlink, mkdir and rmdir
below a folder; a limit on the size of files ends, or fails, a write of any library half-way.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MUTATING = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.truncate": 1}
"""Audit events of operations that change a folder, and how many paths they begin with."""


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        kind: ``kill``, ``signal`` or ``busy`` at an operation; ``half`` or ``full``: of files that grow larger.
        number: of the operation, from 1, or bytes.
        signal: that is sent.
    """

    kind: str
    number: int
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: exit code, or the signal as a negative number.
        said: its stderr.
        operations: that it got to, e.g. ``open out/manifest.json``; only of a run without a fault.
    """

    code: int
    said: str
    operations: tuple[str, ...] = ()


def _place(path: Any, folder_fd: int) -> str:
    text = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    if text and not os.path.isabs(text) and folder_fd >= 0:  # noqa: PTH117 - no Path: it would raise events
        with contextlib.suppress(OSError):
            text = f"{os.readlink(f'/proc/self/fd/{folder_fd}')}/{text}"  # noqa: PTH115
    return os.path.abspath(text) if text else ""  # noqa: PTH100


def watch_operations(root: Path, act: Callable[[int, str], None]) -> None:
    """Call `act` with number and name of each operation below a folder, before it is done; not to be undone.

    Processes that this one forks are watched too, and count with it.
    """
    inside = f"{root}/"
    count = mmap.mmap(-1, 4)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
            places = [_place(path, -1)]
        elif event in MUTATING:
            n = MUTATING[event]
            folders = [fd for fd in arguments[n:] if isinstance(fd, int)]
            places = [_place(path, folders[-1] if folders else -1) for path in arguments[:n]]
        else:
            return
        if any(place.startswith(inside) for place in places):
            number = int.from_bytes(count[:4], "little") + 1
            count[:4] = number.to_bytes(4, "little")
            act(number, f"{event.removeprefix('os.')} {places[-1].removeprefix(inside)}")

    sys.addaudithook(hook)


def run_child(work: Callable[[], int], root: Path, fault: Fault | None = None, timeout_s: float = 300.0) -> Ended:
    """Do some work in a forked child.

    Args:
        work: gives the exit code.
        root: the folder whose operations count.
        fault: what happens to it.
        timeout_s: after which it is killed, and an error raised.
    """
    log = root.parent / "operations.txt"
    log.unlink(missing_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            nothing = os.open(os.devnull, os.O_RDWR)
            for target, source in ((0, nothing), (1, nothing), (2, writing)):
                os.dup2(source, target)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            _prepare(root, fault, log)
            code = work()
            sys.stderr.flush()
        except BaseException as error:
            print(f"harness: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writing)
    try:
        said = _read_all(reading, timeout_s, child)
    finally:
        os.close(reading)
    _, status = os.waitpid(child, 0)
    operations = tuple(log.read_text().splitlines()) if log.is_file() else ()
    return Ended(os.waitstatus_to_exitcode(status), said, operations)


def _read_all(pipe: int, timeout_s: float, child: int) -> str:
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([pipe], [], [], timeout_s)
        if not ready:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(f"a command said nothing for {timeout_s} s: {b''.join(parts).decode()[-500:]}")
        part = os.read(pipe, 65536)
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)


def _prepare(root: Path, fault: Fault | None, log: Path) -> None:
    """In the child: what is to happen; without a fault the operations are written down."""
    if fault is None:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        watch_operations(root, lambda _, name: os.write(written, f"{name}\n".encode()) and None)
    elif fault.kind in ("half", "full"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault.kind == "half" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.number, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    else:

        def act(number: int, _: str) -> None:
            if number == fault.number:
                os.kill(os.getpid(), fault.signal)

        watch_operations(root, act)


class ForkedDriver:
    """In place of a subprocess that runs the driver of ASE's calculators: a fork, which faults reach as well."""

    def __init__(self, command: Sequence[str], *, cwd: Path, stdout: Any, **_: Any) -> None:
        from defectgen.dft.codes.calculator_driver import main

        assert command[-1] == "defectgen.dft.codes.calculator_driver"
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                os.chdir(cwd)
                for target in (1, 2):
                    os.dup2(stdout.fileno(), target)
                code = main()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                code = 1
            finally:
                sys.stdout.flush()
                os._exit(code)

    def wait(self, _seconds: float | None = None) -> int:
        """The exit code, or the signal as a negative number."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def chosen(operations: Sequence[Any], n: int) -> list[int]:
    """Numbers of at most `n` operations, spread evenly, the first and the last among them."""
    if n >= len(operations):
        return list(range(1, len(operations) + 1))
    return sorted({1 + round(k * (len(operations) - 1) / max(n - 1, 1)) for k in range(n)})
