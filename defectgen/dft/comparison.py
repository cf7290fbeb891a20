"""Predicted against computed: the error of each prediction, also in units of its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core.properties import PROPERTIES
from defectgen.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

TABLES = ("candidates.parquet", "candidates.csv")


def read_predictions(path: Path) -> pl.DataFrame:
    """The table of a design run by its folder, or any table with a column ``configuration``.

    Raises:
        UsageError: no such table.
    """
    import polars as pl

    file = next((path / name for name in TABLES if (path / name).is_file()), path)
    if not file.is_file() or file.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"{path}: no predictions found.", "Expected the folder of a design run, or its candidates.csv."
        )
    try:
        frame = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{file}: cannot be read as a table ({' '.join(str(error).split())[:100]}).") from error
    if "configuration" not in frame.columns:
        raise UsageError(f"{file}: has no column configuration.", "Expected the table of a design run.")
    return frame


def compare(predicted: pl.DataFrame, computed: pl.DataFrame) -> pl.DataFrame:
    """Predicted beside computed values, a row for each property of each configuration that both have.

    Args:
        predicted: ``configuration`` (canonical key), columns of properties, and their ``..._uncertainty_...``.
        computed: rows of `defectgen.dft.results.DftTable.frame`; defects, neutral and converged ones count.

    Returns:
        ``configuration``, ``label``, ``name``, ``property``, ``predicted``, ``computed``, ``error`` (predicted minus
        computed), ``half_width`` (of the 90 % interval) and ``error_in_intervals`` (error by half-width).
    """
    import polars as pl

    rows = computed.filter(
        (pl.col("role") == "defect") & pl.col("converged") & (pl.col("charge").fill_null(0.0) == 0.0)
    )
    once = predicted.unique("configuration", keep="first", maintain_order=True)
    joined = once.join(rows, on="configuration", how="inner", suffix="_computed", maintain_order="left")
    found = []
    for item in joined.iter_rows(named=True):
        for each in PROPERTIES:
            guess = item.get(each.column)
            value = item.get(f"{each.column}_computed") if each.column in once.columns else None
            if guess is None or value is None:
                continue
            width = item.get(each.uncertainty_column)
            found.append(
                {
                    "configuration": item["configuration"],
                    "label": item["label"],
                    "name": item["name_computed"] if "name" in once.columns else item["name"],
                    "property": each.column,
                    "predicted": float(guess),
                    "computed": float(value),
                    "error": float(guess) - float(value),
                    "half_width": width,
                    "error_in_intervals": (float(guess) - float(value)) / width if width else None,
                }
            )
    texts, numbers = ("configuration", "label", "name", "property"), ("predicted", "computed", "error", "half_width")
    schema = dict.fromkeys(texts, pl.String()) | dict.fromkeys((*numbers, "error_in_intervals"), pl.Float64())
    return pl.DataFrame(found, schema=schema)


def summary(comparison: pl.DataFrame) -> Sequence[str]:
    """A line a property: how many, mean absolute error, share inside the interval."""
    import polars as pl

    lines = []
    for (column,), part in comparison.group_by(["property"], maintain_order=True):
        inside = part["error_in_intervals"].abs().drop_nulls()
        within = f", {int((inside <= 1).sum())} of {len(inside)} inside their 90 % interval" if len(inside) else ""
        mean = part.select(pl.col("error").abs().mean()).item()
        lines.append(f"{column}: {part.height} compared, mean absolute error {mean:.3f}{within}")
    return lines
