"""Ways to lay the atoms of a layer on a host, and which of them is the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host
from defectgen.core.slab import Slab
from defectgen.core.supercells import CELL_TOLERANCE, ONE, Integers, determinant, fits, product, strain_of
from defectgen.core.symmetry import rotations_in_layer

SITE_TOLERANCE_ANGSTROM = 0.8
"""Farthest that an atom may lie from its site: relaxation moves atoms by up to about 0.5 angstrom."""

RIVAL_STARTS = 6
"""Steps along a and b of the unit cell in which another way to lay a host on itself is looked for."""

EXACT_ANGSTROM = 0.01
"""A match as close as this needs no comparison with others; an unrelaxed structure without a shift has it."""


@dataclass(frozen=True)
class Placing:
    """Atoms laid on the host in one way.

    Attributes:
        matrix: the cell in the plane in terms of the host's supercell, see `defectgen.core.supercells.fits`.
        sign: -1 if the layer is turned over, else 1.
        sites: of each atom, shape (n,).
        distance: of each atom from its site in angstrom, shape (n,).
        shift: of the origin in cells along a and b and angstrom along the normal, shape (3,).
        n_changed: sites that are empty or hold another element than the host's.
        crowded: whether two atoms are on one site.
    """

    matrix: Integers
    sign: int
    sites: NDArray[np.int64]
    distance: NDArray[np.float64]
    shift: NDArray[np.float64]
    n_changed: int
    crowded: bool

    def is_valid(self, tolerance_angstrom: float) -> bool:
        """Whether each atom is near a site of its own."""
        return not self.crowded and float(self.distance.max()) <= tolerance_angstrom

    @property
    def order(self) -> tuple[int, float, float]:
        """Of two placings the one with the lower order is better."""
        return (
            self.n_changed,
            round(float(self.distance.max()), 2),
            round(float(np.abs(self.shift[:2]).max()), 2),
        )


def best_placing(host: Host, slab: Slab, species: NDArray[np.str_], tolerance_angstrom: float) -> Placing | None:
    """The way to lay the atoms on the host that changes the fewest sites; of these the nearest.

    Returns:
        One that is not valid if none is; None if the cell in the plane is not the host's supercell.
    """
    best: Placing | None = None
    for matrix, sign in orientations(host, slab.plane):
        placing = _best_origin(host, slab, species, matrix, sign, tolerance_angstrom)
        if best is None or _is_better(placing, best, tolerance_angstrom):
            best = placing
        if _is_enough(host, best, tolerance_angstrom):
            break
    return best


def orientations(host: Host, plane: NDArray[np.float64]) -> Iterator[tuple[Integers, int]]:
    """The ways to turn a cell onto the host, each once up to the host's symmetry: as it is, rotated, mirrored.

    Yields:
        The matrix of `fits`, and -1 if the layer is turned over, else 1.
    """
    tried: set[tuple[Integers, int]] = set()
    rows = np.array(host.supercell_lattice)[:2, :2]
    if strain_of(rows, plane) <= CELL_TOLERANCE:
        tried.update(symmetries(host))
        yield ONE, 1
    matrices = [matrix for _, matrix in fits(rows, plane) if abs(determinant(matrix)) == 1]
    for handed in (1, -1):
        for matrix in matrices:
            sign = handed * determinant(matrix)
            if (matrix, sign) not in tried:
                tried.update((product(matrix, turn), sign * over) for turn, over in symmetries(host))
                yield matrix, sign


@lru_cache(maxsize=64)
def symmetries(host: Host) -> tuple[tuple[Integers, int], ...]:
    """The host's symmetry: how it turns coordinates (rows) in the supercell, and -1 where it turns the layer over."""
    n_a, n_b = host.supercell
    found = []
    for rotation in rotations_in_layer(host):
        (p, q), (r, s) = rotation[:2, :2].tolist()
        if r * n_a % n_b == 0 and q * n_b % n_a == 0:
            found.append((((p, r * n_a // n_b), (q * n_b // n_a, s)), int(rotation[2, 2])))
    return tuple(found)


def _is_better(placing: Placing, other: Placing, tolerance: float) -> bool:
    valid = placing.is_valid(tolerance)
    if valid != other.is_valid(tolerance):
        return valid
    if valid:
        return placing.order < other.order
    return bool(placing.distance.mean() < other.distance.mean())


def _is_enough(host: Host, placing: Placing, tolerance: float) -> bool:
    """Whether no other placing can be better.

    Of two ways to lay the same atoms on a host that differ in two atoms of the unit cell one changes at least as many
    sites as there are cells; those that do not differ so are equally good, but for hosts with `_has_rivals`.
    """
    few = placing.n_changed <= host.supercell[0] * host.supercell[1]
    if not few or not placing.is_valid(tolerance):
        return False
    return float(placing.distance.max()) < EXACT_ANGSTROM or not _has_rivals(host)


@lru_cache(maxsize=64)
def _has_rivals(host: Host) -> bool:
    """Whether the host can be laid on itself nearly, but not exactly: one that is distorted a little, for example.

    So can h-BN, turned by 180 degrees and moved by half a bond: all atoms are 0.74 angstrom from sites of their
    element. From an atom on a site it is equally far to six ways there, so starts all over the unit cell are tried.
    """
    slab = Slab.of(np.array(host.supercell_lattice), np.array(host.site_frac_coords))
    species = np.array(host.site_elements)
    tolerance = 1.25 * SITE_TOLERANCE_ANGSTROM
    few = host.supercell[0] * host.supercell[1]
    starts = [np.array([i, j]) / RIVAL_STARTS for i in range(RIVAL_STARTS) for j in range(RIVAL_STARTS)]
    return any(
        placing.is_valid(tolerance) and placing.n_changed <= few and placing.distance.max() > EXACT_ANGSTROM
        for matrix, sign in orientations(host, slab.plane)
        for placing in _placings(host, slab, species, matrix, sign, 0, starts)
    )


def _best_origin(
    host: Host, slab: Slab, species: NDArray[np.str_], matrix: Integers, sign: int, tolerance: float
) -> Placing:
    """The atoms laid on the host with one orientation: as they are, then with an atom on each site of the unit cell.

    The first atom, another one if that gives no valid placing (it may be the one that is far from its site), a third.
    """
    best: Placing | None = None
    for anchor in sorted({0, len(species) // 2, len(species) - 1}):
        for placing in _placings(host, slab, species, matrix, sign, anchor):
            if best is None or _is_better(placing, best, tolerance):
                best = placing
            if _is_enough(host, best, tolerance):
                return best
        assert best is not None
        if best.is_valid(tolerance):
            break
    assert best is not None
    return best


def _placings(
    host: Host,
    slab: Slab,
    species: NDArray[np.str_],
    matrix: Integers,
    sign: int,
    anchor: int,
    starts: Sequence[NDArray[np.float64]] = (),
) -> Iterator[Placing]:
    """The atoms laid on the host with one orientation: as they are, then with one on each site of the unit cell.

    Args:
        host: see `best_placing`.
        slab: likewise.
        species: likewise.
        matrix: see `Placing`.
        sign: likewise.
        anchor: the atom that is laid on sites.
        starts: other places along a and b of the unit cell that it is laid on after that.
    """
    position = np.empty((len(species), 3))
    position[:, :2] = slab.frac @ np.array(matrix) * np.array(host.supercell)
    position[:, 2] = sign * slab.height
    basis = np.asarray(host.frac_coords) * np.array([1.0, 1.0, host.lattice[2][2]])
    elements = _elements(host)

    def place(shift: NDArray[np.float64], rounds: int) -> Placing:
        shift = shift.copy()
        shift[:2] -= np.rint(shift[:2])  # whole cells are no shift: sites keep their numbers
        for _ in range(rounds):
            sites, offset = _nearest_sites(host, position + shift, basis, slab.period_angstrom)
            mean = offset.mean(axis=0)
            shift = shift - mean
        distance = np.sqrt((((offset - mean) @ metric(host)) ** 2).sum(axis=1))
        n_changed = host.n_sites - len(species) + int((elements[sites] != species).sum())
        crowded = bool(np.bincount(sites, minlength=1).max() > 1)
        return Placing(matrix, sign, sites, distance, shift, n_changed, crowded)

    start = np.zeros(3)
    start[2] = basis[:, 2].mean() - position[:, 2].mean()
    yield place(start, 1)
    for origin in basis:
        yield place(origin - position[anchor], 2)
    for a, b in starts:
        yield place(np.array([a, b, basis[0, 2]]) - position[anchor], 2)


@lru_cache(maxsize=64)
def _elements(host: Host) -> NDArray[np.str_]:
    return np.array(host.site_elements)


@lru_cache(maxsize=64)
def metric(host: Host) -> NDArray[np.float64]:
    """Rows that turn cells along a and b and angstrom along the normal into angstrom, shape (3, 3)."""
    rows: NDArray[np.float64] = np.array(host.lattice) * np.array([[1.0], [1.0], [1.0 / host.lattice[2][2]]])
    return rows


def _nearest_sites(
    host: Host, position: NDArray[np.float64], basis: NDArray[np.float64], period: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest site of each position (cells along a and b, angstrom along the normal), and the offset to it."""
    difference = position[:, None, :] - basis[None, :, :]
    cell = np.rint(difference[:, :, :2]).astype(np.int64)
    offset = difference.copy()
    offset[:, :, :2] -= cell
    offset[:, :, 2] -= period * np.rint(difference[:, :, 2] / period)
    nearest = ((offset @ metric(host)) ** 2).sum(axis=2).argmin(axis=1)
    atoms = np.arange(len(position))
    n_a, n_b = host.supercell
    chosen = cell[atoms, nearest]
    sites = (nearest * n_a + chosen[:, 0] % n_a) * n_b + chosen[:, 1] % n_b
    return sites, offset[atoms, nearest]
