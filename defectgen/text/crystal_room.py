"""Where the next atom of a crystal that is being written still has room."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GRID = 100
"""Fractional coordinates are written with two digits."""


class Room(NamedTuple):
    """The part of a crystal that decides where atoms may go.

    Attributes:
        cell: lengths in tenths of an angstrom, then angles in degrees, as far as they are written.
        sites: atoms so far, in hundredths of the lattice vectors.
        at: coordinates of the atom that is being written.
    """

    cell: tuple[int, ...] = ()
    sites: tuple[tuple[int, ...], ...] = ()
    at: tuple[int, ...] = ()

    def measured(self, value: int) -> Room:
        """With one more length or angle."""
        return self._replace(cell=(*self.cell, value))

    def with_tenths(self, tenths: int) -> Room:
        """With the digit after the point of the latest length."""
        return self._replace(cell=(*self.cell[:-1], self.cell[-1] + tenths))

    def moved(self, coordinate: int) -> Room:
        """With one more coordinate of the present atom; the third one places it."""
        at = (*self.at, coordinate)
        return self._replace(sites=(*self.sites, at), at=()) if len(at) == 3 else self._replace(at=at)

    def free(self, least_angstrom: float) -> list[int]:
        """Values of the next coordinate that leave a place at least this far from every atom.

        Where nothing is left, all of them.
        """
        taken = _taken(self.cell, self.sites, least_angstrom)[self.at]
        full = taken.reshape(GRID, -1).all(axis=1)
        return list(range(GRID)) if full.all() else np.flatnonzero(~full).tolist()


def _vectors(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> NDArray[np.float64]:
    """Lattice vectors as rows, from lengths and angles in degrees."""
    x, y, z = np.cos(np.radians([alpha, beta, gamma]))
    along = (x - y * z) / np.sqrt(1 - z * z)
    height = np.sqrt(1 - y * y - along * along)
    return np.array([[a, 0, 0], [b * z, b * np.sqrt(1 - z * z), 0], [c * y, c * along, c * height]])


@lru_cache(maxsize=64)
def _ball(cell: tuple[int, ...], radius: float) -> NDArray[np.int64]:
    """Grid offsets nearer than `radius` to the origin, images of the cell included, shape (offsets, 3)."""
    matrix = _vectors(*(length / 10 for length in cell[:3]), *cell[3:])
    heights = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    reach = [np.arange(-n, n + 1) for n in np.ceil(GRID * radius / heights).astype(int)]
    offsets = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(offsets / GRID @ matrix, axis=1) < radius - 1e-9
    return np.unique(offsets[near] % GRID, axis=0)


@lru_cache(maxsize=128)
def _taken(cell: tuple[int, ...], sites: tuple[tuple[int, ...], ...], radius: float) -> NDArray[np.bool_]:
    """For each point of the grid whether an atom is too near, shape (100, 100, 100)."""
    if not sites:
        return np.zeros((GRID, GRID, GRID), dtype=bool)
    taken = _taken(cell, sites[:-1], radius).copy()
    taken[tuple(((_ball(cell, radius) + sites[-1]) % GRID).T)] = True
    return taken
