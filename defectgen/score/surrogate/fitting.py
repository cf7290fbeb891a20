"""Fitting the models of one set: what is chosen, and how wide the intervals are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from defectgen.score.intervals import MIN_TRAIN_ROWS, quantile
from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.agreement import Agreement
from defectgen.score.surrogate.environments import DefectKinds
from defectgen.score.surrogate.gaussian_process import doubts, find_weights, left_out
from defectgen.score.surrogate.high_density import ENERGY, DenseModel, DenseModels, TrainingRows, tree_features
from defectgen.score.surrogate.host_models import learnt_columns
from defectgen.score.surrogate.labelled_rows import CONSTANT, LabelledRows
from defectgen.score.surrogate.linear import CANDIDATES, LinearSettings, fit_linear
from defectgen.score.surrogate.low_density import OTHER, SparseModel, tree_columns
from defectgen.score.trees import TreeSettings, fit_trees, predict_trees

Array = NDArray[np.float64]

MIN_GROUP_ROWS = 40
"""Rows that a defect label needs for a half-width of its own."""

N_FOLDS = 5

SHARES = (0.0, 0.25, 0.5, 0.75)
"""Candidates for the share of the trees beside a process."""


@dataclass(frozen=True)
class FitSettings:
    """Trees, their seed, and the number of threads."""

    trees: TreeSettings
    seed: int
    threads: int


@dataclass(frozen=True)
class Choice:
    """How a property is modelled at low density.

    Attributes:
        linear: settings of the linear model, None for trees alone.
        trees: whether trees learn what the linear model leaves.
        error: mean absolute error on the validation rows, in the property's unit.
    """

    linear: LinearSettings | None
    trees: bool
    error: float = math.inf


def fit_sparse(column: str, rows: LabelledRows, choice: Choice, settings: FitSettings) -> SparseModel:
    """The model of a property as chosen, fitted on the rows that have a value."""
    rows = rows.some(rows.known(column))
    target, linear = rows.values[column], None
    if choice.linear is not None:
        linear = fit_linear(rows.host, rows.features, target, 1 / rows.sizes(column) ** 2, choice.linear)
        target = target - linear.predict(rows.features)
    if not choice.trees:
        return SparseModel(linear, None, choice.error)
    trees = fit_trees(tree_columns(rows.features), target, settings.trees, settings.seed, settings.threads)
    return SparseModel(linear, trees, choice.error)


def choose_sparse(
    column: str, train: LabelledRows, validation: LabelledRows, settings: FitSettings
) -> tuple[Choice, SparseModel]:
    """The best on the validation rows: the best linear model, trees on what it leaves, or trees alone.

    Returns:
        The choice and its model, fitted on the training rows.
    """
    checked = validation.some(validation.known(column))
    if not len(checked):
        choice = Choice(None, True, 0.0)
        return choice, fit_sparse(column, train, choice, settings)

    def judged(choice: Choice) -> tuple[float, Choice, SparseModel]:
        model = fit_sparse(column, train, choice, settings)
        error = np.abs(model.predict(checked.features) - checked.values[column])
        mean = float(error.mean())
        relative = float(np.mean(error / checked.sizes(column)))
        return relative, replace(choice, error=mean), replace(model, error=mean)

    linear = min((judged(Choice(candidate, False)) for candidate in CANDIDATES), key=lambda found: found[0])
    base = linear[1].linear
    best = min(linear, judged(Choice(base, True)), judged(Choice(None, True)), key=lambda found: found[0])
    return best[1], best[2]


def half_widths(predicted: Mapping[str, Array], rows: LabelledRows) -> dict[str, dict[str, float]]:
    """Split-conformal half-widths of the intervals, by property and group of labels, in the property's unit.

    A label with at least `MIN_GROUP_ROWS` rows is a group; the others share one, called ``other``.

    Args:
        predicted: values for rows that the models were not fitted on.
        rows: the same rows.
    """
    labels = np.array([item.label for item in rows.configurations])
    widths: dict[str, dict[str, float]] = {}
    for column in (name for name in learnt_columns() if name in predicted):
        errors = np.abs(predicted[column] - rows.values[column])
        known = ~np.isnan(errors)
        names, counts = np.unique(labels[known], return_counts=True)
        own = names[counts >= MIN_GROUP_ROWS]
        rest = known & ~np.isin(labels, own)
        groups = {str(name): known & (labels == name) for name in own}
        groups[OTHER] = rest if rest.sum() >= MIN_GROUP_ROWS // 2 else known
        found = {group: quantile(errors[chosen]) for group, chosen in groups.items()}
        widths[column] = {group: width for group, width in found.items() if width is not None}
    return widths


@dataclass(frozen=True, eq=False)
class DenseFit:
    """What `fit_dense` finds.

    Attributes:
        models: fitted on all rows.
        agreement: how HOMO, LUMO and gap are made to agree; None unless all three are modelled.
        left_out: values of the set's own rows by models that have not seen them, made to agree, by property in its
            unit, NaN without a label, each of shape (n,).
        apart: the same before they agree, each property by itself, and half-widths of 90 % intervals.
    """

    models: DenseModels
    agreement: Agreement | None
    left_out: Mapping[str, Array]
    apart: Mapping[str, tuple[Array, Array]]


def fit_dense(
    rows: LabelledRows, low: LabelledRows | None, settings: FitSettings, advance: Callable[[int], None]
) -> DenseFit:
    """The models of a high-density set.

    The weights of the kernels come from the marginal likelihood of all training rows; the share of the
    trees, whether the parity of the electrons counts in all but the energy, how HOMO, LUMO and gap are made to
    agree, and the width of the intervals from rows left out in `N_FOLDS` folds.

    Args:
        rows: training rows of the set.
        low: low-density training rows of the same host and supercell, or None.
        settings: of the trees.
        advance: is told of each finished property.
    """
    items = rows.configurations + (() if low is None else low.configurations)
    own = np.arange(len(items)) < len(rows)
    keys, kinds = tuple(item.key for item in items), DefectKinds.of(rows.host)
    training = TrainingRows(rows.host, keys, own.astype(np.float64), kinds)
    values = {column: rows.values[column] for column in learnt_columns() if rows.learnable(column, MIN_TRAIN_ROWS)}
    if low is not None:
        values = {column: np.concatenate([mine, low.values[column]]) for column, mine in values.items()}
    levels = {column: mine for column, mine in values.items() if column != ENERGY}
    blind = replace(training, kinds=replace(kinds, odd=(False,) * len(kinds.odd)))
    if not levels or not np.ptp(training.decorations.odd(training.decorations.counts)):
        training = blind  # parity makes no difference
    models, apart = _fit_dense_models(training, values, settings, advance)
    advance(len(learnt_columns()) - len(values))
    if training is not blind:
        found = _fit_dense_models(blind, levels, settings, lambda _: None)
        ratios = [_error(apart[column], rows, column) / _error(found[1][column], rows, column) for column in levels]
        if np.mean(ratios) >= 1:
            training, models, apart = blind, models | found[0], apart | found[1]
    agreement = None
    means = {column: mean for column, (mean, _) in apart.items()}
    if all(column in means for column in AGREEING):
        agreement = Agreement.fit(rows.values, {column: means[column] - rows.values[column] for column in AGREEING})
        for column, mean in agreement.apply(means).items():
            means[column] = np.where(np.isnan(mean), means[column], mean)  # rows without all three labels
    for column, model in models.items():
        errors = np.abs(means[column] - rows.values[column])
        known = ~np.isnan(errors)
        width = quantile((errors / apart[column][1])[known])
        widest = math.inf if width is None else width
        models[column] = replace(model, quantile=widest, error=float(errors[known].mean()))
    widths = {column: (mean, models[column].quantile * spread) for column, (mean, spread) in apart.items()}
    return DenseFit(DenseModels(training, models), agreement, means, widths)


def _fit_dense_models(
    training: TrainingRows, values: Mapping[str, Array], settings: FitSettings, advance: Callable[[int], None]
) -> tuple[dict[str, DenseModel], dict[str, tuple[Array, Array]]]:
    """By property what `_fit_dense_model` finds."""
    rows, kernels = training.decorations, {}
    models, apart = {}, {}
    for column, target in values.items():
        form = ENERGY if column == ENERGY else ""
        if form not in kernels:
            kernels[form] = training.kernels(training.side(form, rows))
        models[column], apart[column] = _fit_dense_model(column, training, target, kernels[form], settings)
        advance(1)
    return models, apart


def _error(left_out: tuple[Array, Array], rows: LabelledRows, column: str) -> float:
    """Mean absolute error of rows left out, in the property's unit, at least `CONSTANT`."""
    return max(float(np.nanmean(np.abs(left_out[0] - rows.values[column]))), CONSTANT)


