"""The top view of a configuration as a small inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.hosts import common_title
from defectgen.core.names import defect_name
from defectgen.report.element_colours import colour, muted_colour, text_colour
from defectgen.report.site_positions import TopView, layer_names, top_view

MARGIN_PX = 14.0
DISC_SHARE = 0.42
"""Radius of a site by the distance to its nearest neighbour in the plane."""
MIN_DISC_ANGSTROM = 0.6
DEFECT_FACTOR = 1.32
STACKED_DEFECT_FACTOR = 1.6
"""How much larger a column with a defect is drawn, of one site or of several."""
BOTTOM_FACTOR = 0.8
"""How much smaller a site of the lower layer is drawn where layers do not lie above each other."""
VACANCY_COLOUR = "#f03e3e"
SCALE_BARS_ANGSTROM = (1, 2, 5, 10, 20, 50, 100)
LEGEND_ROW_PX = 19.0
INSET_WIDTH_PX = 74.0
INSET_HEIGHT_PX = 50.0
LABEL_STEP_PX = 10.5
AXIS_PX = 26.0
"""Length of the axes at the origin."""


def lattice_svg(configuration: Configuration, size_px: int = 360) -> str:
    """The supercell seen along its normal, defects marked and moved to the middle of the cell.

    Every site is one element of class ``s``; the changed ones carry the class ``d`` as well, the
    site's name in ``data-site`` and a title. Sites that lie above each other share a disc, cut
    into halves: the upper half is the top one. Colours follow ``currentColor`` where they are not
    an element's, so that the picture reads on light and on dark ground.

    Args:
        configuration: what to draw.
        size_px: width of the picture; the height follows from the cell.

    Raises:
        ValueError: `size_px` is less than 120.
    """
    if size_px < 120:
        raise ValueError(f"got size {size_px} px, expected at least 120")
    view = top_view(configuration)
    low, high = view.outline.min(axis=0), view.outline.max(axis=0)
    inner = size_px - 2 * MARGIN_PX
    scale = float(inner / max(high - low))
    left = MARGIN_PX + (inner - scale * float(high[0] - low[0])) / 2
    points = np.column_stack(
        [left + (view.positions[:, 0] - low[0]) * scale, MARGIN_PX + (high[1] - view.positions[:, 1]) * scale]
    )
    corners = np.column_stack(
        [left + (view.outline[:, 0] - low[0]) * scale, MARGIN_PX + (high[1] - view.outline[:, 1]) * scale]
    )
    bottom = MARGIN_PX + float(high[1] - low[1]) * scale + MARGIN_PX
    radius = max(DISC_SHARE * view.spacing_angstrom, MIN_DISC_ANGSTROM) * scale
    legend, height = _legend(configuration, view, size_px, bottom, scale)
    host = configuration.host
    title = escape(f"{common_title(host)} supercell with {configuration.label}, seen from above")
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lattice" role="img" aria-label="{title}" '
            f'width="{size_px}" height="{_n(height)}" viewBox="0 0 {size_px} {_n(height)}" fill="none" '
            f'font-family="system-ui,sans-serif"><title>{title}</title>',
            f'<polygon points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in corners)}" fill="currentColor" '
            'fill-opacity=".035" stroke="currentColor" stroke-opacity=".5"/>',
            _bond_path(view, points),
            _host_sites(configuration, view, points, radius),
            _origin(host, *(float(v) for v in (view.origin - (low[0], high[1])) * (scale, -scale) + (left, MARGIN_PX))),
            _defect_columns(configuration, view, points, radius),
            legend,
            "</svg>",
        ]
    )


def _origin(host: Host, x: float, y: float) -> str:
    """The axes a and b where the POSCAR has its origin, which is elsewhere than in the corner of the drawing."""
    lines, names = [], []
    for name, vector in zip("ab", host.lattice, strict=False):
        length = math.hypot(vector[0], vector[1])
        dx, dy = AXIS_PX * vector[0] / length, -AXIS_PX * vector[1] / length
        left, right = (-0.24 * dx - s * 0.14 * dy for s in (1, -1)), (-0.24 * dy + s * 0.14 * dx for s in (1, -1))
        heads = list(zip(left, right, strict=True))
        (ax, ay), (bx, by) = heads
        lines.append(f"M{_n(x)} {_n(y)}l{_n(dx)} {_n(dy)}m{_n(ax)} {_n(ay)}l{_n(-ax)} {_n(-ay)}l{_n(bx)} {_n(by)}")
        names.append(f'<text x="{_n(x + 1.28 * dx)}" y="{_n(y + 1.28 * dy + 3.5)}" text-anchor="middle">{name}</text>')
    path = f'd="{"".join(lines)}"'
    return (
        f'<g class="origin"><title>origin and axes of the POSCAR</title><path {path} stroke="var(--card,#fff)" '
        f'stroke-width="4" stroke-opacity=".8"/><path {path} stroke="currentColor" stroke-width="1.6"/>'
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="2.6" fill="currentColor"/><g font-size="11" font-weight="700" '
        f'fill="currentColor" stroke="var(--card,#fff)" stroke-width="3" paint-order="stroke">{"".join(names)}</g></g>'
    )


def _n(value: float) -> str:
    """A coordinate with one decimal, as short as it gets."""
    return f"{float(value):z.1f}".removesuffix(".0")


def _bond_path(view: TopView, points: NDArray[np.float64]) -> str:
    heads = [points[column[0]] for column in view.columns]
    lines = [f"M{_n(heads[a][0])} {_n(heads[a][1])}L{_n(heads[b][0])} {_n(heads[b][1])}" for a, b in view.bonds]
    return f'<path d="{"".join(lines)}" stroke="currentColor" stroke-opacity=".28"/>'


def _band(x: float, y: float, radius: float, part: int, parts: int) -> str:
    """Path of one of `parts` horizontal bands of a disc, number 0 at the top."""
    upper, lower = (radius * (2 * k / parts - 1) for k in (part, part + 1))
    half_upper, half_lower = (math.sqrt(max(radius**2 - height**2, 0.0)) for height in (upper, lower))
    arc = f"A{_n(radius)} {_n(radius)} 0 0 1 "
    return (
        f"M{_n(x - half_upper)} {_n(y + upper)}L{_n(x + half_upper)} {_n(y + upper)}{arc}{_n(x + half_lower)} "
        f"{_n(y + lower)}L{_n(x - half_lower)} {_n(y + lower)}{arc}{_n(x - half_upper)} {_n(y + upper)}z"
    )


def _shape(x: float, y: float, radius: float, part: int, parts: int) -> str:
    """Start of the tag of a whole disc or of one band of it."""
    if parts == 1:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"'
    if parts == 2:
        sign = 1 if part == 0 else -1
        arc = f"a{_n(radius)} {_n(radius)} 0 0 1 {_n(2 * sign * radius)} 0z"
        return f'<path d="M{_n(x - sign * radius)} {_n(y)}{arc}"'
    return f'<path d="{_band(x, y, radius, part, parts)}"'


def _site_radius(host: Host, site: int, parts: int, radius: float) -> float:
    below = parts == 1 and layer_names(host)[host.site_cell(site)[0]] not in ("", "top")
    return radius * BOTTOM_FACTOR if below else radius


def _by_height(view: TopView) -> Iterable[tuple[int, ...]]:
    """Columns from the lowest to the highest, so that the top covers what lies below."""
    return sorted(view.columns, key=lambda column: (round(float(view.heights[column[0]]), 3), column))


def _host_sites(configuration: Configuration, view: TopView, points: NDArray[np.float64], radius: float) -> str:
    """All sites of columns without a defect, in groups of one colour."""
    host = configuration.host
    changed = {site for site, _ in configuration.edits}
    groups: dict[tuple[float, str], list[str]] = {}
    for column in _by_height(view):
        if changed.intersection(column):
            continue
        for part, site in enumerate(column):
            size = _site_radius(host, site, len(column), radius)
            x, y = (float(v) for v in points[site])
            shape = _shape(x, y, size, part, len(column))
            key = (round(float(view.heights[column[0]]), 3), _host_colour(host, site, len(column)))
            groups.setdefault(key, []).append(f'{shape} class="s"/>')
    return "".join(
        f'<g fill="{fill}" stroke="#fff" stroke-opacity=".75" stroke-width=".7">{"".join(shapes)}</g>'
        for (_, fill), shapes in groups.items()
    )


def _host_colour(host: Host, site: int, parts: int) -> str:
    """Lower layers are darker where they are seen on their own, and paler in the lower half of a disc."""
    basis = host.site_cell(site)[0]
    lower = layer_names(host)[basis] not in ("", "top")
    return muted_colour(host.species[basis], (0.3 if parts > 1 else 0.75) if lower else 0.5)


def _defect_columns(configuration: Configuration, view: TopView, points: NDArray[np.float64], radius: float) -> str:
    changed = dict(configuration.edits)
    parts = []
    for column in _by_height(view):
        if not changed.keys() & set(column):
            continue
        for part, site in enumerate(column):
            x, y = (float(v) for v in points[site])
            factor = DEFECT_FACTOR if len(column) == 1 else STACKED_DEFECT_FACTOR
            size = factor * _site_radius(configuration.host, site, len(column), radius)
            if site in changed:
                parts.append(_defect(configuration.host, site, changed[site], (x, y), size, part, len(column)))
            else:
                fill = _host_colour(configuration.host, site, len(column))
                parts.append(f'{_shape(x, y, size, part, len(column))} class="s" fill="{fill}"/>')
    return f"<g>{''.join(parts)}</g>"


def _defect(host: Host, site: int, species: str, place: tuple[float, float], size: float, part: int, parts: int) -> str:
    x, y = place
    basis = host.site_cell(site)[0]
    layer = layer_names(host)[basis]
    title = f"{defect_name(host.species[basis], species)} at {host.site_name(site)}{', ' if layer else ''}{layer}"
    start = f'{_shape(x, y, size, part, parts)} class="s d" data-site="{host.site_name(site)}"'
    pointer = _pointer(x, y, size, layer, hollow=species == VACANCY) if parts == 1 else ""
    if species == VACANCY:
        marks = f' stroke="{VACANCY_COLOUR}" stroke-width="1.8" stroke-dasharray="3 2" pointer-events="all"'
        return f"{start}{marks}><title>{title}</title></{_tag(parts)}>{pointer}"
    fill = f' fill="{colour(species)}" stroke="currentColor" stroke-width="1.6"'
    middle = y + size * ((2 * part + 1) / parts - 1) * 0.9
    font = min(size * (1.15 if parts == 1 else 0.92), 13.0)
    text = (
        f'<text x="{_n(x)}" y="{_n(middle + 0.35 * font)}" font-size="{_n(font)}" font-weight="700" '
        f'text-anchor="middle" fill="{text_colour(species)}" pointer-events="none">{species}</text>'
    )
    return f"{start}{fill}><title>{title}</title></{_tag(parts)}>{text}{pointer}"


def _tag(parts: int) -> str:
    return "circle" if parts == 1 else "path"


def _pointer(x: float, y: float, size: float, layer: str, hollow: bool) -> str:
    """A small triangle that points to the top or the bottom layer: beside a disc, within a ring."""
    if layer not in ("top", "bottom"):
        return ""
    sign = -1 if layer == "top" else 1
    base = y - sign * 2 if hollow else y + sign * (size + 2.2)
    fill = VACANCY_COLOUR if hollow else "currentColor"
    return f'<path d="M{_n(x - 3.4)} {_n(base)}h6.8L{_n(x)} {_n(base + sign * 4.6)}z" fill="{fill}"/>'


def _legend(configuration: Configuration, view: TopView, size_px: int, top: float, scale: float) -> tuple[str, float]:
    """Side view, key of the marks and scale bar under the picture, and where it ends."""
    host = configuration.host
    layered = any(layer_names(host))
    inset, inset_width = _side_view(host, view, MARGIN_PX, top + 4) if layered else ("", 0.0)
    left = MARGIN_PX + inset_width
    x, y = left, top + 9
    items = []
    for mark, text in _legend_items(configuration, view):
        width = 18 + 6.0 * len(text)
        if x > left and x + width > size_px - MARGIN_PX:
            x, y = left, y + LEGEND_ROW_PX
        items.append(f'<g transform="translate({_n(x + 6)} {_n(y)})">{mark}<text x="10" y="3.8">{text}</text></g>')
        x += width + 8
    y += LEGEND_ROW_PX
    bar = max((b for b in SCALE_BARS_ANGSTROM if b * scale <= 90), default=SCALE_BARS_ANGSTROM[0])
    ruler = (
        f'<path d="M{_n(left)} {_n(y - 3)}v6m0-3h{_n(bar * scale)}m0-3v6" stroke="currentColor" stroke-width="1.4"/>'
        f'<text x="{_n(left + bar * scale + 6)}" y="{_n(y + 3.8)}">{bar} \u00c5</text>'
    )
    end = max(y + 12, top + 4 + INSET_HEIGHT_PX + 8 if layered else 0)
    return f'<g font-size="11" fill="currentColor">{inset}{"".join(items)}{ruler}</g>', end


def _legend_items(configuration: Configuration, view: TopView) -> list[tuple[str, str]]:
    host = configuration.host
    items = [(f'<circle r="5.5" fill="{muted_colour(element, 0.5)}"/>', element) for element in host.elements]
    if any(len(column) == 2 for column in view.columns):
        halves = f'<path d="{_band(0, 0, 6, 0, 2)}" fill="#868e96"/><path d="{_band(0, 0, 6, 1, 2)}" fill="#ced4da"/>'
        items.append((halves, "upper half: top atom"))
    elif any(layer_names(host)):
        items.append(('<path d="M-4 -2h8l-4-4.6zM-4 2h8l-4 4.6z" fill="currentColor"/>', "top / bottom layer"))
    corner = '<circle cx="-5" cy="5" r="2" fill="currentColor"/>'
    axes = f'<path d="M-5 5h9m-9 0v-9" stroke="currentColor" stroke-width="1.6"/>{corner}'
    items.append((axes, "origin of the POSCAR"))
    if any(species == VACANCY for _, species in configuration.edits):
        ring = f'<circle r="5.5" stroke="{VACANCY_COLOUR}" stroke-width="1.8" stroke-dasharray="3 2" fill="none"/>'
        items.append((ring, "vacancy"))
    for species in sorted({species for _, species in configuration.edits} - {VACANCY}):
        disc = f'<circle r="5.5" fill="{colour(species)}" stroke="currentColor" stroke-width="1.6"/>'
        items.append((disc, f"{species}, substituted"))
    return items


def _side_view(host: Host, view: TopView, left: float, top: float) -> tuple[str, float]:
    """A few cells seen along the layer, each layer named; the drawing and its width with labels."""
    normal = float(host.lattice[2][2])
    heights = [frac[2] * normal for frac in host.frac_coords]
    axis = 0 if math.hypot(*host.lattice[0][:2]) >= math.hypot(*host.lattice[1][:2]) else 1
    period = math.hypot(*host.lattice[axis][:2])
    direction = np.asarray(host.lattice[axis]) / period
    along = [float(np.asarray(frac) @ np.asarray(host.lattice) @ direction) % period for frac in host.frac_coords]
    scale = min((INSET_HEIGHT_PX - 10) / max(max(heights) - min(heights), 1.0), 11.0)
    disc = 4.2
    middle = top + INSET_HEIGHT_PX / 2
    centre = (max(heights) + min(heights)) / 2
    stacked = max(len(column) for column in view.columns)
    shapes = []
    for basis in range(host.n_basis):
        fill = _host_colour(host, host.site_index(basis, 0, 0), stacked)
        y = middle + (centre - heights[basis]) * scale
        places = [along[basis] + period * cell for cell in range(math.ceil(INSET_WIDTH_PX / (period * scale)))]
        shapes += [
            f'<circle cx="{_n(left + disc + place * scale)}" cy="{_n(y)}" r="{disc}" fill="{fill}"/>'
            for place in places
            if place * scale <= INSET_WIDTH_PX - 2 * disc
        ]
    names = {
        round(middle + (centre - heights[basis]) * scale, 1): f"{element} {layer}".strip()
        for basis, (element, layer) in enumerate(zip(host.species, layer_names(host), strict=True))
    }
    labels = [
        f'<text x="{_n(left + INSET_WIDTH_PX + 5)}" y="{_n(y + 3.4)}" font-size="9.5">{names[place]}</text>'
        for place, y in zip(sorted(names), _spread(sorted(names)), strict=True)
    ]
    return f'<g class="side">{"".join(shapes)}{"".join(labels)}</g>', INSET_WIDTH_PX + 68


def _spread(places: list[float]) -> list[float]:
    """The places moved apart about their common middle until no two are nearer than a line of text."""
    spread = list(places)
    for k in range(1, len(spread)):
        spread[k] = max(spread[k], spread[k - 1] + LABEL_STEP_PX)
    excess = (sum(spread) - sum(places)) / len(places)
    return [y - excess for y in spread]
