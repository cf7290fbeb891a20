"""Fitting one property: candidates, the choice between them, and the width of the intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration, get_host
from defectgen.score.features import Features, describe, pair_vocabulary
from defectgen.score.linear import CANDIDATES, LEAST_ROWS, LinearSettings, fit_linear
from defectgen.score.parts import OTHER, TARGETS, PropertyModel, tree_columns
from defectgen.score.trees import TreeSettings, fit_trees

LEVEL = 0.9
"""Share of true values that an interval is made to hold."""

MIN_GROUP_ROWS = 40
"""Rows that a defect label needs for a half-width of its own."""


@dataclass(frozen=True)
class FitSettings:
    """Trees, their seed, and the number of threads."""

    trees: TreeSettings
    seed: int
    threads: int


@dataclass(frozen=True)
class Choice:
    """How a property is modelled.

    Attributes:
        linear: settings of the linear model, None for trees alone.
        trees: whether trees learn what the linear model leaves.
        error_ev: mean absolute error on the validation rows, in eV.
    """

    linear: LinearSettings | None
    trees: bool
    error_ev: float = math.inf


@dataclass(frozen=True)
class LabelledRows:
    """Configurations of one set with their features and values.

    Attributes:
        configurations: n of one host.
        features: of the same.
        values: by column in eV, NaN where there is none, each of shape (n,).
    """

    configurations: tuple[Configuration, ...]
    features: Features
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> LabelledRows:
        """Rows of one set, in their order."""
        n_a, n_b = (int(n) for n in frame["supercell"][0].split("x"))
        host = get_host(frame["host"][0], (n_a, n_b))
        items = tuple(Configuration.from_key(host, key) for key in frame["configuration"])
        columns = (*TARGETS, "energy_ev", "energy_per_atom_ev")
        values = {column: frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy() for column in columns}
        return cls(items, describe(host, items), values)

    def __len__(self) -> int:
        return len(self.configurations)

    def known(self, column: str) -> NDArray[np.bool_]:
        """Which rows have a value, shape (n,)."""
        return np.asarray(~np.isnan(self.values[column]))

    def some(self, chosen: NDArray[np.bool_]) -> LabelledRows:
        """Some of the rows; `chosen` has shape (n,)."""
        if chosen.all():
            return self
        items = tuple(item for item, wanted in zip(self.configurations, chosen, strict=True) if wanted)
        values = {name: column[chosen] for name, column in self.values.items()}
        return LabelledRows(items, describe(self.configurations[0].host, items), values)

    def sizes(self, column: str) -> NDArray[np.float64]:
        """What errors of a column are divided by: the number of defects for the formation energy, else 1."""
        if column != "formation_energy_ev":
            return np.ones(len(self))
        return np.asarray(np.maximum(self.features.counts.sum(axis=1), 1.0))


def fit(column: str, rows: LabelledRows, choice: Choice, longest_pair: float, settings: FitSettings) -> PropertyModel:
    """The model of a property as chosen, fitted on the rows that have a value.

    `longest_pair` is that of the pairs whose counts the trees see, in angstrom; 0 gives them the list of pairs.
    """
    rows = rows.some(rows.known(column))
    host, target = rows.configurations[0].host, rows.values[column]
    linear = None
    if choice.linear is not None:
        linear = fit_linear(host, rows.features, target, 1 / rows.sizes(column) ** 2, choice.linear)
        target = target - linear.predict(rows.features)
    if not choice.trees:
        return PropertyModel(linear, None, None, choice.error_ev)
    pairs = None
    if longest_pair:
        pairs = tuple(pair_vocabulary(host, longest_pair, rows.features.pairs, LEAST_ROWS).tolist())
    columns = tree_columns(rows.features, pairs)
    trees = fit_trees(columns, target, settings.trees, settings.seed, settings.threads)
    return PropertyModel(linear, trees, pairs, choice.error_ev)


def choose(
    column: str, train: LabelledRows, validation: LabelledRows, longest_pair: float, settings: FitSettings
) -> tuple[Choice, PropertyModel]:
    """The best on the validation rows: the best linear model, trees on what it leaves, or trees alone.

    Returns:
        The choice and its model, fitted on the training rows.
    """
    checked = validation.some(validation.known(column))
    if not len(checked):
        choice = Choice(None, True, 0.0)
        return choice, fit(column, train, choice, longest_pair, settings)

    def judged(choice: Choice) -> tuple[float, Choice, PropertyModel]:
        model = fit(column, train, choice, longest_pair, settings)
        error = np.abs(model.predict(checked.features) - checked.values[column])
        mean = float(error.mean())
        relative = float(np.mean(error / checked.sizes(column)))
        return relative, replace(choice, error_ev=mean), replace(model, error_ev=mean)

    linear = min((judged(Choice(candidate, False)) for candidate in CANDIDATES), key=lambda found: found[0])
    base = linear[1].linear
    best = min(linear, judged(Choice(base, True)), judged(Choice(None, True)), key=lambda found: found[0])
    return best[1], best[2]


def half_widths(predicted: Mapping[str, NDArray[np.float64]], rows: LabelledRows) -> dict[str, dict[str, float]]:
    """Split-conformal half-widths of the intervals in eV, by property and group of labels.

    A label with at least `MIN_GROUP_ROWS` rows is a group; the others share one, called ``other``.

    Args:
        predicted: values for rows that the models were not fitted on, NaN where there is none.
        rows: the same rows.
    """
    labels = np.array([item.label for item in rows.configurations])
    widths: dict[str, dict[str, float]] = {}
    for column in (name for name in TARGETS if name in predicted):
        errors = np.abs(predicted[column] - rows.values[column])
        known = ~np.isnan(errors)
        names, counts = np.unique(labels[known], return_counts=True)
        own = names[counts >= MIN_GROUP_ROWS]
        rest = known & ~np.isin(labels, own)
        groups = {str(name): known & (labels == name) for name in own}
        groups[OTHER] = rest if rest.sum() >= MIN_GROUP_ROWS // 2 else known
        found = {group: _quantile(errors[chosen]) for group, chosen in groups.items()}
        widths[column] = {group: width for group, width in found.items() if width is not None}
    return widths


def _quantile(errors: NDArray[np.float64]) -> float | None:
    """The error that a new row exceeds with probability at most 1 - `LEVEL`; None with too few rows."""
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return None if rank > len(errors) else float(np.sort(errors)[rank - 1])
