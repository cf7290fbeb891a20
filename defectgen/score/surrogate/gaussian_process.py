"""Gaussian process regression whose kernel is a weighted sum, the weights found by marginal likelihood.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, chapter 5. A few labels lie far
from what their neighbours say (another minimum of the relaxation, another magnetic state), so that errors of labels
follow Student's t distribution where `doubts` are given (Jylänki et al., J. Mach. Learn. Res. 12, 3227 (2011)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

from defectgen.one_line import OneLine

Array = NDArray[np.float64]

MAX_STEPS = 60
"""Steps of the search for the weights."""

PRIOR_WIDTH = 4.0
"""Standard deviation of the logarithm of a weight around its first guess."""

EDGES = (-14.0, 8.0)
"""How far the logarithm of a kernel's weight may go from its first guess."""

NOISE_EDGES = (-8.0, 8.0)
"""Likewise, for noise; the lower one keeps the covariance well conditioned where labels are free of noise."""

FREEDOM = 4.0
"""Degrees of freedom of the t distribution of labels' errors, whose variance is the noise."""

MAX_ROUNDS, SETTLED = 15, 0.01
"""Doubts are found in at most so many rounds, or until none changes by more than this share. The largest may
still grow then, which matters little: with 100 rounds errors of left-out levels of GaSe change by 0.1 %."""


@dataclass(frozen=True)
class Weights:
    """What a process is made of.

    Attributes:
        kernels: weight of each kernel.
        noise: weight of each pattern of noise variances.
        mean: subtracted from the targets, in their unit.
        scale: what the targets are divided by.
    """

    kernels: tuple[float, ...]
    noise: tuple[float, ...]
    mean: float
    scale: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """From plain values."""
        return cls(tuple(values["kernels"]), tuple(values["noise"]), values["mean"], values["scale"])


def find_weights(kernels: Array, noise: Array, prior: Array, target: Array) -> Weights:
    """The weights of largest marginal likelihood.

    Args:
        kernels: shape (m, n, n), of n training rows; m may be 0.
        noise: patterns of noise variances, shape (k, n).
        prior: a kernel that is always there, shape (n, n), for targets of spread 1.
        target: shape (n,).
    """
    mean, scale = float(target.mean()), max(float(target.std()), 1e-12)
    y, n, m = (target - mean) / scale, len(target), len(kernels)
    size = np.array([max(float(np.trace(kernel)) / n, 1e-300) for kernel in kernels])
    flat = kernels.reshape(m, n * n) / size.reshape(m, 1)
    typical = np.maximum(noise.mean(axis=1), 1e-12)
    patterns = noise / typical[:, None]
    guess = np.concatenate([np.full(m, -1 - np.log(max(m, 1))), np.full(len(noise), np.log(0.01))])

    def loss(log_weights: Array) -> tuple[float, Array]:
        weights = np.exp(log_weights)
        covariance = (weights[:m] @ flat).reshape(n, n) + prior
        covariance[np.diag_indices(n)] += weights[m:] @ patterns
        try:
            factor = cho_factor(covariance, lower=True)
        except LinAlgError:
            return 1e10, np.zeros_like(log_weights)
        inverse = cho_solve(factor, np.eye(n))
        alpha = inverse @ y
        slope = 0.5 * (inverse - np.outer(alpha, alpha))
        away = (log_weights - guess) / PRIOR_WIDTH
        value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away
        gradient = np.concatenate([weights[:m] * (flat @ slope.ravel()), weights[m:] * (patterns @ np.diag(slope))])
        return float(value), gradient + away / PRIOR_WIDTH

    edges = [
        (g + low, g + high) for g, (low, high) in zip(guess, [EDGES] * m + [NOISE_EDGES] * len(noise), strict=True)
    ]
    found = minimize(loss, guess, jac=True, method="L-BFGS-B", bounds=edges, options={"maxiter": MAX_STEPS})
    weights = np.exp(found.x)
    return Weights(tuple((weights[:m] / size).tolist()), tuple((weights[m:] / typical).tolist()), mean, scale)


def doubts(weights: Weights, covariance: Array, variances: Array, target: Array) -> Array:
    """Factor of each training row's noise variance: large where a label is far from what the others say, shape (n,).

    The t distribution is a mixture of normal ones whose precisions are gamma distributed. Expected precisions and
    expected squares of the errors follow from each other, found in turns (the variational approximation).

    Args:
        weights: see `Weights`.
        covariance: of the rows in units of the scale, without noise, shape (n, n).
        variances: of the noise in the same units, shape (n,).
        target: shape (n,).
    """
    y, n = (target - weights.mean) / weights.scale, len(target)
    unit = variances * (FREEDOM - 2) / FREEDOM
    doubt = np.full(n, (FREEDOM - 2) / FREEDOM)
    for _ in range(MAX_ROUNDS):
        now = variances * doubt
        factor = cho_factor(covariance + np.diag(now), lower=True)
        inverse = cho_solve(factor, np.eye(n))
        squares = (now * (inverse @ y)) ** 2 + now - now**2 * np.diag(inverse)  # expected ones of the errors
        before, doubt = doubt, unit / variances * (FREEDOM + squares / unit) / (FREEDOM + 1)
        if np.abs(doubt / before - 1).max() < SETTLED:
            break
    return np.asarray(doubt)


