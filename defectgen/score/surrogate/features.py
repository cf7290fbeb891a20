"""Numbers that describe a decoration and do not change under the host's symmetry.

Every pair of sites belongs to an orbit of the supercell's symmetry group. A feature depends on a
configuration only through the kinds of its defects and the orbits of their pairs, so two symmetry images
have equal features to the last bit; distances are computed once, for one representative of each orbit.
Same and other sublattice, layer or direction are different orbits, also at equal distance.

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
from defectgen.score.surrogate.stabilizers import N_COLUMNS, stabilizers

MAX_LISTED = 3
"""Number of defects up to which pairs and the triangle are listed one by one."""

TRIANGLE_ANGSTROM = 5.0
"""Triangles are counted if all three sides are at most this long."""


MAX_TRIPLES = 2_000_000
"""Triples of defects that are looked at in one step, to bound the memory."""


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


Codes = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows and codes: which configuration has which pair or triangle, once for each time that it occurs."""


@dataclass(frozen=True)
class Features:
    """What describes n configurations of one host.

    Attributes:
        counts: number of defects of each kind, in the order of the host's rules, shape (n, n_kinds).
        listed: for up to `MAX_LISTED` defects the distance (angstrom) and orbit of each pair of each two
            kinds, nearest first, NaN where there is none, shape (n, n_listed).
        pairs: code of each pair: its two kinds and its orbit.
        symmetry: for up to `MAX_LISTED` defects what `stabilizers` says, else 0, shape (n, 3).
        triangles: code of each triangle within `TRIANGLE_ANGSTROM`: each corner's kind with the orbit of
            the side opposite.
    """

    counts: NDArray[np.float64]
    listed: NDArray[np.float64]
    symmetry: NDArray[np.float64]
    pairs: Codes
    triangles: Codes

    def __len__(self) -> int:
        return len(self.counts)


def kind_names(host: Host) -> list[str]:
    """The kinds of defects that the columns of `Features.counts` stand for."""
    return [defect_name(rule.element, rule.replacement) for rule in host.rules]


def encode(host: Host, configurations: Sequence[Configuration]) -> list[list[tuple[int, int]]]:
    """The defects of each configuration as sorted (kind, site) pairs; kinds are numbered as the host's rules.

    Raises:
        UsageError: a configuration of another host or supercell, or a defect that the rules do not know.
    """
    kinds = {(rule.element, rule.replacement): k for k, rule in enumerate(host.rules)}
    elements = host.site_elements
    encoded: list[list[tuple[int, int]]] = []
    for item in configurations:
        if item.host is not host and item.host != host:
            raise UsageError(f"got a configuration of {item.host.title}, expected {host.title}.")
        try:
            encoded.append(sorted([(kinds[elements[s], new], s) for s, new in item.edits]))
        except KeyError as error:
            old, new = error.args[0]
            known = ", ".join(kind_names(host))
            raise UsageError(
                f"{defect_name(old, new)} is no known defect of {host.name}.", f"Known: {known}."
            ) from None
    return encoded


