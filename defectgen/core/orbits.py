"""Space groups in a primitive cell: their operations, and the orbits of atoms on and off their special positions.

The cells are primitive ones as the Materials Project has most of them (Setyawan and Curtarolo 2010, doi
10.1016/j.commatsci.2010.05.010): a body-centred cell by (-a+b+c)/2 and so on, a face-centred one by (b+c)/2, one that
is centred on C by (a-b)/2, (a+b)/2 and c, a rhombohedral one by its three equal edges, a monoclinic one with its two
right angles last. The origin is that of spglib's first setting of the group.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import Triple, wrap

GRID = 100
"""Places are hundredths of the lattice vectors."""

PARTS = 24
"""Translations of the operations are whole 24ths of the primitive vectors."""

SNAP = 0.02
"""A place that an operation moves by no more than this, along each vector, is on what the operation fixes. A place
fixed by it and rounded to hundredths moves by 0.02 at most."""

_COLUMNS = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "M": ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    "C": ((0.5, 0.5, 0), (-0.5, 0.5, 0), (0, 0, 1)),
    "A": ((0, 0, 1), (0.5, 0.5, 0), (-0.5, 0.5, 0)),
    "I": ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)),
    "F": ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)),
    "R": ((2 / 3, -1 / 3, -1 / 3), (1 / 3, 1 / 3, -2 / 3), (1 / 3, 1 / 3, 1 / 3)),
}
"""Primitive vectors as columns, in units of the conventional ones, by centring; M: monoclinic without one."""

Place = tuple[int, int, int]
"""Hundredths of the lattice vectors."""


@dataclass(frozen=True)
class SiteKind:
    """Positions of a space group that hold as many atoms.

    Attributes:
        atoms: in a primitive cell, of one orbit.
        orbits: how many there are; None where a position has a free coordinate, and there is no end of them.
    """

    atoms: int
    orbits: int | None


@dataclass(frozen=True, eq=False)
class PrimitiveGroup:
    """A space group in the primitive cell.

    Attributes:
        number: 1 to 230.
        vectors: primitive vectors as columns, in units of the conventional ones, shape (3, 3).
        rotations: shape (n, 3, 3), the identity first; each occurs once.
        translations: in 24ths of the primitive vectors, shape (n, 3).
    """

    number: int
    vectors: NDArray[np.float64]
    rotations: NDArray[np.int64]
    translations: NDArray[np.int64]

    @property
    def order(self) -> int:
        return len(self.rotations)

    @cached_property
    def kinds(self) -> tuple[SiteKind, ...]:
        """What kinds of positions there are, those of fewest atoms first, fixed ones before others."""
        return self._sites.kinds

    @cached_property
    def kind_at(self) -> NDArray[np.uint8]:
        """For each place one more than the index of its kind, shape (100, 100, 100).

        Zero where an atom would be too near to a special position to be off it, and not near enough to be on it.
        """
        kinds = np.zeros(GRID**3, dtype=np.uint8)
        kinds[self._sites.fixers == 1] = self._sites.general + 1
        kinds[self._sites.special] = self._sites.special_kinds + 1
        return kinds.reshape(GRID, GRID, GRID)

    @property
    def specials(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint64]]:
        """Places on special positions.

        Returns:
            Flat indices, shape (k,); exact fractional coordinates, shape (k, 3); as bits which operations fix each.
        """
        at = self._sites.special
        return at, self._sites.exact, self._sites.fixers[at]

    @cached_property
    def _sites(self) -> _Sites:
        return _sites(self)

    def orbit(self, place: Place) -> tuple[Triple, ...]:
        """Exact fractional coordinates of the atoms that the group makes of one at a place, that one first.

        A place at a special position is taken to be on it, and others as they are.

        Raises:
            ValueError: a place near a special position that is not on it, see `kind_at`.
        """
        moved = self.moves(np.array([place]))[0]
        fixing = np.flatnonzero(np.abs(moved).max(axis=1) <= SNAP + 1e-9)
        if not self._is_group(fixing):
            raise ValueError(f"{place} is near a special position of space group {self.number}, and not on it")
        at = np.array(place) / GRID + moved[fixing].mean(axis=0)
        images = at @ self.rotations.transpose(0, 2, 1) + self.translations / PARTS
        found: list[NDArray[np.float64]] = []
        for image in images:
            if all(np.abs((image - other + 0.5) % 1 - 0.5).max() > 1e-6 for other in found):
                found.append(image)
        return tuple(_tidy(image) for image in found)

    def moves(self, places: NDArray[np.int64], operations: NDArray[np.int64] | slice = slice(None)) -> NDArray[Any]:
        """By what operations move places, shape (k, 3) to (k, n, 3): fractional, the shortest way."""
        rows = self.rotations[operations] - np.eye(3, dtype=int)
        units = PARTS * (places @ rows.transpose(0, 2, 1)).swapaxes(0, 1) + GRID * self.translations[operations]
        return ((units + PARTS * GRID // 2) % (PARTS * GRID) - PARTS * GRID // 2) / (PARTS * GRID)

    @cached_property
    def _products(self) -> NDArray[np.int64]:
        """Index of the product of two operations, as rotations, shape (n, n)."""
        index = {rotation.tobytes(): k for k, rotation in enumerate(self.rotations)}
        return np.array([[index[(a @ b).tobytes()] for b in self.rotations] for a in self.rotations])

    def _is_group(self, operations: NDArray[np.int64]) -> bool:
        """Whether some of the operations, as rotations, are a group."""
        return bool(np.isin(self._products[np.ix_(operations, operations)], operations).all())


@dataclass(frozen=True, eq=False)
class _Sites:
    """What `PrimitiveGroup` knows of all places; see there."""

    kinds: tuple[SiteKind, ...]
    general: int
    fixers: NDArray[np.uint64]
    special: NDArray[np.int64]
    special_kinds: NDArray[np.uint8]
    exact: NDArray[np.float64]


@lru_cache(maxsize=8)
def primitive_group(number: int) -> PrimitiveGroup:
    """The space group of a number, in spglib's first setting, brought to the primitive cell."""
    import spglib

    hall = next(h for h in range(1, 531) if cast(Any, spglib.get_spacegroup_type(h)).number == number)
    operations = cast(Any, spglib.get_symmetry_from_database(hall))
    centring = cast(Any, spglib.get_spacegroup_type(hall)).international_short[0]
    vectors = np.array(_COLUMNS["M" if centring == "P" and 3 <= number <= 15 else centring], dtype=float)
    back = np.linalg.inv(vectors)
    found: dict[tuple[int, ...], NDArray[np.int64]] = {}
    for rotation, translation in zip(operations["rotations"], operations["translations"], strict=True):
        turned = np.rint(back @ rotation @ vectors).astype(int)
        shift = np.rint(PARTS * (back @ translation)).astype(int) % PARTS
        found.setdefault(tuple(turned.ravel().tolist()), shift)
    identity = tuple(np.eye(3, dtype=int).ravel().tolist())
    order = sorted(found, key=lambda rotation: rotation != identity)
    rotations = np.array(order, dtype=int).reshape(-1, 3, 3)
    return PrimitiveGroup(number, vectors, rotations, np.array([found[rotation] for rotation in order]))


