"""Which structures to compute next: far from what is known, or likely to be nearer to a wish than the best so far.

Far from what is known: the greedy k-center rule (Gonzalez, Theor Comput Sci 38, 293 (1985), doi
10.1016/0304-3975(85)90224-5). Likely to be nearer: expected improvement (Jones et al., J Glob Optim 13, 455 (1998), doi
10.1023/A:1008306431147). Batches are kept diverse by local penalties (Gonzalez et al., AISTATS 2016, arXiv 1505.08052):
what resembles a structure that is chosen already counts less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from defectgen.campaign.structure_features import Described
from defectgen.design.candidates import Target
from defectgen.design.wishes import Z_90

Array = NDArray[np.float64]

SAMPLES = 256
"""Draws of the predicted values of a structure."""

ALIKE = 0.5
"""Distance in the features within which two structures resemble each other."""


def space_filling(new: Described, known: Described, n: int, rng: np.random.Generator) -> list[int]:
    """Structures each as far as can be from all others: single defects first, then the farthest (k-center).

    Single defects are what the levels of all others are made of. The first of the others is random.

    Args:
        new: to choose from.
        known: computed or proposed already.
        n: how many.
        rng: draws, also between equals.
    """
    features = new.all
    order = rng.permutation(len(new))
    away = np.full(len(new), np.inf)
    for other in known.all:
        away = np.minimum(away, np.linalg.norm(features - other, axis=1))
    chosen: list[int] = []

    def take(row: int) -> None:
        nonlocal away
        chosen.append(row)
        away = np.minimum(away, np.linalg.norm(features - features[row], axis=1))
        away[row] = -1.0

    for row in order[new.counts.sum(axis=1)[order] == 1]:
        if len(chosen) < n and away[row] > 0:
            take(int(row))
    while len(chosen) < min(n, len(new)):
        take(int(order[np.argmax(away[order])]))
    return chosen


def explore(widths: Mapping[str, Array], scales: Mapping[str, float], new: Described, n: int) -> list[int]:
    """The structures that the model knows least of, all properties counted, kept apart.

    Args:
        widths: half-widths of the 90 % intervals by column, each of shape (m,).
        scales: spread of each column's values.
        new: the structures.
        n: how many.
    """
    unknown = np.zeros(len(new))
    for column, width in widths.items():
        unknown += width / max(scales[column], 1e-9)
    return _apart(unknown, new, n)


def improve(
    target: Target,
    values: Mapping[str, Array],
    widths: Mapping[str, Array],
    best_ev: float,
    new: Described,
    n: int,
    rng: np.random.Generator,
) -> list[int]:
    """The structures of largest expected improvement of the distance to a wish, kept apart.

    Args:
        target: the wish.
        values: predicted, by column, each of shape (m,).
        widths: half-widths of the 90 % intervals, likewise.
        best_ev: least distance so far; infinity for none.
        new: the structures.
        n: how many.
        rng: draws.
    """
    expected = target.expected_ev(values, widths)
    if not np.isfinite(best_ev):
        best_ev = float(np.median(expected))
    draws = {wish.column: rng.standard_normal(SAMPLES) for wish in target.wishes}
    distance = np.zeros((len(new), SAMPLES))
    for wish in target.wishes:
        spread = widths[wish.column][:, None] / Z_90
        distance += wish.distance_ev(values[wish.column][:, None] + spread * draws[wish.column][None, :])
    gain = np.maximum(best_ev - distance, 0.0).mean(axis=1)
    # where no draw is better, the one that is expected to be nearest comes first
    rest = 1e-6 * np.exp(-(expected - expected.min()))
    return _apart(gain + rest, new, n)


def _apart(worth: Array, new: Described, n: int) -> list[int]:
    """The largest ones one by one, each lowering the worth of those that resemble it."""
    features, left = new.all, worth.astype(np.float64).copy()
    free = np.ones(len(left), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(n, len(left)):
        row = int(np.argmax(np.where(free, left, -np.inf)))
        chosen.append(row)
        free[row] = False
        left *= 1.0 - np.exp(-0.5 * (np.linalg.norm(features - features[row], axis=1) / ALIKE) ** 2)
    return chosen


def shared_out(n: int, parts: int) -> Sequence[int]:
    """n as evenly as can be in so many parts."""
    return [n // parts + (k < n % parts) for k in range(parts)]
