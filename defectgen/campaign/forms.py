"""The models that a campaign chooses from, each sane with a handful of rows.

A property is a mean, a part linear in the numbers of defects, and what a Gaussian process makes of the rest. The mean
is nothing, the most extreme of the levels of the defects alone (a cell's HOMO is the highest one of its defects'), or
what another model says (2DMD's surrogate, for computations by another code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from defectgen.campaign.structure_features import Described
from defectgen.score.surrogate.gaussian_process import GaussianProcess, Weights, find_weights

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

Mean = Literal["none", "extreme", "base"]

PRIOR = 10.0
"""Spread of the linear part in units of the spread of the values."""

MOST_WEIGHT = 3.0
"""Most variance of a kernel in units of that of the values; no row with a pair would let that of pairs be infinite."""

EXTREMES: Mapping[str, float] = {"homo_ev": 1.0, "lumo_ev": -1.0, "band_gap_ev": -1.0}
"""Properties of which the highest (1) or lowest (-1) one among the defects counts."""

ROUNDS = 25
"""Steps in which each row is given to the defect that decides it."""


@dataclass(frozen=True)
class Form:
    """One kind of model.

    Attributes:
        mean: see the module.
        linear: whether there is a part linear in the numbers of defects, beside a constant.
        kernel: whether a Gaussian process learns the rest.
    """

    mean: Mean
    linear: bool
    kernel: bool

    @property
    def text(self) -> str:
        """For people."""
        parts = {"none": [], "extreme": ["most extreme defect"], "base": ["2DMD"]}[self.mean]
        parts += ["linear in the defects" if self.linear else "a constant"]
        return " + ".join([*parts, *(["kernel"] if self.kernel else [])])


FORMS = tuple(Form("none", linear, kernel) for linear in (False, True) for kernel in (False, True))


def forms_of(column: str, with_base: bool) -> tuple[Form, ...]:
    """The kinds of model that compete for a property, simple ones first."""
    found = list(FORMS)
    if column in EXTREMES:
        found += [Form("extreme", False, False), Form("extreme", False, True)]
    if with_base:
        found += [Form("base", linear, kernel) for linear in (False, True) for kernel in (False, True)]
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One model of one property, conditioned on rows.

    Attributes:
        form: which kind.
        rows: that it was fitted on.
        target: their values less the mean, shape (n,).
        extremes: of the mean ``extreme``: value of each kind of defect; else empty.
        weights: of the process.
    """

    form: Form
    rows: Described
    target: Array
    extremes: Array
    weights: Weights

    def predict(self, column: str, new: Described, base: Array | None) -> tuple[Array, Array]:
        """Mean and standard deviation of new rows, each of shape (m,).

        Args:
            column: the property.
            new: the rows.
            base: what the other model says of them, for the mean ``base``.
        """
        process = GaussianProcess.given(
            self.weights, _kernels(self.form, self.rows, self.rows), *_noise_prior(self.form, self.rows), self.target
        )
        shared = _prior(self.form, new, self.rows)
        own = np.diag(_prior(self.form, new, new)).copy()
        if self.form.kernel:
            shared = shared + np.tensordot(self.weights.kernels, _kernels(self.form, new, self.rows), axes=1)
            own += np.array(self.weights.kernels) @ _own_kernels(new)
        mean, spread = process.predict(shared, own, np.ones((1, len(new))))
        return mean + _mean(self.form, column, new, self.extremes, base), spread

    def to_dict(self) -> dict[str, Any]:
        """All but the rows, for JSON."""
        return {
            "form": asdict(self.form),
            "target": self.target.tolist(),
            "extremes": self.extremes.tolist(),
            "weights": asdict(self.weights),
        }

    @classmethod
    def from_dict(cls, rows: Described, values: Mapping[str, Any]) -> Fitted:
        """The inverse of `to_dict`."""
        return cls(
            Form(**values["form"]),
            rows,
            np.array(values["target"], dtype=np.float64),
            np.array(values["extremes"], dtype=np.float64),
            Weights.from_dict(values["weights"]),
        )


def fit(form: Form, column: str, rows: Described, values: Array, base: Array | None) -> Fitted:
    """A model of a property, its weights of largest marginal likelihood."""
    extremes = _fit_extremes(column, rows, values) if form.mean == "extreme" else np.zeros(0)
    target = values - _mean(form, column, rows, extremes, base)
    noise, prior = _noise_prior(form, rows)
    return Fitted(form, rows, target, extremes, _weights(_kernels(form, rows, rows), noise, prior, target))


