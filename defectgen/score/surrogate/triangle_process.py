"""Gaussian processes of levels over cells of three defects, one for each kind of cell.

In cells of one kind (v_W + 2 S_Se, say) a level depends only on the orbits of the three pairs of defects: the sides of
the triangle. Every orbit has a place in a space of three dimensions, close to that of an orbit of like effect, and the
kernel of two cells is a weighted sum of products of squared-exponential kernels between the places of their sides.
Places, weights and noise are those of largest marginal likelihood (Rasmussen and Williams, Gaussian Processes for
Machine Learning, MIT Press 2006, chapter 5). As sides are few, the mean of the process is a table that is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

from defectgen.core import Host, site_permutations
from defectgen.one_line import OneLine
from defectgen.score.surrogate.features import displacements

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

TERMS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2), (0, 1, 2, 3), (3,))
"""Products in the kernel, of the sides first-second (0), first-third (1), second-third (2) and equal symmetry (3)."""

EQUAL = (0, 0, 2, 3, 4, 4, 6, 7, 8)
"""Which weight each term has where second and third defect are of one kind, so that neither comes first."""

GUESSES = (0.3, 0.3, 0.1, 0.3, 0.2, 0.2, 0.2, 0.1, 0.05)
"""Weights of the terms at the start, for targets of spread 1."""

NOISE, LEAST_NOISE = 1e-3, 1e-7
"""Variance of the noise at the start and at least, for targets of spread 1."""

PRIOR_WIDTH = 3.0
"""Standard deviation of the logarithms of weights and noise around their start; of places it is 1."""

MAX_STEPS = 60
"""Steps of the search for places and weights."""

FAR_SIDE_ANGSTROM = 2.5
"""Sites whose heights differ by more are on different sides of a layer."""


@dataclass(frozen=True)
class Sides:
    """The orbits of ordered pairs of sites of a host.

    Attributes:
        table: orbit of each pair, shape (n_sites, n_sites).
        turned: orbit of the pair the other way round, shape (n_orbits,).
        places: where the search for places begins, shape (n_orbits, 3).
    """

    table: Whole
    turned: Whole
    places: Array


@lru_cache(maxsize=16)
def ordered_orbits(host: Host) -> Sides:
    """The ordered pair orbits of a host: there and back may differ, as the lattice may have no inversion."""
    n = host.n_sites
    smallest = np.full((n, n), n * n, dtype=np.int64)
    for image in site_permutations(host).astype(np.int64):
        np.minimum(smallest, image[:, None] * n + image[None, :], out=smallest)
    names, index = np.unique(smallest, return_inverse=True)
    table = index.reshape(n, n)
    vectors = displacements(host, names // n, names % n)
    length = np.round(np.linalg.norm(vectors, axis=1), 6)
    across = np.abs(vectors[:, 2]) > FAR_SIDE_ANGSTROM
    alike = [int(((length[:k] == length[k]) & (across[:k] == across[k])).sum()) for k in range(len(names))]
    places = np.stack([2 * np.log(np.maximum(length, 1.0)), across, 0.5 * np.array(alike)], axis=1)
    return Sides(table, table.T.ravel()[np.unique(table, return_index=True)[1]], places)


def sides_of(host: Host, sites: Whole, alike: bool) -> Whole:
    """The sides of triangles.

    Args:
        host: the host.
        sites: of first, second and third defect, shape (n, 3).
        alike: whether second and third are of one kind, so that their order means nothing.

    Returns:
        Orbits first-second, first-third and second-third, shape (n, 3).
    """
    orbits = ordered_orbits(host)
    first, second, third = sites.T
    last = orbits.table[second, third]
    if alike:
        last = np.minimum(last, orbits.turned[last])
    return np.stack([orbits.table[first, second], orbits.table[first, third], last], axis=1)


@dataclass(frozen=True, eq=False, repr=False)
class Process(OneLine):
    """The process of one property.

    Attributes:
        places: of the orbits of each side, three of shape (n_orbits, 3).
        weights: of the terms, shape (9,).
        noise: its variance, in units of the scale squared.
        mean: subtracted from the targets, in their unit.
        scale: what the targets are divided by.
        pulled: the inverse covariance of the training rows times their scaled targets, shape (n,).
    """

    places: tuple[Array, Array, Array]
    weights: Array
    noise: float
    mean: float
    scale: float
    pulled: Array

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "places": [place.tolist() for place in self.places],
            "weights": self.weights.tolist(),
            "noise": self.noise,
            "mean": self.mean,
            "scale": self.scale,
            "pulled": self.pulled.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Process:
        """The inverse of `to_dict`."""
        first, second, third = (np.array(place, dtype=np.float64) for place in values["places"])
        weights, pulled = (np.array(values[name], dtype=np.float64) for name in ("weights", "pulled"))
        return cls((first, second, third), weights, values["noise"], values["mean"], values["scale"], pulled)


@dataclass(frozen=True, eq=False, repr=False)
class Triangles(OneLine):
    """Cells of one kind as the kernel sees them.

    Attributes:
        orbits: that each side may have, ascending, three of shape (n_orbits,).
        classes: what `defectgen.score.surrogate.stabilizers` says of training rows, without repetitions, shape (k, 3).
        alike: whether second and third defect are of one kind.
        rows: place of each side in `orbits`, and of the symmetry in `classes`, of the training rows, shape (n, 4).
    """

    orbits: tuple[Whole, Whole, Whole]
    classes: Array
    alike: bool
    rows: Whole

    @classmethod
    def of(cls, host: Host, sites: Whole, alike: bool, symmetry: Array) -> Triangles:
        """Of training rows.

        Args:
            host: the host.
            sites: of first, second and third defect, shape (n, 3), n at least 1.
            alike: see `Triangles`.
            symmetry: what `stabilizers` says, shape (n, 3).
        """
        table, elements = ordered_orbits(host).table, np.array(host.site_elements)
        one, two, three = (np.flatnonzero(elements == elements[sites[0, k]]) for k in range(3))
        orbits = tuple(np.unique(table[np.ix_(a, b)]) for a, b in ((one, two), (one, three), (two, three)))
        empty = cls(orbits, np.unique(symmetry, axis=0), alike, np.zeros((0, 4), dtype=np.int64))  # type: ignore[arg-type]
        return cls(empty.orbits, empty.classes, alike, empty.index(host, sites, symmetry))

    def index(self, host: Host, sites: Whole, symmetry: Array) -> Whole:
        """Other cells of this kind as in `rows`; an unknown symmetry has the last place. Arguments as in `of`."""
        sides = sides_of(host, sites, self.alike)
        found = [np.searchsorted(orbits, side) for orbits, side in zip(self.orbits, sides.T, strict=True)]
        same = (symmetry[:, None] == self.classes[None]).all(axis=2)
        found.append(np.where(same.any(axis=1), same.argmax(axis=1), len(self.classes)))
        return np.stack(found, axis=1)

    @property
    def versions(self) -> list[Whole]:
        """The training rows, and with second and third defect exchanged if they are of one kind."""
        return [self.rows, self.rows[:, [1, 0, 2, 3]]] if self.alike else [self.rows]

    def factors(self, places: Sequence[Array]) -> list[Array]:
        """Kernels between the orbits of each side, and between classes of symmetry and a class that is none of them."""
        kernels = [np.exp(-0.5 * ((p[:, None] - p[None]) ** 2).sum(axis=2)) for p in places]
        return [*kernels, np.diag([1.0] * len(self.classes) + [0.0])]

    def covariance(self, process: Process) -> Array:
        """Of the training rows, in units of the scale squared, with noise, shape (n, n)."""
        factors, total = self.factors(process.places), np.zeros((len(self.rows),) * 2)
        for version in self.versions:
            four = [f[np.ix_(self.rows[:, k], version[:, k])] for k, f in enumerate(factors)]
            total += sum(w * _product(four, term) for w, term in zip(process.weights, TERMS, strict=True))
        total[np.diag_indices(len(total))] += process.noise
        return total

    def given(self, process: Process, target: Array) -> Process:
        """The process conditioned on the training rows, `target` of shape (n,) in its unit."""
        scaled = (target - process.mean) / process.scale
        pulled = np.asarray(np.linalg.solve(self.covariance(process), scaled), dtype=np.float64)
        return Process(process.places, process.weights, process.noise, process.mean, process.scale, pulled)

    def table(self, process: Process) -> Array:
        """The mean for all sides and symmetries, in the property's unit; indexed by rows as those of `rows`."""
        factors, n = self.factors(process.places), len(self.rows)
        total = np.zeros([len(factor) for factor in factors])
        four = [factor[:, self.rows[:, k]] for k, factor in enumerate(factors)]
        nothing = np.ones((1, n))
        for weight, term in zip(process.weights, TERMS, strict=True):
            a, b, c, d = (four[k] if k in term else nothing for k in range(4))
            left, right = process.pulled * a[:, None] * b[None], c[:, None] * d[None]
            found = left.reshape(-1, n) @ right.reshape(-1, n).T
            total += weight * found.reshape(len(a), len(b), len(c), len(d))
        if self.alike:
            total = total + total.transpose(1, 0, 2, 3)
        return total * process.scale + process.mean


