"""What is to be scored and by what, as values that a file can hold, so that any process can do a part of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.core import Host
from defectgen.score.samples import read_samples
from defectgen.score.scorers import ScorerOptions, load_scorer, potential_names
from defectgen.score.structure_table import StructureTable, structure_table
from defectgen.score.table_rows import row_table
from defectgen.watch import Watch, unwatched

FILES, ROWS = "files", "rows"

PATH = "path"
"""The column of a table of structure files: their paths as the file system has them."""


@dataclass(frozen=True)
class ScoreRequest:
    """How structures are scored.

    Attributes:
        kind: `FILES` (a table with the column `PATH`) or `ROWS` (see `defectgen.score.table_rows`).
        scorers: names of scorers, each once.
        options: what they need to be loaded.
        hosts: files are matched to these, in this order; the first of a name and size is that of rows.
        host: of all rows, whatever they say; None for their own.
        folder: that paths of files are relative to.
        known: canonical keys that a model was trained on, by host and size; of files.
        trained: the hosts that these keys are of.
    """

    kind: str
    scorers: tuple[str, ...]
    options: ScorerOptions
    hosts: tuple[Host, ...]
    host: Host | None = None
    folder: Path = Path()
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    trained: tuple[Host, ...] = ()

    @property
    def usual_chunk(self) -> int:
        """Items that are scored together: some seconds of work, minutes with a potential."""
        if any(name in potential_names() for name in self.scorers):
            return 25
        return 20_000 if self.kind == ROWS else 500

    def to_dict(self) -> dict[str, Any]:
        """Plain values, paths in full; equal for equal requests."""
        options = self.options
        return {
            "kind": self.kind,
            "scorers": list(self.scorers),
            "cache": str(options.cache.absolute()),
            "surrogate": None if options.surrogate is None else str(options.surrogate.absolute()),
            "m3gnet": _place(options.m3gnet),
            "hosts": [host.to_dict() for host in self.hosts],
            "host": None if self.host is None else self.host.to_dict(),
            "folder": str(self.folder.absolute()),
            "known": {title: sorted(keys) for title, keys in sorted(self.known.items())},
            "trained": [host.to_dict() for host in self.trained],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreRequest:
        """The inverse of `to_dict`."""
        surrogate = values["surrogate"]
        options = ScorerOptions(Path(values["cache"]), None if surrogate is None else Path(surrogate), values["m3gnet"])
        host = values["host"]
        return cls(
            kind=values["kind"],
            scorers=tuple(values["scorers"]),
            options=options,
            hosts=_hosts(values["hosts"]),
            host=None if host is None else _hosts([host])[0],
            folder=Path(values["folder"]),
            known={title: tuple(keys) for title, keys in values["known"].items()},
            trained=_hosts(values["trained"]),
        )


class ChunkScorer:
    """Scores parts of a request; its scorers are loaded once.

    Raises:
        UsageError: see `load_scorer`.
        DefectgenError: likewise.
    """

    def __init__(self, request: ScoreRequest) -> None:
        self._request = request
        self._scorers = {name: load_scorer(name, request.options) for name in request.scorers}
        self._known = {title: frozenset(keys) for title, keys in request.known.items()}

    def table(self, items: pl.DataFrame, watch: Watch = unwatched) -> StructureTable:
        """Score some items: a table of files or of rows, by the request's kind."""
        how = self._request
        if how.kind == ROWS:
            return row_table(items, self._scorers, how.hosts, how.host, watch)
        samples = []
        with chdir(how.folder), watch("reading", items.height, "files") as advance:
            for path in file_paths(items):
                samples += read_samples(path, how.hosts)
                advance(1)
        return structure_table(samples, self._scorers, self._known, watch, hosts=how.trained)


def file_items(paths: Sequence[Path]) -> pl.DataFrame:
    """Structure files as a table; their names may be of any bytes."""
    return pl.DataFrame({PATH: [bytes(path) for path in paths]}, schema={PATH: pl.Binary})


def file_paths(items: pl.DataFrame) -> list[Path]:
    """The inverse of `file_items`."""
    return [Path(os.fsdecode(path)) for path in items[PATH]]


def _hosts(records: Sequence[Mapping[str, Any]]) -> tuple[Host, ...]:
    return tuple(map(Host.from_dict, records))


def _place(m3gnet: str | Path | None) -> str | None:
    """A folder in full, or a name on the hub as it is."""
    if m3gnet is None:
        return None
    return str(Path(m3gnet).absolute()) if Path(m3gnet).exists() else str(m3gnet)