def _sites(group: PrimitiveGroup) -> _Sites:
    fixers = _fixers(group)
    special: list[NDArray[np.int64]] = []
    exact: list[NDArray[np.float64]] = []
    keys: list[tuple[int, bool]] = []
    fixed: Counter[int] = Counter()  # positions without a free coordinate, by the atoms of their orbit
    of_mask = np.flatnonzero(fixers != 1)
    masks, inverse = np.unique(fixers[of_mask], return_inverse=True)
    for k, mask in enumerate(masks):
        fixing = np.array([g for g in range(group.order) if int(mask) >> g & 1])
        if not group._is_group(fixing):
            continue
        flat = of_mask[inverse == k]
        places = np.stack(np.unravel_index(flat, (GRID, GRID, GRID)), axis=1)
        at = places / GRID + group.moves(places, fixing).mean(axis=1)
        atoms = group.order // len(fixing)
        is_free = bool(round(float(np.trace(group.rotations[fixing].mean(axis=0)))))
        if not is_free:
            fixed[atoms] += len(np.unique(np.rint(at * PARTS * GRID).astype(int) % (PARTS * GRID), axis=0))
        special.append(flat)
        exact.append(at)
        keys += [(atoms, is_free)] * len(flat)
    found = sorted({*keys, (group.order, True)})
    kinds = tuple(SiteKind(atoms, None if is_free else fixed[atoms] // atoms) for atoms, is_free in found)
    index = {key: k for k, key in enumerate(found)}
    return _Sites(
        kinds,
        index[group.order, True],
        fixers,
        np.concatenate([np.zeros(0, dtype=int), *special]),
        np.array([index[key] for key in keys], dtype=np.uint8),
        np.concatenate([np.zeros((0, 3)), *exact]),
    )


def _fixers(group: PrimitiveGroup) -> NDArray[np.uint64]:
    """Which operations move each place by no more than `SNAP`, as bits, shape (1000000,)."""
    axes = np.ogrid[:GRID, :GRID, :GRID]
    still: dict[tuple[int, ...], NDArray[np.bool_]] = {}
    masks = np.zeros((GRID, GRID, GRID), dtype=np.uint64)
    for g, (rotation, shift) in enumerate(zip(group.rotations, group.translations, strict=True)):
        stays = np.ones((1, 1, 1), dtype=bool)
        for row, part in zip(rotation - np.eye(3, dtype=int), shift, strict=True):
            key = (*row.tolist(), int(part))
            if key not in still:
                units = sum(
                    (PARTS * r * axis for r, axis in zip(row, axes, strict=True) if r), np.zeros((1, 1, 1), int)
                )
                size = PARTS * GRID
                still[key] = np.abs((units + GRID * part + size // 2) % size - size // 2) <= round(SNAP * size)
            stays = stays & still[key]
        masks |= stays.astype(np.uint64) << np.uint64(g)
    return masks.ravel()


def _tidy(at: NDArray[np.float64]) -> Triple:
    """Coordinates in [0, 1) without noise of computing."""
    x, y, z = (wrap(round(wrap(float(v)), 10)) for v in at)
    return x, y, z
