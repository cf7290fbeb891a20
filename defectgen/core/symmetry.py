"""Symmetry of a host supercell as permutations of its sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host
from defectgen.errors import UsageError

MAX_GROUP_NUMBERS = 100_000_000
"""Operations times sites of the largest group that is made, to bound the memory."""

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
    rotations, translations = _operations(host)
    if not len(rotations):
        raise ValueError(f"spglib found no symmetry for {host.name}")
    frac = np.asarray(host.frac_coords)
    n_a, n_b = host.supercell
    n_numbers = len(rotations) * n_a * n_b * host.n_sites
    if n_numbers > MAX_GROUP_NUMBERS:
        raise UsageError(
            f"{host.title} has {host.n_sites:,} sites, too many for its symmetry group.",
            f"Take a smaller supercell, e.g. {min(n_a, 12)}x{min(n_b, 12)}.",
        )
    if (rotations == np.eye(3, dtype=int)).all(axis=(1, 2)).sum() > 1:
        return _permutations_of_supercell(host)
    i, j = (axis.ravel() for axis in np.meshgrid(np.arange(n_a), np.arange(n_b), indexing="ij"))
    rows: list[NDArray[np.int32]] = []
    for rotation, translation in zip(rotations, translations, strict=True):
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


def n_operations(host: Host, symprec_angstrom: float = SYMPREC_ANGSTROM) -> int:
    """Number of symmetry operations of the unit cell to within a tolerance."""
    return len(_operations(host, symprec_angstrom)[0])


@lru_cache(maxsize=64)
def rotations_in_layer(host: Host) -> NDArray[np.int32]:
    """The rotations of the unit cell's symmetry that keep the layer in its plane, each once, shape (n, 3, 3).

    They act on columns of fractional coordinates of the unit cell.
    """
    found, _ = _operations(host)
    rotations = np.unique(found, axis=0) if len(found) else np.eye(3, dtype=np.int32)[None]
    kept = ~rotations[:, :2, 2].any(axis=1) & ~rotations[:, 2, :2].any(axis=1)
    return np.asarray(rotations[kept])


def _operations(
    host: Host, symprec_angstrom: float = SYMPREC_ANGSTROM
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Rotations (n, 3, 3) and translations (n, 3) of the unit cell; none if spglib finds no symmetry."""
    import spglib

    numbers = [host.elements.index(element) + 1 for element in host.species]
    found = spglib.get_symmetry((host.lattice, host.frac_coords, numbers), symprec=symprec_angstrom)
    if found is None:
        return np.zeros((0, 3, 3), dtype=np.int32), np.zeros((0, 3))
    return found["rotations"], found["translations"]


def _permutations_of_supercell(host: Host) -> NDArray[np.int32]:
    """The same from the operations of the whole supercell, for a unit cell that is not primitive."""
    import spglib

    frac = host.site_frac_coords
    numbers = [host.elements.index(element) + 1 for element in host.site_elements]
    cell = host.supercell_lattice.tolist(), frac.tolist(), numbers
    symmetry = spglib.get_symmetry(cell, symprec=SYMPREC_ANGSTROM)
    if symmetry is None:
        raise ValueError(f"spglib found no symmetry for {host.title}")
    rows: list[NDArray[np.int32]] = []
    for rotation, translation in zip(symmetry["rotations"], symmetry["translations"], strict=True):
        if rotation[:2, 2].any() or rotation[2, :2].any():
            continue
        difference = (frac @ rotation.T + translation)[:, None, :] - frac[None, :, :]
        distance = np.linalg.norm((difference - np.rint(difference)) @ host.supercell_lattice, axis=2)
        rows.append(distance.argmin(axis=1).astype(np.int32))
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


Sites = NDArray[np.int64]


@dataclass(frozen=True)
class SmallestImages:
    """The smallest images of n decorations with k defects.

    Attributes:
        sites: in ascending order, shape (n, k).
        codes: what stands on each, shape (n, k).
        stabilizer_orders: number of operations that leave each decoration unchanged, shape (n,).
    """

    sites: Sites
    codes: Sites
    stabilizer_orders: Sites


