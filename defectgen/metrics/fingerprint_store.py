"""Structural fingerprints kept in a file: they cost seconds a crystal, and the same crystals come again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen.core.crystal import Crystal
from defectgen.errors import DefectgenError
from defectgen.io.files import write_whole
from defectgen.metrics.fingerprints import Vector, structure_fingerprint

STORE_VERSION = 1
"""Raised when a fingerprint would come out otherwise; part of the file's name."""

SAVE_EVERY = 25

_SCHEMA: dict[str, Any] = {"key": pl.String, "problem": pl.String, "fingerprint": pl.List(pl.Float64)}


def crystal_key(crystal: Crystal) -> str:
    """What identifies a cell with its atoms, to six decimals; not invariant under translation or permutation."""
    numbers = (*crystal.lengths, *crystal.angles, *(x for xyz in crystal.fractional for x in xyz))
    text = f"{' '.join(crystal.species)} {' '.join(f'{number:.6f}' for number in numbers)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def structure_fingerprints(
    crystals: Sequence[Crystal], folder: Path | None, advance: Callable[[int], None] = lambda _: None
) -> list[Vector | str]:
    """The fingerprint of each crystal, or why it has none, from the store where it is there.

    Args:
        crystals: in any order.
        folder: where the store lies; it is made. None computes everything anew, as does one that cannot be written.
        advance: told how many more are done.
    """
    path = folder / f"crystal-fingerprints-{STORE_VERSION}.parquet" if folder else None
    known = _read(path)
    fresh: dict[str, Vector | str] = {}
    result: list[Vector | str] = []
    try:
        for crystal in crystals:
            key = crystal_key(crystal)
            if key not in known:
                try:
                    known[key] = structure_fingerprint(crystal)
                except DefectgenError as error:
                    known[key] = str(error)
                fresh[key] = known[key]
                if len(fresh) >= SAVE_EVERY:
                    _add(path, fresh)
                    fresh = {}
            result.append(known[key])
            advance(1)
    finally:  # interrupted: what is computed is kept
        if fresh:
            _add(path, fresh)
    return result


def _read(path: Path | None) -> dict[str, Vector | str]:
    if path is None:
        return {}
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):  # not there, or damaged: computed again
        return {}
    rows = frame.select("key", "problem", "fingerprint").iter_rows()
    return {key: np.array(values) if problem is None else problem for key, problem, values in rows}


def _add(path: Path | None, fresh: dict[str, Vector | str]) -> None:
    """Add to the file, with what another process may have added meanwhile; it lands by rename."""
    if path is None:
        return
    rows = [
        {
            "key": key,
            "problem": value if isinstance(value, str) else None,
            "fingerprint": None if isinstance(value, str) else value.tolist(),
        }
        for key, value in (_read(path) | fresh).items()
    ]
    with contextlib.suppress(DefectgenError):  # a full or read-only disk: they are computed again next time
        write_whole(path, pl.DataFrame(rows, schema=_SCHEMA).write_parquet)
