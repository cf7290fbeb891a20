"""A page of parity plots: predicted against true values, one plot a set and property, with their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen import __version__
from defectgen.core.properties import BY_COLUMN, UNITS
from defectgen.report.page_templates import plain_page, wide_table

TITLES = {
    "formation_energy_per_site_ev": ("E_form per site", "eV"),
}
"""Title and unit of what is evaluated beside the usual properties."""

MAX_POINTS = 1200
"""Points in one plot; more rows are thinned out evenly by their true value, the figures are of all."""

SIDE_PX, LEFT_PX, TOP_PX, BOTTOM_PX = 190, 46, 8, 34
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
MAX_STEPS = 5

STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 14px; }
.plots figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 12px; }
figcaption { font-size: .85rem; } figcaption b { font-size: .95rem; }
.plots svg { display: block; } .plots text { font-size: 11px; fill: var(--soft); }
.frame { fill: none; stroke: var(--line); } .diagonal { stroke: var(--soft); stroke-dasharray: 4 3; }
.plots .grid { stroke: var(--grid); } .plots circle { fill: var(--c1); }
.plots circle:not([fill-opacity]) { fill-opacity: .55; } .plots circle.out { fill: var(--c2); }
td:first-child, th:first-child { text-align: left; }
"""
"""Of pages with parity plots, beside the shared one."""


def parity_page(
    predictions: pl.DataFrame,
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
    means: Mapping[str, Mapping[str, Any]],
    title: str,
) -> str:
    """The page as HTML that needs nothing else.

    Args:
        predictions: columns ``set``, ``property``, ``true``, ``predicted``, ``half_width``.
        metrics: by set and property, as `defectgen.score.surrogate.evaluation.metrics` gives them.
        means: over the sets, by property.
        title: what was evaluated.
    """
    parts = [_means_table(means)]
    for name, found in metrics.items():
        parts.append(f'<h2>{escape(name)}</h2><div class="plots">')
        for column, values in found.items():
            rows = predictions.filter(set=name, property=column).drop_nulls("predicted")
            parts.append(f"<figure>{parity_svg(rows, name, column)}{_caption(column, values)}</figure>")
        parts.append("</div>")
    notes = (
        f"{escape(title)}.",
        "Dashed: equality. A point stands for one structure; orange ones lie outside their 90 % interval. "
        f"Points of large sets are thinned out, figures are of all rows. defectgen {escape(__version__)}.",
    )
    return plain_page("Predicted against calculated", notes, "".join(parts), STYLE)


def parity_svg(
    rows: pl.DataFrame, name: str, column: str, *, fade: float | None = None, across: str = "calculated"
) -> str:
    """One plot: calculated values to the right, predicted ones upwards, on the same axis.

    Args:
        rows: columns ``true``, ``predicted``, ``half_width`` without nulls in the first two.
        name: of the set.
        column: the property.
        fade: points shrink and fade with their error, by a factor of e within this much; None for equal points.
        across: what the horizontal axis shows.
    """
    ordered = rows.sort("true")
    if len(ordered) > MAX_POINTS:
        ordered = ordered[np.unique(np.linspace(0, len(ordered) - 1, MAX_POINTS).astype(int)).tolist()]
    true, predicted, width = (_array(ordered[key]) for key in ("true", "predicted", "half_width"))
    low, high = _range(np.concatenate([true, predicted]))
    scale = SIDE_PX / (high - low)
    heading, unit = _title(column)
    parts = []
    for tick in _ticks(low, high):
        at = (tick - low) * scale
        parts.append(
            f'<path class="grid" d="M{at:.1f} 0V{SIDE_PX}M0 {SIDE_PX - at:.1f}H{SIDE_PX}"/>'
            f'<text x="{at:.1f}" y="{SIDE_PX + 14}" text-anchor="middle">{tick:g}</text>'
            f'<text x="-6" y="{SIDE_PX - at + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    parts.append(f'<rect class="frame" width="{SIDE_PX}" height="{SIDE_PX}"/>')
    parts.append(f'<path class="diagonal" d="M0 {SIDE_PX}L{SIDE_PX} 0"/>')
    for x, y, half in zip(true, predicted, width, strict=True):
        mark = ' class="out"' if abs(x - y) > half else ""
        weight = 1.0 if fade is None else math.exp(-abs(x - y) / fade)
        faded = "" if fade is None else f' fill-opacity="{max(0.7 * weight, 0.08):.2f}"'
        radius = 1.8 if fade is None else 0.8 + 2.2 * weight
        place = f'cx="{(x - low) * scale:.1f}" cy="{SIDE_PX - (y - low) * scale:.1f}" r="{radius:.1f}"'
        parts.append(f"<circle{mark} {place}{faded}/>")
    label = f"{heading} of {name}: predicted against {across}, {unit}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{LEFT_PX + SIDE_PX + 10}" '
        f'height="{TOP_PX + SIDE_PX + BOTTOM_PX}"><g transform="translate({LEFT_PX} {TOP_PX})">{"".join(parts)}'
        f'<text x="{SIDE_PX / 2:.0f}" y="{SIDE_PX + 29}" text-anchor="middle">{across} ({unit})</text></g></svg>'
    )


def _caption(column: str, values: Mapping[str, Any]) -> str:
    lines = [f"{_error(values, 'mae')} MAE, {_error(values, 'rmse')} RMSE", f"n = {values['n']}"]
    if values["r2"] is not None:
        lines[-1] += f", R² = {values['r2']:.3f}"
    if values["coverage_90"] is not None:
        lines.append(f"{values['coverage_90']:.0%} in the 90 % interval")
    if values["n_failed"]:
        lines.append(f"{values['n_failed']} without a prediction")
    return f"<figcaption><b>{escape(_title(column)[0])}</b><br>{'<br>'.join(lines)}</figcaption>"


def _means_table(means: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(_title(column)[0])}</td><td>{values['n_sets']}</td><td>{_error(values, 'mae')}</td>"
        f"<td>{_error(values, 'rmse')}</td><td>{_share(values.get('within_20_mev'))}</td>"
        f"<td>{_share(values.get('coverage_90'))}</td></tr>"
        for column, values in means.items()
    ]
    head = "".join(f"<th>{name}</th>" for name in ("property", "sets", "MAE", "RMSE", "within 20 meV", "in interval"))
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<h2>Means over the sets</h2>{wide_table(table, 'means over the sets')}"


def _error(values: Mapping[str, Any], key: str) -> str:
    suffix = next(name.removeprefix(f"{key}_") for name in values if name.startswith(f"{key}_"))
    value, text = values[f"{key}_{suffix}"], "meV" if suffix == "mev" else UNITS.get(suffix, suffix)
    return "-" if value is None else f"{value:.3g} {text}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _title(column: str) -> tuple[str, str]:
    return TITLES.get(column) or (BY_COLUMN[column].title, BY_COLUMN[column].unit)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    pad = max((high - low) * 0.04, 1e-3)
    return low - pad, high + pad


def _ticks(low: float, high: float) -> Sequence[float]:
    step = next((s for s in STEPS if (high - low) / s <= MAX_STEPS), (high - low) / MAX_STEPS)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _array(values: pl.Series) -> NDArray[np.float64]:
    return np.asarray(values.cast(pl.Float64).fill_null(np.nan).to_numpy())
