"""Tables that readers made, kept in the cache folder as long as the files they were made from are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from defectgen.data.assets import cache_dir
from defectgen.errors import DefectgenError
from defectgen.io.files import write_whole


def cached_table(name: str, about: str, files: Sequence[Path], read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The table that `read` makes, from the cache if the files have the size and time that they had.

    A cache that cannot be read or written is done without.

    Args:
        name: of the cached file, which begins with it.
        about: what else the table depends on, the reader's version among it.
        files: that `read` reads; with one missing nothing is cached, and `read` says so.
        read: the reader.
    """
    digest = hashlib.sha256(f"{about}\n".encode())
    for file in files:
        if not file.is_file():
            return read()
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    cached = cache_dir() / "tables" / f"{name}-{digest.hexdigest()[:16]}.parquet"
    try:
        return pl.read_parquet(cached)
    except (OSError, pl.exceptions.PolarsError):
        pass
    frame = read()
    try:
        write_whole(cached, frame.write_parquet)
    except DefectgenError:
        return frame
    return frame