def left_out(
    weights: Weights,
    kernels: Array,
    noise: Array,
    prior: Array,
    target: Array,
    folds: Sequence[NDArray[np.int64]],
) -> tuple[Array, Array]:
    """Mean and standard deviation of the rows of each fold given the others and doubts by these; shape (n,) each.

    `GaussianProcess.left_out` is quicker, but keeps the doubts in which the rows themselves had a part.

    Args:
        weights: of all rows; other arguments as in `find_weights`.
        kernels: likewise.
        noise: likewise.
        prior: likewise.
        target: likewise.
        folds: rows of each; NaN is given for rows in none.
    """
    mean, spread = np.full((2, len(target)), np.nan)
    covariance = np.tensordot(weights.kernels, kernels, axes=1) + prior
    variances = np.array(weights.noise) @ noise
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(target)), fold)
        known = covariance[np.ix_(rest, rest)]
        doubt = doubts(weights, known, variances[rest], target[rest])
        factor = cholesky(known + np.diag(variances[rest] * doubt), lower=True)
        process = GaussianProcess(weights, target[rest], np.asfortranarray(factor))
        shared = covariance[np.ix_(fold, rest)]
        mean[fold], spread[fold] = process.predict(shared, covariance[fold, fold], noise[:, fold])
    return mean, spread


@dataclass(frozen=True, eq=False, repr=False)
class GaussianProcess(OneLine):
    """A process conditioned on n training rows.

    Attributes:
        weights: see `Weights`.
        target: of the training rows, shape (n,).
        factor: lower Cholesky factor of their covariance in units of the scale, shape (n, n).
    """

    weights: Weights
    target: Array
    factor: Array

    @classmethod
    def given(
        cls, weights: Weights, kernels: Array, noise: Array, prior: Array, target: Array, doubt: Array | None = None
    ) -> GaussianProcess:
        """Condition on training rows; arguments as in `find_weights`, `doubt` as `doubts` gives it."""
        covariance = np.tensordot(weights.kernels, kernels, axes=1) + prior
        variances = np.array(weights.noise) @ noise
        covariance[np.diag_indices(len(target))] += variances if doubt is None else variances * doubt
        return cls(weights, target, np.asfortranarray(cholesky(covariance, lower=True)))

    @cached_property
    def pulled(self) -> Array:
        """The inverse covariance times the scaled targets, shape (n,)."""
        scaled = (self.target - self.weights.mean) / self.weights.scale
        return np.asarray(cho_solve((self.factor, True), scaled))

    def predict(self, shared: Array, own: Array, noise: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of new values, each of shape (m,).

        Args:
            shared: sum of weighted kernels and prior of the new rows and the training rows, shape (m, n).
            own: likewise of each new row with itself, shape (m,).
            noise: patterns of the new rows, shape (p, m).
        """
        solved = solve_triangular(self.factor, shared.T, lower=True, check_finite=False).T
        explained = np.einsum("ij,ij->i", solved, solved)
        variance = np.maximum(own - explained, 0.0) + np.array(self.weights.noise) @ noise
        spread = np.sqrt(np.maximum(variance, 1e-12))
        return self.mean(shared), spread * self.weights.scale

    def mean(self, shared: Array) -> Array:
        """The mean alone, shape (m,); see `predict`."""
        return np.asarray(shared @ self.pulled * self.weights.scale + self.weights.mean)

    def left_out(self, folds: Sequence[NDArray[np.int64]]) -> tuple[Array, Array]:
        """Mean and standard deviation of the rows of each fold given the others, NaN elsewhere; shape (n,) each.

        In closed form (after Rasmussen and Williams, section 5.4.2), for a process without doubts; else see `left_out`.
        """
        mean, spread = np.full((2, len(self.target)), np.nan)
        inverse = cho_solve((self.factor, True), np.eye(len(self.target)))
        for rows in folds:
            covariance = np.linalg.inv(inverse[np.ix_(rows, rows)])
            mean[rows] = self.target[rows] - covariance @ self.pulled[rows] * self.weights.scale
            spread[rows] = np.sqrt(np.maximum(np.diag(covariance), 1e-12)) * self.weights.scale
        return mean, spread
