"""Tables that carry their hosts: a column beside the name holds the record of each row's host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from defectgen.core.host import Host
from defectgen.core.stored_hosts import by_title
from defectgen.errors import DefectgenError

HOST_RECORD = "host_record"
"""The column: `Host.to_json` of the row's host."""


def with_host(frame: pl.DataFrame, host: Host) -> pl.DataFrame:
    """The rows with ``host``, ``supercell`` and `HOST_RECORD` set to those of one host."""
    return frame.with_columns(
        host=pl.lit(host.name), supercell=pl.lit(host.size), **{HOST_RECORD: pl.lit(host.to_json())}
    )


def host_of(frame: pl.DataFrame) -> Host:
    """The host of all rows of a table, from its record.

    Raises:
        DefectgenError: no rows, no record, or rows of several hosts.
    """
    if HOST_RECORD not in frame.columns:
        raise DefectgenError(
            f"the table has no column {HOST_RECORD}; its columns are {', '.join(frame.columns)}.",
            "Read it with defectgen.data.sources.read_dataset, or add its host with "
            "defectgen.io.host_tables.with_host.",
        )
    records = frame[HOST_RECORD].unique()
    if len(records) != 1 or records[0] is None:
        found = sorted({f"{name} {size}" for name, size in frame.select("host", "supercell").iter_rows()})
        raise DefectgenError(f"got rows of {', '.join(found) or 'no host'}, expected one host with its record.")
    return Host.from_json(records[0])


def host_of_row(row: Mapping[str, Any]) -> Host:
    """The host of one row of a table.

    Raises:
        DefectgenError: the row has no record of its host.
    """
    record = row.get(HOST_RECORD)
    if not isinstance(record, str):
        raise DefectgenError(f"row {row.get('id')!r} of {row.get('host')} has no {HOST_RECORD}.")
    return Host.from_json(record)


def hosts_of(frame: pl.DataFrame) -> dict[str, Host]:
    """All hosts of a table by name and size, e.g. ``MoS2 8x8``.

    Raises:
        DefectgenError: a row without a record, or two hosts of one name and size.
    """
    rows = frame.select("host", "supercell", HOST_RECORD).unique(maintain_order=True)
    return by_title(host_of_row(row) for row in rows.iter_rows(named=True))
