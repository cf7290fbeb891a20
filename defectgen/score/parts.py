"""Scoring in parts by any executor: each part is a file that appears whole, and is made once, whatever is killed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.execution.executors import Executor, Lost
from defectgen.io.documents import read_object
from defectgen.io.files import file_hash, write_text, write_whole
from defectgen.io.locks import Workplace
from defectgen.io.tables import count_rows, read_parquet, read_rows, write_parquet
from defectgen.score.score_request import FILES, ChunkScorer, ScoreRequest, file_paths
from defectgen.score.structure_table import StructureTable, merged
from defectgen.watch import Watch, unwatched

PLAN = "plan.json"
"""What the parts are of; written last, when the items are there."""

ITEMS = "items.parquet"

SCORED = "_scored"
"""A column of the parts: whether a row has a value."""

HELD_POLL_S = 2.0
"""Seconds between two looks at parts that workers of a killed run are making."""

DONE, HELD, FAILED = "done", "held", "failed"


@dataclass(frozen=True)
class PartTask:
    """What a worker needs to know.

    Attributes:
        folder: of the parts.
        number: of the part, from 0.
        start: its first item.
        count: its items.
        plan: checksum of the plan.
    """

    folder: str
    number: int
    start: int
    count: int
    plan: str

    @property
    def path(self) -> Path:
        """The file of the part."""
        return Path(self.folder) / f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class PartOutcome:
    """What became of a part.

    Attributes:
        status: `DONE`, `HELD` (another process is making it) or `FAILED`.
        reason: why it failed.
        cpu_s: CPU time.
        fresh: whether this task made it.
    """

    status: str
    reason: str = ""
    cpu_s: float = 0.0
    fresh: bool = False


@dataclass(frozen=True)
class PartsSummary:
    """What a run did.

    Attributes:
        table: of all items.
        parts: into which they were divided.
        found: parts that an earlier run had made.
        cpu_s: CPU time of the others.
    """

    table: StructureTable
    parts: int
    found: int
    cpu_s: float


def parts_folder(output: Path) -> Path:
    """Where the parts of a table are until it is written."""
    return output.with_name(f"{output.name}.parts")


def n_items(items: pl.DataFrame | Path) -> int:
    """Rows of a table, or of the Parquet file of one."""
    return items.height if isinstance(items, pl.DataFrame) else count_rows(items)


def score_at_once(
    request: ScoreRequest, items: pl.DataFrame | Path, chunk: int, watch: Watch = unwatched
) -> StructureTable:
    """Score items in this process, the same ones together as in parts, so that the values are the same ones.

    Args:
        request: how to score.
        items: a table, or the Parquet file of one.
        chunk: items that are scored together.
        watch: told how far it is.

    Raises:
        DefectgenError: see `ChunkScorer`.
    """
    scorer = ChunkScorer(request)
    height = n_items(items)
    if height <= chunk:
        return scorer.table(_rows(items, 0, chunk), watch)
    tables = []
    with watch("scoring", height, "structures") as advance:
        for start in range(0, height, chunk):
            tables.append(scorer.table(_rows(items, start, chunk)))
            advance(min(chunk, height - start))
    return merged(tables)


def score_in_parts(
    folder: Path,
    request: ScoreRequest,
    items: pl.DataFrame | Path,
    chunk: int,
    executor: Executor,
    *,
    say: Callable[[str], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> PartsSummary:
    """Score items part by part; go on where a run that was killed stopped.

    Args:
        folder: for the parts, which workers see too; new, or of the same request.
        request: how to score.
        items: a table, or the Parquet file of one.
        chunk: items of a part.
        executor: does the parts; it is closed in the end.
        say: is told what else happens.
        advance: is told how many items are done.

    Raises:
        UsageError: the folder holds parts of something else.
        DefectgenError: a part failed, or its worker was lost several times; the others stay.
    """
    try:
        tasks = _prepare(folder, request, items, chunk)
        left = [task for task in tasks if not task.path.is_file()]
        found, cpu_s = len(tasks) - len(left), 0.0
        advance(sum(task.count for task in tasks) - sum(task.count for task in left))
        if found and left:
            say(f"{found} of {len(tasks)} parts are there already")
        while left:
            held = []
            for number, outcome in executor.outcomes(make_part, left):
                if isinstance(outcome, Lost) or outcome.status == FAILED:
                    raise _failed(folder, left[number], outcome.reason)
                if outcome.status == HELD:
                    held.append(left[number])
                    continue
                cpu_s += outcome.cpu_s
                advance(left[number].count)
            left = held
            if left:
                say(f"waiting for {len(left)} parts that workers of an earlier run are making ...")
                time.sleep(HELD_POLL_S)
    finally:
        executor.close()
    return PartsSummary(merged([_read(task.path) for task in tasks]), len(tasks), found, cpu_s)


def make_part(task: PartTask) -> PartOutcome:
    """Score the items of a part and write it, unless it is there or another process is at it."""
    begun = time.process_time()
    folder = Path(task.folder)
    try:
        workplace = Workplace.take(folder / f".part-{task.number:06d}")
        if workplace is None:
            return PartOutcome(HELD)
        try:
            if task.path.is_file():
                return PartOutcome(DONE)
            if file_hash(folder / PLAN) != task.plan:
                return PartOutcome(FAILED, f"{PLAN} has changed since")
            scorer = _chunk_scorer(task.folder, task.plan)
            table = scorer.table(read_rows(folder / ITEMS, task.start, task.count))
            frame = table.frame.with_columns(table.scored.alias(SCORED))
            write_whole(task.path, lambda part: write_parquet(frame, part))
        finally:
            workplace.remove()
    except DefectgenError as error:
        return PartOutcome(FAILED, str(error))
    except OSError as error:
        return PartOutcome(FAILED, error.strerror or str(error))
    return PartOutcome(DONE, "", time.process_time() - begun, True)


def remove_parts(folder: Path) -> None:
    """Remove the parts of a table that is written."""
    (folder / PLAN).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def _chunk_scorer(folder: str, plan: str) -> ChunkScorer:  # noqa: ARG001
    """The scorer of a plan; a worker loads its scorers once."""
    return ChunkScorer(ScoreRequest.from_dict(read_object(Path(folder) / PLAN)["request"]))


def _prepare(folder: Path, request: ScoreRequest, items: pl.DataFrame | Path, chunk: int) -> list[PartTask]:
    """Write the plan and the items unless they are there; the tasks."""
    height = n_items(items)
    about: dict[str, Any] = {
        "stage": "score",
        "defectgen": __version__,
        "request": request.to_dict(),
        "stamps": _stamps(request),
        "items": height,
        "content": _content(items, request.kind),
        "chunk": chunk,
    }
    text = json.dumps(about, indent=1) + "\n"
    plan = folder / PLAN
    before = plan.read_text(encoding="utf-8") if plan.is_file() else None
    if before not in (None, text) and not _is_unused(folder):
        raise UsageError(
            f"{folder} holds parts of another request, or of files that have changed since.",
            "Give the same command as before, or remove it and begin anew.",
        )
    if before != text:
        folder.mkdir(parents=True, exist_ok=True)
        if any(path.name not in (ITEMS, PLAN) and not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} holds other files.", "Move it away, or name another output.")
        plan.unlink(missing_ok=True)
        write_whole(folder / ITEMS, lambda part: _put(items, part))
        write_text(plan, text)
    mark = file_hash(plan)
    return [
        PartTask(str(folder.absolute()), number, start, min(chunk, height - start), mark)
        for number, start in enumerate(range(0, height, chunk))
    ]


def _is_unused(folder: Path) -> bool:
    """Whether an earlier run has left its plan and items there and nobody has made, or is making, a part of them."""
    parts = itertools.chain(folder.glob("part-*"), folder.glob(".part-*"))
    return (folder / ITEMS).is_file() and next(parts, None) is None


def _rows(items: pl.DataFrame | Path, start: int, count: int) -> pl.DataFrame:
    return items.slice(start, count) if isinstance(items, pl.DataFrame) else read_rows(items, start, count)


def _put(items: pl.DataFrame | Path, place: Path) -> None:
    if isinstance(items, Path):
        shutil.copyfile(items, place)
    else:
        write_parquet(items, place)


def _content(items: pl.DataFrame | Path, kind: str) -> str:
    """A checksum of a table, or of the names, sizes and times of files."""
    if isinstance(items, Path):
        return file_hash(items)
    if kind == FILES:
        return _digest([(os.fsencode(path).hex(), *_stamp(path)) for path in file_paths(items)])
    return _digest(items.rows())


def _stamps(request: ScoreRequest) -> list[Any]:
    """Sizes and times of the models that options name: with others the parts would not fit together."""
    named = [Path(place) for place in (request.options.surrogate, request.options.m3gnet) if place is not None]
    files = [path for place in named for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [[str(path), *_stamp(path)] for path in files if path.is_file()]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(rows: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(rows, default=str).encode(errors="surrogateescape")).hexdigest()


def _read(path: Path) -> StructureTable:
    frame = read_parquet(path)
    return StructureTable(frame.drop(SCORED), frame[SCORED])


def _failed(folder: Path, task: PartTask, reason: str) -> DefectgenError:
    last = task.start + task.count
    return DefectgenError(
        f"structures {task.start + 1} to {last} were not scored: {reason.rstrip('.')}.",
        f"What is done stays in {folder}: mend it, then give the same command again.",
    )
