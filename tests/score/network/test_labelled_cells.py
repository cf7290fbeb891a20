"""Labelled structures as arrays."""

from __future__ import annotations

import numpy as np
import polars as pl
from synthetic import distinct_configurations

from defectgen.core import Host, get_host
from defectgen.io.host_tables import with_host
from defectgen.score.network.labelled_cells import labelled_cells


def labelled(host: Host, n: int) -> pl.DataFrame:
    items = distinct_configurations(host, n, 1, (1, 2, 3))
    columns = {
        "configuration": [item.key for item in items],
        "set": [host.title] * n,
        "n_defects": [item.n_defects for item in items],
        "homo_ev": [0.1 * k for k in range(n)],
    }
    return with_host(pl.DataFrame(columns), host)


def test_two_sizes_of_one_host_are_two_hosts() -> None:
    small, large = get_host("MoS2", (4, 4)), get_host("MoS2")
    tables = [labelled(large, 5), labelled(small, 5)]
    both, geometries = labelled_cells(pl.concat(tables))
    assert [geometry.host for geometry in geometries.hosts] == [small, large]
    assert both.hosts.tolist() == [1] * 5 + [0] * 5
    for rows, table in zip((slice(0, 5), slice(5, 10)), tables, strict=True):
        alone, _ = labelled_cells(table)
        np.testing.assert_array_equal(both.sites[rows], alone.sites)
        np.testing.assert_array_equal(both.kinds[rows], alone.kinds)
