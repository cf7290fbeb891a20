"""Numbers that describe a decoration and do not change under the host's symmetry.

Every pair of sites belongs to an orbit of the supercell's symmetry group, and so does every triangle of
sites. A feature depends on a configuration only through the kinds of its defects and the orbits of its
pairs and triangles, so two symmetry images have equal features to the last bit. Geometry (distances,
area, orientation) is computed once for one representative of each orbit.

The idea of leaving out the pristine atoms and describing defects and their distances only is that of
Kazeev et al., npj Comput Mater 9, 113 (2023), doi 10.1038/s41524-023-01062-z.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host, defect_name, site_permutations
from defectgen.errors import UsageError

MAX_LISTED = 3
"""Number of defects up to which pairs and the triangle are listed one by one."""

TRIANGLES_ANGSTROM = 6.0
"""Triangles are counted if all three sides are at most this long."""


@dataclass(frozen=True)
class PairOrbits:
    """The orbits of pairs of different sites.

    Attributes:
        table: orbit of each pair of sites, -1 on the diagonal, shape (n_sites, n_sites).
        distances_angstrom: shortest distance of each orbit's sites, ascending, shape (n_orbits,).
    """

    table: NDArray[np.int64]
    distances_angstrom: NDArray[np.float64]


def displacements(host: Host, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shortest vectors from sites to sites under the supercell's periodicity, in angstrom, shape (n, 3)."""
    frac = host.site_frac_coords[second] - host.site_frac_coords[first]
    frac[:, :2] -= np.rint(frac[:, :2])
    images = np.array([(i, j, 0) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=float)
    vectors = (frac[:, None, :] + images[None, :, :]) @ host.supercell_lattice
    nearest = np.round(np.linalg.norm(vectors, axis=2), 6).argmin(axis=1)
    return np.asarray(vectors[np.arange(len(frac)), nearest])


@lru_cache(maxsize=16)
def pair_orbits(host: Host) -> PairOrbits:
    """The pair orbits of a host, in the order of their distances."""
    n = host.n_sites
    first, second = (axis.ravel() for axis in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    smallest = np.full(n * n, n * n, dtype=np.int64)
    for image in site_permutations(host).astype(np.int64):
        a, b = image[first], image[second]
        np.minimum(smallest, np.minimum(a * n + b, b * n + a), out=smallest)
    names, index = np.unique(smallest, return_inverse=True)
    length = np.round(np.linalg.norm(displacements(host, names // n, names % n), axis=1), 6)
    order = np.lexsort((names, length))
    order = order[length[order] > 0]
    rank = np.full(len(names), -1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    return PairOrbits(rank[index].reshape(n, n), length[order])
