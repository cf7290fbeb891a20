"""What a command says: its result on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any, NoReturn

import typer

from defectgen.one_line import CONTROL, encodable, on_one_line, printable

EXIT_PARTIAL = 3
"""Exit code of a run that wrote less than was asked for; what is missing is named."""

EXIT_INTERRUPTED = 130
"""Exit code of a run that Ctrl-C or SIGTERM ended."""

SHOWN_SKIPPED = 10
"""Names of skipped files that are shown."""

MIN_COLUMNS, MAX_COLUMNS = 40, 80
"""Narrowest and widest text for people."""

PLAIN_INTERVAL_S = 10.0
"""Seconds between two progress lines when stderr is not a terminal."""

RATE_FROM_S = 1.0
"""Seconds after which a rate is stated; before, loading and first calls count more than the work."""

FORETELL_FROM = 0.05
"""Share that must be done before the time that is left is stated: the first ones wait for what is made once."""


def say(text: str) -> None:
    """Print one message on stderr as one line: file names and contents may hold line breaks and control characters."""
    print(on_one_line(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a line of a result on stdout, without control characters."""
    print(printable(text))


def tell_skipped(skipped: Sequence[Path], what: str = "structures") -> None:
    """Count and name the files of folders that a command left out because of their names."""
    if skipped:
        kind = f"that is no {singular(what)} by its name" if len(skipped) == 1 else f"that are no {what} by their names"
        say(f"skipped {counted(len(skipped), 'files')} {kind}: {_names(skipped)}")


def tell_left_out(left_out: Sequence[Path]) -> None:
    """Count and name the files of folders of crystals that a command left out, and say why."""
    from defectgen.io.crystal_files import is_crystal_file

    tell_skipped([path for path in left_out if not is_crystal_file(path)], "crystals")
    if beside := [path for path in left_out if is_crystal_file(path)]:
        say(
            f"skipped {counted(len(beside), 'files')} beside others that are read first: {_names(beside)}; "
            "name them to read them"
        )


def tell_repeated(rows: Sequence[str]) -> None:
    """Name the first rows that repeat an earlier one, and count all of them."""
    if rows:
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        say(f"warning: {rows[0]}{more}; each crystal is taken once.")


def tell_unreadable(named: Sequence[tuple[str, str]], number: int, total: int) -> None:
    """Name the first crystals that cannot be read, with their reasons, and count all of them."""
    for name, reason in named[:SHOWN_SKIPPED]:
        say(f"warning: {name}: {reason.rstrip('.')}; skipped.")
    if number:
        say(f"warning: {number} of {total} crystals cannot be read.")


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - SHOWN_SKIPPED} more" if len(paths) > SHOWN_SKIPPED else ""
    return ", ".join(path.name for path in paths[:SHOWN_SKIPPED]) + more


def end_partial(missing: str, *, some: bool = True) -> NoReturn:
    """Name what is missing from a result, and end with `EXIT_PARTIAL`, or with 1 if all of it is missing."""
    say(f"warning: {missing}")
    raise typer.Exit(EXIT_PARTIAL if some else 1)


def end_without(left_out: Sequence[str]) -> None:
    """Name the files and frames that were left out, if there are any, and end with `EXIT_PARTIAL`."""
    for line in left_out:
        say(f"error: {line}")
    if left_out:
        end_partial(f"{counted(len(left_out), 'structures')} {'was' if len(left_out) == 1 else 'were'} left out.")


def emit(result: Mapping[str, Any], as_json: bool, text: str = "") -> None:
    """Print a command's result on stdout: one JSON document, or `text` for people."""
    if as_json:
        text = json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)
        print(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # JSON's own way to write them
    elif text:
        show(text)


def write(path: Path | None, what: str, text: Callable[[], str]) -> None:
    """Write the file that an option names, if it names one, and say so."""
    if path is not None:
        from defectgen.io.files import write_text

        write_text(path, text())
        say(f"{what} written to {path}")


def _plain(value: Any) -> Any:
    """A value in JSON's own types; what is not a finite number becomes null, paths become text."""
    if isinstance(value, Mapping):
        return {encodable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return encodable(str(value))


def columns() -> int:
    """Columns that text is wrapped at: those of the terminal, 80 at most and where there is none."""
    return max(MIN_COLUMNS, min(MAX_COLUMNS, shutil.get_terminal_size((MAX_COLUMNS, 24)).columns))


def wrapped(text: str, start: str = "", indent: str | None = None) -> list[str]:
    """A text in lines as wide as `columns`, with names, options and paths whole.

    Args:
        text: what to show.
        start: of the first line.
        indent: of the others; as wide as `start` by default.
    """
    indent = " " * len(start) if indent is None else indent
    lines = wrap(
        text, columns(), initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return lines or [start.rstrip()]


def size_text(n_bytes: int) -> str:
    """A number of bytes for people, in powers of 1000, e.g. ``92.9 MB``."""
    size, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how far a slow step is: a bar with rate and remaining time, or plain lines without a terminal.

    Args:
        title: what is being done.
        total: how much there is to do, None if that is not known.
        unit: of what, e.g. ``files``.

    Yields:
        A function that takes how much more is done. With 0 before anything is done the clock begins anew: what went
        before was preparation.
    """
    if sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        lines = _Lines(title, total, unit)
        yield lines.advance
        lines.close()


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    done_of = TextColumn(f"{{task.completed:,.0f}} {unit}") if total is None else MofNCompleteColumn()
    left = () if total is None else (TimeRemainingColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), done_of, rate, *left)
    started, done = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(n: int) -> None:
            nonlocal started, done
            if n == done == 0:
                started = time.monotonic()
            done += n
            bar.update(task, advance=n, rate=rate_text(done, time.monotonic() - started, unit))

        yield advance


class _Lines:
    """Progress as plain lines on stderr: one every `PLAIN_INTERVAL_S`, and one at the end."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.started = self.last = time.monotonic()

    def advance(self, n: int) -> None:
        if n == self.done == 0:
            self.started = self.last = time.monotonic()
        self.done += n
        if time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self.last = time.monotonic()
            say(self.line() + self._left())

    def close(self) -> None:
        if self.done:
            say(self.line())

    def _left(self) -> str:
        if self.total is None or self.done <= FORETELL_FROM * self.total:
            return ""
        return f", {span(max(self.total - self.done, 0) / self._rate())} left"

    def line(self) -> str:
        if self.total is None and self.done == 1:
            return f"{self.title}: 1 {singular(self.unit)}"
        done = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
        rate = rate_text(self.done, time.monotonic() - self.started, self.unit)
        return f"{self.title}: {done} {self.unit}{rate and ', '}{rate}"

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self.started, 1e-9)


def counted(number: int, unit: str) -> str:
    """So many of a unit in the plural, e.g. ``1 file`` and ``2 files``."""
    return f"{number:,} {singular(unit) if number == 1 else unit}"


def singular(unit: str) -> str:
    """One of a unit, e.g. ``property`` of ``properties``."""
    return unit[:-3] + "y" if unit.endswith("ies") else unit.removesuffix("s")


def rate_text(done: int, seconds: float, unit: str) -> str:
    """How fast it goes: ``670 structures/s``, or if slower than one a second ``12 s each``.

    Empty if not known yet: the first of a batch waits for all of it.
    """
    if done < 2 or seconds < RATE_FROM_S:
        return ""
    rate = done / seconds
    return f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s" if rate >= 1 else f"{span(1 / rate)} each"


def span(seconds: float) -> str:
    """A time to wait in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
