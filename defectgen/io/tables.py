"""Tables as CSV files that a spreadsheet opens without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet."""


def write_csv(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    """Write a table; a text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers, also as text (``-0.5``), stay what they are.

    Args:
        frame: the table.
        path: of the file.
        options: of `polars.DataFrame.write_csv`.
    """
    safe_cells(frame).write_csv(path, **options)


def safe_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """A table in which no text and no name of a column begins like a formula, see `write_csv`."""
    columns = [
        pl.when(_is_formula(name)).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name, kind in frame.schema.items()
        if kind in (pl.String, pl.Categorical, pl.Enum)
    ]
    return frame.with_columns(columns).rename({name: safe_cell(name) for name in frame.columns})


def safe_cell(text: str) -> str:
    """One cell, see `write_csv`."""
    if not text.startswith(FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _is_formula(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String)
    starts = text.str.slice(0, 1).is_in(list(FORMULA_STARTS))
    return starts & text.cast(pl.Float64, strict=False).is_null()
