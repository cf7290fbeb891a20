"""Train, validation and test parts that no symmetry image crosses, for interpolation and for extrapolation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from defectgen.errors import UsageError

PARTS = ("train", "validation", "test")

SPLITS = {
    "symmetry-class": "rows of one symmetry class stay together; each set is divided at random",
    "defect-class": "low density only; the classes V6 and S6 (three different defects) are the test part",
    "density": "low density trains, high density of the same hosts is the test part",
}
"""Ways to divide the data, by name."""

HELD_OUT_CLASSES = ("V6", "S6")
"""Classes that the split ``defect-class`` tests on."""


def split_rows(
    frame: pl.DataFrame, how: str = "symmetry-class", fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 42
) -> pl.DataFrame:
    """The rows that a split uses, with a column ``split``: ``train``, ``validation`` or ``test``.

    Args:
        frame: with the columns of the data reader.
        how: one of `SPLITS`. The two that extrapolate leave out the rows that they have no use for, and
            divide what is not the test part in the ratio of the first two fractions.
        fractions: shares of the three parts; they sum to 1.
        seed: of the shuffle.

    Raises:
        UsageError: an unknown split, or data without the rows that it tests on or trains on.
    """
    if how == "symmetry-class":
        return split_by_class(frame, fractions, seed)
    if how not in SPLITS:
        raise UsageError(f"unknown split {how!r}.", f"Known: {', '.join(SPLITS)}.")
    if how == "defect-class":
        used = frame.filter(pl.col("defect_class").is_not_null())
        tested = pl.col("defect_class").is_in(HELD_OUT_CLASSES)
    else:
        both = frame.group_by("host").agg(pl.col("density").n_unique()).filter(density=2)["host"].to_list()
        used = frame.filter(pl.col("host").is_in(both))
        tested = pl.col("density") == "high"
    test, rest = used.filter(tested), used.filter(~tested)
    if test.is_empty() or rest.is_empty():
        raise UsageError(
            f"the data has nothing to {'test' if test.is_empty() else 'train'} on in the split {how}.",
            "It needs the low-density sets." if how == "defect-class" else "It needs both densities of a host.",
        )
    total = fractions[0] + fractions[1]
    rest = split_by_class(rest, (fractions[0] / total, 1 - fractions[0] / total, 0.0), seed)
    return pl.concat([rest, test.with_columns(split=pl.lit("test"))])


def split_by_class(frame: pl.DataFrame, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 42) -> pl.DataFrame:
    """The frame with a column ``split``: ``train``, ``validation`` or ``test``.

    Rows of one symmetry class (same host and same canonical configuration) always get the same part,
    also when they come from different sets. Each set is divided in the asked fractions: its classes
    are ordered by a hash of seed and class, and cut. So the order of the rows does not matter, and a set
    is divided in the same way whether or not others are read with it.

    Args:
        frame: with columns ``host``, ``configuration`` (canonical key) and ``set``.
        fractions: shares of the three parts; they sum to 1.
        seed: of the shuffle.

    Raises:
        UsageError: fractions that are not three shares of 1, or a missing column.
    """
    if len(fractions) != len(PARTS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UsageError(f"got split fractions {tuple(fractions)}, expected three that sum to 1, e.g. 0.8 0.1 0.1.")
    missing = [name for name in ("host", "configuration", "set") if name not in frame.columns]
    if missing:
        raise UsageError(f"the table has no column {missing[0]!r}; its columns are {', '.join(frame.columns)}.")
    classes = frame.group_by("host", "configuration").agg(pl.col("set").min().alias("stratum"))
    rank = [_number(seed, host, key) for host, key in classes.select("host", "configuration").iter_rows()]
    position = pl.int_range(pl.len()).over("stratum") / pl.len().over("stratum")
    train, validation = fractions[0], fractions[0] + fractions[1]
    lookup = (
        classes.with_columns(rank=pl.Series(rank, dtype=pl.UInt64))
        .sort("stratum", "rank", "host", "configuration")
        .with_columns(position=position)
        .select(
            "host",
            "configuration",
            split=pl.when(pl.col("position") < train - 1e-12)
            .then(pl.lit("train"))
            .when(pl.col("position") < validation - 1e-12)
            .then(pl.lit("validation"))
            .otherwise(pl.lit("test")),
        )
    )
    bare = frame.drop("split", strict=False)
    return bare.join(lookup, on=["host", "configuration"], how="left", maintain_order="left")


def _number(seed: int, host: str, key: str) -> int:
    """A 64-bit number that looks random and depends on the arguments only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{host}/{key}".encode()).digest()[:8], "big")
