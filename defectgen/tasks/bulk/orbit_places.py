"""Where an atom may go together with its images under a space group."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import Triple
from defectgen.core.orbits import PARTS, Place, PrimitiveGroup, primitive_group
from defectgen.tasks.bulk.clearance import GRID, ROWS, STEPS, Site, distances, lattice_of

NEAREST = 255
"""Steps that stand for far enough."""


@lru_cache(maxsize=ROWS)
def rooms(number: int, cell: tuple[float, ...], first: tuple[Site, ...], most: int) -> NDArray[np.uint8]:
    """For each place half the reach that an atom could have there, its images and the orbits so far considered.

    Args:
        number: of the space group.
        cell: lengths in tenths of an angstrom, then angles in degrees, of a primitive lattice of the group.
        first: the first atom of each orbit so far.
        most: atoms that an orbit may have; places of larger ones have no room.

    Returns:
        In steps, shape (100, 100, 100); 0 where no atom may be at all.
    """
    if not first:
        return _alone(number, cell, most)
    *at, half = first[-1]
    table = distances(cell)[0]
    nearest = np.full_like(table, NEAREST)
    for image in rounded(orbit(number, (at[0], at[1], at[2]))):
        np.minimum(nearest, np.roll(table, image, axis=(0, 1, 2)), out=nearest)
    room: NDArray[np.uint8] = np.minimum(rooms(number, cell, first[:-1], most), np.maximum(nearest, half) - half)
    return room


@lru_cache(maxsize=64)
def _alone(number: int, cell: tuple[float, ...], most: int) -> NDArray[np.uint8]:
    """`rooms` of an empty cell. Distances are those of the nearest places, up to 0.005 of the cell off."""
    group = primitive_group(number)
    table, shortest = distances(cell)
    flat = np.append(table.ravel(), np.uint8(NEAREST))
    result = np.zeros(GRID**3, dtype=np.uint8)
    if group.order <= most:
        result[:] = np.minimum(_general(group, table) // 2, shortest).ravel()
        result[group.kind_at.ravel() == 0] = 0
    at, index = _special(number, most)
    result[at] = np.minimum(flat[index].min(axis=1) // 2, shortest)
    return result.reshape(table.shape)


def _general(group: PrimitiveGroup, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Distance of each place from its nearest image, in steps, where no operation is taken to fix it."""
    axes = np.ogrid[:GRID, :GRID, :GRID]
    nearest = np.full(table.shape, NEAREST, dtype=np.uint8)
    for g in _one_of_inverses(group):
        rotation, shift = group.rotations[g] - np.eye(3, dtype=int), group.translations[g]
        index = []
        for row, part in zip(rotation, shift, strict=True):
            units = sum((r * axis for r, axis in zip(row, axes, strict=True) if r), np.zeros((1, 1, 1), dtype=int))
            index.append((units + round(GRID * int(part) / PARTS)) % GRID)
        np.minimum(nearest, table[tuple(index)], out=nearest)
    return nearest


def _one_of_inverses(group: PrimitiveGroup) -> list[int]:
    """All operations but the identity; of one and its inverse, which move a place as far, only the first."""
    seen: set[bytes] = set()
    chosen = []
    for g, rotation in enumerate(group.rotations[1:], start=1):
        if np.rint(np.linalg.inv(rotation)).astype(int).tobytes() not in seen:
            chosen.append(g)
            seen.add(rotation.tobytes())
    return chosen


@lru_cache(maxsize=8)
def _special(number: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The places on special positions of at most `most` atoms, and by which place each operation moves each.

    Both as flat indices, shapes (k,) and (k, n); an operation that fixes the position has the index after the last.
    """
    group = primitive_group(number)
    at, exact, fixers = group.specials
    sizes = np.array([0, *(kind.atoms for kind in group.kinds)])[group.kind_at.ravel()[at]]
    chosen = sizes <= most
    at, exact, fixers = at[chosen], exact[chosen].astype(np.float32), fixers[chosen]
    index = np.empty((len(at), group.order), dtype=np.int32)
    for g, (rotation, shift) in enumerate(zip(group.rotations, group.translations, strict=True)):
        moved = exact @ (rotation - np.eye(3, dtype=int)).T.astype(np.float32) + (shift / PARTS).astype(np.float32)
        x, y, z = (np.rint(moved * GRID).astype(np.int32) % GRID).T
        fixed = (fixers >> np.uint64(g)) & np.uint64(1) == 1
        index[:, g] = np.where(fixed, GRID**3, (x * GRID + y) * GRID + z)
    return at, index


@lru_cache(maxsize=4096)
def orbit(number: int, place: Place) -> tuple[Triple, ...]:
    """See `PrimitiveGroup.orbit`."""
    return primitive_group(number).orbit(place)


def rounded(places: tuple[Triple, ...]) -> list[Place]:
    """Places in hundredths of the lattice vectors."""
    return [(round(GRID * x) % GRID, round(GRID * y) % GRID, round(GRID * z) % GRID) for x, y, z in places]


def has_room(number: int, cell: tuple[float, ...], first: tuple[Site, ...], half: int, place: Place) -> bool:
    """Whether the exact orbit of a place keeps its distance from itself and the orbits so far; see `rooms`."""
    origin, *images = orbit(number, place)
    wanted = [2 * half] * len(images)
    for x, y, z, other in first:
        others = orbit(number, (x, y, z))
        images += others
        wanted += [half + other] * len(others)
    basis, to_reduced = lattice_of(cell)
    between = (np.array(images).reshape(-1, 3) - np.array(origin)) @ to_reduced
    between -= np.rint(between)
    shifts = np.array(list(np.ndindex(3, 3, 3))) - 1
    lengths = np.linalg.norm((between[:, None, :] + shifts) @ basis, axis=2).min(axis=1, initial=np.inf)
    return bool((lengths * STEPS >= np.array(wanted) - 1e-6).all())