def left_out(form: Form, column: str, rows: Described, values: Array, base: Array | None) -> Array:
    """Values of rows by a model of the others: weights found once, the rest without each row; shape (n,)."""
    n = len(rows)
    means = np.zeros(n)
    if form.mean == "extreme":
        for row in range(n):
            rest = np.delete(np.arange(n), row)
            extremes = _fit_extremes(column, rows.some(rest), values[rest])
            means[row] = _mean(form, column, rows.some(np.array([row])), extremes, base)[0]
    else:
        means = _mean(form, column, rows, np.zeros(0), base)
    target = values - means
    noise, prior = _noise_prior(form, rows)
    kernels = _kernels(form, rows, rows)
    process = GaussianProcess.given(_weights(kernels, noise, prior, target), kernels, noise, prior, target)
    return process.left_out([np.array([row]) for row in range(n)])[0] + means


def _weights(kernels: Array, noise: Array, prior: Array, target: Array) -> Weights:
    """The weights of largest marginal likelihood; no kernel weighs more than the rows can tell."""
    found = find_weights(kernels, noise, prior, target)
    return replace(found, kernels=tuple(min(weight, MOST_WEIGHT) for weight in found.kernels))


def choose(column: str, rows: Described, values: Array, base: Array | None) -> Form:
    """The form of least mean absolute error on rows that are left out one by one; of equal ones the simplest."""
    best, least = FORMS[0], np.inf
    for form in forms_of(column, base is not None):
        error = float(np.abs(left_out(form, column, rows, values, base) - values).mean())
        if error < least * (1 - 1e-6):
            best, least = form, error
    return best


def _mean(form: Form, column: str, rows: Described, extremes: Array, base: Array | None) -> Array:
    if form.mean == "extreme":
        return _extreme(column, rows, extremes)
    if form.mean == "base":
        assert base is not None
        return base
    return np.zeros(len(rows))


def _extreme(column: str, rows: Described, extremes: Array) -> Array:
    sign = EXTREMES[column]
    signed = np.where(rows.counts > 0, sign * extremes[None, :], -np.inf)
    return np.asarray(sign * signed.max(axis=1, initial=-1e9))


def _fit_extremes(column: str, rows: Described, values: Array) -> Array:
    """The value of each kind of defect so that the most extreme one of a cell's is nearest to the cell's, by turns."""
    sign = EXTREMES[column]
    there = rows.counts > 0
    rest = float(values.mean()) if len(values) else 0.0
    alone = there.sum(axis=1) == 1
    found = np.full(rows.counts.shape[1], np.nan)
    for kind in range(len(found)):
        of_kind = values[there[:, kind] & alone]
        mixed = values[there[:, kind]]
        if len(of_kind) or len(mixed):
            # a cell with others beside it is at least as extreme, so the least extreme one bounds this kind
            found[kind] = of_kind.mean() if len(of_kind) else sign * (sign * mixed).min()
    found[np.isnan(found)] = rest
    for _ in range(ROUNDS):
        deciding = np.where(there, sign * found[None, :], -np.inf).argmax(axis=1)
        new = found.copy()
        for kind in set(deciding[there.any(axis=1)].tolist()):
            new[kind] = values[deciding == kind].mean()
        if np.allclose(new, found, atol=1e-9):
            break
        found = new
    return found


def _noise_prior(form: Form, rows: Described) -> tuple[Array, Array]:
    return np.ones((1, len(rows))), _prior(form, rows, rows)


def _prior(form: Form, a: Described, b: Described) -> Array:
    ones = np.ones((len(a), len(b)))
    return np.asarray(PRIOR**2 * (ones + a.counts @ b.counts.T)) if form.linear else ones * PRIOR**2


def _kernels(form: Form, a: Described, b: Described) -> Array:
    """Same numbers of defects; the same arrangement of them; each pair of kinds for itself."""
    if not form.kernel:
        return np.zeros((0, len(a), len(b)))
    kinds = np.exp(-0.5 * _squares(a.counts, b.counts))
    return np.stack([kinds, kinds * np.exp(-0.5 * _squares(a.pairs, b.pairs) / 0.25), a.pairs @ b.pairs.T])


def _own_kernels(rows: Described) -> Array:
    return np.stack([np.ones(len(rows)), np.ones(len(rows)), (rows.pairs**2).sum(axis=1)])


def _squares(a: Array, b: Array) -> Array:
    return np.asarray(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))


def folds_of(n: int, seed: int, most: int = 20) -> Sequence[Rows]:
    """Rows left out together: each alone up to `most` rows, else ten parts."""
    order = np.random.default_rng(seed).permutation(n)
    parts = n if n <= most else 10
    return [np.sort(order[k::parts]) for k in range(parts)]
