"""Band gaps of bulk crystals, by boosted trees fitted to labelled ones.

The trees see the composition, as shares and as statistics of the elements' properties after Ward et al., npj Comput
Mater 2, 16028 (2016), doi 10.1038/npjcompumats.2016.28, and how densely the cell is filled. They do not see how atoms
are arranged: polymorphs of one density get one gap.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.elements import atomic_radius
from defectgen.errors import UsageError
from defectgen.one_line import OneLine
from defectgen.score.trees import TreeSettings, fit_trees, predict_trees
from defectgen.watch import Watch, unwatched

if TYPE_CHECKING:
    from catboost import CatBoostRegressor

Array = NDArray[np.float64]

TREES = TreeSettings(iterations=300, depth=6, learning_rate=0.1, column_share=0.3)

N_FOLDS = 5

METAL_EV = 0.3
"""A crystal whose predicted gap is below this is taken for a metal; labelled metals have a gap of 0."""

FEWEST_FORMULAS = 50
"""A model of fewer formulas is refused: its folds would say nothing."""

BLOCKS = {"s": 0.0, "p": 1.0, "d": 2.0, "f": 3.0}


@dataclass(frozen=True)
class GapError:
    """How far predictions are from labels, in eV.

    Attributes:
        n: crystals compared.
        mean_absolute_ev: of the predictions.
        median_of_all_ev: the same where the median label of the fitted crystals is the prediction.
        mean_of_all_ev: the same with their mean.
        metals_right: share of crystals that are rightly a metal or rightly none (`METAL_EV`).
        metals: share of crystals that are metals by their labels.
    """

    n: int
    mean_absolute_ev: float
    median_of_all_ev: float
    mean_of_all_ev: float
    metals_right: float
    metals: float


@dataclass(frozen=True, repr=False)
class GapModel(OneLine):
    """A predictor of band gaps.

    Attributes:
        trees: one model a fold, fitted to the crystals outside it; their mean is the prediction.
        labels_ev: gaps that it was fitted to, shape (n,).
        formulas: reduced formulas that these crystals have.
        left_out: error of each model on its own fold, all folds together; no formula is in two of them.
        source: where the labelled crystals come from.
    """

    trees: tuple[CatBoostRegressor, ...]
    labels_ev: Array
    formulas: frozenset[str]
    left_out: GapError
    source: str

    def predict(self, crystals: Sequence[Crystal]) -> Array:
        """Band gaps in eV, none below 0, shape (n,)."""
        columns = gap_columns(crystals)
        mean: Array = np.mean([predict_trees(trees, columns) for trees in self.trees], axis=0)
        return np.maximum(mean, 0.0)

    def describe(self, crystals: Sequence[Crystal]) -> str:
        """What it is, how far it errs, and for how many of these crystals it knows a gap of the same formula."""
        error, right = self.left_out, f"{100 * self.left_out.metals_right:.0f} %"
        known = sum(crystal.formula in self.formulas for crystal in crystals)
        return (
            f"band gaps are those of trees fitted to {error.n} labelled crystals of {self.source}; for formulas left "
            f"out their mean absolute error is {error.mean_absolute_ev:.2f} eV (the median of all labels as the "
            f"prediction: {error.median_of_all_ev:.2f}), and {right} are rightly a metal or rightly none; "
            f"the formulas of {known} of {len(crystals)} crystals are among the labelled ones"
        )

    def error(self, crystals: Sequence[Crystal], gaps_ev: Sequence[float]) -> GapError:
        """How far the predictions for crystals are from their labels in eV, shape (n,)."""
        return _error(self.predict(crystals), np.asarray(gaps_ev, dtype=np.float64), self.labels_ev)


def fit_gaps(
    crystals: Sequence[Crystal],
    gaps_ev: Sequence[float | None],
    source: str,
    seed: int = 0,
    watch: Watch = unwatched,
) -> GapModel:
    """A predictor of band gaps fitted to labelled crystals; some two seconds a thousand of them.

    Args:
        crystals: n of them.
        gaps_ev: their band gaps in eV, shape (n,); those without one (None) are left out.
        source: where they come from, for errors.
        seed: of the folds and the trees.
        watch: told how far it is.

    Raises:
        UsageError: a gap below 0, or fewer than `FEWEST_FORMULAS` formulas with a gap.
    """
    known = [(crystal, gap) for crystal, gap in zip(crystals, gaps_ev, strict=True) if gap is not None]
    if bad := [(crystal, gap) for crystal, gap in known if not (math.isfinite(gap) and gap >= 0)]:
        crystal, gap = bad[0]
        raise UsageError(f"{source}: {crystal.formula} has a band gap of {gap} eV, expected 0 or more.")
    formulas = [crystal.formula for crystal, _ in known]
    if len(distinct := sorted(set(formulas))) < FEWEST_FORMULAS:
        raise UsageError(
            f"{source} has {len(known)} crystals of {len(distinct)} formulas with a band gap, expected "
            f"{FEWEST_FORMULAS} formulas or more.",
            "Give a CSV file with columns cif and band_gap (eV), such as train.csv of MP-20.",
        )
    fold_of = dict(zip(np.random.default_rng(seed).permutation(distinct), range(len(distinct)), strict=True))
    folds = np.array([fold_of[formula] % N_FOLDS for formula in formulas])
    columns, labels = gap_columns([crystal for crystal, _ in known]), np.array([gap for _, gap in known])
    models, predicted = [], np.zeros(len(labels))
    with watch("fitting band gaps", N_FOLDS, "models") as advance:
        for fold in range(N_FOLDS):
            inside = folds == fold
            models.append(fit_trees(columns[~inside], labels[~inside], TREES, seed, threads=1))
            predicted[inside] = np.maximum(predict_trees(models[-1], columns[inside]), 0.0)
            advance(1)
    return GapModel(tuple(models), labels, frozenset(distinct), _error(predicted, labels, labels), source)


def gap_columns(crystals: Sequence[Crystal]) -> Array:
    """What the trees see of n crystals, shape (n, number of columns); not a number where a property is not known.

    Shares of the elements; minimum, maximum, range, mean and mean deviation of their properties; volume of an atom in
    cubic angstrom, and the volume of spheres with the atomic radii over that of the cell. The cell chosen and the
    order of its atoms do not matter.
    """
    table = _properties()
    rows = np.empty((len(crystals), len(ELEMENTS) + 5 * table.shape[1] + 2))
    for row, crystal in zip(rows, crystals, strict=True):
        places = [ELEMENTS.index(symbol) for symbol in crystal.elements]
        weights = np.array([crystal.species.count(symbol) for symbol in crystal.elements]) / len(crystal.species)
        shares = np.zeros(len(ELEMENTS))
        shares[places] = weights
        values = table[places]
        low, high, mean = values.min(axis=0), values.max(axis=0), weights @ values
        spheres = sum(4 / 3 * math.pi * atomic_radius(symbol) ** 3 for symbol in crystal.species)
        filling = [crystal.volume / len(crystal.species), spheres / crystal.volume]
        row[:] = np.concatenate([shares, low, high, high - low, mean, weights @ np.abs(values - mean), filling])
    return rows


def _error(predicted: Array, labels: Array, fitted: Array) -> GapError:
    metals = labels == 0
    return GapError(
        n=len(labels),
        mean_absolute_ev=float(np.abs(predicted - labels).mean()),
        median_of_all_ev=float(np.abs(np.median(fitted) - labels).mean()),
        mean_of_all_ev=float(np.abs(fitted.mean() - labels).mean()),
        metals_right=float(((predicted < METAL_EV) == metals).mean()),
        metals=float(metals.mean()),
    )


@cache
def _properties() -> Array:
    """Properties of the elements, shape (number of elements, number of properties), from pymatgen's tables."""
    from pymatgen.core import Element

    def known(value: Any) -> float:
        return math.nan if value is None else float(value)

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # elements without an electronegativity: not a number, as wanted
        for symbol in ELEMENTS:
            element = Element(symbol)
            states = element.common_oxidation_states or (0,)
            rows.append(
                [
                    element.Z, element.row, element.group, BLOCKS[element.block], element.is_metal,
                    known(element.X), known(element.mendeleev_no), known(element.atomic_radius),
                    known(element.ionization_energy), known(element.data.get("Electron affinity")),
                    len(states), max(states), min(states),
                ]
            )  # fmt: skip
    return np.array(rows, dtype=np.float64)
