"""Asked band gaps and energies above the hull against those found, by asked value and beside what was not asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.metrics.generated_entries import Crystals, Entry
from defectgen.metrics.met_conditions import asked_number, checkable, is_met

if TYPE_CHECKING:
    from defectgen.metrics.crystal_metrics import Metric

Array = NDArray[np.float64]

MEASURED = ("band_gap", "e_above_hull")
"""Conditions with a number that is compared with the asked one."""

MOST_VALUES = 12
"""Where more values than this were asked for, there are no figures for each."""

NOT_ASKED = "not asked"

RESAMPLES = 1000


def distances_from_asked(entries: Sequence[Entry], crystals: Crystals) -> dict[str, Metric]:
    """Deviation from what was asked for, and its correlation with it.

    Args:
        entries: the accepted ones.
        crystals: the set that they are of.

    Returns:
        For ``band_gap`` and ``e_above_hull``, where asked for and known: ``deviation_...``, mean absolute, in eV
        (eV/atom), and ``rank_...``, Spearman's rank correlation, None where one value only was asked for.
    """
    found: dict[str, Metric] = {}
    for condition in _measured(entries, crystals):
        pairs = [
            (asked, value)
            for entry in entries
            if (asked := asked_number(entry, condition)) is not None and (value := _value(entry, condition)) is not None
        ]
        rows = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        found[f"deviation_{condition}"] = _figure(np.abs(rows[:, 1] - rows[:, 0]), _mean)
        if len(np.unique(rows[:, 0])) > 1:
            found[f"rank_{condition}"] = _figure(rows, _rank_correlation)
        else:
            found[f"rank_{condition}"] = {"value": None, "of": len(pairs), "why": "one value was asked for"}
    return found


def figures_by_asked(entries: Sequence[Entry], crystals: Crystals) -> dict[str, dict[str, dict[str, Metric]]]:
    """What came out for each asked value, beside crystals that were not asked for any.

    Args:
        entries: the accepted ones.
        crystals: the set that they are of.

    Returns:
        Condition (`MEASURED`) -> asked value, ascending, or `NOT_ASKED` -> ``median`` in eV (eV/atom); for an asked
        value also ``deviation``, mean absolute, and ``hit``, the share that meets it
        (`defectgen.metrics.met_conditions.meets`), and both of the crystals not asked for any, against the same value:
        ``deviation_not_asked``, ``hit_not_asked``. Crystals that cannot be read count in the shares.
    """
    from defectgen.metrics.crystal_metrics import share

    found: dict[str, dict[str, dict[str, Metric]]] = {}
    for condition in _measured(entries, crystals):
        groups: dict[float | None, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(asked_number(entry, condition), []).append(entry)
        others = groups.pop(None, [])
        if len(groups) > MOST_VALUES:
            continue
        table = found[condition] = {}
        for asked, group in sorted((asked, group) for asked, group in groups.items() if asked is not None):
            row = table[f"{asked:g}"] = {"median": _figure(_values(group, condition), _middle)}
            for end, ones in (("", group), ("_not_asked", others)):
                if ones:
                    row[f"deviation{end}"] = _figure(np.abs(_values(ones, condition) - asked), _mean)
                    row[f"hit{end}"] = share([is_met(condition, asked, one) for one in ones])
        if others:
            table[NOT_ASKED] = {"median": _figure(_values(others, condition), _middle)}
    return found


def _measured(entries: Sequence[Entry], crystals: Crystals) -> list[str]:
    known = [condition for condition in MEASURED if condition in checkable(crystals)]
    return [name for name in known if any(asked_number(entry, name) is not None for entry in entries)]


def _value(entry: Entry, condition: str) -> float | None:
    return entry.band_gap_ev if condition == "band_gap" else entry.e_above_hull_ev


def _values(entries: Sequence[Entry], condition: str) -> Array:
    found = (_value(entry, condition) for entry in entries)
    return np.array([value for value in found if value is not None], dtype=np.float64)


def _mean(rows: Array) -> float:
    return float(rows.mean())


def _middle(rows: Array) -> float:
    return float(np.median(rows))


def _figure(rows: Array, statistic: Callable[[Array], float]) -> dict[str, Any]:
    """A statistic of rows with the 95 % interval of `RESAMPLES` resamples (percentiles, seed 0)."""
    if not len(rows):
        return {"value": None, "of": 0, "why": "none of them"}
    value = statistic(rows)
    if math.isnan(value):
        return {"value": None, "of": len(rows), "why": "all of them have one value"}
    picks = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
    found = np.array([statistic(rows[pick]) for pick in picks])
    ends = np.percentile(found[~np.isnan(found)], (2.5, 97.5))
    return {"value": value, "of": len(rows), "interval_95": [float(end) for end in ends]}


def _rank_correlation(rows: Array) -> float:
    """Spearman's correlation of two columns, ties at their mean rank; not a number where one column is constant."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    one, other = (ranks - ranks.mean() for ranks in (rankdata(rows[:, 0]), rankdata(rows[:, 1])))
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size else float("nan")
