"""How good predicted values are: errors with their denominators, and coverage of the intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import Configuration, get_host
from defectgen.core.properties import COLUMNS
from defectgen.score.protocol import Scorer, uncertainty_column

CLOSE_EV = 0.02
"""Error up to which a prediction counts as close, the metric of the IDAO 2022 challenge."""

PER_SITE = "formation_energy_per_site_ev"


def evaluate(scorer: Scorer, frame: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Errors of a scorer on labelled rows, by set and property.

    Args:
        scorer: what predicts.
        frame: the columns of the data reader.

    Returns:
        For each set and property: ``n`` rows with a label, ``n_failed`` of them without a prediction,
        ``mae_mev``, ``rmse_mev`` and ``r2`` over the others, ``within_20_mev`` (share with an error of
        at most 20 meV) and ``coverage_90`` (share of true values in the interval), both over all n: a
        failure counts as a miss. The formation energy also appears per defect site.
    """
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name in frame["set"].unique(maintain_order=True):
        rows = frame.filter(set=name)
        n_a, n_b = (int(n) for n in rows["supercell"][0].split("x"))
        host = get_host(rows["host"][0], (n_a, n_b))
        scored = scorer.score([Configuration.from_key(host, key) for key in rows["configuration"]])
        results[name] = {}
        for column in COLUMNS:
            if column in scored.columns and rows[column].null_count() < len(rows):
                width = _array(scored[uncertainty_column(column)])
                results[name][column] = _metrics(_array(rows[column]), _array(scored[column]), width)
        if "formation_energy_ev" in results[name]:
            size = np.maximum(rows["n_defects"].to_numpy(), 1)
            width = _array(scored[uncertainty_column("formation_energy_ev")]) / size
            predicted = _array(scored["formation_energy_ev"]) / size
            results[name][PER_SITE] = _metrics(_array(rows[PER_SITE]), predicted, width)
    return results


def _array(values: pl.Series) -> NDArray[np.float64]:
    return np.asarray(values.cast(pl.Float64).fill_null(np.nan).to_numpy())


def _metrics(true: NDArray[np.float64], predicted: NDArray[np.float64], width: NDArray[np.float64]) -> dict[str, Any]:
    labelled = ~np.isnan(true)
    error = (predicted - true)[labelled]
    done = ~np.isnan(error)
    n = int(labelled.sum())
    spread = float(np.sum((true[labelled][done] - true[labelled][done].mean()) ** 2)) if done.any() else 0.0
    return {
        "n": n,
        "n_failed": n - int(done.sum()),
        "mae_mev": float(np.mean(np.abs(error[done])) * 1e3) if done.any() else None,
        "rmse_mev": float(np.sqrt(np.mean(error[done] ** 2)) * 1e3) if done.any() else None,
        "r2": 1 - float(np.sum(error[done] ** 2)) / spread if spread > 0 else None,
        "within_20_mev": float(np.mean(np.abs(error) <= CLOSE_EV)),
        "coverage_90": float(np.mean(np.abs(error) <= width[labelled])) if np.isfinite(width[labelled]).any() else None,
    }
