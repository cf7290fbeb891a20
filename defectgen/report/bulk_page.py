"""The page of an evaluation of bulk crystals: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from defectgen.metrics.definitions import BY_NAME
from defectgen.report.page_templates import plain_page, wide_table

TABLE = (
    ("structural", "struct"),
    ("compositional", "comp"),
    ("cov_recall", "COV-R"),
    ("cov_precision", "COV-P"),
    ("cov_recall_valid", "vCOV-R"),
    ("cov_precision_valid", "vCOV-P"),
    ("wasserstein_density", "w(rho)"),
    ("wasserstein_elements", "w(Nel)"),
    ("metastable", "metast"),
)
"""Columns of the table of methods: metric and heading."""

ASKED = {"band_gap": "asked band gap, eV", "e_above_hull": "asked E above hull, eV"}
"""Titles of what was asked for, by condition."""

TABLE_STYLE = "td:first-child, th:first-child { text-align: left; } tr.own td { font-weight: 650; }"


def method_rows(
    result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and values by metric of each method: this one, earlier ones, published ones.

    A generator that refuses draws and draws again has two rows: of all its draws, which is what the published
    validities count, and of those that it kept, where a check of its own is passed by all.
    """
    own = {key: item["value"] for key, item in result["metrics"].items()}
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for name, values in ((str(result["name"]), own), *others.items()):
        if "raw_structural" in values:
            raw = {key: values.get(f"raw_{key}") for key in ("structural", "compositional")}
            rows += [(f"all draws: {name}", raw), (f"kept: {name}", values)]
        else:
            rows.append((name, values))
    return [*rows, *result["published"]["rows"].items()]


def number(value: float | None) -> str:
    """A value with three digits behind the point, or fewer for large ones; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def bulk_page(result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as HTML that needs nothing else.

    Args:
        result: what `defectgen evaluate bulk` writes.
        others: values by metric of earlier runs, by name.
    """
    counts = result["counts"]
    parts = [
        "<h2>Beside other methods</h2>", _methods(result, others),
        f'<p class="soft">Published rows: {escape(result["published"]["source"])}. Their numbers of samples, '
        "reference set and samples judged differ from those here; their validities count all samples that can be "
        "read, as the row of all draws does. COV-R and COV-P count all crystals, as CDVAE does; vCOV-R and vCOV-P "
        "valid ones alone, as Gruver et al. do: a published value stands in the column that it was counted for.</p>",
        "<h2>Metrics</h2>", _metrics(result["metrics"]),
    ]  # fmt: skip
    for condition, table in result["by_asked"].items():
        parts += [f"<h2>By asked value: {escape(ASKED[condition])}</h2>", _by_asked(table, condition)]
    parts += ["<h2>Counts</h2>", _pairs(counts, "counts")]
    if result["failures"]:
        parts += ["<h2>What could not be judged, and why</h2>", _pairs(result["failures"], "failures")]
    parts += ["<h2>Settings</h2>", _pairs(result["settings"], "settings")]
    made = f"{counts['crystals']} crystals of {counts['draws']} draws. defectgen {escape(str(result['defectgen']))}"
    notes = (made, *(escape(note) for note in result["notes"]))
    return plain_page(f"Bulk crystals: {result['name']}", notes, "".join(parts), TABLE_STYLE)


def _methods(result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f'<th title="{escape(BY_NAME[key].text)}">{escape(short)}</th>' for key, short in TABLE)
    rows, own = [], 1 + ("raw_structural" in result["metrics"])
    for index, (title, values) in enumerate(method_rows(result, others)):
        cells = "".join(f"<td>{number(values.get(key))}</td>" for key, _ in TABLE)
        mark = ' class="own"' if index < own else ""
        rows.append(f"<tr{mark}><td>{escape(title)}</td>{cells}</tr>")
    return wide_table(f"<tr><th>method</th>{head}</tr>{''.join(rows)}", "methods")


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for key, definition in BY_NAME.items():
        if key not in metrics:
            continue
        item = metrics[key]
        of, between = _of(item), _between(item)
        why = f" ({escape(str(item['why']))})" if item.get("why") else ""
        rows.append(
            f"<tr><td>{escape(definition.title)}</td><td>{number(item['value'])}</td><td>{between}</td><td>{of}</td>"
            f'<td class="text">{escape(definition.text)}{why}</td>'
            f'<td class="text">{escape(definition.source)}</td></tr>'
        )
    head = "<tr><th>metric</th><th>value</th><th>95 % interval</th><th>n</th><th>meaning</th><th>source</th></tr>"
    return wide_table(head + "".join(rows), "metrics")


def _by_asked(table: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """What came out for each asked value: median, mean deviation from it and hits, beside those not asked (others)."""
    columns = {
        "median": "median", "deviation": "off by", "hit": "hits",
        "deviation_not_asked": "others off by", "hit_not_asked": "others hits",
    }  # fmt: skip
    head = "".join(f"<th>{title}</th><th>95 %</th>" for title in columns.values())
    lines = [f"<tr><th>asked</th><th>n</th>{head}</tr>"]
    for asked, row in table.items():
        items = [row.get(key, {}) for key in columns]
        n = row.get("hit", row["median"])["of"]
        cells = [str(n), *(cell for item in items for cell in (number(item.get("value")), _between(item)))]
        lines.append(f"<tr><td>{escape(asked)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return wide_table("".join(lines), name)


def _of(item: Mapping[str, Any]) -> str:
    return f"{item['n']} of {item['of']}" if "n" in item else str(item.get("of", ""))


def _between(item: Mapping[str, Any]) -> str:
    return " to ".join(f"{bound:.3f}" for bound in item.get("interval_95", ()))


def _pairs(items: Mapping[str, Any], name: str) -> str:
    rows = "".join(f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in items.items())
    return wide_table(rows, name)
