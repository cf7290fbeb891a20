"""Cross-validation of the surrogate by symmetry class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from defectgen.core.properties import COLUMNS
from defectgen.errors import UsageError
from defectgen.score.surrogate.evaluation import PER_SITE, predict_labelled
from defectgen.score.surrogate.training import fit_surrogate

VALIDATION_SHARE = 8
"""One class in so many of those outside a fold chooses and calibrates the low-density models."""

HALVES = ("a", "b")


def class_folds(frame: pl.DataFrame, n_folds: int, seed: int) -> pl.Series:
    """A fold number for each row; symmetry classes stay together, and each set is divided evenly.

    Raises:
        UsageError: fewer than two folds.
    """
    if n_folds < 2:
        raise UsageError(f"got {n_folds} folds, expected 2 or more.")
    names = [
        hashlib.sha256(f"{seed}/{host}/{key}".encode()).hexdigest()
        for host, key in frame.select("host", "configuration").iter_rows()
    ]
    named = frame.select("set").with_columns(name=pl.Series(names, dtype=pl.String))
    classes = named.group_by("name").agg(pl.col("set").min()).sort("set", "name")
    folds = classes.with_columns(fold=(pl.int_range(pl.len()) % n_folds).over("set")).select("name", "fold")
    return named.join(folds, on="name", how="left", maintain_order="left")["fold"]


def half_of(frame: pl.DataFrame, half: str, seed: int) -> pl.DataFrame:
    """Rows of a split without the other half of those that are learnt from; the test part stays whole.

    Both halves are disjoint by symmetry class and even in each set, so a surrogate of one half judges what was
    found with that of the other.

    Args:
        frame: the columns of the data reader and ``split``.
        half: ``a`` or ``b``.
        seed: of the halves.

    Raises:
        UsageError: another half.
    """
    if half not in HALVES:
        raise UsageError(f"got half {half!r}, expected {' or '.join(HALVES)}.")
    learnt = frame.filter(pl.col("split") != "test")
    chosen = learnt.filter(class_folds(learnt, len(HALVES), seed) == HALVES.index(half))
    return pl.concat([chosen, frame.filter(split="test")])


def cross_validate(
    frame: pl.DataFrame,
    n_folds: int,
    seed: int,
    threads: int = 1,
    advance: Callable[[int], None] = lambda _: None,
    level_scales: Mapping[str, Mapping[str, Any]] | None = None,
) -> pl.DataFrame:
    """Predictions for every row by a surrogate that has not seen its symmetry class.

    Everything that training does, choices and calibration included, is done again for each fold on the
    other rows.

    Args:
        frame: the columns of the data reader.
        n_folds: number of folds.
        seed: of the folds and the trees.
        threads: of CatBoost.
        advance: is told of each finished model.
        level_scales: of each set, as plain values; they align the labels.

    Returns:
        As `defectgen.score.surrogate.evaluation.predict_labelled`.
    """
    folds = class_folds(frame, n_folds, seed)
    parts = []
    for fold in range(n_folds):
        rest = frame.filter(folds != fold)
        inner = class_folds(rest, VALIDATION_SHARE, seed + 1)
        split = rest.with_columns(
            split=pl.Series(["validation" if number == 0 else "train" for number in inner], dtype=pl.String)
        )
        surrogate = fit_surrogate(split, seed, level_scales=level_scales, threads=threads, advance=advance)
        parts.append(predict_labelled(surrogate, frame.filter(folds == fold)))
    sets = pl.Enum(frame["set"].unique(maintain_order=True))
    properties = pl.Enum([*COLUMNS, PER_SITE])
    return pl.concat(parts).sort(pl.col("set").cast(sets), pl.col("property").cast(properties), "id")
