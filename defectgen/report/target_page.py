"""A page about held-out targets: what each proposer's structures have against what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import polars as pl

from defectgen import __version__
from defectgen.core.properties import BY_COLUMN
from defectgen.report.page_templates import plain_page, wide_table
from defectgen.report.parity import STYLE, parity_svg

FADE_EV = 0.05
"""Points shrink and fade by a factor of e with this much error."""

HEAD = ("proposer", "valid", "distinct", "novel", "per s", "single, median", "≤ 20 meV", "novel single, ≤ 20 meV",
        "first, median", "≤ 20 meV", "best, ≤ 20 meV")  # fmt: skip


def targets_page(samples: Mapping[str, Mapping[str, pl.DataFrame]], result: Mapping[str, Any]) -> str:
    """The page as HTML that needs nothing else.

    Args:
        samples: by set and proposer, as `defectgen.design.evaluate.ProposerEvaluation` holds them.
        result: settings, and under ``sets`` the metrics by set and proposer.
    """
    parts = []
    for name, proposers in samples.items():
        metrics = result["sets"][name]
        parts.append(f"<h2>{escape(name)}</h2>{_table(metrics, name)}")
        plots = [
            f"<figure>{_plot(frame, f'{name}, {title}', column)}{_caption(title, column, metrics[title])}</figure>"
            for title, frame in proposers.items()
            for column in metrics[title]["levels"]
        ]
        parts.append(f'<div class="plots" style="margin-top:14px">{"".join(plots)}</div>')
    notes = (
        f"HOMO and LUMO of {result['targets_per_set']} structures of the {escape(result['split'])} part of each set, "
        f"{result['n']} structures for each; temperature {result['temperature']}, guidance {result['guidance']}, "
        f"seed {result['seed']}.",
        "Distances are |HOMO - target| + |LUMO - target|, by DFT where a structure is labelled, else by the surrogate; "
        "plots show the surrogate's values, and their points shrink and fade with the error. "
        f"Figures are of all structures; R²₂₅ and RMSE₂₅ of the quarter with the least error. defectgen "
        f"{escape(__version__)}.",
    )
    return plain_page("Asked for and proposed", notes, "".join(parts), STYLE)


def _plot(frame: pl.DataFrame, name: str, column: str) -> str:
    rows = frame.select(
        true=f"target_{column}", predicted=f"surrogate_{column}", half_width=pl.lit(float("inf"))
    ).drop_nulls()
    return parity_svg(rows, name, column, fade=FADE_EV, across="asked for")


def _caption(title: str, column: str, metrics: Mapping[str, Any]) -> str:
    found = metrics["levels"][column]
    lines = [f"n = {found['n']}"]
    for suffix in ("_25", ""):
        if found[f"rmse{suffix}_mev"] is not None:
            r2 = found[f"r2{suffix}"]
            below = "<sub>25</sub>" if suffix else ""
            lines.append(
                f"RMSE{below} = {found[f'rmse{suffix}_mev']:.3g} meV" + (f", R²{below} = {r2:.3f}" if r2 else "")
            )
    return f"<figcaption><b>{escape(BY_COLUMN[column].title)}, {escape(title)}</b><br>{'<br>'.join(lines)}</figcaption>"


def _table(metrics: Mapping[str, Mapping[str, Any]], name: str) -> str:
    rows = []
    for title, m in metrics.items():
        one = "proposals" in m
        single, novel, first, best = (m[key]["distance"] for key in ("samples", "novel_samples", "first", "best"))
        cells = [
            *(_share(m.get(key)) for key in ("valid_share", "distinct_share", "novel_share")),
            f"{m['structures_per_s']:.1f}" if m.get("structures_per_s") else "",
            _mev(single) if one else "",
            _share(single["within_20_mev"]) if one else "",
            _share(novel["within_20_mev"]) if one else "",
            _mev(first),
            _share(first["within_20_mev"]),
            _share(best["within_20_mev"]) if one else "",
        ]
        rows.append(f"<tr><td>{escape(title)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{text}</th>" for text in HEAD)
    return wide_table(f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>", f"proposers in {name}")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _mev(spread: Mapping[str, float | None]) -> str:
    return "" if spread["median_mev"] is None else f"{spread['median_mev']:.1f} meV"
