"""Lattices of a space group, number by number: which are free, which follow from those before, and what may be taken.

A metric that the group's rotations leave alone is a sum of a few fixed ones. So of the squares of the lengths and the
products of the vectors, taken in the order in which they are written, some are free and the others follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.orbits import primitive_group
from defectgen.tasks.bulk.crystal_grammar import ANGLES, LENGTHS, MIN_VOLUME_FRACTION

Numbers = tuple[float, ...]
"""Three lengths in angstrom and three angles in degrees, or the first of them."""

ENTRIES = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Entries of the metric in the order of the numbers of a lattice: a, b, c, alpha, beta, gamma."""

LENGTHS_ANGSTROM = np.arange(10 * LENGTHS.start, 10 * LENGTHS.stop) / 10
ANGLES_DEGREE = np.array(ANGLES, dtype=float)
"""What may be written."""

_SYSTEMS = ((3, "triclinic"), (16, "monoclinic"), (75, "orthorhombic"), (143, "tetragonal"), (195, "hexagonal"))


def crystal_system(number: int) -> str:
    """Of a space group; trigonal counts as hexagonal."""
    return next((name for first, name in _SYSTEMS if number < first), "cubic")


@dataclass(frozen=True)
class GroupLattice:
    """The primitive lattices of a space group.

    Attributes:
        number: of the space group.
    """

    number: int

    @cached_property
    def _forms(self) -> NDArray[np.float64]:
        """Entries of the metrics that the others are sums of, shape (6, k)."""
        system = crystal_system(self.number)
        a, b, c = (np.diag([float(k == axis) for k in range(3)]) for axis in range(3))
        skew = [np.zeros((3, 3)) for _ in range(3)]
        for matrix, (i, j) in zip(skew, ENTRIES[3:], strict=True):
            matrix[i, j] = matrix[j, i] = 1
        bases = {
            "cubic": [a + b + c],
            "tetragonal": [a + b, c],
            "hexagonal": [a + b - skew[2] / 2, c],
            "orthorhombic": [a, b, c],
            "monoclinic": [a, b, c, skew[1]],
            "triclinic": [a, b, c, *skew],
        }[system]
        vectors = primitive_group(self.number).vectors
        primitive = [vectors.T @ base @ vectors for base in bases]
        return np.array([[metric[entry] for metric in primitive] for entry in ENTRIES])

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Which of the six numbers do not follow from those before."""
        found: list[int] = []
        for row in range(6):
            if np.linalg.matrix_rank(self._forms[[*found, row]], tol=1e-9) > len(found):
                found.append(row)
        return tuple(found)

    @cached_property
    def _weights(self) -> list[NDArray[np.float64]]:
        """For each number the weights of the free entries before it whose sum it is."""
        weights = []
        for row in range(6):
            before = [k for k in self.free if k <= row]
            solution = np.linalg.lstsq(self._forms[before].T, self._forms[row], rcond=None)[0]
            weights.append(solution)
        return weights

    @property
    def has_bound_lengths(self) -> bool:
        """Whether three free lengths make no lattice if one is too long for the others: face-centred orthorhombic."""
        return self.free == (0, 1, 2) and bool((np.abs(self._forms[3:]) > 1e-9).any())

    def numbers(self, chosen: Numbers) -> Numbers:
        """Lengths and angles as far as the free numbers `chosen` so far decide them, exactly.

        Lattices that cannot be have angles that are no numbers.
        """
        arrays = self._numbers([np.array(value) for value in chosen])
        return tuple(float(x) for x in arrays)

    def _numbers(self, chosen: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """The same for arrays of one shape."""
        entries: list[NDArray[np.float64]] = []
        found: list[NDArray[np.float64]] = []
        taken: list[NDArray[np.float64]] = []
        for row, (i, j) in enumerate(ENTRIES):
            root = None if row < 3 else np.sqrt(entries[i] * entries[j])
            if row in self.free:
                if len(taken) == len(chosen):
                    break
                value = chosen[len(taken)]
                taken.append(value**2 if root is None else root * np.cos(np.radians(value)))
            weights = self._weights[row]
            entry = sum((w * t for w, t in zip(weights, taken, strict=False)), np.zeros(()))
            entries.append(entry)
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(np.sqrt(entry) if root is None else np.degrees(np.arccos(entry / root)))
        return found

    def admitted(self, chosen: Numbers, least_volume: float) -> NDArray[np.bool_]:
        """Which values the next free number may take after `chosen`, on `LENGTHS_ANGSTROM` or `ANGLES_DEGREE`.

        Those that lead to a cell with angles of 5 to 175 degrees that is not flat, and if there are such, to one of
        `least_volume` in cubic angstrom.
        """
        return _admitted(self, chosen, round(least_volume, 3))

    def _good(self, chosen: list[NDArray[np.float64]]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Whether all free numbers make a lattice that may be written, also if it is rounded, and its volume."""
        a, b, c, *angles = np.broadcast_arrays(*self._numbers(chosen))
        squared = _squared_fraction(angles)
        with np.errstate(invalid="ignore"):
            good = np.asarray(
                (squared >= MIN_VOLUME_FRACTION**2) & (_squared_fraction(np.rint(angles)) >= MIN_VOLUME_FRACTION**2)
            )
            for angle in angles:
                good &= (angle >= ANGLES_DEGREE[0]) & (angle <= ANGLES_DEGREE[-1])
            volume = a * b * c * np.sqrt(np.maximum(squared, 0))
        return good, np.where(good, volume, 0)


def _squared_fraction(angles: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Square of the volume of a cell over the product of its lengths, from its angles in degrees."""
    x, y, z = (np.cos(np.radians(angle)) for angle in angles)
    return np.asarray(1 - x * x - y * y - z * z + 2 * x * y * z)


def _values(row: int) -> NDArray[np.float64]:
    return LENGTHS_ANGSTROM if row < 3 else ANGLES_DEGREE


@lru_cache(maxsize=4096)
def _admitted(lattice: GroupLattice, chosen: Numbers, least_volume: float) -> NDArray[np.bool_]:
    at, left = len(chosen), len(lattice.free) - len(chosen) - 1
    values = _values(lattice.free[at])
    before = [np.array(value) for value in chosen]
    follows = lattice.free[at + 1] if left else None
    if follows in (1, 2) and not (left == 1 and lattice.has_bound_lengths):
        return np.ones(len(values), dtype=bool)
    if left > 1:  # with two angles to come there is always a lattice
        a, b, c = lattice._numbers([*before, values])[:3]
        large = np.asarray(np.broadcast_to(a * b * c, values.shape) >= least_volume)
        return large if large.any() else np.ones(len(values), dtype=bool)
    after = [_values(follows)[None, :]] if follows is not None else []
    good, volume = lattice._good([*before, values[:, None], *after])
    large = np.asarray((good & (volume >= least_volume)).any(axis=1))
    return large if large.any() else np.asarray(good.any(axis=1))
