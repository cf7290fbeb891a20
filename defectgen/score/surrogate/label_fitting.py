"""Fitting processes of levels, and their shares beside the trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from defectgen.score.surrogate.agreement import COLUMNS as AGREEING
from defectgen.score.surrogate.label_processes import LEVELS, Kinds, LabelProcesses, triples
from defectgen.score.surrogate.labelled_rows import LabelledRows
from defectgen.score.surrogate.triangle_process import Triangles, fit_process

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

MIN_ROWS = 200
"""Training rows of a label that has a process."""

MIN_JUDGED = 20
"""Validation rows that a process needs for a share."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates for the share of a process beside the trees."""


def fit_label(
    kinds: Kinds, rows: LabelledRows, place: Whole, sites: Whole, like: LabelProcesses | None = None
) -> LabelProcesses:
    """Processes of some rows that have both levels.

    Args:
        kinds: see `LabelProcesses`.
        rows: labelled ones.
        place: which of them, shape (n,).
        sites: of their defects, shape (n, 3).
        like: whose orbits' places, weights, noise and shares are taken; None to search for them.
    """
    triangles = Triangles.of(rows.host, sites, kinds[1] == kinds[2], rows.features.symmetry[place])
    targets = {column: rows.values[column][place] for column in LEVELS}
    if like is None:
        processes = {column: fit_process(rows.host, triangles, y) for column, y in targets.items()}
        return LabelProcesses(kinds, triangles, processes, {})
    processes = {column: triangles.given(like.processes[column], y) for column, y in targets.items()}
    return LabelProcesses(kinds, triangles, processes, like.shares)


def _with_levels(rows: LabelledRows) -> dict[Kinds, tuple[Whole, Whole]]:
    known = rows.known(LEVELS[0]) & rows.known(LEVELS[1])
    found = triples(rows.host, rows.configurations)
    return {kinds: (place[known[place]], sites[known[place]]) for kinds, (place, sites) in found.items()}


def fit_labels(
    train: LabelledRows, validation: LabelledRows, predicted: Mapping[str, Array]
) -> tuple[LabelProcesses, ...]:
    """Processes of the labels with enough rows that have a share, chosen on the validation rows, for any column.

    Args:
        train: the processes are fitted on these.
        validation: these choose the shares, by the mean root of the errors, so that a few cells far off do not decide.
        predicted: values of the trees for the validation rows, by column, in eV; all of `AGREEING`, or there are none.
    """
    if not all(column in predicted for column in AGREEING):
        return ()
    judged, found = _with_levels(validation), []
    for kinds, (place, sites) in _with_levels(train).items():
        if len(place) < MIN_ROWS or len(judged.get(kinds, [[]])[0]) < MIN_JUDGED:
            continue
        one = fit_label(kinds, train, place, sites)
        rows, sites = judged[kinds]
        trees = {column: predicted[column][rows] for column in AGREEING}
        errors = {}
        for share in SHARES:
            both = replace(one, shares=dict.fromkeys(AGREEING, share))
            values = both.mixed(trees, train.host, sites, validation.features.symmetry[rows])
            off = {column: np.abs(v - validation.values[column][rows]) for column, v in values.items()}
            errors[share] = {column: float(np.nanmean(np.sqrt(error))) for column, error in off.items()}
        shares = {column: min(SHARES, key=lambda share: errors[share][column]) for column in AGREEING}
        if any(shares.values()):
            found.append(replace(one, shares=shares))
    return tuple(found)


def refit_labels(found: Sequence[LabelProcesses], rows: LabelledRows) -> tuple[LabelProcesses, ...]:
    """The same processes conditioned on other rows."""
    known = _with_levels(rows)
    return tuple(fit_label(one.kinds, rows, *known[one.kinds], like=one) for one in found)
