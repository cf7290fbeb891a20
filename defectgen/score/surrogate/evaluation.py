"""How good predicted values are: errors with their denominators, and coverage of the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration
from defectgen.core.properties import COLUMNS, USUAL, unit_suffix
from defectgen.io.host_tables import host_of
from defectgen.score.protocol import Scorer, uncertainty_column

CLOSE_EV = 0.02
"""Error up to which a prediction counts as close, the metric of the IDAO 2022 challenge."""

PER_SITE = "formation_energy_per_site_ev"

TEXTS = ("set", "property", "id")
NUMBERS = ("true", "predicted", "half_width")

Metrics = dict[str, dict[str, dict[str, Any]]]


def predict_labelled(scorer: Scorer, frame: pl.DataFrame) -> pl.DataFrame:
    """True and predicted values of labelled rows.

    Args:
        scorer: what predicts.
        frame: the columns of the data reader.

    Returns:
        One row for each label of a property that the scorer knows for the set: ``set``, ``property`` (the
        column, or `PER_SITE`), ``id``, ``true``, ``predicted`` (null for a failure) and ``half_width`` of the
        90 % interval, in the property's unit. Sets in the order of the table, properties in that of `COLUMNS`.
    """
    parts: list[pl.DataFrame] = []
    for name in frame["set"].unique(maintain_order=True):
        rows = frame.filter(set=name)
        host = host_of(rows)
        scored = scorer.score([Configuration.from_key(host, key) for key in rows["configuration"]])
        columns = {column: (column, uncertainty_column(column), 1.0) for column in COLUMNS}
        for column in columns.keys() - set(USUAL):
            if column in scored.columns and scored[column].null_count() == len(rows):
                del columns[column]
        sizes = np.maximum(rows["n_defects"].to_numpy(), 1)
        columns[PER_SITE] = ("formation_energy_ev", uncertainty_column("formation_energy_ev"), sizes)
        for column, (source, width, size) in columns.items():
            if source not in scored.columns or column not in rows.columns:
                continue
            table = pl.DataFrame(
                {
                    "set": [name] * len(rows),
                    "property": [column] * len(rows),
                    "id": rows["id"],
                    "true": _array(rows[column]),
                    "predicted": _array(scored[source]) / size,
                    "half_width": _array(scored[width]) / size,
                }
            )
            numbers = pl.col(NUMBERS).fill_nan(None)
            parts.append(table.with_columns(numbers).filter(pl.col("true").is_not_null()))
    schema = pl.Schema(dict.fromkeys(TEXTS, pl.String()) | dict.fromkeys(NUMBERS, pl.Float64()))
    return pl.concat([pl.DataFrame(schema=schema), *(part.cast(schema) for part in parts)])


def metrics(predictions: pl.DataFrame) -> Metrics:
    """Errors by set and property.

    Args:
        predictions: as `predict_labelled` gives them.

    Returns:
        For each set and property: ``n`` rows with a label, ``n_failed`` of them without a prediction,
        ``mae_mev``, ``rmse_mev`` and ``r2`` over the others, ``within_20_mev`` (share with an error of
        at most 20 meV) and ``coverage_90`` (share of true values in the interval), both over all n: a
        failure counts as a miss. Other units than eV have e.g. ``mae_mu_b`` and ``rmse_mu_b``, and no
        ``within_20_mev``.
    """
    results: Metrics = {}
    for (name, column), rows in predictions.group_by("set", "property", maintain_order=True):
        true, predicted, width = (_array(rows[key]) for key in NUMBERS)
        results.setdefault(str(name), {})[str(column)] = _metrics(true, predicted, width, unit_suffix(str(column)))
    return results


def evaluate(scorer: Scorer, frame: pl.DataFrame) -> Metrics:
    """`metrics` of `predict_labelled`."""
    return metrics(predict_labelled(scorer, frame))


def means(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """For each property the number of sets that have it and the unweighted means of their figures."""
    found: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys(column for values in results.values() for column in values):
        sets = [values[column] for values in results.values() if column in values]
        found[column] = {"n_sets": len(sets)}
        for key in (key for key in sets[0] if key not in ("n", "n_failed")):
            known = [float(values[key]) for values in sets if values[key] is not None]
            found[column][key] = sum(known) / len(known) if known else None
    return found


def _array(values: pl.Series) -> NDArray[np.float64]:
    return np.asarray(values.cast(pl.Float64).fill_null(np.nan).to_numpy())


def _metrics(
    true: NDArray[np.float64], predicted: NDArray[np.float64], width: NDArray[np.float64], suffix: str
) -> dict[str, Any]:
    error = predicted - true
    done = ~np.isnan(error)
    spread = float(np.sum((true[done] - true[done].mean()) ** 2)) if done.any() else 0.0
    unit, scale = ("mev", 1e3) if suffix == "ev" else (suffix, 1.0)
    found: dict[str, Any] = {
        "n": len(true),
        "n_failed": len(true) - int(done.sum()),
        f"mae_{unit}": float(np.mean(np.abs(error[done])) * scale) if done.any() else None,
        f"rmse_{unit}": float(np.sqrt(np.mean(error[done] ** 2)) * scale) if done.any() else None,
        "r2": 1 - float(np.sum(error[done] ** 2)) / spread if spread > 0 else None,
        "coverage_90": float(np.mean(np.abs(error) <= width)) if np.isfinite(width).any() else None,
    }
    return found if suffix != "ev" else {**found, "within_20_mev": float(np.mean(np.abs(error) <= CLOSE_EV))}
