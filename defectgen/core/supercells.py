"""Which supercell of a layer a cell in the plane is, and by which integers its vectors are those of the layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host
from defectgen.core.symmetry import rotations_in_layer

CELL_TOLERANCE = 0.03
"""Largest relative difference of vectors in the plane, and of the cosine of their angle."""

REPORTED_STRAIN = 0.12
"""Largest strain that is named as the reason why a cell is not recognized."""

MAX_CELLS = 400
"""Most unit cells of a supercell that is recognized."""

MAX_SHAPES = 12
"""Most supercells that are tried for one cell, those with the least strain first."""

MAX_BASIS = 26
"""Most atoms of a unit cell: each has a letter in the names of sites."""

Plane = NDArray[np.float64]
Integers = tuple[tuple[int, int], tuple[int, int]]

ONE: Integers = ((1, 0), (0, 1))


def plane_of(host: Host) -> Plane:
    """Rows a and b of a host's unit cell in its plane, shape (2, 2)."""
    return np.array(host.lattice)[:2, :2]


def fits(cell: Plane, rows: Plane, tolerance: float = CELL_TOLERANCE) -> list[tuple[float, Integers]]:
    """The integer matrices M for which `rows` are M @ `cell`, up to a rotation or mirror in the plane and some strain.

    Returns:
        Pairs of the strain (largest relative difference of a length, or difference of the cosine) and M, the least
        strained first; of equal ones the unit matrix first.
    """
    lengths = np.linalg.norm(rows, axis=1)
    cosine = float(rows[0] @ rows[1]) / float(lengths.prod())
    first, second = (_combinations(cell, float(length), tolerance) for length in lengths)
    if not len(first) or not len(second):
        return []
    a, b = first @ cell, second @ cell
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    turn = np.abs(a @ b.T / np.outer(norm_a, norm_b) - cosine)
    stretch = np.maximum.outer(np.abs(lengths[0] / norm_a - 1), np.abs(lengths[1] / norm_b - 1))
    strain = np.maximum(turn, stretch)
    found = []
    for row, column in np.argwhere(strain <= tolerance):
        (p, q), (r, s) = first[row].tolist(), second[column].tolist()
        if p * s != q * r:
            found.append((round(float(strain[row, column]), 4), ((p, q), (r, s))))
    return sorted(found, key=lambda item: (item[0], item[1] != ONE, sum(map(abs, sum(item[1], ()))), item[1]))


def strain_of(cell: Plane, rows: Plane) -> float:
    """The largest relative difference of the lengths of two pairs of vectors, or difference of the cosines."""
    (a, b), (c, d) = cell, rows
    lengths = [float(np.sqrt(row @ row)) for row in (a, b, c, d)]
    turn = abs(float(a @ b) / (lengths[0] * lengths[1]) - float(c @ d) / (lengths[2] * lengths[3]))
    return max(turn, abs(lengths[2] / lengths[0] - 1), abs(lengths[3] / lengths[1] - 1))


def supercells(host: Host, rows: Plane, n_atoms: int) -> Iterator[Host]:
    """The supercells of a host's layer that a cell in the plane may be, the least strained first.

    Args:
        host: the layer, in any supercell.
        rows: the two vectors in the plane, shape (2, 2).
        n_atoms: in the cell: at most the sites of the supercell, at least half of them.
    """
    unit = plane_of(host)
    area = abs(float(np.linalg.det(unit)))
    if abs(float(np.linalg.det(rows))) > area * MAX_CELLS * (1 + 2 * CELL_TOLERANCE):
        return
    shapes: dict[tuple[Integers, ...], None] = {}
    for _, matrix in fits(unit, rows):
        n_sites = abs(determinant(matrix)) * host.n_basis
        if n_atoms <= n_sites <= 2 * n_atoms:
            shapes[tuple(sorted({_normal_form(product(matrix, turn)) for turn in _turns(host)}))] = None
    for shape in list(shapes)[:MAX_SHAPES]:
        yield _supercell(host, shape)


def strained_fit(host: Host, rows: Plane, n_atoms: int) -> tuple[int, float] | None:
    """Of how many unit cells a cell in the plane is a supercell that is strained too much to be recognized, and by how
    much; None if it is none, or one that is not strained so much.

    Args:
        host: the layer.
        rows: the two vectors in the plane, shape (2, 2).
        n_atoms: in the cell; few are missing or too many.
    """
    unit = plane_of(host)
    if abs(float(np.linalg.det(rows))) > abs(float(np.linalg.det(unit))) * MAX_CELLS:
        return None
    for strain, matrix in fits(unit, rows, REPORTED_STRAIN):
        if abs(abs(determinant(matrix)) * host.n_basis - n_atoms) <= max(2, n_atoms // 32):
            return (abs(determinant(matrix)), strain) if strain > CELL_TOLERANCE else None
    return None


def product(first: Integers, second: Integers) -> Integers:
    """Of two integer matrices."""
    (a, b), (c, d) = first
    (e, f), (g, h) = second
    return (a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h)


def determinant(matrix: Integers) -> int:
    """Of an integer matrix."""
    return matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0]


def inverse(matrix: Integers) -> Integers:
    """Of an integer matrix with determinant 1 or -1."""
    (a, b), (c, d) = matrix
    sign = determinant(matrix)
    return (sign * d, -sign * b), (-sign * c, sign * a)


