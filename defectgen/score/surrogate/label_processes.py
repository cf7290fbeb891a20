"""Processes beside the trees: levels of cells of three defects, for the labels where they help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.one_line import OneLine
from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.features import encode
from defectgen.score.surrogate.triangle_process import Process, Triangles

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Kinds = tuple[int, int, int]

LEVELS = ("homo_ev", "lumo_ev")
"""What has a process; that of the gap is their difference."""


def triples(host: Host, configurations: Sequence[Configuration]) -> dict[Kinds, tuple[Whole, Whole]]:
    """Cells of three defects, the first of another kind than the second.

    Args:
        host: the host.
        configurations: n of them.

    Returns:
        By kinds, in the order of the host's rules, the rows, shape (m,), and sites of the three defects, shape (m, 3).

    Raises:
        UsageError: see `encode`.
    """
    found: dict[Kinds, tuple[list[int], list[list[int]]]] = {}
    for row, defects in enumerate(encode(host, configurations)):
        if len(defects) == 3 and defects[0][0] != defects[1][0]:
            (a, i), (b, j), (c, k) = defects
            rows, sites = found.setdefault((a, b, c), ([], []))
            rows.append(row)
            sites.append([i, j, k])
    return {kinds: (np.array(rows), np.array(sites)) for kinds, (rows, sites) in sorted(found.items())}


@dataclass(frozen=True, eq=False, repr=False)
class LabelProcesses(OneLine):
    """Processes of the levels of one label.

    Attributes:
        kinds: of the three defects, in the order of the host's rules.
        triangles: the training rows.
        processes: by column of `LEVELS`.
        shares: of the processes beside the trees, by column of `AGREEING`.
    """

    kinds: Kinds
    triangles: Triangles
    processes: Mapping[str, Process]
    shares: Mapping[str, float]

    @cached_property
    def tables(self) -> dict[str, Array]:
        """By column of `AGREEING` what `Triangles.table` says."""
        homo, lumo = (self.triangles.table(self.processes[column]) for column in LEVELS)
        return dict(zip(AGREEING, (homo, lumo, lumo - homo), strict=True))

    def mixed(self, values: Mapping[str, Array], host: Host, sites: Whole, symmetry: Array) -> dict[str, Array]:
        """Values of the trees and the processes together.

        Args:
            values: of the trees, by column of `shares`, in eV, each of shape (n,).
            host: the host.
            sites: shape (n, 3).
            symmetry: what `stabilizers` says, shape (n, 3).
        """
        index = tuple(self.triangles.index(host, sites, symmetry).T)
        return {c: (1 - share) * values[c] + share * self.tables[c][index] for c, share in self.shares.items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "kinds": self.kinds,
            "classes": self.triangles.classes.tolist(),
            "orbits": [orbits.tolist() for orbits in self.triangles.orbits],
            "rows": self.triangles.rows.tolist(),
            "processes": {column: process.to_dict() for column, process in self.processes.items()},
            "shares": self.shares,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelProcesses:
        """The inverse of `to_dict`."""
        first, second, third = values["kinds"]
        one, two, three = (np.array(orbits, dtype=np.int64) for orbits in values["orbits"])
        classes, rows = np.array(values["classes"], dtype=np.float64), np.array(values["rows"], dtype=np.int64)
        triangles = Triangles((one, two, three), classes, second == third, rows)
        processes = {column: Process.from_dict(found) for column, found in values["processes"].items()}
        sizes = np.array([*map(len, triangles.orbits), len(classes) + 1])
        if processes.keys() != set(LEVELS) or rows.shape[1:] != (4,) or (rows < 0).any() or (rows >= sizes).any():
            raise ValueError(f"no processes of levels: {', '.join(processes)}; rows of shape {rows.shape}")
        return cls((first, second, third), triangles, processes, values["shares"])
