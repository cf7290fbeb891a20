"""Models of cells with many defects: a Gaussian process for each property, some of them averaged with trees.

A property's process is conditioned on the set's training rows and, to know pairs and triples of defects better,
on some low-density rows of the same host. What is stored are the rows, their values and the kernels' weights;
the rest follows from them at first use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.one_line import OneLine
from defectgen.score.surrogate.covariances import EnergyCovariance, level_covariances
from defectgen.score.surrogate.environments import Decorations, DefectKinds
from defectgen.score.surrogate.gaussian_process import GaussianProcess, Weights
from defectgen.score.surrogate.kernels import (
    EnergySide,
    LevelScales,
    LevelSide,
    energy_kernels,
    level_kernels,
    own_energy_kernels,
    own_level_kernels,
)
from defectgen.score.threads import in_parts
from defectgen.score.trees import predict_trees

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

Array = NDArray[np.float64]

ENERGY = "formation_energy_ev"
"""The property that is modelled per defect, with `energy_kernels`."""

BATCH = 256
"""Configurations whose values are found in one step, to bound the memory."""

PRIOR = 10.0
"""Spread of the linear part of the energy in units of the spread of the training values."""


@dataclass(frozen=True, repr=False)
class DenseModel(OneLine):
    """One property.

    Attributes:
        weights: of the process.
        chosen: the training rows that have a value, shape (m,).
        target: their values, in the property's unit, per defect for the energy.
        doubt: factor of the noise of each, see `gaussian_process.doubts`.
        trees: boosted trees on the pooled features, or None.
        share: of the trees in the mean of both, 0 to 1.
        quantile: half-width of the 90 % interval in standard deviations of the process.
        error: mean absolute error of rows left out, in the property's unit.
    """

    weights: Weights
    chosen: tuple[int, ...]
    target: tuple[float, ...]
    doubt: tuple[float, ...]
    trees: CatBoostRegressor | None
    share: float
    quantile: float
    error: float


@dataclass(frozen=True, eq=False, repr=False)
class TrainingRows(OneLine):
    """What the processes are conditioned on.

    Attributes:
        host: of all rows.
        keys: their configurations.
        own: 1 for rows of the set itself, 0 for low-density ones, shape (n,).
        kinds: what is known of each kind of defect.
    """

    host: Host
    keys: tuple[str, ...]
    own: Array
    kinds: DefectKinds

    def describe(self, configurations: Sequence[Configuration]) -> Decorations:
        """Configurations of the host as numbers."""
        return Decorations.of(self.host, configurations, self.kinds)

    @cached_property
    def decorations(self) -> Decorations:
        """The rows as numbers."""
        return self.describe([Configuration.from_key(self.host, key) for key in self.keys])

    @cached_property
    def level_scales(self) -> LevelScales:
        """Units of the level kernels' features."""
        return LevelScales.of(self.decorations)

    @cached_property
    def energy_side(self) -> EnergySide:
        """The rows as the kernels of the energy take them."""
        return EnergySide.of(self.decorations)

    @cached_property
    def level_side(self) -> LevelSide:
        """The rows as the kernels of the other properties take them."""
        return LevelSide.of(self.decorations, self.level_scales)

    def side(self, column: str, rows: Decorations) -> EnergySide | LevelSide:
        """Some configurations as the kernels of a property take them."""
        return EnergySide.of(rows) if column == ENERGY else LevelSide.of(rows, self.level_scales)

    def kernels(self, side: EnergySide | LevelSide) -> Array:
        """The kernels of a property between some configurations and all training rows."""
        if isinstance(side, EnergySide):
            return energy_kernels(side, self.energy_side)
        return level_kernels(side, self.level_side)

    def prior(self, column: str, a: Decorations, own_a: Array, b: Decorations, own_b: Array) -> Array:
        """The part of a kernel that is always there: linear in the counts for the energy, else a constant."""
        if column != ENERGY:
            return np.ones((len(a), len(b)))
        return np.asarray(PRIOR**2 * _linear(a.counts, own_a) @ _linear(b.counts, own_b).T)

    def prior_of_counts(self, counts: Array) -> Array:
        """`prior` of the energy between configurations of the set and all rows, from their counts, shape (m, n)."""
        rows = _linear(self.decorations.counts, self.own)
        return np.asarray(PRIOR**2 * _linear(counts, np.ones(len(counts))) @ rows.T)

    def own_prior(self, column: str, rows: Decorations, own: Array) -> Array:
        """`prior` of each configuration with itself, shape (n,)."""
        if column != ENERGY:
            return np.ones(len(rows))
        return np.asarray(PRIOR**2 * (_linear(rows.counts, own) ** 2).sum(axis=1))

    def noise(self, rows: Decorations, own: Array) -> Array:
        """Patterns of noise variances: equal, falling with the number of defects, and of low-density rows."""
        patterns = [own, own / rows.sizes]
        if not self.own.all():
            patterns.append(1 - own)
        return np.stack(patterns)

    def process(self, column: str, model: DenseModel, kernels: Array) -> GaussianProcess:
        """A property's process; `kernels` between all rows."""
        chosen, rows = np.array(model.chosen), self.decorations
        pick = np.ix_(chosen, chosen)
        prior = self.prior(column, rows, self.own, rows, self.own)[pick]
        noise = self.noise(rows, self.own)[:, chosen]
        target, doubt = np.array(model.target), np.array(model.doubt)
        return GaussianProcess.given(model.weights, kernels[:, pick[0], pick[1]], noise, prior, target, doubt)


