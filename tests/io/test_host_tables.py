"""Tables that carry their hosts."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest

from defectgen.core import Host, get_host
from defectgen.core.stored_hosts import by_title, dump_hosts, read_hosts, record_hosts
from defectgen.errors import DefectgenError
from defectgen.io.host_tables import HOST_RECORD, host_of, host_of_row, hosts_of, with_host


def rows(host: Host, n: int = 2) -> pl.DataFrame:
    return with_host(pl.DataFrame({"id": [f"{host.name}-{k}" for k in range(n)]}), host)


def test_rows_keep_their_host_when_tables_are_joined_and_parted() -> None:
    mos2, wse2 = get_host("MoS2"), get_host("WSe2", (4, 4))
    both = pl.concat([rows(mos2), rows(wse2)])
    assert hosts_of(both) == {"MoS2 8x8": mos2, "WSe2 4x4": wse2}
    assert host_of(both.filter(host="WSe2")) == wse2
    assert host_of_row(both.row(0, named=True)) == mos2
    with pytest.raises(DefectgenError, match="rows of MoS2 8x8, WSe2 4x4, expected one host"):
        host_of(both)
    with pytest.raises(DefectgenError, match="got rows of no host"):
        host_of(both.clear())


def test_a_table_without_records_is_refused() -> None:
    bare = rows(get_host("MoS2")).drop(HOST_RECORD)
    with pytest.raises(DefectgenError, match=r"no column host_record; its columns are id, host, supercell\. Read it"):
        host_of(bare)
    with pytest.raises(DefectgenError, match="row 'MoS2-0' of MoS2 has no host_record"):
        host_of_row(bare.row(0, named=True))


def test_one_name_and_size_is_one_host() -> None:
    host = get_host("MoS2")
    other = dataclasses.replace(host, rules=host.rules[:1])
    with pytest.raises(DefectgenError, match="two hosts MoS2 8x8 that differ"):
        by_title([host, other])
    records = dump_hosts({host.title: host})
    assert read_hosts(records) == record_hosts({"hosts": records}) == {"MoS2 8x8": host}
    with pytest.raises(DefectgenError, match=r"do not say their hosts\. Make them again with `defectgen build-data`"):
        record_hosts({"settings": {}})
