"""Tables as CSV files: as spreadsheets write them, and so that one opens them without running what is in them."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from defectgen.one_line import BREAKS, encodable, on_one_line

HEADER_BYTES = 1 << 16
"""Of a table's begin, where its header is looked for."""

_NUMBERS = re.compile(r"[-+0-9eE.,:* ]*[0-9],[0-9][-+0-9eE.,:* ]*")

FORMULA_STARTS = ("=", "+", "-", "@", "\t")
"""A text that begins so is a formula to a spreadsheet."""


def read_csv(path: Path, **options: Any) -> pl.DataFrame:
    """A table in UTF-8 or UTF-16, with commas between its columns, or semicolons or tabs if its header has no comma.

    Beside semicolons numbers may have decimal commas.

    Args:
        path: of the file.
        options: of `polars.read_csv`.

    Raises:
        OSError: it cannot be read.
        polars.exceptions.PolarsError: it is no such table.
    """
    with path.open("rb") as file:
        begin = file.read(HEADER_BYTES)
    is_wide = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    header = begin.decode("utf-16" if is_wide else "utf-8-sig", errors="replace").lstrip().partition("\n")[0]
    separator = separator_of(header)
    if separator == "," and not is_wide:
        return pl.read_csv(_source(path), **options)
    try:
        text = path.read_bytes().decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise pl.exceptions.ComputeError(f"invalid {error.encoding} sequence") from error
    return pl.read_csv(io.StringIO(with_points(text, separator)), separator=separator, **options)


def separator_of(header: str) -> str:
    """What stands between the columns of a table, by its first line."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def with_points(text: str, separator: str) -> str:
    """A table with points instead of decimal commas, where commas separate nothing."""
    if separator == ",":
        return text
    cells = rf"(?m)(?:^|(?<={separator}))[^{separator}\r\n\"]+"
    return re.sub(cells, lambda cell: cell[0].replace(",", ".") if _NUMBERS.fullmatch(cell[0]) else cell[0], text)


def write_csv(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    r"""Write a table; a text that a spreadsheet would take for a formula gets an apostrophe before it.

    A row is one line, and no cell says anything to a terminal: line breaks and control characters of file names and
    other texts are written as ``\n`` and ``\x1b``. Numbers, also as text (``-0.5``), stay what they are.

    Args:
        frame: the table.
        path: of the file.
        options: of `polars.DataFrame.write_csv`.
    """
    with _sink(path) as place:
        safe_cells(frame).write_csv(place, **options)


def read_parquet(path: Path) -> pl.DataFrame:
    """A table in Parquet, whatever bytes the name of its file has.

    Raises:
        OSError: it cannot be read.
        polars.exceptions.PolarsError: it is no such table.
    """
    return pl.read_parquet(_source(path))


def count_rows(path: Path) -> int:
    """How many rows a table in Parquet has; see `read_rows`."""
    return int(pl.scan_parquet(_source(path)).select(pl.len()).collect().item())


def column_names(path: Path) -> list[str]:
    """Names of the columns of a table in Parquet; see `read_rows`."""
    return pl.scan_parquet(_source(path)).collect_schema().names()


def read_rows(path: Path, start: int, count: int) -> pl.DataFrame:
    """Some rows of a table in Parquet; the others are not kept in memory.

    Args:
        path: of the file.
        start: the first row, from 0.
        count: how many.

    Raises:
        OSError: it cannot be read.
        polars.exceptions.PolarsError: it is no such table.
    """
    return pl.scan_parquet(_source(path)).slice(start, count).collect()


def write_parquet(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    """Write a table in Parquet; `options` are those of `polars.DataFrame.write_parquet`."""
    with _sink(path) as place:
        frame.write_parquet(place, **options)


def is_utf8(path: Path) -> bool:
    """Whether polars and CatBoost take the path: not one with bytes of another encoding, e.g. Latin-1."""
    return str(path) == encodable(str(path))


def _source(path: Path) -> Path | io.BytesIO:
    return path if is_utf8(path) else io.BytesIO(path.read_bytes())


@contextmanager
def _sink(path: Path) -> Iterator[Path | BinaryIO]:
    if is_utf8(path):
        yield path
        return
    with path.open("wb") as file:
        yield file


def safe_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """A table in which no text and no name of a column begins like a formula or breaks a line, see `write_csv`."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    broken = [name for name in texts if frame[name].str.contains(BREAKS.pattern).any()]
    frame = frame.with_columns(pl.col(name).map_elements(on_one_line, return_dtype=pl.String) for name in broken)
    columns = [
        pl.when(_is_formula(name)).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name, kind in frame.schema.items()
        if kind in (pl.String, pl.Categorical, pl.Enum)
    ]
    return frame.with_columns(columns).rename({name: safe_cell(name) for name in frame.columns})


def safe_cell(text: str) -> str:
    """One cell, see `write_csv`."""
    text = on_one_line(text)
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
