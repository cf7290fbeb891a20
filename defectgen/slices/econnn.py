"""The labelled quotient graph of a crystal: its bonds by EconNN, Hoppe's effective coordination numbers.

Source: Hoppe, Z. Kristallogr. 150, 23 (1979), doi 10.1524/zkri.1979.150.14.23.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.errors import DefectgenError
from defectgen.slices.quotient_graph import Edge, QuotientGraph

if TYPE_CHECKING:
    from pymatgen.core import Structure

CUTOFF_ANGSTROM = 10.0
"""Neighbours beyond this are not looked at."""

LEAST_WEIGHT = 0.2
"""Weight, relative to a bond of mean length, from which a neighbour counts as bonded."""

MEAN_TOLERANCE_ANGSTROM = 1e-4
"""Change of the mean bond length at which its iteration ends."""

COINCIDENT_ANGSTROM = 1e-8
"""Up to this distance an atom found is the atom itself."""


def encode_structure(structure: Structure) -> str:
    """The SLICES string of any ordered crystal, atoms in its own order.

    Raises:
        DefectgenError: partial occupancy, no atoms, or an atom without neighbours within `CUTOFF_ANGSTROM`.
    """
    return graph_of_structure(structure).text()


def graph_of_structure(structure: Structure) -> QuotientGraph:
    """Space group, atoms and edges of any ordered crystal; raises as `encode_structure`."""
    from pymatgen.core import Element

    if not structure.is_ordered:
        raise DefectgenError("the structure has partially occupied sites, expected one element a site.")
    if not len(structure) or not np.isfinite(structure.cart_coords).all():
        raise DefectgenError("the structure has no atoms, or coordinates that are no numbers.")
    shells = Shells.of(structure, CUTOFF_ANGSTROM)
    bonded = bonded_neighbours(shells.distance, mean_bonds(shells.distance))
    edges = unique_edges(shells.edges[k] for k in np.flatnonzero(bonded).tolist())
    species = tuple(Element.from_Z(number).symbol for number in structure.atomic_numbers)
    return QuotientGraph(space_group_of(structure), species, edges)


def space_group_of(structure: Structure) -> int:
    """Number of the space group, as spglib finds it with pymatgen's tolerances (0.01 angstrom)."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    return int(SpacegroupAnalyzer(structure).get_space_group_number())


@dataclass(frozen=True)
class Shells:
    """The neighbours of n atoms, k columns each, in the order of pymatgen's search around each atom.

    That order and the removal of second mentions decide the order of the edges in a string.

    Attributes:
        atom: index of each neighbour, shape (n, k).
        distance: to it in angstrom, shape (n, k); infinite where there is no neighbour.
        edges: the bond to it, n * k of them.
    """

    atom: NDArray[np.int64]
    distance: NDArray[np.float64]
    edges: list[Edge]

    @classmethod
    def of(cls, structure: Structure, radius_angstrom: float) -> Shells:
        found = []
        for site in structure:  # one at a time: a search around all of them has another order
            _, atoms, cells, distances = structure.get_neighbor_list(CUTOFF_ANGSTROM, sites=[site], exclude_self=False)
            kept = (distances > COINCIDENT_ANGSTROM) & (distances <= radius_angstrom)
            found.append((atoms[kept], cells[kept], distances[kept]))
        width = max(len(atoms) for atoms, _, _ in found)
        atom = np.zeros((len(found), width), dtype=np.int64)
        distance = np.full((len(found), width), np.inf)
        edges: list[Edge] = []
        for n, (atoms, cells, distances) in enumerate(found):
            atom[n, : len(atoms)], distance[n, : len(atoms)] = atoms, distances
            edges += [_edge(n, j, cell) for j, cell in zip(atoms.tolist(), cells.astype(int).tolist(), strict=True)]
            edges += [(n, n, (0, 0, 0))] * (width - len(atoms))
        return cls(atom, distance, edges)


def _edge(first: int, second: int, cell: Sequence[int]) -> Edge:
    """A bond from the lower to the higher atom; between images of one atom, towards the positive cell."""
    x, y, z = cell
    if second < first or (second == first and (x, y, z) < (0, 0, 0)):
        return second, first, (-x, -y, -z)
    return first, second, (x, y, z)


def unique_edges(bonds: Iterable[Edge]) -> tuple[Edge, ...]:
    """Each bond once: by first atom, then by when the pair of atoms and when the bond was first mentioned."""
    pairs: dict[int, dict[int, dict[Edge, None]]] = {}
    for edge in bonds:
        pairs.setdefault(edge[0], {}).setdefault(edge[1], {})[edge] = None
    return tuple(edge for first in sorted(pairs) for same in pairs[first].values() for edge in same)


def bonded_neighbours(distance: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """EconNN with bond lengths in place of ionic radii: which neighbours are bonded, shape (n, k).

    Args:
        distance: from n atoms to k neighbours in angstrom, infinite for none, shape (n, k).
        mean: bond lengths of the atoms in angstrom, see `mean_bonds`, shape (n,).
    """
    return np.asarray(_weight(distance, mean) > LEAST_WEIGHT)


def mean_bonds(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hoppe's weighted mean bond length of n atoms in angstrom, shape (n,).

    Raises:
        DefectgenError: an atom has no neighbour.
    """
    shortest = distance.min(axis=1, initial=np.inf)
    if not np.isfinite(shortest).all():
        raise DefectgenError(f"an atom has no neighbour within {CUTOFF_ANGSTROM:g} angstrom.", "SLICES needs bonds.")
    finite = np.where(np.isfinite(distance), distance, 0.0)

    def step(rows: NDArray[np.int64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = _weight(distance[rows], mean)
        return np.asarray((finite[rows] * weight).sum(axis=1) / weight.sum(axis=1))

    rows = np.arange(len(distance))
    mean = step(rows, shortest)
    while len(rows):
        new = step(rows, mean[rows])
        moving = np.abs(new - mean[rows]) > MEAN_TOLERANCE_ANGSTROM
        mean[rows] = new
        rows = rows[moving]
    return mean


def _weight(distance: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each neighbour, shape (n, k), for mean bond lengths of shape (n,)."""
    return np.asarray(np.exp(1.0 - (distance / mean[:, None]) ** 6))