def _combinations(cell: Plane, length: float, tolerance: float) -> NDArray[np.int64]:
    """All integer combinations of two vectors that have a length, shape (n, 2)."""
    area = abs(float(np.linalg.det(cell)))
    longest = length * (1 + tolerance)
    most = [int(longest * float(np.linalg.norm(cell[1 - k])) / area) for k in (0, 1)]
    if max(most) > 4 * MAX_CELLS:
        return np.empty((0, 2), dtype=np.int64)
    grid = np.meshgrid(*(np.arange(-n, n + 1) for n in most), indexing="ij")
    pairs = np.stack([axis.ravel() for axis in grid], axis=1)
    norms = np.linalg.norm(pairs @ cell, axis=1)
    return np.asarray(pairs[(norms > 0) & (np.abs(length / np.maximum(norms, 1e-9) - 1) <= tolerance)])


@lru_cache(maxsize=64)
def _turns(host: Host) -> tuple[Integers, ...]:
    """How the host's symmetry turns lattice vectors, as rows of multiples of those of the unit cell."""
    found = [rotation[:2, :2].T.tolist() for rotation in rotations_in_layer(host)]
    return tuple(((p, q), (r, s)) for (p, q), (r, s) in found)


def _normal_form(matrix: Integers) -> Integers:
    """The Hermite normal form: the same for all bases of one lattice, ((p, q), (0, r)) with 0 <= q < r."""
    (a, b), (c, d) = matrix
    while c:
        k = a // c
        (a, b), (c, d) = (c, d), (a - k * c, b - k * d)
    if a < 0:
        a, b = -a, -b
    d = abs(d)
    return (a, b % d), (0, d)


@lru_cache(maxsize=256)
def _supercell(host: Host, forms: tuple[Integers, ...]) -> Host:
    """A supercell as a host, from the normal forms that the host's symmetry makes of its lattice.

    It is one of the host's own unit cell if it can be, else one of a cell along its shortest vectors if that is at most
    twice as large (a rectangular one, say), else one of another primitive cell.
    """
    straight = [(p, r) for (p, q), (_, r) in forms if not q]
    if straight:
        return dataclasses.replace(host, supercell=max(straight))
    unit = plane_of(host)
    first, second = _reduced(forms[0], unit)
    n_a, n_b = math.gcd(*first), math.gcd(*second)
    cell = (first[0] // n_a, first[1] // n_a), (second[0] // n_b, second[1] // n_b)
    if abs(determinant(cell)) > 2 or abs(determinant(cell)) * host.n_basis > MAX_BASIS:
        cell, (n_a, n_b) = _primitive(forms[0], unit)
    return _recut(host, cell, (n_a, n_b))


def _reduced(matrix: Integers, unit: Plane) -> Integers:
    """The two shortest vectors of a lattice (Gauss's reduction)."""
    first, second = (np.array(row) for row in matrix)
    while True:
        if np.linalg.norm(first @ unit) > np.linalg.norm(second @ unit) + 1e-9:
            first, second = second, first
        a, b = first @ unit, second @ unit
        steps = round(float(a @ b) / float(a @ a))
        if not steps:
            return (int(first[0]), int(first[1])), (int(second[0]), int(second[1]))
        second = second - steps * first


def _primitive(matrix: Integers, unit: Plane) -> tuple[Integers, tuple[int, int]]:
    """A primitive cell of which a lattice is a supercell along its two vectors, and the repetitions.

    Such a cell exists for any lattice: it is the Smith normal form of the matrix.
    """
    common = math.gcd(*matrix[0], *matrix[1])
    rows = np.array(_reduced(matrix, unit)) // common
    n_cells = abs(determinant(matrix)) // common**2
    vectors = (np.array(step) @ rows for radius in range(1, n_cells + 2) for step in _ring(radius))
    chosen = next(vector for vector in vectors if math.gcd(*vector.tolist()) == 1)
    x, y = chosen.tolist()
    other = next((u, v) for radius in range(1, abs(x) + abs(y) + 2) for u, v in _ring(radius) if x * v - y * u == 1)
    turned = np.array(other)
    a, b = chosen @ unit, turned @ unit
    turned = turned - round(float(a @ b) / float(a @ a)) * chosen
    return ((x, y), (int(turned[0]), int(turned[1]))), (common, common * n_cells)


def _ring(radius: int) -> Iterator[tuple[int, int]]:
    """The pairs of integers of which the larger is a number."""
    for u in range(-radius, radius + 1):
        for v in range(-radius, radius + 1):
            if max(abs(u), abs(v)) == radius:
                yield u, v


def _recut(host: Host, cell: Integers, supercell: tuple[int, int]) -> Host:
    """The same layer with other vectors in the plane, the first along x."""
    if determinant(cell) < 0:
        cell = cell[0], (-cell[1][0], -cell[1][1])
    n_points = determinant(cell)
    a, b = np.array(cell) @ plane_of(host)
    length = float(np.linalg.norm(a))
    back = np.linalg.inv(np.array(cell, dtype=np.float64))
    reach = range(-sum(map(abs, sum(cell, ()))), sum(map(abs, sum(cell, ()))) + 1)
    points = sorted((i, j) for i in reach for j in reach if _within(np.array([i, j]) @ back))
    assert len(points) == n_points
    coords = []
    for x, y, z in host.frac_coords:
        for point in points:
            u, v = (np.array([x, y]) + point) @ back % 1.0
            coords.append((float(u), float(v), z))
    return dataclasses.replace(
        host,
        lattice=(
            (length, 0.0, 0.0),
            (float(a @ b) / length, n_points * abs(float(np.linalg.det(plane_of(host)))) / length, 0.0),
            host.lattice[2],
        ),
        species=tuple(element for element in host.species for _ in points),
        frac_coords=tuple(coords),
        supercell=supercell,
    )


def _within(frac: NDArray[np.float64]) -> bool:
    return bool(((frac > -1e-9) & (frac < 1 - 1e-9)).all())
