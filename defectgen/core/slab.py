"""The layer in a cell, in a frame of its own: two vectors in the plane, and heights along the normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.errors import DefectgenError

BULK_GAP_ANGSTROM = 4.0
"""A crystal whose widest empty slab is thinner is no layer: in layered bulk crystals it is about 3 angstrom."""


ONE_LAYER = "Give a cell with one layer and vacuum."


class NotADecorationError(DefectgenError):
    """A structure that cannot be read as a decoration of the host; the message says why."""


class NotALayerError(NotADecorationError):
    """A bulk crystal; the message says so as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Slab:
    """The atoms of a cell as a layer, whichever axis holds the vacuum and however the third vector leans.

    Attributes:
        axes: the two axes in the plane and the one across it, as indices of the rows of the cell.
        plane: rows are the two vectors in the plane, in angstrom; the first along x, the second with y > 0; (2, 2).
        frac: coordinates along them, shape (n, 2).
        height: of each atom along the normal in angstrom, the layer in one piece; shape (n,).
        period_angstrom: of the cell along the normal.
        upright: whether the third vector of the cell points to the side of the normal.
    """

    axes: tuple[int, int, int]
    plane: NDArray[np.float64]
    frac: NDArray[np.float64]
    height: NDArray[np.float64]
    period_angstrom: float
    upright: bool

    @classmethod
    def of(cls, lattice: NDArray[np.float64], frac_coords: NDArray[np.float64]) -> Slab:
        """The layer of a cell.

        Args:
            lattice: rows a, b, c in angstrom, shape (3, 3).
            frac_coords: shape (n, 3).

        Raises:
            NotADecorationError: no atoms, numbers that are not finite, or a cell without volume.
            NotALayerError: no vacuum.
        """
        if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
            raise NotADecorationError("cell or coordinates are not finite numbers.")
        if not len(frac_coords):
            raise NotADecorationError("the structure has no atoms.")
        faces, areas, volume = _faces(lattice)
        if volume < 1e-3 or areas.min() < 1e-3:
            raise NotADecorationError("the cell has no volume.")
        empty = _largest_gaps(frac_coords) * volume / areas
        across = max((2, 0, 1), key=lambda k: round(float(empty[k]), 2))
        if empty[across] < BULK_GAP_ANGSTROM:
            raise NotALayerError(
                f"is a bulk crystal, not a layer: the widest empty slab of the cell is {empty[across]:.2f} angstrom, "
                f"expected at least {BULK_GAP_ANGSTROM:g} of vacuum across one axis.",
                ONE_LAYER,
            )
        first, second = (across + 1) % 3, (across + 2) % 3
        normal = faces[across] / areas[across]
        start = empty_stretches(frac_coords[:, across])[1][0]
        placed = frac_coords.copy()
        placed[:, across] = (placed[:, across] - start) % 1.0 + start
        cartesian = placed @ lattice
        a, b = lattice[first], lattice[second]
        along = a / np.linalg.norm(a)
        frame = np.array([along, np.cross(normal, along)])
        plane = np.array([a, b]) @ frame.T
        frac = cartesian @ frame.T @ np.linalg.inv(plane)
        period = volume / float(areas[across])
        upright = float(lattice[across] @ normal) > 0
        return cls((first, second, across), plane, frac, cartesian @ normal, period, upright)


def empty_slabs(lattice: NDArray[np.float64], frac_coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the largest slab without atoms across each of the three cell vectors, in angstrom, shape (3,)."""
    return _largest_gaps(frac_coords) * heights(lattice)


def heights(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the two faces across each of the three cell vectors, in angstrom, shape (3,)."""
    _, areas, volume = _faces(lattice)
    return volume / areas


def empty_stretches(frac: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Empty stretches of an axis as fractions of it, the longest first, and where the middle of each lies.

    Args:
        frac: fractional coordinates of n atoms along the axis, shape (n,).

    Returns:
        Lengths and middles, shape (n,) each.
    """
    values = np.sort(np.asarray(frac) % 1.0)
    gaps = np.diff(values, append=values[0] + 1.0)
    middles = (values + gaps / 2) % 1.0
    order = np.argsort(-gaps, kind="stable")
    return gaps[order], middles[order]


def _faces(lattice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Normals of the three faces, as long as the faces are large; their areas; the volume."""
    faces = np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]])
    return faces, np.linalg.norm(faces, axis=1), abs(float(np.linalg.det(lattice)))


def _largest_gaps(frac_coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longest empty stretch of each axis as a fraction of it, shape (3,)."""
    return np.array([empty_stretches(frac)[0][0] for frac in frac_coords.T])
