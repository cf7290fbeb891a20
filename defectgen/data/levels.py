"""Putting Kohn-Sham levels of different cells on one zero: the pristine host's valence band maximum.

A raw level refers to the zero of its own cell. The data set's authors align cells by the lowest
Kohn-Sham orbital, ``normalized_x = x - E_1 - (E_VBM - E_1)_pristine`` (Huang et al., npj 2D Mater
Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1). That holds while E_1 is the host's own orbital.
It fails where the lowest orbital belongs to something else: Mo in WSe2 moves E_1 from -15.4 to about
-62 eV; nitrogen does it in black phosphorus, carbon bound to nitrogen in BN, and the dangling
orbitals beside a missing Ga or In pull a state of their own below the band.

So a row counts as aligned by its core level only while E_1 lies in the window in which the host's
own orbital lies (`LevelScale.window_ev`, from the distribution of E_1 in each set). On these rows the shift
E_1 - E_1(pristine) is linear in the number of defects of each kind (plus an intercept where the cells
have another vacuum than the pristine one); this fitted shift aligns the other rows. A term that the rows
cannot tell from the others is left out, the intercept first: with rows of one size of cell only it is
arbitrary, while the pristine cell itself has no shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core.level_scale import UNFITTED_SHIFT_EV, LevelScale, kind_counts
from defectgen.errors import DefectgenError
from defectgen.io.documents import read_object
from defectgen.io.files import file_hash

CORE_LEVEL = "core_level"
FITTED_SHIFT = "fitted_shift"

LEVELS = {"homo_ev": "homo_raw_ev", "lumo_ev": "lumo_raw_ev", "fermi_level_ev": "fermi_level_raw_ev"}
"""Aligned column and the raw column that it comes from."""

SPIN_LEVELS = {
    f"{level}_{channel}_ev": f"{level}_{channel}_raw_ev"
    for level in ("homo", "lumo")
    for channel in ("majority", "minority")
}
"""Likewise for each spin channel, where the table has them."""

MIN_ROWS_PER_KIND = 8
"""A kind of defect in fewer rows of the fit gets no coefficient."""

MAX_REFERENCE_ERROR = 3.0
"""A reference scale must explain core levels to within so many times its own scatter."""

LARGEST_SHIFT_EV = 0.25
"""No defect moves the zero by more: a fit without intercept that says so has taken the vacuum for defects."""


def is_host_orbital(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """For each row of one set, whether its E_1 is the host's own orbital; shape (n_rows,).

    Raises:
        DefectgenError: a set whose window of the host's own orbital is not known.
    """
    if frame.is_empty():
        return np.zeros(0, dtype=np.bool_)
    low, high = _published(frame["set"][0]).window_ev
    difference = (frame["core_level_raw_ev"] - frame["core_level_pristine_ev"]).fill_null(np.nan).to_numpy()
    return np.asarray((difference > low) & (difference < high))


def fit_level_scale(frame: pl.DataFrame) -> LevelScale:
    """The level scale of one set, fitted on the rows whose E_1 is the host's own orbital.

    Args:
        frame: rows of one set with the columns of `defectgen.data.twodmd.read_2dmd`.

    Raises:
        DefectgenError: rows of several sets, or too few rows to fit.
    """
    if frame["set"].n_unique() != 1:
        raise DefectgenError(f"got rows of {frame['set'].n_unique()} sets, expected one.")
    frame = frame.sort("id")
    kinds, counts = kind_counts(frame["label"].to_list())
    used = is_host_orbital(frame)
    present = (counts[used] > 0).sum(axis=0)
    enough = [k for k, n in enumerate(present) if n >= min(MIN_ROWS_PER_KIND, max(1, int(used.sum()) // 2))]
    other_vacuum = frame["density"][0] == "high"
    if used.sum() <= len(enough) + other_vacuum:
        raise DefectgenError(
            f"{frame['set'][0]}: got {int(used.sum())} rows whose lowest orbital is the host's own, "
            f"expected more than {len(enough) + other_vacuum} to align the levels."
        )
    full = np.hstack([counts, np.ones((len(frame), 1))])[used]
    terms = _independent(full, [*sorted(enough, key=lambda k: -present[k]), *[len(kinds)] * other_vacuum])
    fitted, intercept = [k for k in terms if k < len(kinds)], len(kinds) in terms
    columns = full[:, terms]
    target = (frame["core_level_raw_ev"] - frame["core_level_pristine_ev"]).to_numpy()[used]
    weights = np.linalg.lstsq(columns, target, rcond=None)[0]
    if other_vacuum and not intercept and np.abs(weights).max(initial=0.0) > LARGEST_SHIFT_EV:
        raise DefectgenError(
            f"{frame['set'][0]}: the {int(used.sum())} rows whose lowest orbital is the host's own cannot tell the "
            f"vacuum of the cells from their defects ({len(terms)} independent terms of {len(enough) + 1}).",
            "Give rows with other numbers of defects.",
        )
    published, scatter = _published(frame["set"][0]), _left_out_error(columns, target)
    unfitted = tuple(kind for k, kind in enumerate(kinds) if k not in fitted)
    alone = ~(np.delete(counts, fitted, axis=1) > 0).any(axis=1)
    return LevelScale(
        set_name=frame["set"][0],
        host=frame["host"][0],
        e_vbm_ev=float(frame["vbm_pristine_ev"][0]),
        e1_pristine_ev=float(frame["core_level_pristine_ev"][0]),
        intercept_ev=float(weights[-1]) if intercept else 0.0,
        coefficients={kinds[k]: float(w) for k, w in zip(fitted, weights, strict=False)},
        unfitted=unfitted,
        scatter_ev=scatter,
        n_rows=int(used.sum()),
        covariance_ev2=tuple(tuple(row) for row in (scatter**2 * np.linalg.inv(columns.T @ columns)).tolist()),
        most_defects=int(counts[used].sum(axis=1).max(initial=0)),
        own_share=float(used[alone].mean()) if alone.any() else 0.0,
        window_ev=published.window_ev,
        bounds_ev={kind: published.bounds_ev.get(kind, UNFITTED_SHIFT_EV) for kind in unfitted},
    )


def _independent(columns: NDArray[np.float64], wanted: Sequence[int]) -> list[int]:
    """Numbers of the wanted columns without those that the ones before them already give; ascending."""
    kept: list[int] = []
    for k in wanted:
        if np.linalg.matrix_rank(columns[:, [*kept, k]]) > len(kept):
            kept.append(k)
    return sorted(kept)


def _left_out_error(columns: NDArray[np.float64], target: NDArray[np.float64], folds: int = 10) -> float:
    """Root mean square error on rows left out of the fit, every tenth row at a time."""
    fold = np.arange(len(target)) % min(folds, len(target))
    errors = np.empty_like(target)
    for k in range(int(fold.max()) + 1):
        out = fold == k
        weights = np.linalg.lstsq(columns[~out], target[~out], rcond=None)[0]
        errors[out] = target[out] - columns[out] @ weights
    return float(np.sqrt(np.mean(errors**2)))


def fit_level_scales(frame: pl.DataFrame) -> dict[str, LevelScale]:
    """The level scale of each set in the frame that has core levels, by set name."""
    known = frame.filter(pl.col("core_level_raw_ev").is_not_null())
    return {name: fit_level_scale(known.filter(pl.col("set") == name)) for name in sorted(known["set"].unique())}


def align_levels(frame: pl.DataFrame, scale: LevelScale) -> pl.DataFrame:
    """One set's rows with their levels relative to the pristine host's VBM.

    Adds ``homo_ev``, ``lumo_ev``, ``fermi_level_ev``, ``level_shift_ev``, ``level_method`` and
    ``level_error_ev`` (how far the alignment may be off: 0 for the core level itself, otherwise the
    error of the fit and the bound on kinds without a coefficient, added in quadrature). Rows that may
    be off by more than `MAX_UNFITTED_EV` because of such kinds get nulls.
    """
    labels = frame["label"].to_list()
    kinds, counts = kind_counts(labels)
    own = is_host_orbital(frame)
    fitted = scale.intercept_ev + counts @ np.array([scale.coefficients.get(kind, 0.0) for kind in kinds])
    unfitted = scale.unfitted_bound(kinds, counts)
    core = (frame["core_level_raw_ev"] - scale.e1_pristine_ev).fill_null(np.nan).to_numpy()
    trusted = own | (scale.can_align(kinds, counts) & math.isfinite(scale.scatter_ev))
    shift = np.where(own, core, fitted)
    error = np.where(own, 0.0, np.hypot(scale.fit_error(kinds, counts), unfitted))
    method = [CORE_LEVEL if o else FITTED_SHIFT if t else None for o, t in zip(own, trusted, strict=True)]
    added = frame.with_columns(
        level_shift_ev=pl.Series(np.where(trusted, shift, np.nan)).fill_nan(None),
        level_error_ev=pl.Series(np.where(trusted, error, np.nan)).fill_nan(None),
        level_method=pl.Series(method, dtype=pl.String),
    )
    return added.with_columns(
        (pl.col(raw) - scale.e_vbm_ev - pl.col("level_shift_ev")).alias(name)
        for name, raw in (LEVELS | SPIN_LEVELS).items()
        if raw in frame.columns
    )


REFERENCE_SCALES = Path(__file__).with_name("level_scales.json")


def reference_digest() -> str:
    """Tells the reference scales from those of another version of this package."""
    return file_hash(REFERENCE_SCALES)


@lru_cache(maxsize=1)
def _reference_scales() -> dict[str, LevelScale]:
    values = read_object(REFERENCE_SCALES)
    return {name: LevelScale.from_dict(scale) for name, scale in values["scales"].items()}


def reference_scale(set_name: str) -> LevelScale | None:
    """The scale of a published set, fitted by `fit_level_scale` on 90 % of its rows; None for other sets."""
    return _reference_scales().get(set_name)


def _published(set_name: str) -> LevelScale:
    """`reference_scale` of a set that has to have one.

    Raises:
        DefectgenError: it has none.
    """
    found = reference_scale(set_name)
    if found is None:
        raise DefectgenError(
            f"the set {set_name} has core levels, but where its host's own lowest orbital lies is not known: expected "
            f"one of {', '.join(_reference_scales())}.",
            "Give its levels relative to the valence band maximum of the pristine host (homo_ev, lumo_ev).",
        )
    return found


def scale_of(frame: pl.DataFrame) -> LevelScale:
    """The scale for the rows of one set: the reference where it explains their core levels, else a fitted one.

    So a part of a published set, however small, is on the same scale as the whole. Rows that neither fits (a small
    table of other data) are aligned by their own core level where that is the host's, and by nothing else.

    Args:
        frame: rows of one set with the columns of `defectgen.data.twodmd.read_2dmd`.
    """
    reference = reference_scale(frame["set"][0])
    known = frame.filter(pl.col("core_level_raw_ev").is_not_null())
    pristine = frame.select("vbm_pristine_ev", "core_level_pristine_ev").row(0)
    if reference is not None and pristine == (reference.e_vbm_ev, reference.e1_pristine_ev):
        own = known.filter(pl.Series(is_host_orbital(known), dtype=pl.Boolean))
        kinds, counts = kind_counts(own["label"].to_list())
        shift = counts @ np.array([reference.coefficients.get(kind, 0.0) for kind in kinds]) + reference.intercept_ev
        error = (own["core_level_raw_ev"] - own["core_level_pristine_ev"]).to_numpy() - shift
        if not len(own) or np.sqrt(np.mean(error**2)) <= MAX_REFERENCE_ERROR * reference.scatter_ev:
            return reference
    try:
        return fit_level_scale(known)
    except DefectgenError:
        kinds, _ = kind_counts(frame["label"].to_list())
        name, host = frame.select("set", "host").row(0)
        return LevelScale(name, host, pristine[0], pristine[1], 0.0, {}, tuple(kinds), math.inf, 0)