@dataclass(frozen=True)
class SiteGroup:
    """A group of site permutations with what is needed to find smallest images fast.

    Attributes:
        permutations: shape (n_operations, n_sites): operation g takes site s to ``permutations[g, s]``.
    """

    permutations: NDArray[np.int32]

    @cached_property
    def representatives(self) -> NDArray[np.int32]:
        """The smallest site that each site can be taken to, shape (n_sites,)."""
        return np.asarray(self.permutations.min(axis=0))

    @cached_property
    def _to_representative(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """The operations that take each site to its representative, site after site; where each begins; how many."""
        found = [np.flatnonzero(self.permutations[:, s] == first) for s, first in enumerate(self.representatives)]
        sizes = np.array([len(operations) for operations in found])
        return np.concatenate(found), np.cumsum(sizes) - sizes, sizes

    @cached_property
    def _narrow(self) -> NDArray[np.integer]:
        """The permutations in two bytes a site where that is enough: sorting images is most of the work."""
        return self.permutations.astype(np.int16 if self.permutations.shape[1] < 2**15 else np.int64)

    def smallest_images(self, sites: Sites, codes: Sites | None = None) -> SmallestImages:
        """The smallest image of each of n decorations with k defects.

        Images are compared as lists of (site, code) pairs in ascending order. A smallest image begins with the
        smallest site that any of the defects can reach, so only operations that take a defect there need a look.

        Args:
            sites: changed sites, each once, shape (n, k).
            codes: what stands on each, as small numbers, shape (n, k); all the same if left out.
        """
        n, k = sites.shape
        if codes is None:
            codes = np.zeros_like(sites)
        if not n or not k:
            return SmallestImages(sites, codes, np.full(n, len(self.permutations)))
        base = int(codes.max()) + 1
        dtype = np.int16 if self.permutations.shape[1] * base < 2**15 else np.int64
        step = max(1, _MAX_ELEMENTS // (k * k * int(self._to_representative[2].max())))
        found = [
            self._smallest(sites[start : start + step], codes[start : start + step].astype(dtype), dtype(base))
            for start in range(0, n, step)
        ]
        keys = np.concatenate([keys for keys, _ in found]).astype(np.int64)
        return SmallestImages(keys // base, keys % base, np.concatenate([same for _, same in found]))

    def _smallest(
        self, sites: Sites, codes: NDArray[np.integer], base: np.integer
    ) -> tuple[NDArray[np.integer], Sites]:
        """Keys (site times base plus code) of the smallest images, and how many operations lead to each."""
        reached = self.representatives[sites]
        rows, anchors = np.nonzero(reached == reached.min(axis=1, keepdims=True))
        operations, begins, sizes = self._to_representative
        anchors = sites[rows, anchors]
        count = sizes[anchors]
        rows = np.repeat(rows, count)
        which = np.arange(len(rows)) + np.repeat(begins[anchors] - np.cumsum(count) + count, count)
        keys = self._narrow[operations[which][:, None], sites[rows]].astype(base.dtype) * base + codes[rows]
        keys.sort(axis=1)
        for column in range(keys.shape[1]):
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            if len(starts) == len(rows):
                break
            smallest = np.minimum.reduceat(keys[:, column], starts)
            kept = keys[:, column] == np.repeat(smallest, np.diff(starts, append=len(rows)))
            rows, keys = rows[kept], keys[kept]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        return keys[starts], np.diff(starts, append=len(rows))

    def stabilizer(self, sites: Sites) -> SiteGroup:
        """The operations that take a set of sites, shape (k,), to itself."""
        images = np.sort(self.permutations[:, sites], axis=1)
        return SiteGroup(self.permutations[(images == np.sort(sites)).all(axis=1)])


_MAX_ELEMENTS = 4_000_000
"""Numbers that one step of `SiteGroup.smallest_images` holds at once, to bound the memory."""


@lru_cache(maxsize=64)
def site_group(host: Host) -> SiteGroup:
    """The symmetry group of a host supercell."""
    return SiteGroup(site_permutations(host))


def canonical_edits(
    host: Host, decorations: Sequence[tuple[tuple[int, str], ...]]
) -> list[tuple[tuple[int, str], ...]]:
    """The smallest image of each decoration under the host's symmetry, as sorted (site, species) pairs.

    Two decorations are equivalent exactly if their smallest images are equal.
    """
    names = sorted({species for edits in decorations for _, species in edits})
    code = {name: number for number, name in enumerate(names)}
    by_size: dict[int, list[int]] = {}
    for row, edits in enumerate(decorations):
        by_size.setdefault(len(edits), []).append(row)
    found: list[tuple[tuple[int, str], ...]] = [()] * len(decorations)
    for size, rows in by_size.items():
        flat = np.array([(site, code[name]) for row in rows for site, name in decorations[row]], dtype=np.int64)
        flat = flat.reshape(len(rows), size, 2)
        images = site_group(host).smallest_images(flat[:, :, 0], flat[:, :, 1])
        for row, ours, kinds in zip(rows, images.sites.tolist(), images.codes.tolist(), strict=True):
            found[row] = tuple((site, names[kind]) for site, kind in zip(ours, kinds, strict=True))
    return found
