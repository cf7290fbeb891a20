"""Labelled structures as the arrays that networks are trained on."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.io.host_tables import hosts_of
from defectgen.score.network.network_cells import Rows
from defectgen.score.network.network_training import Geometries
from defectgen.score.network.pair_geometry import HostGeometry

COLUMNS = (
    "homo_majority_ev", "homo_minority_ev", "band_gap_majority_ev", "band_gap_minority_ev", "formation_energy_ev",
    "fermi_level_ev", "total_magnetization_mu_b",
)  # fmt: skip
"""Of a table of labelled structures: the `defectgen.score.network.network_cells.OUTPUTS`."""


def labelled_cells(frame: pl.DataFrame, hosts: tuple[Host, ...] | None = None) -> tuple[Rows, Geometries]:
    """The rows of a table and the geometry of their hosts.

    Args:
        frame: the columns of the data reader; of `COLUMNS` those that are missing count as unknown, but levels without
            spin channels as those of one.
        hosts: in the order that numbers them; those of the table by name and size if None.

    Raises:
        UsageError: an element that the network cannot describe.
    """
    if hosts is None:
        hosts = tuple(sorted(hosts_of(frame).values(), key=lambda host: host.title))
    place = {host.title: k for k, host in enumerate(hosts)}
    geometries = [HostGeometry.of(host) for host in hosts]
    n, most = len(frame), int(frame["n_defects"].max() or 1)  # type: ignore[arg-type]
    sites, kinds = (np.full((n, most), -1, dtype=np.int64) for _ in range(2))
    numbers = np.array(
        [place[f"{name} {size}"] for name, size in frame.select("host", "supercell").iter_rows()], dtype=np.int64
    )
    for row, (number, key) in enumerate(zip(numbers, frame["configuration"], strict=True)):
        geometry = geometries[number]
        found = geometry.numbers(Configuration.from_key(geometry.host, key).edits)
        sites[row, : len(found[0])], kinds[row, : len(found[0])] = found
    sets = frame["set"].unique(maintain_order=True).to_list()
    groups = np.array([sets.index(name) for name in frame["set"]], dtype=np.int64)
    targets = np.stack([_column(frame, name) for name in COLUMNS], axis=1)
    differ = [bool((np.abs(np.diff(targets[numbers == k, :2], axis=1)) > 0).any()) for k in range(len(hosts))]
    return Rows(numbers, sites, kinds, targets, groups), Geometries(geometries, differ)


def _column(frame: pl.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame.columns:  # a table without spin channels: its levels are those of one
        name = name.replace("_majority", "")
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
