"""Where each site of a configuration is drawn in the top view: columns, layers, bonds, origin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host

COLUMN_TOLERANCE_ANGSTROM = 0.3
"""Sites closer than this in the plane lie above each other."""

LAYER_TOLERANCE_ANGSTROM = 0.2
"""Sites closer than this along the normal lie in one layer."""

BOND_FACTOR = 1.15
"""Sites are joined up to this multiple of the distance to the nearest site of either."""


@dataclass(frozen=True)
class TopView:
    """Sites as seen along the normal, the origin moved so that the defects lie in the middle.

    Attributes:
        positions: in-plane Cartesian position of each site in angstrom, shape (n_sites, 2).
        heights: position of each site along the normal in angstrom, shape (n_sites,).
        outline: corners of the cell in angstrom, shape (4, 2).
        origin: where the POSCAR has its origin, in angstrom, shape (2,).
        columns: sites that lie above each other, the top one first.
        bonds: pairs of columns that are joined.
    """

    positions: NDArray[np.float64]
    heights: NDArray[np.float64]
    outline: NDArray[np.float64]
    origin: NDArray[np.float64]
    columns: tuple[tuple[int, ...], ...]
    bonds: tuple[tuple[int, int], ...]

    @property
    def spacing_angstrom(self) -> float:
        """Smallest in-plane distance of two columns."""
        points = self.positions[[column[0] for column in self.columns]]
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        return float(distances.min())


def top_view(configuration: Configuration) -> TopView:
    """The top view of a configuration."""
    host = configuration.host
    n_a, n_b = host.supercell
    shift_a, shift_b = centring_shift(configuration)
    cells = np.array([host.site_cell(site) for site in range(host.n_sites)])
    basis = np.asarray(host.frac_coords)[cells[:, 0]]
    frac = np.empty((host.n_sites, 2))
    frac[:, 0] = (cells[:, 1] + shift_a) % n_a + basis[:, 0] % 1.0
    frac[:, 1] = (cells[:, 2] + shift_b) % n_b + basis[:, 1] % 1.0
    plane = np.asarray(host.lattice)[:2, :2]
    positions = frac @ plane
    heights = basis[:, 2] * float(host.lattice[2][2])
    outline = np.array([(0, 0), (n_a, 0), (n_a, n_b), (0, n_b)], dtype=float) @ plane
    columns = _columns(positions, heights)
    origin = np.array([shift_a % n_a, shift_b % n_b], dtype=float) @ plane
    return TopView(positions, heights, outline, origin, columns, _bonds(configuration, positions, heights, columns))


def centring_shift(configuration: Configuration) -> tuple[int, int]:
    """Whole unit cells along a and b that put the widest gap between the defects on the cell border."""
    host = configuration.host
    shifts = []
    for axis, repetitions in enumerate(host.supercell):
        cells = [host.site_cell(site) for site, _ in configuration.edits]
        places = sorted({(cell[1 + axis] + host.frac_coords[cell[0]][axis]) % repetitions for cell in cells})
        if not places:
            shifts.append(0)
            continue
        gaps = [
            ((after - before) % repetitions or repetitions, before)
            for before, after in zip(places, [*places[1:], places[0]], strict=True)
        ]
        widest, start = max(gaps, key=lambda gap: (round(gap[0], 6), -gap[1]))
        shifts.append(-round(start + widest / 2) % repetitions)
    return shifts[0], shifts[1]


@lru_cache(maxsize=64)
def layer_names(host: Host) -> tuple[str, ...]:
    """For each basis atom ``top``, ``bottom``, ``layer 2 of 3``, or nothing if its element fills one layer."""
    normal = float(host.lattice[2][2])
    names = []
    for element, position in zip(host.species, host.frac_coords, strict=True):
        layers: list[float] = []
        for other, frac in zip(host.species, host.frac_coords, strict=True):
            height = frac[2] * normal
            if other == element and all(abs(height - layer) > LAYER_TOLERANCE_ANGSTROM for layer in layers):
                layers.append(height)
        layers.sort(reverse=True)
        own = min(range(len(layers)), key=lambda k: abs(layers[k] - position[2] * normal))
        if len(layers) == 1:
            names.append("")
        elif len(layers) == 2:
            names.append(("top", "bottom")[own])
        else:
            names.append(f"layer {own + 1} of {len(layers)}")
    return tuple(names)


def _columns(positions: NDArray[np.float64], heights: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    close = np.linalg.norm(positions[:, None] - positions[None], axis=2) < COLUMN_TOLERANCE_ANGSTROM
    columns = []
    for site, row in enumerate(close):
        members = np.flatnonzero(row)
        if members[0] == site:
            columns.append(tuple(int(m) for m in sorted(members, key=lambda m: (-heights[m], m))))
    return tuple(columns)


def _bonds(
    configuration: Configuration,
    positions: NDArray[np.float64],
    heights: NDArray[np.float64],
    columns: tuple[tuple[int, ...], ...],
) -> tuple[tuple[int, int], ...]:
    points = np.column_stack([positions, heights])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.minimum.reduce(distances)
    joined = distances < BOND_FACTOR * np.maximum(nearest[:, None], nearest[None])
    empty = [site for site, species in enumerate(configuration.species) if species == VACANCY]
    joined[empty] = joined[:, empty] = False
    column_of = {site: number for number, column in enumerate(columns) for site in column}
    pairs = {
        (column_of[int(a)], column_of[int(b)])
        for a, b in zip(*np.nonzero(np.triu(joined, 1)), strict=True)
        if column_of[int(a)] != column_of[int(b)]
    }
    return tuple(sorted((min(pair), max(pair)) for pair in pairs))
