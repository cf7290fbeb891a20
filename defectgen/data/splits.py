"""Train, validation and test parts that no symmetry image crosses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from defectgen.errors import UsageError

PARTS = ("train", "validation", "test")


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
