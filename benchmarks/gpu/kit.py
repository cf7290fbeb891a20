"""What the steps on the GPU share: options, the clock, and files."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

KitOption = Annotated[Path, typer.Option("--kit", help="Folder of prepare.py's files.")]
BaseOption = Annotated[Path, typer.Option("--base", help="Folder of the base model.")]
OutputOption = Annotated[Path, typer.Option("-o", "--output", help="Folder for what comes back.")]
SecondsOption = Annotated[float, typer.Option("--seconds", help="Wall-clock budget, loading included.")]
ToyOption = Annotated[bool, typer.Option("--toy", help="Tiny sizes, to rehearse on a processor.")]


STARTED = "STEP_STARTED"
"""Variable with the time, in seconds since 1970, when the step's process was started: imports take seconds too."""


class Clock:
    """The wall-clock budget of a step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic() - max(time.time() - float(os.environ.get(STARTED, "inf")), 0.0)

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds to the end."""
        return self.seconds - self.used


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Records of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_json(path: Path, values: Any) -> None:
    """Write one JSON document, in a folder that is made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def say(clock: Clock, *parts: object) -> None:
    """A line of the log, with the seconds so far."""
    print(f"{clock.used:7.1f}s", *parts, flush=True)


def run_step(main: Callable[..., None]) -> None:
    """Run a step's command."""
    typer.run(main)
