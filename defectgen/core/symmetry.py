"""Symmetry of a host supercell as permutations of its sites."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host

SYMPREC_ANGSTROM = 1e-2
"""How far an atom may lie from its symmetry image."""


@lru_cache(maxsize=64)
def site_permutations(host: Host) -> NDArray[np.int32]:
    """Every operation of the layer group, supercell translations included, acting on the sites.

    Returns:
        Shape (n_operations, n_sites), read-only: operation g takes site s to ``result[g, s]``.
        Rows are distinct and sorted, so the identity comes first. For 8x8 MoS2 there are 768.

    Source:
        spglib (Togo et al., Sci. Technol. Adv. Mater. Meth. 4, 2384822 (2024),
        doi 10.1080/27660400.2024.2384822) for the operations of the unit cell.
    """
    import spglib

    numbers = [host.elements.index(element) + 1 for element in host.species]
    frac = np.asarray(host.frac_coords)
    symmetry = spglib.get_symmetry((host.lattice, host.frac_coords, numbers), symprec=SYMPREC_ANGSTROM)
    if symmetry is None:
        raise ValueError(f"spglib found no symmetry for {host.name}")
    n_a, n_b = host.supercell
    i, j = (axis.ravel() for axis in np.meshgrid(np.arange(n_a), np.arange(n_b), indexing="ij"))
    rows: list[NDArray[np.int32]] = []
    for rotation, translation in zip(symmetry["rotations"], symmetry["translations"], strict=True):
        plane = rotation[:2, :2]
        in_layer = not rotation[:2, 2].any() and not rotation[2, :2].any()
        kept = plane * np.array([[n_b], [n_a]]) * np.array([n_a, n_b]) % (n_a * n_b) == 0
        if not (in_layer and kept.all()):
            continue
        image = np.empty((host.n_basis, n_a * n_b), dtype=np.int64)
        for basis in range(host.n_basis):
            moved = rotation @ frac[basis] + translation
            target, offset = _basis_image(host, basis, moved)
            a = (plane[0, 0] * i + plane[0, 1] * j + offset[0]) % n_a
            b = (plane[1, 0] * i + plane[1, 1] * j + offset[1]) % n_b
            image[basis] = (target * n_a + a) * n_b + b
        for shift_a in range(n_a):
            for shift_b in range(n_b):
                shifted = image - image % (n_a * n_b)
                shifted = shifted + (image // n_b % n_a + shift_a) % n_a * n_b + (image % n_b + shift_b) % n_b
                rows.append(shifted.ravel().astype(np.int32))
    permutations = np.unique(np.array(rows), axis=0)
    permutations.setflags(write=False)
    return permutations


def _basis_image(host: Host, basis: int, moved: NDArray[np.float64]) -> tuple[int, NDArray[np.int64]]:
    """The basis atom on which `moved` lands, and the cell offset (integers along a, b, c)."""
    difference = moved - np.asarray(host.frac_coords)
    offsets = np.rint(difference)
    distance = np.linalg.norm((difference - offsets) @ np.asarray(host.lattice), axis=1)
    distance[[element != host.species[basis] for element in host.species]] = np.inf
    target = int(distance.argmin())
    return target, offsets[target].astype(np.int64)


@lru_cache(maxsize=64)
def _images_to_representative(host: Host) -> tuple[NDArray[np.int32], tuple[NDArray[np.int32], ...]]:
    """The smallest site of each site's orbit, and for each site the operations that take it there."""
    permutations = site_permutations(host)
    representative = permutations.min(axis=0)
    operations = tuple(permutations[permutations[:, site] == representative[site]] for site in range(host.n_sites))
    return representative, operations


def canonical_edits(host: Host, edits: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str], ...]:
    """The smallest image of a decoration under the host's symmetry, as sorted (site, species) pairs.

    Two decorations are equivalent exactly if their smallest images are equal. Only operations
    that take one of the defects to the smallest site that any of them can reach need a look.
    """
    if not edits:
        return ()
    representative, operations = _images_to_representative(host)
    sites = np.array([site for site, _ in edits])
    names = sorted({species for _, species in edits})
    codes = np.array([names.index(species) for _, species in edits])
    reachable = representative[sites]
    first = reachable.min()
    images = np.concatenate([operations[site][:, sites] for site in sites[reachable == first]])
    keys = np.sort(images.astype(np.int64) * len(names) + codes, axis=1)
    smallest = keys[np.lexsort(keys.T[::-1])[0]]
    return tuple((int(key) // len(names), names[int(key) % len(names)]) for key in smallest)
