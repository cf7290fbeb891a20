"""Running a folder of inputs: each calculation in a process of its own, within limits, tried again where it helps.

The state of a calculation is a file beside its inputs, so that a run that was killed goes on where it was: what is done
is skipped, what was interrupted starts again from its last atoms, and what another run holds is left to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from defectgen.dft.codes import CODES, DftCode, EngineOptions
from defectgen.dft.inputs import MANIFEST, read_manifest
from defectgen.dft.result import DftResult
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.files import write_text
from defectgen.io.folders import FolderInUseError, claimed
from defectgen.io.locks import WORKPLACE
from defectgen.one_line import OneLine

STATE, LOG = "state.json", "run.log"

DONE, FAILED, HELD = "done", "failed", "held by another run"

GIB = 1 << 30

GRACE_S = 10.0
"""Seconds between asking a process to stop and killing it."""

CONTINUATIONS = 2
"""How often a relaxation that ran out of steps goes on."""


@dataclass(frozen=True)
class JobLimits:
    """What one attempt may take.

    Attributes:
        hours: of wall time; None for any.
        memory_gib: of address space of each process; None for any.
    """

    hours: float | None = None
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < 1e6:
                raise UsageError(f"got {name}={value}, expected more than 0 and less than a million.")


@dataclass(frozen=True)
class Attempt:
    """One start of a code.

    Attributes:
        change: the remedy before it, empty for the first one.
        problem: why it was not enough, empty if it was.
        wall_s: wall time.
        cpu_s: CPU time of the process and its children.
    """

    change: str
    problem: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, repr=False)
class Outcome(OneLine):
    """What became of a calculation.

    Attributes:
        name: its folder.
        status: `DONE`, `FAILED` or `HELD`.
        reason: why it failed, empty if it did not.
        attempts: the starts of the code, also those of earlier runs.
        fresh: whether this run did it.
    """

    name: str
    status: str
    reason: str = ""
    attempts: tuple[Attempt, ...] = field(default=())
    fresh: bool = False


def compute(
    folder: Path | str,
    *,
    only: Sequence[str] = (),
    options: EngineOptions | None = None,
    limits: JobLimits | None = None,
    retry_failed: bool = False,
    advance: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Run the calculations of a folder that `defectgen.dft.inputs.dft_inputs` wrote, one after the other.

    Args:
        folder: with the inputs.
        only: names of calculations; all if empty.
        options: how the code is started.
        limits: of each attempt.
        retry_failed: whether those that failed before are tried again.
        advance: called after each.

    Returns:
        An outcome a calculation, in the order of the inputs.

    Raises:
        UsageError: a name that the folder does not have.
        DefectgenError: no inputs there, or the code is not installed.
    """
    place = Path(folder)
    _, known = read_manifest(place)
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise UsageError(f"{place} has no calculation {unknown[0]}.", f"It has {', '.join(known)}.")
    code = CODES.find(read_object(place / MANIFEST, {"code": str})["code"])
    command = list(code.command((options or EngineOptions()).placed()))
    outcomes = []
    for name in known:
        if not only or name in only:
            outcomes.append(run_one(place / name, code, command, limits or JobLimits(), retry_failed))
            advance(outcomes[-1])
    return outcomes


def read_names(folder: Path) -> list[str]:
    """The names of the calculations of a folder of inputs, in order."""
    return list(read_manifest(folder)[1])


def run_one(
    folder: Path, code: DftCode, command: Sequence[str], limits: JobLimits, retry_failed: bool = False
) -> Outcome:
    """Run one calculation to its end, unless it is done, has failed before, or another run holds it.

    Args:
        folder: with its inputs.
        code: the DFT code.
        command: that starts it.
        limits: of each attempt.
        retry_failed: whether to try again what failed before.
    """
    if not folder.is_dir():
        raise DefectgenError(f"{folder} is not there.", "Write the inputs again.")
    try:
        with claimed(folder) as claim:
            before = _state(folder)
            if before is not None and (before.status == DONE or not retry_failed):
                return before
            adopted = _adopted(folder, code) if before is None else None
            if adopted is None and (missing := code.missing(folder)):
                return Outcome(folder.name, FAILED, missing, fresh=True)  # no state: nothing was tried
            outcome = adopted or _attempts(folder, code, command, limits, claim.workplace.lock)
            if outcome.status == DONE:
                code.finish(folder, command)
            kept = {key: value for key, value in asdict(outcome).items() if key != "fresh"}
            write_text(folder / STATE, json.dumps(kept, indent=2) + "\n")
            return outcome
    except FolderInUseError:
        return Outcome(folder.name, HELD)


