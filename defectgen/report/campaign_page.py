"""A campaign's page: rounds, errors against the number of calculations, how near the best are to the wishes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from defectgen import __version__
from defectgen.campaign.folder import CampaignConfig
from defectgen.campaign.status import SHOWN, Status, WishStatus, wish_title
from defectgen.campaign.store import DONE, FAILED
from defectgen.core.hosts import common_name
from defectgen.core.properties import BY_COLUMN
from defectgen.report.page_templates import plain_page, wide_table

WIDTH_PX, HEIGHT_PX = 360, 220
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 56, 12, 12, 42

MAX_ROWS = 500
"""Structures that the page lists."""

TEXTS = ("why", "model", "defects", "configuration", "state")
"""Columns of text, to the left."""

STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 14px; margin-top: 10px; }
.plots figure { width: 392px; max-width: 100%; } .key { justify-content: flex-start; }
figcaption { font-size: .9rem; font-weight: 600; }
.line { fill: none; stroke-width: 2; } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); stroke-dasharray: 5 4; }
.dot1 { fill: var(--c1); } .dot2 { fill: var(--card); stroke: var(--c2); stroke-width: 2; }
.plot .yt { text-anchor: end; } .plot .xt { text-anchor: middle; }
td:first-child, th:first-child { text-align: left; }
th, td { padding: 4px 6px; } th { white-space: normal; vertical-align: bottom; }
"""

Series = Sequence[tuple[float, float]]


def campaign_page(status: Status) -> str:
    """The page as HTML that needs nothing else."""
    campaign = status.campaign
    config, host = campaign.config, campaign.host
    done = status.states[DONE]
    total = f" of {status.total:,}" if status.total is not None else ""
    notes = (
        f"{host.size} supercell of {host.n_sites} sites, up to {config.max_defects} defects; "
        f"computed by {escape(_engine(config))}.",
        "Levels are in eV above the valence band maximum of the pristine host; formation energies count against the "
        "host and the elemental phases. Errors are those of rows that neither the choice nor the fit of the model has "
        f"seen. defectgen {escape(__version__)}.",
    )
    facts = [("computed", f"{done}{total}"), ("rounds", str(max((r.number for r in status.rounds), default=0)))]
    if gap := status.judged.get("band_gap_ev"):
        facts.append(("error of the gap", f"{gap.mae:.3f} eV"))
    if energy := status.judged.get("formation_energy_ev"):
        facts.append(("error of E_form", f"{energy.mae:.3f} eV"))
    if status.cpu_hours:
        facts.append(("CPU time", f"{status.cpu_hours:.2f} h"))
    parts = [
        _facts(facts),
        _errors(status),
        _wishes(status.wishes),
        _rounds(status),
        _model(status),
        _structures(status),
    ]
    return plain_page(f"Campaign on {common_name(host)}", notes, "".join(parts), STYLE)


def _engine(config: CampaignConfig) -> str:
    """What computes and how, in a clause."""
    settings = config.settings
    first = f", atoms moved by {config.relax} first" if config.relax else ""
    if config.engine == "ase":
        return f"{settings.ase.calculator}{first}; energies alone, no levels"
    return f"{config.engine}{first}; settings: {settings.description or 'your own'}"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _errors(status: Status) -> str:
    figures = []
    for column in SHOWN:
        entries = [item for item in status.history if column in item["errors"]]
        if not entries:
            continue
        own = [(float(item["results"]), float(item["errors"][column]["mae"])) for item in entries]
        none = [(float(item["results"]), float(item["errors"][column]["spread"])) for item in entries]
        title = f"Error of {BY_COLUMN[column].title}"
        svg = line_svg(title, own, none, "calculations", "mean absolute error (eV)")
        figures.append(f'<figure class="panel"><figcaption>{escape(title)}</figcaption>{svg}</figure>')
    if not figures:
        return "<h2>Errors</h2><p>Nothing is learnt yet: defectgen campaign learn.</p>"
    key = _key("by cross-validation", "knowing the mean alone")
    return f'<h2>Errors against calculations</h2><div class="plots">{"".join(figures)}</div>{key}'


def _wishes(wishes: Sequence[WishStatus]) -> str:
    figures = []
    for wish in wishes:
        path = [(float(n), d) for n, d in wish.path if math.isfinite(d)]
        chance = [(float(n), c) for (n, _), c in zip(wish.path, wish.chance, strict=False)]
        if path:
            svg = line_svg(f"Best distance to {wish.text}", path, chance, "calculations", "best distance (eV)")
            figures.append(
                f'<figure class="panel"><figcaption>{escape(wish_title(wish.text))}: {path[-1][1]:.3f} eV away, '
                f"#{wish.best} {escape(wish.found)}</figcaption>{svg}</figure>"
            )
    if not figures:
        return ""
    key = _key("best so far", "as many random structures, in the mean (unknown ones as predicted)")
    return f'<h2>Wishes</h2><div class="plots">{"".join(figures)}</div>{key}'


def _key(first: str, second: str) -> str:
    return (
        '<div class="key"><span><span class="swatch" style="--c: var(--c1)"></span>'
        f'{escape(first)}</span><span><span class="swatch" style="--c: var(--c2)"></span>{escape(second)}</span></div>'
    )