Unpack = Callable[[Array], tuple[tuple[Array, Array, Array], Array, float]]


def fit_process(host: Host, triangles: Triangles, target: Array) -> Process:
    """Places, weights and noise of largest marginal likelihood, conditioned on the training rows.

    Args:
        host: the host.
        triangles: the training rows.
        target: shape (n,), in the property's unit.
    """
    mean, scale = float(target.mean()), max(float(target.std()), 1e-12)
    loss, start, unpack = likelihood(host, triangles, (target - mean) / scale)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    places, weights, noise = unpack(found.x)
    return triangles.given(Process(places, weights, noise, mean, scale, np.zeros(len(target))), target)


def likelihood(
    host: Host, triangles: Triangles, y: Array
) -> tuple[Callable[[Array], tuple[float, Array]], Array, Unpack]:
    """What is minimized, where that begins, and what its argument means.

    Args:
        host: the host.
        triangles: the training rows.
        y: scaled targets, shape (n,).

    Returns:
        Minus the logarithm of marginal likelihood and prior, with its slope; the first argument; and a function that
        makes places, weights and noise of an argument.
    """
    n, versions, tied = len(y), triangles.versions, np.array(EQUAL if triangles.alike else range(len(TERMS)))
    second = 0 if triangles.alike else 1  # whose places the side first-third has
    first = [ordered_orbits(host).places[orbits] for orbits in triangles.orbits]
    cuts = np.cumsum([first[0].size, second * first[1].size, first[2].size])
    hot = [[np.eye(len(first[k]))[rows[:, k]] for k in range(3)] for rows in (triangles.rows, *versions)]
    logarithms = np.log(np.append(np.array(GUESSES) / len(versions), NOISE))
    start = np.concatenate([np.zeros(cuts[-1]), logarithms])
    widths = np.concatenate([np.ones(cuts[-1]), np.full(len(logarithms), PRIOR_WIDTH)])

    def unpack(free: Array) -> tuple[tuple[Array, Array, Array], Array, float]:
        moved = np.split(free[: cuts[-1]], cuts[:-1])
        one, two, three = (first[k] + moved[k * second if k == 1 else k].reshape(-1, 3) for k in range(3))
        return (one, two, three), np.exp(free[cuts[-1] : -1])[tied], float(np.exp(free[-1]) + LEAST_NOISE)

    def loss(free: Array) -> tuple[float, Array]:
        places, weights, noise = unpack(free)
        factors, covariance, terms = triangles.factors(places), noise * np.eye(n), []
        for version in versions:
            four = [f[np.ix_(triangles.rows[:, k], version[:, k])] for k, f in enumerate(factors)]
            terms.append([weight * _product(four, term) for weight, term in zip(weights, TERMS, strict=True)])
            covariance += sum(terms[-1])
        factor, failed = lapack.dpotrf(covariance, lower=1)
        if failed:
            return 1e10, np.zeros_like(free)
        inverse = np.tril(lapack.dpotri(factor, lower=1)[0])
        inverse += np.tril(inverse, -1).T
        pulled = inverse @ y
        slope = 0.5 * (inverse - np.outer(pulled, pulled))
        by_weight, by_place = np.zeros(len(TERMS)), [np.zeros_like(place) for place in places]
        for some, other in zip(terms, hot[1:], strict=True):
            parts = [slope * term for term in some]
            by_weight += np.bincount(tied, [part.sum() for part in parts], len(TERMS))
            for k, place in enumerate(places):
                pull = hot[0][k].T @ sum(part for part, term in zip(parts, TERMS, strict=True) if k in term) @ other[k]
                pull = pull + pull.T
                by_place[k] += pull @ place - pull.sum(axis=1)[:, None] * place
        if triangles.alike:
            by_place = [by_place[0] + by_place[1], by_place[2]]
        slopes = np.concatenate([*(part.ravel() for part in by_place), by_weight, [np.trace(slope) * np.exp(free[-1])]])
        away = (free - start) / widths
        value = 0.5 * y @ pulled + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        return float(value), slopes + away / widths

    return loss, start, unpack


def _product(four: Sequence[Array], term: tuple[int, ...]) -> Array:
    return reduce(np.multiply, [four[k] for k in term])