def encode_flat(
    host: Host, configurations: Sequence[Configuration]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number of defects of each configuration, shape (n,), and the sites and kinds of all, one after another.

    Raises:
        UsageError: see `encode`.
    """
    known: dict[str, dict[str, int]] = {}
    for k, rule in enumerate(host.rules):
        known.setdefault(rule.element, {})[rule.replacement] = k
    of_site = [known.get(element, {}) for element in host.site_elements]
    if any(item.host is not host and item.host != host for item in configurations):
        encode(host, configurations)  # says what is wrong
    try:
        kinds = [of_site[site][new] for item in configurations for site, new in item.edits]
    except KeyError:
        encode(host, configurations)
        raise
    sites = [site for item in configurations for site, _ in item.edits]
    sizes = [len(item.edits) for item in configurations]
    return np.array(sizes, dtype=np.int64), np.array(sites, dtype=np.int64), np.array(kinds, dtype=np.int64)


def describe(host: Host, configurations: Sequence[Configuration]) -> Features:
    """The features of configurations of one host.

    Raises:
        UsageError: a configuration of another host or supercell, or a defect that the rules do not know.
    """
    encoded = encode(host, configurations)
    kinds = host.rules
    counts = np.zeros((len(encoded), len(kinds)))
    listed = np.full((len(encoded), len(kinds) * (len(kinds) + 1) // 2 * MAX_LISTED * 2), np.nan)
    symmetry = np.zeros((len(encoded), N_COLUMNS))
    pairs: list[Codes] = []
    triangles: list[Codes] = []
    by_size: dict[int, list[int]] = {}
    for row, defects in enumerate(encoded):
        by_size.setdefault(len(defects), []).append(row)
    for size, members in sorted(by_size.items()):
        if size == 0:
            continue
        rows = np.array(members)
        block = np.array([encoded[row] for row in members], dtype=np.int64)
        kind, site = block[:, :, 0], block[:, :, 1]
        np.add.at(counts, (np.repeat(rows, size), kind.ravel()), 1.0)
        if size <= MAX_LISTED:
            symmetry[rows] = stabilizers(host, kind, site)
        if size == 1:
            continue
        pairs.append(_pair_codes(host, rows, kind, site))
        if size <= MAX_LISTED:
            listed[rows] = _list_pairs(host, kind, site)
        if size > 2:
            triangles.append(_triangle_codes(host, rows, kind, site))
    return Features(counts, listed, symmetry, _join(pairs), _join(triangles))


def count_kinds(host: Host, configurations: Sequence[Configuration]) -> NDArray[np.int64]:
    """Number of defects of each kind, in the order of the host's rules, shape (n, n_kinds).

    Raises:
        UsageError: see `encode`.
    """
    n_kinds = len(host.rules)
    encoded = encode(host, configurations)
    flat = [row * n_kinds + kind for row, defects in enumerate(encoded) for kind, _ in defects]
    counts = np.bincount(np.array(flat, dtype=np.int64), minlength=len(encoded) * n_kinds)
    return counts.reshape(len(encoded), n_kinds)


def histogram(codes: Codes, vocabulary: NDArray[np.int64], n_rows: int) -> NDArray[np.float64]:
    """How often each configuration has each code of a sorted vocabulary, shape (n_rows, n_codes)."""
    rows, values = codes
    if not len(vocabulary):
        return np.zeros((n_rows, 0))
    position = np.minimum(np.searchsorted(vocabulary, values), len(vocabulary) - 1)
    known = vocabulary[position] == values
    flat = np.bincount(rows[known] * len(vocabulary) + position[known], minlength=n_rows * len(vocabulary))
    return flat.reshape(n_rows, len(vocabulary)).astype(np.float64)


def pair_vocabulary(host: Host, longest_angstrom: float, codes: Codes, least: int = 1) -> NDArray[np.int64]:
    """The codes of pairs up to a distance that occur in at least so many rows, sorted."""
    n_orbits = len(pair_orbits(host).distances_angstrom)
    found = frequent(codes, least)
    return found[pair_orbits(host).distances_angstrom[found % n_orbits] <= longest_angstrom]


def frequent(codes: Codes, least: int) -> NDArray[np.int64]:
    """The codes that occur in at least so many rows, sorted."""
    if not len(codes[0]):
        return np.zeros(0, dtype=np.int64)
    once = np.unique(np.stack([codes[1], codes[0]]), axis=1)
    values, rows = np.unique(once[0], return_counts=True)
    return np.asarray(values[rows >= least])


def _join(parts: list[Codes]) -> Codes:
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([codes for _, codes in parts])


@lru_cache(maxsize=16)
def two_kinds_table(n_kinds: int) -> NDArray[np.int64]:
    """A number for each two kinds, whichever comes first, shape (n_kinds, n_kinds)."""
    table = np.zeros((n_kinds, n_kinds), dtype=np.int64)
    for number, (i, j) in enumerate(itertools.combinations_with_replacement(range(n_kinds), 2)):
        table[i, j] = table[j, i] = number
    return table


def _pair_codes(host: Host, rows: NDArray[np.int64], kind: NDArray[np.int64], site: NDArray[np.int64]) -> Codes:
    orbits = pair_orbits(host)
    i, j = np.triu_indices(kind.shape[1], 1)
    two = two_kinds_table(len(host.rules))[kind[:, i], kind[:, j]]
    codes = two * len(orbits.distances_angstrom) + orbits.table[site[:, i], site[:, j]]
    return np.repeat(rows, len(i)), codes.ravel()


def _list_pairs(host: Host, kind: NDArray[np.int64], site: NDArray[np.int64]) -> NDArray[np.float64]:
    orbits = pair_orbits(host)
    i, j = np.triu_indices(kind.shape[1], 1)
    two = two_kinds_table(len(host.rules))[kind[:, i], kind[:, j]]
    orbit = orbits.table[site[:, i], site[:, j]]
    n_two = len(host.rules) * (len(host.rules) + 1) // 2
    lists = np.full((len(kind), n_two, MAX_LISTED, 2), np.nan)
    order = np.argsort(two * len(orbits.distances_angstrom) + orbit, axis=1)
    row = np.arange(len(kind))
    place = np.zeros((len(kind), n_two), dtype=np.int64)
    for column in order.T:
        which, value = two[row, column], orbit[row, column]
        slot = place[row, which]
        lists[row, which, slot, 0] = orbits.distances_angstrom[value]
        lists[row, which, slot, 1] = value
        place[row, which] += 1
    return lists.reshape(len(kind), -1)


def _triangle_codes(host: Host, rows: NDArray[np.int64], kind: NDArray[np.int64], site: NDArray[np.int64]) -> Codes:
    orbits = pair_orbits(host)
    n_orbits = len(orbits.distances_angstrom)
    near = np.append(orbits.distances_angstrom <= TRIANGLE_ANGSTROM, False)
    i, j, k = np.array(list(itertools.combinations(range(kind.shape[1]), 3))).T
    found: list[Codes] = []
    step = 1 + MAX_TRIPLES // len(i)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        table = orbits.table[site[part, :, None], site[part, None, :]]
        close = near[table]
        row, triple = np.nonzero(close[:, j, k] & close[:, i, k] & close[:, i, j])
        corners = np.stack(
            [
                kind[part][row, corner[triple]] * n_orbits + table[row, first[triple], second[triple]]
                for corner, first, second in ((i, j, k), (j, i, k), (k, i, j))
            ]
        )
        a, b, c = np.sort(corners, axis=0)
        base = len(host.rules) * n_orbits
        found.append((rows[part][row], (a * base + b) * base + c))
    return _join(found)
