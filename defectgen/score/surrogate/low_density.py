"""Models of cells with up to three defects: ridge regression, trees and processes, intervals by defect label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.one_line import OneLine
from defectgen.score.surrogate.features import Features, describe
from defectgen.score.surrogate.label_processes import LabelProcesses, triples
from defectgen.score.surrogate.linear import LinearModel
from defectgen.score.trees import predict_trees

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

FAR = 999.0
"""What the trees see in place of the distance and orbit of a pair that does not exist: a far one."""

OTHER = "other"
"""Group of the labels that have too few validation rows for a half-width of their own."""


@dataclass(frozen=True, repr=False)
class SparseModel(OneLine):
    """A property as the sum of a linear model and trees, either of which may be absent.

    Attributes:
        linear: ridge regression on counts, pairs and triangles.
        trees: boosted trees for what the linear model leaves.
        error: mean absolute error on the validation rows, in the property's unit.
    """

    linear: LinearModel | None
    trees: CatBoostRegressor | None
    error: float

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Values for n configurations in the property's unit, shape (n,)."""
        values = np.zeros(len(features)) if self.linear is None else self.linear.predict(features)
        if self.trees is not None:
            values = values + predict_trees(self.trees, tree_columns(features))
        return values


def tree_columns(features: Features) -> NDArray[np.float64]:
    """What the trees see: counts, the list of pairs, and the symmetry that is left."""
    return np.hstack([features.counts, np.nan_to_num(features.listed, nan=FAR), features.symmetry])


@dataclass(frozen=True, repr=False)
class SparseModels(OneLine):
    """All properties of one host at low density.

    Attributes:
        host: the pristine supercell.
        models: by property column.
        half_widths: half-width of the 90 % interval by property and label (or ``other``), in its unit.
        labels: labels of the training rows.
        processes: of the levels of those labels where they have a share.
    """

    host: Host
    models: Mapping[str, SparseModel]
    half_widths: Mapping[str, Mapping[str, float]]
    labels: frozenset[str]
    processes: tuple[LabelProcesses, ...] = ()

    def errors(self) -> dict[str, float]:
        """Mean absolute error on the validation rows, by property, in its unit."""
        return {column: model.error for column, model in self.models.items()}

    def predict(self, configurations: Sequence[Configuration]) -> dict[str, NDArray[np.float64]]:
        """Values of each property in its unit, each of shape (n,)."""
        features = describe(self.host, configurations)
        values = {column: model.predict(features) for column, model in self.models.items()}
        found = triples(self.host, configurations) if self.processes else {}
        for one in self.processes:
            if one.kinds in found:
                rows, sites = found[one.kinds]
                trees = {column: values[column][rows] for column in one.shares}
                for column, mixed in one.mixed(trees, self.host, sites, features.symmetry[rows]).items():
                    values[column][rows] = mixed
        return values

    def score(
        self, configurations: Sequence[Configuration], labels: Sequence[str]
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
        """Values and half-widths of the 90 % intervals of each property, in its unit, each of shape (n,).

        A label that the training rows do not hold gets the largest half-width of any group; there the
        interval promises nothing.

        Raises:
            UsageError: a defect that the host's rules do not know.
        """
        widths = {}
        for column in self.models:
            known = self.half_widths.get(column, {})
            largest = max(known.values(), default=np.nan)
            found = {label: known.get(label, known.get(OTHER, largest)) for label in self.labels}
            widths[column] = np.array([found.get(label, largest) for label in labels], dtype=np.float64)
        return self.predict(configurations), widths

    def to_dict(self) -> dict[str, Any]:
        """All but the trees, for JSON; a model's trees are named by its column."""
        models = {
            column: {
                "linear": None if model.linear is None else model.linear.to_dict(),
                "trees": column if model.trees is not None else None,
                "error": model.error,
            }
            for column, model in self.models.items()
        }
        processes = [one.to_dict() for one in self.processes]
        return {
            "half_widths": self.half_widths, "labels": sorted(self.labels), "models": models, "processes": processes
        }  # fmt: skip

    @classmethod
    def from_dict(cls, host: Host, values: Mapping[str, Any], trees: Mapping[str, CatBoostRegressor]) -> SparseModels:
        """The inverse of `to_dict`; `trees` by column."""
        models = {
            column: SparseModel(
                None if model["linear"] is None else LinearModel.from_dict(model["linear"]),
                trees[column] if model["trees"] else None,
                model["error"],
            )
            for column, model in values["models"].items()
        }
        processes = tuple(LabelProcesses.from_dict(one) for one in values.get("processes", ()))
        return cls(host, models, values["half_widths"], frozenset(values["labels"]), processes)
