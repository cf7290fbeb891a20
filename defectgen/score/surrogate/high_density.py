"""Models of cells with many defects: a Gaussian process for each property, some of them averaged with trees.

A property's process is conditioned on the set's training rows and, to know pairs and triples of defects better,
on some low-density rows of the same host. What is stored are the rows, their values and the kernels' weights;
the rest follows from them at first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.one_line import OneLine
from defectgen.score.surrogate.environments import Decorations
from defectgen.score.surrogate.gaussian_process import GaussianProcess, Weights
from defectgen.score.surrogate.kernels import LevelScales, energy_kernels, level_kernels
from defectgen.score.trees import predict_trees

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

Array = NDArray[np.float64]

ENERGY = "formation_energy_ev"
"""The property that is modelled per defect, with `energy_kernels`."""

BATCH = 128
"""Configurations that are compared with the training rows in one step, to bound the memory."""

OWN_BATCH = 8
"""Likewise, compared with each other for the variance."""

PRIOR = 10.0
"""Spread of the linear part of the energy in units of the spread of the training values."""


@dataclass(frozen=True, repr=False)
class DenseModel(OneLine):
    """One property.

    Attributes:
        weights: of the process.
        chosen: the training rows that have a value, shape (m,).
        target: their values, in the property's unit, per defect for the energy.
        trees: boosted trees on the pooled features, or None.
        share: of the trees in the mean of both, 0 to 1.
        quantile: half-width of the 90 % interval in standard deviations of the process.
        error: mean absolute error of rows left out, in the property's unit.
    """

    weights: Weights
    chosen: tuple[int, ...]
    target: tuple[float, ...]
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
        kind_weights: how much each kind of defect counts as a neighbour, in the order of the host's rules.
    """

    host: Host
    keys: tuple[str, ...]
    own: Array
    kind_weights: tuple[float, ...]

    def describe(self, configurations: Sequence[Configuration]) -> Decorations:
        """Configurations of the host as numbers."""
        return Decorations.of(self.host, configurations, np.array(self.kind_weights))

    @cached_property
    def decorations(self) -> Decorations:
        """The rows as numbers."""
        return self.describe([Configuration.from_key(self.host, key) for key in self.keys])

    @cached_property
    def level_scales(self) -> LevelScales:
        """Units of the level kernels' features."""
        return LevelScales.of(self.decorations)

    def kernels(self, column: str, a: Decorations, b: Decorations) -> Array:
        """The kernels of a property between some configurations."""
        return energy_kernels(a, b) if column == ENERGY else level_kernels(a, b, self.level_scales)

    def prior(self, column: str, a: Decorations, own_a: Array, b: Decorations, own_b: Array) -> Array:
        """The part of a kernel that is always there: linear in the counts for the energy, else a constant."""
        if column != ENERGY:
            return np.ones((len(a), len(b)))
        first, second = (
            np.column_stack([x.counts / x.sizes[:, None], 1 / x.sizes, np.ones(len(x)), own / x.sizes, own])
            for x, own in ((a, own_a), (b, own_b))
        )
        return np.asarray(PRIOR**2 * first @ second.T)

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
        return GaussianProcess.given(model.weights, kernels[:, pick[0], pick[1]], noise, prior, np.array(model.target))


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
                shared[form] = self.rows.kernels(column, rows, rows)
            found[column] = self.rows.process(column, model, shared[form])
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
        n = len(configurations)
        values, widths = ({column: np.zeros(n) for column in self.models} for _ in range(2))
        for start in range(0, n, BATCH):
            part = slice(start, start + BATCH)
            batch = self.rows.describe(configurations[part])
            for column, value, width in self._score_batch(batch):
                values[column][part], widths[column][part] = value, width
        return values, widths

    def _score_batch(self, batch: Decorations) -> Iterator[tuple[str, Array, Array]]:
        rows, own = self.rows, np.ones(len(batch))
        shared: dict[bool, tuple[Array, Array]] = {}
        for column, model in self.models.items():
            form = column == ENERGY
            if form not in shared:
                shared[form] = rows.kernels(column, batch, rows.decorations), self._own_kernels(column, batch)
            kernels, self_kernels = shared[form]
            chosen = np.array(model.chosen)
            prior = rows.prior(column, batch, own, rows.decorations, rows.own)[:, chosen]
            alone = np.diag(rows.prior(column, batch, own, batch, own)) + np.array(model.weights.kernels) @ self_kernels
            noise = rows.noise(batch, own)
            value, spread = self._processes[column].predict(kernels[:, :, chosen], prior, alone, noise)
            if model.trees is not None:
                trees = predict_trees(model.trees, tree_features(batch))
                value = (1 - model.share) * value + model.share * trees
            size = batch.sizes if column == ENERGY else 1.0
            yield column, value * size, model.quantile * spread * size

    def _own_kernels(self, column: str, batch: Decorations) -> Array:
        """Each kernel of each configuration with itself, shape (k, n)."""
        found = []
        for start in range(0, len(batch), OWN_BATCH):
            part = batch.take(start, start + OWN_BATCH)
            found.append(np.diagonal(self.rows.kernels(column, part, part), axis1=1, axis2=2))
        return np.concatenate(found, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """All but the trees, for JSON; a model's trees are named by its column."""
        models = {
            column: {
                "weights": asdict(model.weights),
                "chosen": model.chosen,
                "target": model.target,
                "trees": column if model.trees is not None else None,
                "share": model.share,
                "quantile": model.quantile,
                "error": model.error,
            }
            for column, model in self.models.items()
        }
        rows = self.rows
        return {"keys": rows.keys, "own": rows.own.tolist(), "kind_weights": rows.kind_weights, "models": models}

    @classmethod
    def from_dict(cls, host: Host, values: Mapping[str, Any], trees: Mapping[str, CatBoostRegressor]) -> DenseModels:
        """The inverse of `to_dict`; `trees` by column."""
        models = {
            column: DenseModel(
                Weights.from_dict(model["weights"]),
                tuple(model["chosen"]),
                tuple(model["target"]),
                trees[column] if model["trees"] else None,
                model["share"],
                model["quantile"],
                model["error"],
            )
            for column, model in values["models"].items()
        }
        weights = tuple(float(weight) for weight in values["kind_weights"])
        if len(weights) != len(host.rules):
            raise ValueError(f"{len(weights)} kind_weights for {len(host.rules)} kinds of defects")
        return cls(TrainingRows(host, tuple(values["keys"]), np.array(values["own"]), weights), models)


def tree_features(rows: Decorations) -> Array:
    """What the trees see: counts, shares, and the pooled features of defects that are not isovalent."""
    counted = 2 * rows.n_kinds + 1
    strong = rows.pooled_weights == 1
    strong[:counted] = True
    return rows.pooled[:, strong]
