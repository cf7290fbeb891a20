"""Predicted values without intervals, for searches that look at the neighbours of one configuration.

A process's mean is a sum over the training rows, so all that is linear in a configuration's numbers is summed over
them beforehand. What a defect's surroundings contribute is kept for as long as the same surroundings come back, and
what follows from the composition alone is found once for each composition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from defectgen.core import Host
from defectgen.core.hosts import common_name
from defectgen.core.properties import BY_COLUMN
from defectgen.errors import UsageError
from defectgen.score.absent_values import instead_of
from defectgen.score.surrogate.agreement import COLUMNS as GAP
from defectgen.score.surrogate.environments import environment_basis
from defectgen.score.surrogate.high_density import ENERGY, DenseModels, tree_features
from defectgen.score.surrogate.host_models import PER_ATOM, HostModels
from defectgen.score.surrogate.kernel_table import (
    AROUND,
    ENERGY_LENGTHS,
    LEVEL_LENGTHS,
    LEVEL_POWERS,
    LEVEL_SURROUNDINGS,
    LIKE_SHARES,
    NEAR,
    NUMBER,
    POOLED,
    PRESENT,
    TIMES_HAS,
    WIDE,
    EnergyKernel,
    LevelKernel,
)
from defectgen.score.surrogate.kernels import gaussian, level_points
from defectgen.score.surrogate.site_tables import RANGES, Tables
from defectgen.score.surrogate.surroundings import Environments, Points, small_power
from defectgen.score.trees import predict_trees

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

MAX_KEPT = 200_000
"""Surroundings whose contributions are kept; beyond that they are found anew."""

MAX_NUMBERS = 20_000_000
"""Numbers that are kept for surroundings of one range, to bound the memory."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """What the means depend on, for n configurations with up to M defects.

    Attributes:
        counts: number of defects of each kind, shape (n, n_kinds).
        sizes: number of defects, at least 1, shape (n,).
        pair_counts: as `Decorations.pair_counts`.
        pooled: as `Decorations.pooled`.
        kinds: kind of each defect, shape (n, M).
        alive: which places hold a defect, shape (n, M).
        codes: of the surroundings of each defect, one for each of `RANGES`, shape (n, M, 3).
        neighbours: gives the numbers of neighbours by kind and orbit of some defects, shape (m, n_kinds, n_orbits),
            from their first and second index.
    """

    counts: Array
    sizes: Array
    pair_counts: Array
    pooled: Array
    kinds: NDArray[np.int64]
    alive: NDArray[np.bool_]
    codes: Codes
    neighbours: Callable[[NDArray[np.int64], NDArray[np.int64]], Array]

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(eq=False)
class _Kept:
    """Contributions of surroundings by their code; the same for all configurations.

    Attributes:
        basis: from numbers of neighbours to points.
        parts: for each kind the training rows' points and what each contributes, shape (points, width).
        powers: of the Gaussians; `width` numbers for each.
    """

    basis: Array
    parts: Sequence[tuple[Points, Sequence[Array]]]
    powers: Sequence[int]
    width: int
    _codes: Codes = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _values: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def find(self, place: int, numbers: Numbers) -> tuple[NDArray[np.int64], Array]:
        """Where the contributions of each living defect stand, and all of them, shape (kept, width)."""
        rows, columns = np.nonzero(numbers.alive)
        kinds = numbers.kinds[rows, columns]
        wanted = numbers.codes[rows, columns, place] * 31 + kinds
        found = np.searchsorted(self._codes, wanted)
        known = found < len(self._codes)
        known[known] = self._codes[found[known]] == wanted[known]
        if known.all():
            return found, self._values
        missing = np.flatnonzero(~known)
        codes, first = np.unique(wanted[missing], return_index=True)
        new = missing[first]
        values = self._contributions(kinds[new], numbers.neighbours(rows[new], columns[new]))
        if len(self._codes) + len(codes) > min(MAX_KEPT, MAX_NUMBERS // self.width):
            self._codes, self._values = codes[:0], values[:0]
            return self.find(place, numbers) if known.any() else self._keep(codes, values, wanted)
        return self._keep(codes, values, wanted)

    def _keep(self, codes: Codes, values: Array, wanted: Codes) -> tuple[NDArray[np.int64], Array]:
        if len(self._codes):
            codes = np.concatenate([self._codes, codes])
            values = np.concatenate([self._values, values])
        order = np.argsort(codes, kind="stable")
        self._codes, self._values = codes[order], values[order]
        return np.searchsorted(self._codes, wanted), self._values

    def _contributions(self, kinds: NDArray[np.int64], neighbours: Array) -> Array:
        found = np.zeros((len(kinds), self.width))
        n_orbits = len(self.basis) // neighbours.shape[1]
        points = np.ascontiguousarray(neighbours[:, :, :n_orbits]).reshape(len(kinds), -1) @ self.basis
        for kind, (others, sums) in enumerate(self.parts):
            which = np.flatnonzero(kinds == kind)
            if not len(which) or not len(others):
                continue
            for start in range(0, len(which), 64):
                part = which[start : start + 64]
                each = Points(points[part]).minus_squared_distances(others, slice(None))
                np.exp(each, out=each)
                for power, weights in zip(self.powers, sums, strict=True):
                    found[part] += (each if power == 1 else small_power(each, power)) @ weights
        return found


@dataclass(frozen=True, eq=False)
class _Composition:
    """What follows from the numbers of each kind alone.

    Attributes:
        energy: part of the energy's sum over the training rows.
        alike: similarity of the composition to that of each training row, times its share in the sum, shape (n,).
        levels: parts of the sums of the other properties, shape (p,).
        has: similarity of the kinds that there are, shape (n,).
    """

    energy: float
    alike: Array
    levels: Array
    has: Array


class MeanModel:
    """The means of some properties of a host at high density, ready for many configurations."""

    def __init__(self, part: HostModels, columns: Sequence[str]) -> None:
        """For some of the properties of a part.

        Raises:
            UsageError: a part of low density, or a property that it has no values of.
        """
        if not isinstance(part.models, DenseModels):
            raise UsageError(f"got the low-density models of {part.host}, expected those of crowded cells.")
        columns, self.wanted = [ENERGY if column == PER_ATOM else column for column in columns], tuple(columns)
        if any(column in GAP for column in columns):
            columns += GAP  # they are made to agree
        missing = [column for column in columns if column not in part.models.models and column not in GAP]
        missing += [column for column in self.wanted if column in GAP and column not in part.models.models]
        if missing:
            item = BY_COLUMN[missing[0]]
            raise UsageError(
                f"the surrogate has no values of {item.name.replace('_', ' ')} for cells of "
                f"{common_name(part.core_host)} with many defects.",
                instead_of(
                    item.column, part.models.models, f"Leave out --{item.option} ({item.option.replace('-', '_')}=)."
                ),
            )
        self.tables = Tables(part.core_host)
        self._part = part
        self._models = models = part.models
        self._columns = [column for column in models.models if column in columns]
        self._levels = [column for column in self._columns if column != ENERGY]
        self._compositions: dict[tuple[float, ...], _Composition] = {}
        self._pulled = {column: models.pulled(column) for column in self._columns}
        self._own = models.rows.own
        self._near, self._wide, self._around = self._kept()

    @property
    def host(self) -> Host:
        """The pristine supercell."""
        return self._part.core_host

    @property
    def weights(self) -> Array:
        """How much each kind of defect counts as a neighbour."""
        return self._models.rows.decorations.weights

    def predict(self, numbers: Numbers) -> dict[str, Array]:
        """Values of each property in its unit as `HostModels.score` gives them, each of shape (n,)."""
        compositions, which = self._compositions_of(numbers)
        values: dict[str, Array] = {}
        if ENERGY in self._columns:
            values[ENERGY] = self._energy(numbers, compositions, which) * numbers.sizes
        if self._levels:
            values |= self._level_values(numbers, compositions, which)
        found, _ = self._part.finish(values, {}, numbers.counts)
        return {column: found[column] for column in self.wanted}

    @cached_property
    def _energy_weights(self) -> tuple[Array, Array]:
        """Weights of the energy's kernels, and the share of each training row in the sum over its size."""
        side = self._models.rows.energy_side
        return np.array(self._models.models[ENERGY].weights.kernels), self._pulled[ENERGY] / side.sizes

    @cached_property
    def _level_weights(self) -> Array:
        """Weight of each kernel times the share of each training row, shape (16, n, p)."""
        pulled = np.stack([self._pulled[column] for column in self._levels], axis=1)
        weights = np.array([self._models.models[column].weights.kernels for column in self._levels])
        return np.asarray(weights.T[:, None, :] * pulled)

    def _kept(self) -> tuple[_Kept | None, _Kept | None, _Kept | None]:
        rows = self._models.rows

        def kept(
            chosen: tuple[float, ...], around: Environments, powers: Sequence[int], sums: Sequence[Array]
        ) -> _Kept:
            parts = [(kind.points, [kind.counts.T @ s for s in sums]) for kind in around.distinct]
            basis = environment_basis(rows.host, tuple(self.weights.tolist()), *chosen)
            return _Kept(basis, parts, powers, sums[0].shape[1])

        near = wide = around = None
        if ENERGY in self._columns:
            side, (weights, share) = rows.energy_side, self._energy_weights
            near = kept(NEAR, side.near, (1,), [np.eye(side.n)])
            wide = kept(WIDE, side.wide, (1,), [(weights[EnergyKernel.WIDE] * share)[:, None]])
        if self._levels:
            sums = list(self._level_weights[AROUND])
            around = kept(LEVEL_SURROUNDINGS, rows.level_side.around, LEVEL_POWERS, sums)
        return near, wide, around

    @cached_property
    def _linear(self) -> Array:
        """What one pair of each two kinds in each orbit contributes to the energy's sum, shape (n_two, n_orbits)."""
        side, (weights, share) = self._models.rows.energy_side, self._energy_weights
        plain, smooth, long = side.pair_sums(share)
        kernel = EnergyKernel
        return np.asarray(
            weights[kernel.PAIRS] * plain + weights[kernel.SMOOTH_PAIRS] * smooth + weights[kernel.LONG_PAIRS] * long
        )

    def _compositions_of(self, numbers: Numbers) -> tuple[list[_Composition], NDArray[np.int64]]:
        found, which = np.unique(numbers.counts, axis=0, return_inverse=True)
        return [self._composition(counts) for counts in found], which.ravel()

    def _composition(self, counts: Array) -> _Composition:
        key = tuple(counts.tolist())
        if key not in self._compositions:
            self._compositions[key] = self._new_composition(counts[None])
        return self._compositions[key]

    def _new_composition(self, counts: Array) -> _Composition:
        rows, everything = self._models.rows, slice(None)
        size = max(float(counts.sum()), 1.0)
        energy, alike, levels, has = 0.0, np.zeros(0), np.zeros(0), np.zeros(0)
        if ENERGY in self._columns:
            side, (weights, share) = rows.energy_side, self._energy_weights
            shares = Points(counts / size).minus_squared_distances(side.shares, everything)[0]
            close = Points(counts).minus_squared_distances(side.composition, everything)[0]
            gaussian(close, ENERGY_LENGTHS[EnergyKernel.COMPOSITION], close)
            alike = np.empty_like(shares)
            gaussian(shares, LIKE_SHARES, alike)
            alike *= share
            gaussian(shares, ENERGY_LENGTHS[EnergyKernel.SHARES], shares)
            prior = rows.prior_of_counts(counts)[0]
            energy = float(
                self._pulled[ENERGY] @ prior
                + weights[EnergyKernel.COUNTS] * (side.counts @ counts[0]) @ share / size
                + weights[EnergyKernel.COMPOSITION] * close @ (share * np.sqrt(side.sizes)) / np.sqrt(size)
                + weights[EnergyKernel.SHARES] * shares @ (share * side.sizes)
            )
        if self._levels:
            level, w = rows.level_side, self.weights
            present = Points(np.where(counts > 0, np.sqrt(w), 0.0)).minus_squared_distances(level.has, everything)[0]
            number = Points(counts * w).minus_squared_distances(level.counts, everything)[0]
            compared = {
                LevelKernel.HAS: present,
                LevelKernel.COUNTS: number,
                LevelKernel.COUNTS_COARSE: number,
                LevelKernel.LOG_COUNTS: Points(np.log1p(counts) * w).minus_squared_distances(level.logs, everything)[0],
                LevelKernel.SHARES: Points(counts / size * w).minus_squared_distances(level.shares, everything)[0],
            }
            kernels = np.empty((len(compared), level.n))
            for place, (kernel, distances) in enumerate(compared.items()):
                gaussian(distances, LEVEL_LENGTHS[kernel], kernels[place])
            has = kernels[0]
            constant = np.array([self._pulled[column].sum() for column in self._levels])
            levels = np.einsum("kn,knp->p", kernels, self._level_weights[list(compared)]) + constant
        return _Composition(energy, alike, levels, has)

    def _summed(self, kept: _Kept, place: int, numbers: Numbers) -> Array:
        """Contributions of the surroundings of all defects of each configuration, shape (n, width)."""
        found, values = kept.find(place, numbers)
        ends = np.concatenate([[0], np.cumsum(numbers.alive.sum(axis=1))])
        members = csr_array((np.ones(len(found)), found, ends), shape=(len(numbers), len(values)))
        return np.asarray(members @ values)

    def _energy(self, numbers: Numbers, compositions: Sequence[_Composition], which: NDArray[np.int64]) -> Array:
        assert self._near is not None
        assert self._wide is not None
        side, (weights, _) = self._models.rows.energy_side, self._energy_weights
        near = self._summed(self._near, RANGES.index(NEAR), numbers)
        total = self._summed(self._wide, RANGES.index(WIDE), numbers)[:, 0]
        total += np.tensordot(numbers.pair_counts, self._linear, 2)
        total += near @ (weights[EnergyKernel.NEAR] * self._energy_weights[1])
        pairs = side.smoothed(numbers.pair_counts) @ side.smooth.T
        both = weights[EnergyKernel.SMOOTH_PAIRS_IN_LIKE_SHARES] * pairs
        both += weights[EnergyKernel.NEAR_IN_LIKE_SHARES] * near
        alike = np.stack([composition.alike for composition in compositions])
        total += np.einsum("ij,ij->i", both, alike[which])
        total /= numbers.sizes
        total += np.array([composition.energy for composition in compositions])[which]
        chosen = self._models.models[ENERGY].weights
        return np.asarray(total * chosen.scale + chosen.mean)

    def _level_values(
        self, numbers: Numbers, compositions: Sequence[_Composition], which: NDArray[np.int64]
    ) -> dict[str, Array]:
        assert self._around is not None
        rows, weights = self._models.rows, self._level_weights
        level = rows.level_side
        total = self._summed(self._around, RANGES.index(LEVEL_SURROUNDINGS), numbers)
        total += np.stack([composition.levels for composition in compositions])[which]
        has = np.stack([composition.has for composition in compositions])
        pooled, present, number = level_points(rows.decorations, rows.level_scales, numbers.pooled, numbers.pair_counts)
        for start in range(0, len(numbers), 32):
            part = slice(start, start + 32)
            compared = (
                (POOLED, pooled.minus_squared_distances(level.pooled, part)),
                (PRESENT, present.minus_squared_distances(level.present, part)),
                (NUMBER, number.minus_squared_distances(level.number, part)),
            )
            values = np.empty_like(compared[0][1])
            for kernels, distances in compared:
                for kernel in kernels:
                    gaussian(distances, LEVEL_LENGTHS[kernel], values)
                    total[part] += values @ weights[kernel]
                    if kernel in TIMES_HAS:
                        values *= has[which[part]]
                        total[part] += values @ weights[TIMES_HAS[kernel]]
        found = {}
        for column, sums in zip(self._levels, total.T, strict=True):
            model = self._models.models[column]
            value = sums * model.weights.scale + model.weights.mean
            if model.trees is not None:
                trees = predict_trees(model.trees, tree_features(rows.decorations, numbers.pooled))
                value = (1 - model.share) * value + model.share * trees
            found[column] = value
        return found
