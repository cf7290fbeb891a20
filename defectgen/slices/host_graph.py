"""The labelled quotient graph of a decorated host, from the neighbours of its pristine cell.

Bonds depend on distances alone, so only atoms that lost a neighbour to a vacancy are looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.symmetry import SYMPREC_ANGSTROM
from defectgen.errors import DefectgenError
from defectgen.slices.econnn import CUTOFF_ANGSTROM, Shells, bonded_neighbours, mean_bonds, space_group_of, unique_edges
from defectgen.slices.quotient_graph import Edge, QuotientGraph

NEGLIGIBLE_RATIO = 1.9
"""Neighbours farther than this times the mean bond length weigh less than the rounding of the sum."""


def encode_configuration(configuration: Configuration) -> str:
    """The SLICES string of a decorated host, atoms in the order of its sites.

    Equal to `encode_structure` of ``configuration.to_structure()``, and some twenty times as fast.

    Raises:
        DefectgenError: no atoms, or an atom without neighbours within `CUTOFF_ANGSTROM`.
    """
    return graph_of_configuration(configuration).text()


def graph_of_configuration(configuration: Configuration) -> QuotientGraph:
    """Space group, atoms and edges of a decorated host; raises as `encode_configuration`."""
    host = configuration.host
    occupied = np.ones(host.n_sites, dtype=bool)
    occupied[[site for site, species in configuration.edits if species == VACANCY]] = False
    if not occupied.any():
        raise DefectgenError(f"got {host.name} with every site vacant, which has no SLICES string.")
    number = (np.cumsum(occupied) - 1).tolist()
    bonds = _host_shells(host, near=True).bonds_between(occupied)
    if bonds is None:
        bonds = _host_shells(host, near=False).bonds_between(occupied) or iter(())
    edges = tuple((number[i], number[j], cell) for i, j, cell in unique_edges(bonds))
    species = list(_host_species(host))
    for site, name in configuration.edits:
        species[site] = name
    atoms = tuple(name for name in species if name != VACANCY)
    return QuotientGraph(_space_group(configuration, species), atoms, edges)


@dataclass(frozen=True)
class _HostShells:
    """The neighbours of a pristine host within `radius_angstrom`, and which of them are bonded."""

    radius_angstrom: float
    shells: Shells
    bonded: NDArray[np.bool_]

    def bonds_between(self, occupied: NDArray[np.bool_]) -> Iterator[Edge] | None:
        """Every bond between occupied sites, from both of its ends, in the order of the search.

        None if a neighbour farther than these shells reach could have a say.
        """
        shells = self.shells
        present = occupied[shells.atom]
        finite = np.isfinite(shells.distance)
        rows = np.flatnonzero(occupied & (finite & ~present).any(axis=1))
        bonded = self.bonded & occupied[:, None]
        if len(rows):
            distance = np.where(present[rows], shells.distance[rows], np.inf)
            partial = self.radius_angstrom < CUTOFF_ANGSTROM
            if partial and not np.isfinite(distance.min(axis=1)).all():
                return None
            mean = mean_bonds(distance)
            if partial and mean.max() * NEGLIGIBLE_RATIO > self.radius_angstrom:
                return None
            bonded[rows] = bonded_neighbours(distance, mean)
        return (shells.edges[k] for k in np.flatnonzero(bonded).tolist())


@lru_cache(maxsize=32)
def _host_species(host: Host) -> tuple[str, ...]:
    return Configuration(host, ()).species


@lru_cache(maxsize=32)
def _host_shells(host: Host, near: bool) -> _HostShells:
    structure = Configuration(host, ()).to_structure()
    shells = Shells.of(structure, CUTOFF_ANGSTROM)
    mean = mean_bonds(shells.distance)
    radius = 1.3 * NEGLIGIBLE_RATIO * float(mean.max())  # vacancies may make it 1.3 times as long
    if near and radius < CUTOFF_ANGSTROM:
        shells = Shells.of(structure, radius)
        return _HostShells(radius, shells, bonded_neighbours(shells.distance, mean))
    return _HostShells(CUTOFF_ANGSTROM, shells, bonded_neighbours(shells.distance, mean))


@dataclass(frozen=True)
class _Operations:
    """Operations of a host's geometry, whatever its elements: permutations (g, n) and affine maps in the supercell."""

    permutations: NDArray[np.int64]
    rotations: NDArray[np.int32]
    translations: NDArray[np.float64]


@lru_cache(maxsize=32)
def _host_operations(host: Host) -> _Operations | None:
    """The operations, or None for a supercell that is not square or that breaks some of the unit cell's."""
    import spglib

    if host.supercell[0] != host.supercell[1]:
        return None
    symmetry = spglib.get_symmetry((host.lattice, host.frac_coords, [1] * host.n_basis), symprec=SYMPREC_ANGSTROM)
    if symmetry is None:
        return None
    n_a, n_b = host.supercell
    size = np.array([n_a, n_b, 1])
    cells = np.arange(n_a * n_b).reshape(n_a, n_b)
    sites = host.site_frac_coords
    shifts = [(a, b) for a in range(n_a) for b in range(n_b)]
    moves = [np.roll(cells, (-a, -b), axis=(0, 1)).ravel() for a, b in shifts]
    permutations, rotations, translations = [], [], []
    for rotation, translation in zip(symmetry["rotations"], symmetry["translations"], strict=True):
        if (rotation * size % size[:, None]).any():
            return None
        rotation = rotation * size // size[:, None]
        image = sites @ rotation.T + translation / size
        offset = image[:, None] - sites
        target = np.linalg.norm((offset - np.rint(offset)) @ host.supercell_lattice, axis=2).argmin(axis=1)
        basis, cell = np.divmod(target, n_a * n_b)
        for (a, b), move in zip(shifts, moves, strict=True):
            permutations.append(basis * n_a * n_b + move[cell])
            rotations.append(rotation)
            translations.append((translation + np.array([a, b, 0])) / size)
    return _Operations(np.array(permutations), np.array(rotations, dtype=np.int32), np.array(translations))


def _space_group(configuration: Configuration, species: Sequence[str]) -> int:
    """Number of the space group, from the operations of the host that leave the decoration as it is.

    There are no others if the decoration has no translation shorter than its square supercell: then a
    rotation of it is one of the host's lattice, and since the decoration holds atoms of each basis, the
    image of the whole host falls on the host. What this does not cover goes to spglib.
    """
    import spglib

    host = configuration.host
    operations = _host_operations(host)
    vacant = Counter(host.site_cell(site)[0] for site, name in configuration.edits if name == VACANCY)
    emptied = host.n_sites // host.n_basis in vacant.values() or vacant.total() > host.n_sites / 2
    if operations is not None and not emptied:
        number = {name: k for k, name in enumerate(sorted(set(species)))}
        codes = np.array([number[name] for name in species])
        sites = [site for site, _ in configuration.edits]
        kept = np.flatnonzero((codes[operations.permutations[:, sites]] == codes[sites]).all(axis=1))
        kept = kept[(codes[operations.permutations[kept]] == codes).all(axis=1)]
        rotations = operations.rotations[kept]
        if (rotations == np.eye(3, dtype=np.int32)).all(axis=(1, 2)).sum() == 1:
            if len(kept) == 1:
                return 1
            found = spglib.get_spacegroup_type_from_symmetry(
                rotations, operations.translations[kept], host.supercell_lattice, SYMPREC_ANGSTROM
            )
            if found is not None:
                return int(found.number)
    return space_group_of(configuration.to_structure())
