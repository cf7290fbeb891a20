"""The symmetry that a decoration keeps: how many images it has, and the point group about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.symmetry import site_group

FLAT_ANGSTROM = 0.01
"""Layers thinner than this are their own mirror image."""


@dataclass(frozen=True)
class KeptSymmetry:
    """What is left of a host's symmetry.

    Attributes:
        multiplicity: number of images of the decoration in the supercell.
        point_group: Hermann-Mauguin symbol of the operations that keep it, e.g. ``3m``; empty in cells too small to
            tell their rotations apart.
    """

    multiplicity: int
    point_group: str


@lru_cache(maxsize=4096)
def kept_symmetry(configuration: Configuration) -> KeptSymmetry:
    """The symmetry that a decoration keeps, the supercell's translations counted among the host's."""
    import spglib

    host = configuration.host
    group = kept = site_group(host)
    for kind in sorted({species for _, species in configuration.edits}):
        kept = kept.stabilizer(np.array([site for site, species in configuration.edits if species == kind]))
    multiplicity = len(group.permutations) // len(kept.permutations)
    if min(host.supercell) < 3:
        return KeptSymmetry(multiplicity, "")
    rotations = np.unique(np.array([_rotation(host, row) for row in kept.permutations]), axis=0)
    if np.ptp(host.site_cart_coords[:, 2]) < FLAT_ANGSTROM:
        mirrored = rotations * np.array([[1, 1, 1], [1, 1, 1], [1, 1, -1]])
        rotations = np.unique(np.concatenate([rotations, mirrored]), axis=0)
    found = spglib.get_pointgroup(rotations)
    return KeptSymmetry(multiplicity, str(found[0]).strip() if found else "")


def _rotation(host: Host, permutation: NDArray[np.int32]) -> NDArray[np.int64]:
    """The rotation part of an operation in the basis of the unit cell's vectors, shape (3, 3)."""
    n_a, n_b = host.supercell
    n_cells = n_a * n_b

    def cell(site: int) -> NDArray[np.int64]:
        image = int(permutation[site]) % n_cells
        return np.array(divmod(image, n_b), dtype=np.int64)

    origin = cell(0)
    rotation = np.zeros((3, 3), dtype=np.int64)
    for axis, (site, size) in enumerate(((n_b, (n_a, n_b)), (1, (n_a, n_b)))):
        moved = cell(site) - origin
        rotation[:2, axis] = (moved + np.array(size) // 2) % np.array(size) - np.array(size) // 2
    heights = np.array([position[2] for position in host.frac_coords])
    middle = heights - (heights.max() + heights.min()) / 2
    basis = np.arange(host.n_basis)
    images = permutation[basis * n_cells] // n_cells
    rotation[2, 2] = 1 if float(middle @ middle[images]) >= -1e-12 else -1
    return rotation
