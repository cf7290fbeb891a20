"""The symmetry that a decoration keeps of its host.

It decides how the cell relaxes: where the degenerate states of a metal vacancy see a symmetric surrounding,
the calculation stays on another branch (of the HOMO in WSe2, 50 meV away) than where they do not.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Host, site_permutations

N_COLUMNS = 3
"""Order of the stabilizer; most sites that one of its operations but the identity fixes (-1 without one); their sum."""


def stabilizers(host: Host, kinds: NDArray[np.int64], sites: NDArray[np.int64]) -> NDArray[np.float64]:
    """What `N_COLUMNS` says, for configurations with equal numbers of defects.

    Args:
        host: the host.
        kinds: kind of each defect, shape (n, size), the same order as `sites`.
        sites: their sites, shape (n, size).

    Returns:
        Shape (n, `N_COLUMNS`).
    """
    n, size = sites.shape
    permutations = site_permutations(host)
    fixed = _fixed_sites(host)
    result = np.zeros((n, N_COLUMNS))
    if not size:
        return result
    n_kinds = len(host.rules)
    own = np.sort(sites * n_kinds + kinds, axis=1)
    order, most, total = np.zeros(n), np.full(n, -1.0), np.zeros(n)
    for target in range(size):
        operations = _between(host)[sites[:, 0], sites[:, target]]
        images = permutations[operations[:, :, None], sites[:, None, :]].astype(np.int64) * n_kinds + kinds[:, None, :]
        kept = (np.sort(images, axis=2) == own[:, None, :]).all(axis=2) & (operations >= 0)
        other = kept & (fixed[operations] < host.n_sites)
        order += kept.sum(axis=1)
        most = np.maximum(most, np.where(other, fixed[operations], -1).max(axis=1))
        total += np.where(other, fixed[operations], 0).sum(axis=1)
    return np.stack([order, most, total], axis=1)


@lru_cache(maxsize=16)
def _between(host: Host) -> NDArray[np.int64]:
    """Operations that take one site to another, shape (n_sites, n_sites, most); -1 for none."""
    permutations = site_permutations(host)
    most = int(max(np.bincount(permutations[:, site]).max() for site in range(host.n_sites)))
    table = np.full((host.n_sites, host.n_sites, most), -1, dtype=np.int64)
    for site in range(host.n_sites):
        images = permutations[:, site]
        by_image = np.argsort(images, kind="stable")
        place = np.arange(len(images)) - np.searchsorted(images[by_image], images[by_image])
        table[site, images[by_image], place] = by_image
    return table


@lru_cache(maxsize=16)
def _fixed_sites(host: Host) -> NDArray[np.int64]:
    """Number of sites that each operation leaves in place."""
    return np.asarray((site_permutations(host) == np.arange(host.n_sites)).sum(axis=1), dtype=np.int64)
