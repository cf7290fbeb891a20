"""Predicted against computed: the error of each prediction, also in units of its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectgen.core.properties import PROPERTIES
from defectgen.errors import UsageError
from defectgen.io.tables import read_csv

if TYPE_CHECKING:
    import polars as pl

TRAINED_ON = ("vasp", "PBE", 500.0)
"""Code, functional and cutoff (eV) of 2DMD, on whose scale the shipped models predict."""

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
        frame = read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
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

    Results by other settings than the host's (see `left_out`) are left out, and total energies of other settings than
    `TRAINED_ON`, which have another zero.

    Returns:
        ``configuration``, ``label``, ``name``, ``property``, ``predicted``, ``computed``, ``error`` (predicted minus
        computed), ``half_width`` (of the 90 % interval) and ``error_in_intervals`` (error by half-width).
    """
    import polars as pl

    rows = computed.filter(~left_out(computed)).filter(
        (pl.col("role") == "defect") & pl.col("converged") & (pl.col("charge").fill_null(0.0) == 0.0)
    )
    once = predicted.unique("configuration", keep="first", maintain_order=True)
    joined = once.join(rows, on="configuration", how="inner", suffix="_computed", maintain_order="left")
    found = []
    for item in joined.iter_rows(named=True):
        for each in PROPERTIES:
            guess = item.get(each.column)
            value = item.get(f"{each.column}_computed") if each.column in once.columns else None
            if guess is None or value is None or (each.column == "energy_per_atom_ev" and not _on_scale(item)):
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


def left_out(computed: pl.DataFrame) -> pl.Series:
    """Which rows are defects by other settings than those of their host's result, or of the first defect without one.

    Args:
        computed: rows of `defectgen.dft.results.DftTable.frame`.

    Returns:
        A flag for each row.
    """
    import polars as pl

    wanted: dict[str, set[str]] = {}
    rows = computed.select("role", "host", "settings_id").rows()
    for role, host, settings in rows:
        if role == "host":
            wanted.setdefault(host, set()).add(settings)
    for role, host, settings in rows:
        if role == "defect" and host not in wanted:
            wanted[host] = {settings}
    return pl.Series(
        [role == "defect" and settings not in wanted[host] for role, host, settings in rows], dtype=pl.Boolean
    )


def scale_warnings(computed: pl.DataFrame) -> list[str]:
    """What to know where defects were computed by other settings than those that the shipped models were trained on."""
    import polars as pl

    apart = computed.filter(left_out(computed))["name"].to_list()
    lines = []
    if apart:
        more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
        lines.append(f"not compared, by other settings than the host's: {', '.join(apart[:5])}{more}.")
    others = [row for row in computed.filter(pl.col("role") == "defect").to_dicts() if not _on_scale(row)]
    if not others:
        return lines
    kinds = sorted({" ".join(filter(None, (row["code"], row["functional"], row["basis"]))) for row in others})
    return [
        *lines,
        f"predictions of the shipped models are on the scale of VASP, PBE, 500 eV; computed by {', '.join(kinds)}: "
        "errors hold the difference of the settings too, total energies are not compared.",
    ]


def _on_scale(row: Mapping[str, Any]) -> bool:
    return (row["code"], row["functional"], row["cutoff_ev"]) == TRAINED_ON


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