def result_file(folder: Path, code: DftCode) -> Path | None:
    """The file in a calculation's folder that tells most of its result, the newest of several such."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and WORKPLACE not in path.parts]
    claims = [(claim, path.stat().st_mtime_ns, path) for path in files if (claim := code.claims(path))]
    return max(claims)[2] if claims else None


def _adopted(folder: Path, code: DftCode) -> Outcome | None:
    """A result that a run left which was killed before it could say so, or that was computed by other means."""
    result, _ = _result(folder, code, None)
    return Outcome(folder.name, DONE) if result is not None and not _problem(result, "", "") else None


def _attempts(folder: Path, code: DftCode, command: Sequence[str], limits: JobLimits, lock: BinaryIO) -> Outcome:
    attempts: list[Attempt] = []
    remedies = list(code.remedies)
    change, continued, started = "", 0, (folder / LOG).exists()
    while True:
        if started:
            code.resume(folder)
        stale = _stamp(folder, code)
        clock, used = time.monotonic(), _children_cpu_s()
        failure = _start(folder, command, limits, change, lock)
        spent = time.monotonic() - clock, _children_cpu_s() - used
        started = True
        result, unread = _result(folder, code, stale)
        problem = _problem(result, unread, failure)
        attempts.append(Attempt(change, problem, round(spent[0], 2), round(spent[1], 2)))
        if not problem:
            return Outcome(folder.name, DONE, "", tuple(attempts), fresh=True)
        if result is not None and result.electronic_converged and continued < CONTINUATIONS and not _crashed(failure):
            continued += 1
            change = f"relaxation goes on ({continued})"
        elif result is not None and result.electronic_converged is False and remedies and not _limited(failure):
            remedy = remedies.pop(0)
            remedy.apply(folder)
            change = remedy.name
        else:
            return Outcome(folder.name, FAILED, problem, tuple(attempts), fresh=True)


def _problem(result: DftResult | None, unread: str, failure: str) -> str:
    """Why an attempt is not enough, in one clause; empty if it is."""
    if _limited(failure):
        return failure
    if result is None:
        return failure or unread
    if _crashed(failure) and not result.converged:
        return failure
    if result.electronic_converged is False:
        return "the self-consistent cycle did not converge"
    if result.ionic_converged is False:
        return "the relaxation ran out of steps"
    return failure


def _limited(failure: str) -> bool:
    return failure.startswith("ran past")


def _crashed(failure: str) -> bool:
    """Whether the code was stopped or gave up; an exit code alone also stands for a cycle that did not converge."""
    return _limited(failure) or "ended with signal" in failure or "Error in routine" in failure


def _stamp(folder: Path, code: DftCode) -> tuple[Path, int] | None:
    """The result file and its time."""
    path = result_file(folder, code)
    return None if path is None else (path, path.stat().st_mtime_ns)


def _result(folder: Path, code: DftCode, stale: tuple[Path, int] | None) -> tuple[DftResult | None, str]:
    """What an attempt left, or why that cannot be read; a file of an earlier attempt does not count."""
    new = _stamp(folder, code)
    if new is None or new == stale:
        return None, "it left no results"
    path = new[0]
    try:
        return code.read(path), ""
    except DefectgenError as error:
        return None, str(error)


def _start(folder: Path, command: Sequence[str], limits: JobLimits, change: str, lock: BinaryIO) -> str:
    """Run the code once; why it failed, in one clause, or nothing.

    The code inherits the lock, so that it still holds the folder where this process is killed and the code is not.
    """
    seconds = None if limits.hours is None else limits.hours * 3600
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"== {' '.join(command)}{f'  ({change})' if change else ''}\n")
        log.flush()
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                env={"OMP_NUM_THREADS": "1", **os.environ},
                preexec_fn=_limit_memory(limits),
            )
        except OSError as error:
            return f"{command[0]} cannot be started ({error.strerror or error})"
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _stop(process)
            return f"ran past {limits.hours:g} h"
        except BaseException:  # Ctrl-C: the code must not go on alone
            _stop(process)
            raise
    if code == 0:
        return ""
    last = _last_line(folder / LOG)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    memory = " (more memory than allowed?)" if "MemoryError" in last or "bad_alloc" in last or code == -9 else ""
    return f"{command[0]} ended with {how}{memory}{f': {last}' if last else ''}"


def _limit_memory(limits: JobLimits) -> Callable[[], None] | None:
    if limits.memory_gib is None:
        return None
    allowed = int(limits.memory_gib * GIB)
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it started."""
    for what in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, what)
        try:
            process.wait(GRACE_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _last_line(path: Path) -> str:
    """What the code said last, or, of one that frames its errors as pw.x does, the error."""
    text = path.read_text(encoding="utf-8", errors="replace").rpartition("\n== ")[2]
    if framed := re.search(r"%{20,}\n(.*?)\n\s*%{20,}", text, re.DOTALL):
        return " ".join(framed[1].split())[:160]
    lines = [line.strip() for line in text.splitlines()[1:][-20:]]
    return next((line for line in reversed(lines) if line), "")[:160]


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _state(folder: Path) -> Outcome | None:
    path = folder / STATE
    if not path.is_file():
        return None
    values: Mapping[str, Any] = read_object(path, {"name": str, "status": str, "reason": str, "attempts": list})
    try:
        attempts = tuple(Attempt(**item) for item in values["attempts"])
    except TypeError as error:
        raise DefectgenError(f"{path}: is damaged ({error}).", "Remove it to run the calculation again.") from error
    return Outcome(folder.name, values["status"], values["reason"], attempts)
