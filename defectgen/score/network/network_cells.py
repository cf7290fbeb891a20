"""Cells as networks take them, and what they give of a cell; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.errors import UsageError
from defectgen.score.network.pair_geometry import HostGeometry

OUTPUTS = ("homo_majority", "homo_minority", "gap_majority", "gap_minority", "energy", "fermi", "magnetization")
"""What a member gives for a cell: levels and Fermi level in eV above the pristine VBM, gaps in eV, the part of the
formation energy that is not linear in the counts of defects in eV, the magnetization in Bohr magnetons."""

GAP_ROUNDING = 15.0
"""Gaps below some 0.1 eV are bent so that none is negative: softplus at this many inverse eV."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled cells as arrays, padded to the largest number of defects with -1.

    Attributes:
        hosts: number of the host of each row in the network's hosts, shape (n,).
        sites: shape (n, most).
        kinds: number of each defect's kind in its host, shape (n, most).
        targets: `OUTPUTS` in eV and Bohr magnetons, NaN where unknown, shape (n, 7); the energy is of the cell.
        groups: number of the set that each row belongs to, shape (n,).
    """

    hosts: NDArray[np.int64]
    sites: NDArray[np.int64]
    kinds: NDArray[np.int64]
    targets: NDArray[np.float64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of defects of each row."""
        return np.asarray((self.sites >= 0).sum(axis=1))

    def some(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, name)[chosen] for name in ("hosts", "sites", "kinds", "targets", "groups")))


def counts_of(rows: Rows, n_hosts: int, most_kinds: int) -> NDArray[np.float64]:
    """How many defects of each kind of each host a row has, shape (n, n_hosts * most_kinds)."""
    found = np.zeros((len(rows), n_hosts * most_kinds))
    for column in range(rows.sites.shape[1]):
        there = rows.sites[:, column] >= 0
        np.add.at(found, (np.flatnonzero(there), rows.hosts[there] * most_kinds + rows.kinds[there, column]), 1.0)
    return found


def rows_of(geometries: Sequence[HostGeometry], host: Host, decorations: Sequence[Sequence[Edit]]) -> Rows:
    """Configurations of a host as arrays, without targets.

    Raises:
        UsageError: a host or a defect that is none of the geometries'.
    """
    number = _number_of(geometries, host)
    kinds = {(rule.element, rule.replacement): k for k, rule in enumerate(geometries[number].kinds)}
    elements = host.site_elements
    most = max((len(edits) for edits in decorations), default=0)
    sites, chosen = (np.full((len(decorations), max(most, 1)), -1, dtype=np.int64) for _ in range(2))
    for row, edits in enumerate(decorations):
        for place, (site, species) in enumerate(edits):
            kind = kinds.get((elements[site], species))
            if kind is None:
                raise UsageError(f"the network does not know {species} on {elements[site]} in {host.name}.")
            sites[row, place], chosen[row, place] = site, kind
    return _unlabelled(number, sites, chosen)


def rows_of_sites(
    geometries: Sequence[HostGeometry], host: Host, sites: NDArray[np.int64], kinds: NDArray[np.int64]
) -> Rows:
    """The same from sites and numbers of the host's rules, -1 for none, each of shape (n, most).

    Raises:
        UsageError: a host or a rule that is none of the geometries'.
    """
    number = _number_of(geometries, host)
    known = {rule: k for k, rule in enumerate(geometries[number].kinds)}
    for rule in host.rules:
        if rule not in known:
            raise UsageError(f"the network does not know {rule.replacement} on {rule.element} in {host.name}.")
    order = np.array([*(known[rule] for rule in host.rules), -1])
    return _unlabelled(number, sites, order[kinds])


def _number_of(geometries: Sequence[HostGeometry], host: Host) -> int:
    number = next((k for k, g in enumerate(geometries) if host == g.host or host.is_like(g.host)), None)
    if number is None:
        titles = ", ".join(geometry.host.title for geometry in geometries)
        raise UsageError(f"the network does not cover {host.title}.", f"It covers: {titles}.")
    return number


def _unlabelled(host: int, sites: NDArray[np.int64], kinds: NDArray[np.int64]) -> Rows:
    hosts = np.full(len(sites), host)
    return Rows(hosts, sites, kinds, np.full((len(sites), len(OUTPUTS)), np.nan), np.zeros_like(hosts))


def combine(outputs: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Properties of cells from their `OUTPUTS`, shape (..., 7): HOMO, LUMO and gap obey what labels obey.

    The HOMO is the higher of both channels, the LUMO the lower, the gap the smaller of both channels' gaps, so
    LUMO - HOMO is never more than the gap, and equal to it where there is one channel.
    """
    homo, gap = outputs[..., 0:2], outputs[..., 2:4]
    return {
        "homo_ev": homo.max(axis=-1),
        "lumo_ev": (homo + gap).min(axis=-1),
        "band_gap_ev": gap.min(axis=-1),
        "formation_energy_ev": outputs[..., 4],
        "fermi_level_ev": outputs[..., 5],
        "total_magnetization_mu_b": outputs[..., 6],
    }
