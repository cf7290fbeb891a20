"""Levels of cells by a universal tight-binding model, which networks learn before the labels.

The model of Harrison (Elementary Electronic Structure, 1999) has one s and three p orbitals on each atom, on-site terms
of the elements and hopping that falls with the square of the distance; nothing is fitted. Its levels are not those of a
calculation, but they depend on the same things: which atoms are gone, what is next to what, and how many electrons are
left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh  # type: ignore[import-untyped]

from defectgen.core.host import Host
from defectgen.score.network.network_cells import OUTPUTS, Rows
from defectgen.score.network.pair_geometry import HostGeometry, image_displacements

Array = NDArray[np.float64]

TERMS = {
    "B": (-13.46, -8.43, 3), "C": (-19.37, -11.07, 4), "N": (-26.22, -13.84, 5), "P": (-19.22, -9.54, 5),
    "S": (-24.02, -11.60, 6), "Ga": (-11.55, -5.67, 3), "Se": (-22.86, -10.68, 6), "In": (-10.14, -5.37, 3),
}  # fmt: skip
"""On-site terms of s and p in eV, from Harrison's solid-state table, and valence electrons."""

SS, SP, PP_SIGMA, PP_PI = -1.32, 1.42, 2.22, -0.63
"""Hopping in units of hbar^2 / (m d^2), which is `UNIT_EV_ANGSTROM2` / d^2."""

UNIT_EV_ANGSTROM2 = 7.62
REACH = 1.18
"""Pairs up to so many nearest distances are bonded."""

EXCHANGE_EV = 0.3
"""Between the channels of a cell with an odd number of electrons."""

FRESH_KINDS = 0.25
"""Share of the defects whose kind is drawn anew, so that compositions beside those of the rows are seen."""

LEARNT = {"energy": 0.0, "magnetization": 0.0}
"""Weights of the targets that the model does not know."""


def is_modelled(host: Host) -> bool:
    """Whether the model knows all elements of a host and of its defects."""
    replacements = {rule.replacement for rule in host.rules if not rule.is_vacancy}
    return {*host.species, *replacements} <= TERMS.keys()


class TightBinding:
    """The model of one host."""

    def __init__(self, geometry: HostGeometry) -> None:
        """Hopping of the pristine cell; that of an exchanged atom is the same.

        Args:
            geometry: of a host of which `is_modelled` holds.
        """
        self.geometry = geometry
        self.elements = geometry.host.site_elements
        n = geometry.host.n_sites
        self._hopping = np.zeros((n, 4, n, 4), dtype=np.float32)
        apart = image_displacements(geometry.host)
        distances = np.linalg.norm(apart, axis=-1)
        there = distances > 1e-3
        bonded = there & (distances < REACH * distances[there].min())
        for image, i, j in zip(*np.nonzero(bonded), strict=True):
            d = distances[image, i, j]
            self._hopping[i, :, j, :] += UNIT_EV_ANGSTROM2 / d**2 * _bond(apart[image, i, j] / d)

    def levels(self, sites: NDArray[np.int64], kinds: NDArray[np.int64]) -> Array:
        """`OUTPUTS` of a cell, of which energy and magnetization are 0, shape (7,).

        Args:
            sites: of the defects.
            kinds: number of each defect's kind in the host.
        """
        elements: list[str | None] = list(self.elements)
        for site, kind in zip(sites, kinds, strict=True):
            rule = self.geometry.kinds[kind]
            elements[site] = None if rule.is_vacancy else rule.replacement
        left = [site for site, element in enumerate(elements) if element is not None]
        terms = [TERMS[str(elements[site])] for site in left]
        matrix = self._hopping[left][:, :, left].reshape(4 * len(left), 4 * len(left)).copy()
        matrix[np.diag_indices(len(matrix))] = np.array([[s, p, p, p] for s, p, _ in terms], dtype=np.float32).ravel()
        electrons = sum(valence for *_, valence in terms)
        up, down = (electrons + 1) // 2, electrons // 2
        near = eigvalsh(matrix, subset_by_index=[down - 1, up], overwrite_a=True, check_finite=False)
        shift = EXCHANGE_EV / 2 if up > down else 0.0
        homo = np.array([near[up - down] - shift, near[0] + shift])
        lumo = np.array([near[up - down + 1] - shift, near[1] + shift])
        return np.array([*homo, *(lumo - homo), 0.0, (homo[1] + lumo[1]) / 2, 0.0])


def model_cells(rows: Rows, geometries: Sequence[HostGeometry], n: int, seed: int) -> Rows:
    """Random cells of hosts with the levels of the model as targets.

    Args:
        rows: labelled cells; of these only the numbers of each kind of defect are used, of each host those of its set
            with the most defects in a cell.
        geometries: of the hosts that the rows number.
        n: number of cells of each host.
        seed: of the cells.
    """
    parts = []
    for number, geometry in enumerate(geometries):
        own = rows.some(rows.hosts == number)
        mean = {group: own.sizes[own.groups == group].mean() for group in np.unique(own.groups)}
        crowded = own.some(own.groups == max(mean, key=lambda group: mean[group]))
        sites, kinds, targets = _random_cells(crowded, geometry, n, seed + number)
        numbers = np.full(n, number, dtype=np.int64)
        parts.append(Rows(numbers, sites, kinds, targets, numbers))
    return Rows(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Rows)))


def _random_cells(
    rows: Rows, geometry: HostGeometry, n: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Sites, kinds and levels of random cells of one host with the compositions of rows."""
    rng, model = np.random.default_rng(seed), TightBinding(geometry)
    places = {element: np.flatnonzero(np.array(model.elements) == element) for element in sorted(set(model.elements))}
    sites, kinds = (np.full((n, rows.sites.shape[1]), -1, dtype=np.int64) for _ in range(2))
    targets = np.zeros((n, len(OUTPUTS)))
    for row in range(n):
        like = rows.kinds[rng.integers(len(rows))]
        mine = like[like >= 0].copy()
        fresh = rng.random(len(mine)) < FRESH_KINDS
        mine[fresh] = rng.integers(len(geometry.kinds), size=int(fresh.sum()))
        free = {element: rng.permutation(some).tolist() for element, some in places.items()}
        found = np.array([free[geometry.kinds[kind].element].pop() for kind in mine], dtype=np.int64)
        sites[row, : len(mine)], kinds[row, : len(mine)] = found, mine
        targets[row] = model.levels(found, mine)
    return sites, kinds, targets


def _bond(direction: Array) -> Array:
    """Hopping from s, x, y and z of one atom to those of another, shape (4, 4)."""
    found = np.zeros((4, 4))
    along = np.outer(direction, direction)
    found[0, 0], found[0, 1:], found[1:, 0] = SS, SP * direction, -SP * direction
    found[1:, 1:] = PP_SIGMA * along + PP_PI * (np.eye(3) - along)
    return found
