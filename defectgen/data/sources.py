"""Sources of labelled structures: the layouts of folders that can be read, built in or added by other packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from defectgen.core.hosts import get_host
from defectgen.core.registry import Registry, breaks, require_members
from defectgen.data import twodmd
from defectgen.data.checks import has_published_layout
from defectgen.errors import DefectgenError
from defectgen.io.host_tables import HOST_RECORD

REQUIRED = ("id", "host", "set", "supercell", "configuration", "label", "n_defects")
"""Columns that every source gives; the others of `defectgen.data.twodmd.COLUMNS` are null where a source has none."""

_TEXTS = ("density", "defect_class", "level_method", HOST_RECORD)


class DataSource(Protocol):
    """One layout of a folder with labelled structures.

    Attributes:
        layout: what is in such a folder, for messages, e.g. ``csv_cif/ and processed/``.
    """

    layout: str

    def claims(self, path: Path) -> bool:
        """Whether a folder has this layout; looks at names only."""
        ...

    def read(self, path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:
        """The structures, one a row.

        Args:
            path: a folder that it claims.
            sets: names of the sets that are wanted, None for all; a source may ignore it.

        Returns:
            The columns `REQUIRED`, of `defectgen.data.twodmd.COLUMNS` those that it has, and any other property's.
            ``configuration`` is the key of the canonical configuration; levels in eV relative to the pristine host's
            valence band maximum. The column `defectgen.io.host_tables.HOST_RECORD` holds each row's host; a source
            may leave it out where ``host`` is a name that `defectgen.core.get_host` knows.

        Raises:
            DefectgenError: a missing or damaged file.
        """
        ...


class _Published:
    """2DMD as it was published."""

    layout = "csv_cif/ and processed/"

    def claims(self, path: Path) -> bool:
        return has_published_layout(path)

    def read(self, path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:
        return twodmd.read_2dmd(path, sets)


class _Pilot:
    """The pilot sample of 2DMD, which is read as a whole."""

    layout = "data.csv.gz"

    def claims(self, path: Path) -> bool:
        return any((folder / "data.csv.gz").is_file() for folder in (path, path / "pilot"))

    def read(self, path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:  # noqa: ARG002
        return twodmd.read_pilot(path)


def _check(name: str, source: DataSource) -> None:
    require_members("data source", name, source, DataSource)


SOURCES: Registry[DataSource] = Registry("data source", "sources", _check)
SOURCES.built_in({"2dmd": _Published(), "2dmd-pilot": _Pilot()})


def register_source(name: str, source: DataSource) -> DataSource:
    """Add a source; a folder is read by the first one, in the order of adding, that claims it.

    Raises:
        UsageError: the name is taken, or the source breaks its protocol.
    """
    return SOURCES.register(name, source)


def source_name(path: Path) -> str:
    """The name of the source that claims a folder.

    Raises:
        DefectgenError: none does; lists all.
    """
    found = next((name for name, source in SOURCES.items() if source.claims(path)), None)
    if found is None:
        layouts = "; ".join(f"{name} ({source.layout})" for name, source in SOURCES.items())
        raise DefectgenError(
            f"{path} holds no data of a known source: {layouts}.",
            "Give the folder that `defectgen fetch` reports, or one in such a layout.",
        )
    return found


def read_dataset(path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:
    """The labelled structures in a folder, by the source that claims it.

    Returns:
        See `defectgen.data.twodmd.read_2dmd`; columns of properties beside those come last.

    Raises:
        DefectgenError: no source claims the folder, or it cannot be read.
        UsageError: the source gives no table, or one without a column of `REQUIRED`.
    """
    path = Path(path)
    name = source_name(path)
    frame = SOURCES[name].read(path, sets)
    if not isinstance(frame, pl.DataFrame):
        raise breaks("data source", name, f"it gave a {type(frame).__name__}, expected a polars DataFrame")
    if missing := [column for column in REQUIRED if column not in frame.columns]:
        raise breaks("data source", name, f"its table has no column {missing[0]}")
    if HOST_RECORD not in frame.columns:
        frame = _with_named_hosts(frame)
    return with_reader_columns(frame)


def with_reader_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with the columns of the data reader first, `defectgen.data.twodmd.COLUMNS`; null where they had none."""
    absent = [column for column in twodmd.COLUMNS if column not in frame.columns]
    frame = frame.with_columns(
        pl.lit(None, pl.String if column in _TEXTS else pl.Float64).alias(column) for column in absent
    )
    return frame.select(*twodmd.COLUMNS, pl.exclude(twodmd.COLUMNS))


def _with_named_hosts(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with the records of the hosts that a source calls by name.

    Raises:
        UsageError: a name that no host has.
    """
    named = frame.select("host", "supercell").unique(maintain_order=True)
    records = [get_host(name, supercell).to_json() for name, supercell in named.iter_rows()]
    known = named.with_columns(pl.Series(HOST_RECORD, records, dtype=pl.String))
    return frame.join(known, on=["host", "supercell"], how="left", maintain_order="left")
