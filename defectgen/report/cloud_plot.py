"""The targets and candidates of a run among the known structures of its host."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import labels_of_keys
from defectgen.core.hosts import common_name
from defectgen.core.properties import BY_COLUMN, FORMATION
from defectgen.data.known_labels import labels_of
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun, Target
from defectgen.design.growth_conditions import Conditions, shifted_labels
from defectgen.report.axes import Axis, frame_svg, span
from defectgen.report.rows import is_on_2dmd

WIDTH_PX, HEIGHT_PX = 900.0, 460.0
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 62.0, 14.0, 12.0, 46.0
USUAL = ("homo_ev", "lumo_ev", "band_gap_ev", FORMATION)
"""Axes, where fewer than two properties were asked for."""

MAX_TARGETS = 60
"""Targets that are marked."""

STEP_EV = 1e-3
"""What one counts in the values that the page holds."""


@dataclass(frozen=True)
class Cloud:
    """The plot and what its script needs.

    Attributes:
        svg: the drawing.
        n_known: structures in it.
        data: label and values of each, for the page's script: ``labels``, ``points`` (number of the label, and both
            values in `STEP_EV` of the unit), nearest to the first target first.
        nearest: of them to the first target, in words.
    """

    svg: str
    n_known: int
    data: dict[str, object]
    nearest: str


def cloud_of(run: DesignRun, candidates: tuple[Candidate, ...]) -> Cloud | None:
    """The cloud of a run; None where there are no labels of its host, or not on the scale of its predictions.

    The labels are those that come with the package.
    """
    axes = cloud_axes(run)
    if axes is None or not run.targets or not is_on_2dmd(run):
        return None
    across, up = axes
    labels = labels_of(run.host, fetched=False)
    given = run.settings.get("chemical_potentials_ev")
    if FORMATION in axes and isinstance(given, str):  # the targets have conditions of their own
        return None
    if FORMATION in axes and isinstance(given, Mapping):
        labels = shifted_labels(run.host, labels, Conditions({str(e): float(v) for e, v in given.items()}, ""))
    known = [(key, values[across], values[up]) for key, values in labels.items() if set(axes) <= set(values)]
    if not known:
        return None
    x = _axis(run, across, [entry[1] for entry in known], LEFT_PX, WIDTH_PX - RIGHT_PX)
    y = _axis(run, up, [entry[2] for entry in known], HEIGHT_PX - BOTTOM_PX, TOP_PX)
    first = run.targets[0]
    away = _away(first, {column: np.array([entry[n] for entry in known]) for n, column in enumerate(axes, start=1)})
    known = [entry for _, entry in sorted(zip(away, known, strict=True), key=lambda pair: (pair[0], pair[1][0]))]
    names = labels_of_keys(run.host, [entry[0] for entry in known])
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    points = [
        [numbers[name], round(a / STEP_EV), round(b / STEP_EV)] for name, (_, a, b) in zip(names, known, strict=True)
    ]
    dots = dict.fromkeys(f"{x(a):.0f} {y(b):.0f}" for _, a, b in known)
    parts = [frame_svg(x, y), f'<path class="known" d="{"".join(f"M{dot}h0" for dot in dots)}"/>']
    for candidate in candidates:
        values = candidate.best_values
        if all(math.isfinite(values.get(column, math.nan)) for column in axes):
            kind = "dft" if set(candidate.dft) >= set(axes) else ""
            tip = escape(f"#{candidate.rank} {candidate.configuration.label}, candidate", quote=True)
            parts.append(
                f'<circle class="ranked {kind}" cx="{x(values[across]):.1f}" cy="{y(values[up]):.1f}" r="4">'
                f"<title>{tip}</title></circle>"
            )
    parts += [_target(target, axes, x, y) for target in run.targets[:MAX_TARGETS]]
    place = " ".join(f"{v:.6g}" for v in (x.low, x.high, x.start_px, x.end_px, y.low, y.high, y.start_px, y.end_px))
    name = escape(
        f"{len(known)} known structures of {common_name(run.host)}: {BY_COLUMN[across].title} and {BY_COLUMN[up].title}"
    )
    svg = (
        f'<svg class="plot cloud" role="img" aria-label="{name}" data-place="{place}" '
        f'viewBox="0 0 {WIDTH_PX:.0f} {HEIGHT_PX:.0f}">{"".join(parts)}<circle class="spot" r="6"/></svg>'
    )
    titles = [BY_COLUMN[column].title for column in axes]
    data: dict[str, object] = {
        "labels": list(numbers), "points": points, "titles": titles, "units": [BY_COLUMN[c].unit for c in axes],
        "step": STEP_EV,
    }  # fmt: skip
    _, a, b = known[0]
    x_item, y_item = BY_COLUMN[across], BY_COLUMN[up]
    unit = "" if x_item.unit == y_item.unit else f" {x_item.unit}"
    nearest = f"{names[0]}: {titles[0]} {x_item.text(a)}{unit}, {titles[1]} {y_item.text(b)} {y_item.unit}"
    return Cloud(svg, len(known), data, nearest)


def cloud_axes(run: DesignRun) -> tuple[str, str] | None:
    """The two properties asked for most, filled up with the usual ones; no levels on a raw scale."""
    asked = Counter(column for target in run.targets for column, _ in target.values)
    order = [*sorted(asked, key=lambda column: (-asked[column], list(BY_COLUMN).index(column))), *USUAL]
    fit = [c for c in dict.fromkeys(order) if run.reference == PRISTINE_VBM or not BY_COLUMN[c].is_level]
    chosen = sorted(fit[:2], key=list(BY_COLUMN).index)
    return (chosen[0], chosen[1]) if len(chosen) == 2 else None


def _axis(run: DesignRun, column: str, values: list[float], start: float, end: float) -> Axis:
    asked = [
        bound
        for target in run.targets[:MAX_TARGETS]
        for wish in target.wishes
        if wish.column == column and not wish.towards
        for bound in (wish.low, wish.high)
    ]
    item = BY_COLUMN[column]
    return Axis(*span([*values, *asked], least=0.1, margin=0.03), start, end, escape(f"{item.title} ({item.unit})"))


def _away(target: Target, values: Mapping[str, NDArray[np.float64]]) -> list[float]:
    """Distances to what the target wishes of the axes, in eV, from values of shape (n,) each."""
    total = np.zeros(len(next(iter(values.values()))))
    for wish in target.wishes:
        if wish.column in values:
            total += np.abs(wish.distance_ev(values[wish.column]))
    return total.tolist()


def _target(target: Target, axes: tuple[str, str], x: Axis, y: Axis) -> str:
    """A target as the rectangle of what it wishes: a cross for two values, a line or a band where one axis is free."""
    bounds = []
    for column, axis in zip(axes, (x, y), strict=True):
        wish = next((wish for wish in target.wishes if wish.column == column and not wish.towards), None)
        low, high = (axis.low, axis.high) if wish is None else (max(wish.low, axis.low), min(wish.high, axis.high))
        bounds.append((axis(low), axis(high)))
    (left, right), (bottom, top) = bounds
    name = escape(f"target {target.id}: {target.text}", quote=True)
    cross = f"M{left - 13:.1f} {top:.1f}h26M{left:.1f} {top - 13:.1f}v26"
    box = f"M{left:.1f} {bottom:.1f}H{right:.1f}V{top:.1f}H{left:.1f}Z"
    is_value = right - left < 1 and bottom - top < 1
    return f'<g class="target"><title>{name}</title><path d="{cross if is_value else box}"/></g>'
