"""Where the next atom of a crystal that is being written still has room.

Every atom has a reach, and two atoms are no nearer than the mean of their reaches. With the reach of
all atoms at 0.5 angstrom no two are nearer than that; with their radii as reach it is the half-radius
rule of Gruver et al. Distances are kept in steps of 1/48 angstrom and rounded to the safe side: a
place at the very limit may be missing, none that is too near is left.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import volume_fraction

GRID = 100
"""Fractional coordinates are written with two digits."""

STEPS = 48
"""Steps of an angstrom; 255 of them are 5.3 angstrom, more than two radii of any element."""

MAX_DISTANCE_ANGSTROM = 5.0
"""Least distances are at most this, for distances are known up to 255 steps."""

ROWS = 256
"""Crystals that may be written at once without computing places anew, at 3 MB each."""

Site = tuple[int, int, int, int]
"""An atom: hundredths of the lattice vectors, and half its reach in steps."""


class Clearance(NamedTuple):
    """The part of a crystal that decides where atoms may go.

    Attributes:
        cell: lengths in tenths of an angstrom, then angles in degrees, as far as they are written.
        sites: atoms so far.
        half: half the reach of the atom that is being written, in steps.
        at: its coordinates so far, in hundredths of the lattice vectors.
        counts: elements so far, the one that is being written included, in the order of their first atoms.
    """

    cell: tuple[float, ...] = ()
    sites: tuple[Site, ...] = ()
    half: int = 0
    at: tuple[int, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    def measured(self, value: int) -> Clearance:
        """With one more length or angle."""
        return self._replace(cell=(*self.cell, value))

    def with_tenths(self, tenths: int) -> Clearance:
        """With the digit after the point of the latest length."""
        return self._replace(cell=(*self.cell[:-1], self.cell[-1] + tenths))

    def of(self, element: str, half: int) -> Clearance:
        """With an atom of this element and half reach to be written."""
        counts = dict(self.counts)
        counts[element] = counts.get(element, 0) + 1
        return self._replace(half=half, counts=tuple(counts.items()))

    def moved(self, coordinate: int) -> Clearance:
        """With one more coordinate of the present atom; the third one places it."""
        if len(self.at) < 2:
            return self._replace(at=(*self.at, coordinate))
        x, y = self.at
        return self._replace(sites=(*self.sites, (x, y, coordinate, self.half)), at=())

    def largest_volume(self, more_tenths: int = 0) -> float:
        """Most cubic angstrom that the cell can come to have; `more_tenths` may still be added to its last length."""
        if len(self.cell) < 3:
            return math.inf
        a, b, c, *angles = self.cell
        if len(angles) == 3:
            fraction = volume_fraction(angles)
        else:  # the best angles that may follow are whole degrees, which costs 1 % at most unless they are sharp
            fraction = 0.99 * math.prod(math.sin(math.radians(angle)) for angle in angles)
        return a * b * (c + more_tenths) / 1000 * fraction

    def filled(self) -> float:
        """Cubic angstrom that the atoms so far fill, as spheres of half their reach."""
        return sum(sphere_volume(half) for *_, half in self.sites)

    def widest(self) -> int:
        """The largest half reach that an atom can have somewhere in the cell, in steps."""
        return min(int(_clearance(self.cell, self.sites).max()), distances(self.cell)[1])

    def free(self) -> list[int]:
        """Values of the next coordinate that leave the present atom a place; where nothing is left, all of them."""
        roomy = (_clearance(self.cell, self.sites)[self.at] >= self.half).reshape(GRID, -1).any(axis=1)
        return np.flatnonzero(roomy).tolist() if roomy.any() else list(range(GRID))


def half_steps(reach_angstrom: float) -> int:
    """Half of a reach in steps, rounded up."""
    return math.ceil(reach_angstrom / 2 * STEPS - 1e-9)


def sphere_volume(half: int) -> float:
    """Cubic angstrom of a sphere of half a reach, which is given in steps."""
    return 4 / 3 * math.pi * (half / STEPS) ** 3


def _vectors(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> NDArray[np.float64]:
    """Lattice vectors as rows, from lengths and angles in degrees."""
    x, y, z = np.cos(np.radians([alpha, beta, gamma]))
    along = (x - y * z) / np.sqrt(1 - z * z)
    height = np.sqrt(1 - y * y - along * along)
    return np.array([[a, 0, 0], [b * z, b * np.sqrt(1 - z * z), 0], [c * y, c * along, c * height]])


@lru_cache(maxsize=ROWS)
def lattice_of(cell: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The reduced basis of a cell as rows, in angstrom, and what takes its coordinates to those of the basis."""
    from pymatgen.core import Lattice

    lattice = Lattice(_vectors(*(length / 10 for length in cell[:3]), *cell[3:]))
    reduced = np.asarray(lattice.lll_matrix, dtype=float)
    return reduced, np.rint(np.asarray(lattice.matrix) @ np.linalg.inv(reduced)).astype(int)