def _rounds(status: Status) -> str:
    rows = []
    shown = [c for c in ("band_gap_ev", "formation_energy_ev") if any(c in item.foretold for item in status.rounds)]
    for item in status.rounds:
        named = {wish_title(name) if "=" in name else name: count for name, count in item.origins.items()}
        why = [f"{name} ({count})" if len(named) > 1 else name for name, count in named.items()]
        states = item.states
        cells = [str(sum(states.values())), str(states[DONE]), str(states[FAILED])]
        for column in shown:
            found = item.foretold.get(column)
            inside = "" if found is None or found.inside is None else f"{found.inside} of {found.n}"
            cells += ["" if found is None else f"{found.mae:.3f}", inside]
        cells.append(f"{item.cpu_s / 3600:.2f}" if item.cpu_s else "")
        rows.append(
            f'<tr><td>{item.number}</td><td class="left">{"<br>".join(map(escape, why))}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    errors = [text for c in shown for text in (f"{BY_COLUMN[c].title}: error foretold (eV)", "in 90 % interval")]
    return (
        f"<h2>Rounds</h2>{_table('rounds', ('round', 'why', 'structures', 'done', 'failed', *errors, 'CPU h'), rows)}"
    )


def _model(status: Status) -> str:
    if not status.judged:
        return ""
    rows = [
        f"<tr><td>{escape(BY_COLUMN[c].title)}</td><td>{j.n}</td><td>{j.mae:.3f}</td><td>{j.spread:.3f}</td>"
        f'<td class="text">{escape(j.form)}{"" if j.calibrated else " (too few rows for intervals)"}</td></tr>'
        for c, j in status.judged.items()
    ]
    table = _table("errors", ("property", "n", "error (eV)", "of the mean (eV)", "model"), rows)
    lines = "".join(f"<p>{escape(offset.text)}.</p>" for offset in status.offsets)
    return f"<h2>Model</h2>{table}{lines}"


def _structures(status: Status) -> str:
    rows = []
    shown = [c for c in SHOWN if any(c in row.predicted or c in row.computed for row in status.rows)]
    for row in status.rows[:MAX_ROWS]:
        cells = []
        for column in shown:
            guess = f"{row.predicted[column]:.3f}" if column in row.predicted else ""
            value = f"<b>{row.computed[column]:.3f}</b>" if column in row.computed else ""
            cells.append(f"<td>{guess}</td><td>{value}</td>")
        name = escape(row.configuration.label)
        reason = f": {escape(row.reason)}" if row.reason else ""
        rows.append(
            f'<tr><td>{row.id}</td><td class="left">{name}</td><td class="left"><code>{escape(row.key)}</code></td>'
            f'<td>{row.round}</td><td class="text">{row.state}{reason}</td>{"".join(cells)}</tr>'
        )
    heads = [text for column in shown for text in (f"{BY_COLUMN[column].title} foretold", "computed")]
    more = f"<p>{len(status.rows) - MAX_ROWS} more in structures.db.</p>" if len(status.rows) > MAX_ROWS else ""
    heads = ["id", "defects", "configuration", "round", "state", *heads]
    return f"<h2>Structures</h2>{_table('structures', heads, rows)}{more}"


def _table(title: str, names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th{' class=left' if name in TEXTS else ''}>{escape(name)}</th>" for name in names)
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="panel">{wide_table(content, title)}</div>'


def line_svg(title: str, first: Series, second: Series, across: str, up: str) -> str:
    """Two lines over the same axes, which begin at 0."""
    width, height = WIDTH_PX - LEFT_PX - RIGHT_PX, HEIGHT_PX - TOP_PX - BOTTOM_PX
    points = [*first, *second]
    right, top = (max(max((p[k] for p in points), default=1.0) * 1.05, 1e-6) for k in (0, 1))
    parts = []
    for step, end, is_x in ((_step(right), right, True), (_step(top), top, False)):
        for number in range(int(end / step + 1e-9) + 1):
            at = number * step / end
            text = f"{number * step:g}" if is_x else f"{number * step:.{max(0, -math.floor(math.log10(step)))}f}"
            if is_x:
                parts.append(f'<text class="xt" x="{at * width:.1f}" y="{height + 15}">{text}</text>')
            else:
                y = height - at * height
                parts.append(f'<path class="grid" d="M0 {y:.1f}H{width}"/>')
                parts.append(f'<text class="yt" x="-6" y="{y + 4:.1f}">{text}</text>')
    for number, series in ((2, second), (1, first)):
        placed = [(x / right * width, height - y / top * height) for x, y in series]
        parts.append(
            f'<path class="line c{number}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}"/>' * bool(placed)
        )
        parts += [f'<circle class="dot{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in placed]
    parts.append(f'<text class="axis" x="{width / 2:.0f}" y="{height + 35}">{escape(across)}</text>')
    parts.append(f'<text class="axis" transform="translate(-42 {height / 2:.0f}) rotate(-90)">{escape(up)}</text>')
    return (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}">'
        f'<g transform="translate({LEFT_PX} {TOP_PX})">{"".join(parts)}</g></svg>'
    )


def _step(end: float) -> float:
    """A round step that gives four to eight ticks."""
    power = 10.0 ** math.floor(math.log10(end))
    return next(power * f for f in (0.1, 0.2, 0.5, 1.0, 2.0) if end / (power * f) <= 6)
