"""Rows of a table of configurations, as ``defectgen enumerate`` writes them, scored in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from defectgen.core import Configuration, Host, get_host
from defectgen.core.hosts import common_name
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_files import parse_supercell
from defectgen.io.host_tables import HOST_RECORD
from defectgen.io.tables import column_names, count_rows, read_csv
from defectgen.score.protocol import Scorer, StructureScorer
from defectgen.score.scorers import score_configurations
from defectgen.score.structure_table import StructureTable, scored_rows
from defectgen.watch import Watch, unwatched

KEY = "configuration"
"""The column of the keys, such as ``VAC@A00+Se@B14``."""

OURS = ("note", "_row", "_scored")
"""Columns that scoring adds, some of them for a time."""

BATCH = 1_000
"""Rows that a scorer is given at once; of a potential, which keeps all cells of a batch, `FEW`."""

FEW = 16

WRITTEN = "Expected a table that `defectgen enumerate -o` wrote."


def open_table(path: Path, host: Host | None = None) -> pl.DataFrame | Path:
    """A table that says what its rows are of: one of Parquet stays where it is.

    Args:
        path: of a file that ends in .parquet or .csv.
        host: of all rows; None for their own.

    Raises:
        UsageError: it has no column `KEY`, no rows, or one of `OURS`, or does not say its hosts.
        DefectgenError: it is not there, or is no table.
    """
    try:
        if path.suffix.lower() == ".csv":
            table: pl.DataFrame | Path = read_csv(path, infer_schema_length=None)
        else:
            table = path
        if isinstance(table, pl.DataFrame):
            columns, height = table.columns, table.height
        else:
            columns, height = column_names(table), count_rows(table)
    except FileNotFoundError as error:
        raise DefectgenError(f"{path} is not there.", WRITTEN) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DefectgenError(f"{path} cannot be read as a table ({reason}).") from error
    if KEY not in columns:
        raise UsageError(f"{path} has no column {KEY}; its columns are {', '.join(columns)}.", WRITTEN)
    if host is None and HOST_RECORD not in columns and not {"host", "supercell"} <= set(columns):
        lacking = f"it has no column {'supercell' if 'host' in columns else 'host'}"
        raise UsageError(
            f"{path} does not say which host its rows decorate: {lacking}.", "Add --host NAME or a folder with it."
        )
    if taken := [name for name in OURS if name in columns]:
        raise UsageError(f"{path} has a column {taken[0]}, which the scores get.", "Give it another name, or drop it.")
    if not height:
        raise UsageError(f"{path} has no rows.", "Expected at least one structure.")
    return table


def row_table(
    frame: pl.DataFrame,
    scorers: Mapping[str, Scorer],
    hosts: Sequence[Host] = (),
    host: Host | None = None,
    watch: Watch = unwatched,
) -> StructureTable:
    """Score rows.

    Args:
        frame: a table with the column `KEY`; the host is that of the column `HOST_RECORD`, else of ``host`` and
            ``supercell``.
        scorers: by name.
        hosts: the first of a row's name and size is its host; where there is none, the known one of the name.
        host: of all rows; those that name another one have no score.
        watch: told how far each scorer is.

    Returns:
        The columns of the table but `HOST_RECORD`, those of the scorers (with the name of the scorer before them if
        there are several), ``note``: why a row has no score or no interval.
    """
    configurations, notes = _configurations(frame, hosts, host)
    scored = [False] * frame.height
    usable = [row for row, item in enumerate(configurations) if item is not None]
    columns = [frame.drop(HOST_RECORD, strict=False)]
    for name, scorer in scorers.items():
        title = f"{name}: " if len(scorers) > 1 else ""
        size = FEW if isinstance(scorer, StructureScorer) else BATCH
        found = scored_rows(name, partial(_of_rows, scorer, configurations), usable, size, notes, scored, title, watch)
        if title:
            found = found.rename({column: f"{name}_{column}" for column in found.columns})
        if clash := sorted(set(found.columns) & set(frame.columns)):
            raise UsageError(f"the table has the columns {', '.join(clash)} already.", "Leave them out of it.")
        columns.append(found)
    texts = ["; ".join(lines) or None for lines in notes]
    columns.append(pl.DataFrame({"note": texts}, schema={"note": pl.String}))
    return StructureTable(pl.concat(columns, how="horizontal"), pl.Series("scored", scored, dtype=pl.Boolean))


def _configurations(
    frame: pl.DataFrame, hosts: Sequence[Host], given: Host | None
) -> tuple[list[Configuration | None], list[list[str]]]:
    """What each row is, or why it is nothing."""
    named = {(host.name, host.size): host for host in reversed(hosts)}
    own = [name for name in (HOST_RECORD, "host", "supercell") if name in frame.columns]
    known: dict[tuple[str | None, ...], Host | str] = {}
    found: list[Configuration | None] = []
    notes: list[list[str]] = []
    for key, *says in frame.select(KEY, *own).iter_rows():
        mark = tuple(says)
        if mark not in known:
            known[mark] = _host(dict(zip(own, says, strict=True)), named, given)
        host = known[mark]
        try:
            if isinstance(host, str):
                raise UsageError(host)
            if not isinstance(key, str):
                raise UsageError(f"{KEY} is {key!r}, expected e.g. VAC@A00+Se@B14.")
            found.append(Configuration.from_key(host, key))
            notes.append([])
        except (UsageError, ValueError) as error:
            found.append(None)
            notes.append([str(error)])
    return found, notes


def _host(says: Mapping[str, Any], named: Mapping[tuple[str, str], Host], given: Host | None) -> Host | str:
    """The host of rows that say this, or why there is none."""
    for column, value in says.items():
        if value is not None and not isinstance(value, str):
            return f"{column} is {value!r:.40}, expected a text."
    record, name, size = (says.get(key) for key in (HOST_RECORD, "host", "supercell"))
    if record is None and "supercell" in says and size is None:
        return "the row says no supercell: the sites of its key are not known."
    try:
        if given is not None and name is not None and not _is_called(given, name):
            return f"the row is of {common_name(name)}, and --host is {common_name(given)}: leave --host out."
        if given is not None:
            if size is None or size == given.size:
                return given
            return dataclasses.replace(given, supercell=parse_supercell(size))
        if record is not None:
            return Host.from_json(record)
        if name is None:
            return "the row does not say which host it decorates."
        if size is not None and (name, size) in named:
            return named[name, size]
        return get_host(name, None if size is None else parse_supercell(size))
    except DefectgenError as error:
        return str(error)


def _is_called(host: Host, name: str) -> bool:
    """Whether a name is the host's, or another one of it."""
    try:
        return name == host.name or get_host(name).name == host.name
    except UsageError:
        return False


def _of_rows(
    scorer: Scorer, configurations: Sequence[Configuration | None], rows: Sequence[int]
) -> tuple[pl.DataFrame, list[str]]:
    """Scores of some rows that are configurations."""
    return score_configurations(scorer, [item for row in rows if (item := configurations[row]) is not None])