def _fit_dense_model(
    column: str, training: TrainingRows, values: Array, kernels: Array, settings: FitSettings
) -> tuple[DenseModel, tuple[Array, Array]]:
    """A property's model, and mean and standard deviation of the set's own rows left out, in its unit."""
    rows, own = training.decorations, training.own
    chosen = np.nonzero(~np.isnan(values))[0]
    target = values[chosen] / (rows.sizes[chosen] if column == ENERGY else 1.0)
    pick = np.ix_(chosen, chosen)
    prior = training.prior(column, rows, own, rows, own)[pick]
    kernels, noise = kernels[:, pick[0], pick[1]], training.noise(rows, own)[:, chosen]
    weights = find_weights(kernels, noise, prior, target)
    covariance = np.tensordot(weights.kernels, kernels, axes=1) + prior
    doubt = tuple(float(f"{d:.4g}") for d in doubts(weights, covariance, np.array(weights.noise) @ noise, target))
    model = DenseModel(weights, tuple(chosen.tolist()), tuple(target.tolist()), doubt, None, 0.0, math.nan, math.nan)
    ours = np.nonzero(own[chosen] == 1)[0]
    folds = [ours[k::N_FOLDS] for k in range(N_FOLDS)]
    mean, spread = left_out(weights, kernels, noise, prior, target, folds)
    if column != ENERGY:
        columns = tree_features(rows)[chosen]

        def trees_on(which: NDArray[np.int64]) -> Callable[[Array], Array]:
            if np.ptp(target[which]) <= CONSTANT:  # CatBoost refuses values that are all the same
                return lambda new: np.full(len(new), target[which].mean())
            fitted = fit_trees(columns[which], target[which], settings.trees, settings.seed, settings.threads)
            return lambda new: predict_trees(fitted, new)

        guess = np.full(len(chosen), np.nan)
        for fold in folds:
            guess[fold] = trees_on(np.setdiff1d(ours, fold))(columns[fold])
        error = {s: float(np.abs((1 - s) * mean[ours] + s * guess[ours] - target[ours]).mean()) for s in SHARES}
        share = min(error, key=error.__getitem__)
        if share:
            mean = (1 - share) * mean + share * guess
            trees = fit_trees(columns[ours], target[ours], settings.trees, settings.seed, settings.threads)
            model = replace(model, trees=trees, share=share)
    size = rows.sizes if column == ENERGY else np.ones(len(rows))
    found = np.full((2, int(own.sum())), np.nan)
    found[:, chosen[ours]] = np.stack([mean, spread])[:, ours] * size[chosen[ours]]
    return model, (found[0], found[1])