@lru_cache(maxsize=ROWS)
def distances(cell: tuple[float, ...]) -> tuple[NDArray[np.uint8], int]:
    """Distance of each point of the grid from the nearest lattice point, and half the shortest lattice vector.

    Both in steps, rounded down, at most 255; the first of shape (100, 100, 100).
    """
    reduced, to_reduced = lattice_of(cell)
    metric = (reduced @ reduced.T).astype(np.float32)
    line = ((np.arange(GRID) + GRID // 2) % GRID - GRID // 2).astype(np.float32) / GRID
    some = GRID // 2 + 1  # the others are as far away as their images under inversion
    nearest = np.full((some, GRID, GRID), np.inf, dtype=np.float32)
    shortest = np.inf
    for shift in np.ndindex(3, 3, 3):  # in a reduced cell the nearest image is among these
        a, b, c = (line + np.float32(k - 1) for k in shift)
        a = a[:some]
        plane = metric[0, 0] * a[:, None] ** 2 + metric[1, 1] * b**2 + 2 * metric[0, 1] * a[:, None] * b
        slope = 2 * (metric[0, 2] * a[:, None] + metric[1, 2] * b)
        squares = slope[:, :, None] * c
        squares += plane[:, :, None]
        squares += metric[2, 2] * c**2
        np.minimum(nearest, squares, out=nearest)
        if shift != (1, 1, 1):
            shortest = min(shortest, float(squares[0, 0, 0]))
    steps = np.sqrt(np.maximum(nearest, 0)) * STEPS
    half = np.clip(steps - 1e-3, 0, 255).astype(np.uint8)
    of = np.concatenate([half, np.roll(half[GRID - some : 0 : -1, ::-1, ::-1], 1, axis=(1, 2))])
    rows = np.arange(GRID)[:, None] * to_reduced[:, None, :] % GRID  # of shape (3, 100, 3)
    a, b, c = rows.astype(np.int16)
    index = tuple((a[:, None, None, axis] + b[:, None, axis] + c[:, axis]) % np.int16(GRID) for axis in range(3))
    return of[index], min(int(math.sqrt(shortest) / 2 * STEPS - 1e-3), 255)


@lru_cache(maxsize=2 * ROWS)
def _clearance(cell: tuple[float, ...], sites: tuple[Site, ...]) -> NDArray[np.uint8]:
    """For each point of the grid half the reach that an atom could have there, in steps, shape (100, 100, 100)."""
    if not sites:
        return np.full((GRID, GRID, GRID), 255, dtype=np.uint8)
    *where, half = sites[-1]
    distance = np.roll(distances(cell)[0], where, axis=(0, 1, 2))
    clearance: NDArray[np.uint8] = np.minimum(_clearance(cell, sites[:-1]), np.maximum(distance, half) - half)
    return clearance
