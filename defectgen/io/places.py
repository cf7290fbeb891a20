"""What of a cell and the places of its atoms is impossible or absurd, so that nothing computes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.io.crystal_cif import shared_place

if TYPE_CHECKING:
    from pymatgen.core import Structure

ISOTOPES = ("D", "T")
"""Of hydrogen; some libraries take them for elements of their own, some for hydrogen, some for nothing."""

LONGEST_ANGSTROM = 1e4
"""Longest cell vector that is read."""

THINNEST_ANGSTROM = 0.3
"""Smallest distance of two opposite faces of a cell: the images of an atom cannot be nearer."""

FARTHEST_CELLS = 100.0
"""Farthest from the origin that an atom is read, in cell vectors: an unwrapped trajectory does not go so far."""


def atoms_problem(structure: Structure) -> str:
    """Why no potential can compute a structure, as the end of a sentence; empty if one can."""
    from pymatgen.core import DummySpecies

    if len(structure) == 0:
        return "holds no atoms"
    if dummy := next((item for item in structure.composition.elements if isinstance(item, DummySpecies)), None):
        return f"has the species {dummy.symbol!r}, which is no element"
    if isotope := next((item.name for item in structure.composition.elements if item.name in ISOTOPES), None):
        return f"has the species {isotope!r}, which is no element: name it H"
    if not structure.is_ordered:
        return "has partially occupied sites, expected one element a site"
    return place_problem(np.asarray(structure.lattice.matrix), np.asarray(structure.frac_coords))


def place_problem(lattice: NDArray[np.float64], frac_coords: NDArray[np.float64], *, apart: bool = True) -> str:
    """What is impossible in a cell and places in it, as the end of a sentence; empty if nothing is.

    Args:
        lattice: rows a, b, c in angstrom, shape (3, 3).
        frac_coords: shape (n, 3).
        apart: whether two atoms on one place are impossible.
    """
    if not (np.isfinite(frac_coords).all() and np.isfinite(lattice).all()):
        return "has coordinates that are no finite numbers"
    lengths = np.linalg.norm(lattice, axis=1)
    if not (lengths.max() <= LONGEST_ANGSTROM and np.isfinite(volume := abs(float(np.linalg.det(lattice))))):
        return f"has a cell vector of {lengths.max():.3g} angstrom, expected at most {LONGEST_ANGSTROM:g}"
    areas = [float(np.linalg.norm(np.cross(lattice[k - 1], lattice[k - 2]))) for k in range(3)]
    thinnest = volume / max(areas) if max(areas) > 0 else 0.0
    if thinnest < THINNEST_ANGSTROM:
        return f"has a cell {thinnest:.2g} angstrom thin, expected at least {THINNEST_ANGSTROM:g}"
    farthest = float(np.abs(frac_coords).max(initial=0.0))
    if farthest > FARTHEST_CELLS:
        atom = int(np.abs(frac_coords).max(axis=1).argmax())
        return (
            f"has atom {atom + 1} at {farthest:.3g} cell vectors from the origin, expected at most {FARTHEST_CELLS:g}"
        )
    if apart and (pair := shared_place(frac_coords)):
        return f"does not give each atom a place: atoms {pair[0] + 1} and {pair[1] + 1} are on one place"
    return ""
