"""2DMD as the start of a campaign on one of its hosts: what its surrogate says, and how far another code is from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

from defectgen.campaign.store import StructureRow
from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.hosts import BUILT_IN
from defectgen.core.properties import BY_COLUMN
from defectgen.data.known_labels import labels_of
from defectgen.score.surrogate import Surrogate

Array = NDArray[np.float64]

COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev")


@dataclass(frozen=True)
class Offset:
    """How far computed values are from 2DMD's.

    Attributes:
        column: the property.
        mean_ev: computed less 2DMD.
        error_ev: half-width of the 90 % interval of the mean, by Student's t; NaN for one structure.
        scatter_ev: standard deviation of one structure around the mean; NaN for one structure.
        n: structures that both have.
    """

    column: str
    mean_ev: float
    error_ev: float
    scatter_ev: float
    n: int

    @property
    def text(self) -> str:
        """For people."""
        found = f"{BY_COLUMN[self.column].title}: computed less 2DMD {self.mean_ev:+.3f}"
        if self.n == 1:
            return f"{found} eV (one structure)"
        return f"{found} ± {self.error_ev:.3f} eV in the mean of {self.n} structures, scatter {self.scatter_ev:.3f} eV"


def knows(host: Host) -> bool:
    """Whether 2DMD's surrogate was trained on this layer with these defects, in this or a larger cell."""
    home = BUILT_IN.get(host.name)
    if home is None or not dataclasses.replace(home, supercell=host.supercell).is_like(host):
        return False
    fits = all(own <= its for own, its in zip(host.supercell, home.supercell, strict=True))
    return fits and set(host.rules) <= set(home.rules)


def in_home(configuration: Configuration) -> Configuration:
    """The same defects in the cell of 2DMD: each as near to the first one as the smaller cell's images allow."""
    host = configuration.host
    home = BUILT_IN[host.name]
    if host.supercell == home.supercell:
        return Configuration(home, configuration.edits)
    lattice = np.array(host.lattice)
    size = np.array(host.supercell)
    edits: list[tuple[int, str]] = []
    first: Array | None = None
    for site, new in configuration.edits:
        basis, *cell = host.site_cell(site)
        places = [np.array(cell) + size * (i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        inside = np.array(host.frac_coords[basis])
        points = [(np.append(place, 0.0) + inside) @ lattice for place in places]
        nearest = 4 if first is None else int(np.argmin([round(math.dist(point, first), 6) for point in points]))
        first = points[nearest] if first is None else first
        i, j = np.mod(places[nearest], home.supercell)
        edits.append((home.site_index(basis, int(i), int(j)), new))
    return Configuration(home, tuple(sorted(edits)))


def base_values(configurations: Sequence[Configuration]) -> Mapping[str, Array]:
    """What 2DMD has or its surrogate says of configurations of one of its hosts, by column; NaN where it knows none."""
    placed = canonicalize([in_home(item) for item in configurations])
    scores = _shipped().score(placed)
    labels = labels_of(BUILT_IN[configurations[0].host.name], fetched=False)
    found = {}
    for column in COLUMNS:
        values = scores[column].fill_null(np.nan).to_numpy().copy()
        for row, item in enumerate(placed):
            values[row] = labels.get(item.key, {}).get(column, values[row])
        found[column] = values
    return found


def offsets(rows: Sequence[StructureRow]) -> list[Offset]:
    """Computed values against 2DMD's, for the structures that both have computed.

    Args:
        rows: computed structures of one of 2DMD's hosts.
    """
    if not rows:
        return []
    labels = labels_of(BUILT_IN[rows[0].configuration.host.name], fetched=False)
    placed = canonicalize([in_home(row.configuration) for row in rows])
    found = []
    for column in COLUMNS:
        pairs = [
            row.computed[column] - labels[item.key][column]
            for row, item in zip(rows, placed, strict=True)
            if column in row.computed and column in labels.get(item.key, {})
        ]
        if pairs:
            n = len(pairs)
            scatter = float(np.std(pairs, ddof=1)) if n > 1 else math.nan
            error = float(stdtrit(n - 1, 0.95)) * scatter / math.sqrt(n) if n > 1 else math.nan
            found.append(Offset(column, float(np.mean(pairs)), error, scatter, n))
    return found


@lru_cache(maxsize=1)
def _shipped() -> Surrogate:
    return Surrogate.load()