@dataclass(frozen=True, eq=False, repr=False)
class DenseModels(OneLine):
    """All properties of one host at high density.

    Attributes:
        rows: the training rows.
        models: by property column.
    """

    rows: TrainingRows
    models: Mapping[str, DenseModel]

    @cached_property
    def _processes(self) -> dict[str, GaussianProcess]:
        rows, shared, found = self.rows.decorations, {}, {}
        for column, model in self.models.items():
            form = column == ENERGY
            if form not in shared:
                shared[form] = self.rows.kernels(self.rows.side(column, rows))
            found[column] = self.rows.process(column, model, shared[form])
        return found

    @cached_property
    def _energy_covariance(self) -> EnergyCovariance:
        return EnergyCovariance(self.rows.energy_side, self.models[ENERGY].weights.kernels)

    def pulled(self, column: str) -> Array:
        """Share of each training row in the mean of a property, in units of its scale, shape (n,)."""
        found = np.zeros(len(self.rows.keys))
        found[list(self.models[column].chosen)] = self._processes[column].pulled
        return found

    def errors(self) -> dict[str, float]:
        """Mean absolute error of rows left out, by property, in its unit."""
        return {column: model.error for column, model in self.models.items()}

    def score(
        self, configurations: Sequence[Configuration], _: Sequence[str]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values and half-widths of the 90 % intervals of each property, in its unit, each of shape (n,).

        Raises:
            UsageError: a defect that the host's rules do not know.
        """
        return self.score_rows(self.rows.describe(configurations))

    def score_rows(self, rows: Decorations) -> tuple[dict[str, Array], dict[str, Array]]:
        """The same of configurations that `TrainingRows.describe` has described."""
        n = len(rows)
        values, widths = ({column: np.zeros(n) for column in self.models} for _ in range(2))
        # cells with as many defects are looked at together, which is faster by some 8 %
        order = np.argsort(rows.sizes, kind="stable")
        shown: dict[int, Array] = {}

        def score_part(part: NDArray[np.int64]) -> None:
            batch = rows.some(part)
            for column, value, width in self._score_batch(batch):
                values[column][part], widths[column][part] = value, width
            shown[int(part[0])] = tree_features(batch)

        parts = [order[start : start + BATCH] for start in range(0, n, BATCH)]
        in_parts(score_part, parts)
        for column, model in self.models.items():
            if model.trees is not None and parts:  # they take half the time for all rows at once
                trees = predict_trees(model.trees, np.concatenate([shown[int(part[0])] for part in parts]))
                size = rows.sizes[order] if column == ENERGY else 1.0
                values[column][order] = (1 - model.share) * values[column][order] + model.share * trees * size
        return values, widths

    def _score_batch(self, batch: Decorations) -> Iterator[tuple[str, Array, Array]]:
        """Of the processes alone."""
        rows, own = self.rows, np.ones(len(batch))
        noise = rows.noise(batch, own)
        for columns in ([ENERGY], [column for column in self.models if column != ENERGY]):
            columns = [column for column in columns if column in self.models]
            if not columns:
                continue
            weights = np.array([self.models[column].weights.kernels for column in columns])
            side = rows.side(columns[0], batch)
            if isinstance(side, EnergySide):
                shared, alone = self._energy_covariance.of(side)[None], own_energy_kernels(side)
            else:
                shared, alone = level_covariances(side, rows.level_side, weights), own_level_kernels(side)
            shared += rows.prior(columns[0], batch, own, rows.decorations, rows.own)
            variances = weights @ alone + rows.own_prior(columns[0], batch, own)
            for column, covariance, variance in zip(columns, shared, variances, strict=True):
                model = self.models[column]
                if len(model.chosen) < covariance.shape[1]:
                    covariance = covariance[:, model.chosen]
                value, spread = self._processes[column].predict(covariance, variance, noise)
                size = batch.sizes if column == ENERGY else 1.0
                yield column, value * size, model.quantile * spread * size

    def to_dict(self) -> dict[str, Any]:
        """All but the trees, for JSON; a model's trees are named by its column."""
        models = {
            column: {
                "weights": asdict(model.weights),
                "chosen": model.chosen,
                "target": model.target,
                "doubt": model.doubt,
                "trees": column if model.trees is not None else None,
                "share": model.share,
                "quantile": model.quantile,
                "error": model.error,
            }
            for column, model in self.models.items()
        }
        rows = self.rows
        kinds = {"kind_weights": rows.kinds.weights, "odd_kinds": rows.kinds.odd}
        return {"keys": rows.keys, "own": rows.own.tolist(), **kinds, "models": models}

    @classmethod
    def from_dict(cls, host: Host, values: Mapping[str, Any], trees: Mapping[str, CatBoostRegressor]) -> DenseModels:
        """The inverse of `to_dict`; `trees` by column.

        Raises:
            LookupError, TypeError, ValueError: values that no `to_dict` gives.
        """
        models = {
            column: DenseModel(
                Weights.from_dict(model["weights"]),
                tuple(model["chosen"]),
                tuple(model["target"]),
                tuple(model["doubt"]),
                trees[column] if model["trees"] else None,
                model["share"],
                model["quantile"],
                model["error"],
            )
            for column, model in values["models"].items()
        }
        for column, model in models.items():
            if not len(model.chosen) == len(model.target) == len(model.doubt):
                raise ValueError(
                    f"{column}: {len(model.target)} values and {len(model.doubt)} doubts of the rows chosen"
                )
            if not all(0 < doubt < math.inf for doubt in model.doubt):
                raise ValueError(f"{column}: doubts that are not above 0")
        weights = tuple(float(weight) for weight in values["kind_weights"])
        kinds = DefectKinds(weights, tuple(values["odd_kinds"]))
        for name, numbers in (("kind_weights", kinds.weights), ("odd_kinds", kinds.odd)):
            if len(numbers) != len(host.rules):
                raise ValueError(f"{len(numbers)} {name} for {len(host.rules)} kinds of defects")
        if not all(isinstance(odd, bool) for odd in kinds.odd):
            raise ValueError(f"odd_kinds {list(kinds.odd)}, expected true or false for each kind of defect")
        return cls(TrainingRows(host, tuple(values["keys"]), np.array(values["own"]), kinds), models)


def tree_features(rows: Decorations, pooled: Array | None = None) -> Array:
    """What the trees see: counts, shares, features of defects that are not isovalent, and the parity of the electrons.

    Args:
        rows: of a host.
        pooled: as `Decorations.pooled`, of other configurations of the host if these are wanted.
    """
    pooled = rows.pooled if pooled is None else pooled
    strong = rows.pooled_weights == 1
    strong[: 2 * rows.n_kinds + 1] = True
    return np.column_stack([pooled[:, strong], rows.odd(pooled[:, : rows.n_kinds])])


def _linear(counts: Array, own: Array) -> Array:
    sizes = np.maximum(counts.sum(axis=1), 1.0)
    return np.column_stack([counts / sizes[:, None], 1 / sizes, np.ones(len(counts)), own / sizes, own])
