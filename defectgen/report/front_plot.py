"""What a run found for several wishes at once: how far each structure is from one wish and from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import combinations

from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import Candidate, DesignRun, Target
from defectgen.design.fronts import Front
from defectgen.report.axes import Axis, frame_svg, span

WIDTH_PX, HEIGHT_PX = 480.0, 330.0
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 62.0, 14.0, 12.0, 46.0
MAX_PLOTS = 3
"""Pairs of wishes that are shown."""

LEAST_MEV = 5.0
"""Width of an axis at least."""


def front_svgs(run: DesignRun, target: Target, candidates: Sequence[Candidate]) -> list[str]:
    """A plot for each of the first pairs of wishes; none where there is one wish.

    Args:
        run: the design run.
        target: what was asked for.
        candidates: those to show beside the front, best first.
    """
    front = next((front for front in run.fronts if front.target_id == target.id), Front(target.id, ()))
    pairs = list(combinations([wish.column for wish in target.wishes], 2))[:MAX_PLOTS]
    return [_plot(run.labels_by, target, front, candidates, x, y) for x, y in pairs if front.members or candidates]


def _plot(labels_by: str, target: Target, front: Front, candidates: Sequence[Candidate], across: str, up: str) -> str:
    wishes = {wish.column: wish for wish in target.wishes}
    offs = [(m.off_ev(target), m) for m in front.members]
    members = [(1e3 * off[across], 1e3 * off[up], m.configuration.label, m.is_dft) for off, m in offs]
    plain = [replace(wishes[column], weight=1.0) for column in (across, up)]
    ranked = [
        (1e3 * float(plain[0].distance_ev(values[across])), 1e3 * float(plain[1].distance_ev(values[up])))
        for values in (candidate.best_values for candidate in candidates)
    ]
    xs = [*(a for a, *_ in members), *(a for a, _ in ranked)]
    ys = [*(b for _, b, *_ in members), *(b for _, b in ranked)]
    x = Axis(*span(xs, least=LEAST_MEV), LEFT_PX, WIDTH_PX - RIGHT_PX, _title(target, across))
    y = Axis(*span(ys, least=LEAST_MEV), HEIGHT_PX - BOTTOM_PX, TOP_PX, _title(target, up))
    parts = [frame_svg(x, y)]
    if len(target.wishes) == 2 and len(members) > 1:
        steps = [f"M{x(members[0][0]):.1f} {y(members[0][1]):.1f}"]
        steps += [f"H{x(a):.1f}V{y(b):.1f}" for a, b, *_ in members[1:]]
        parts.append(f'<path class="front" d="{"".join(steps)}"/>')
    shown = []
    for a, b, label, is_dft in members:
        tip = f"{label}: {BY_COLUMN[across].title} {a:.0f} meV off, {BY_COLUMN[up].title} {b:.0f} meV off"
        kind = labels_by if is_dft else "predicted"
        shown.append(_point(x(a), y(b), 4.5, f"front {'dft' if is_dft else ''}", f"{tip}, {kind}, on the front"))
    for candidate, (a, b) in zip(candidates, ranked, strict=True):
        tip = (
            f"#{candidate.rank} {candidate.configuration.label}: {BY_COLUMN[across].title} {a:.0f} meV off, "
            f"{BY_COLUMN[up].title} {b:.0f} meV off, {labels_by if candidate.is_labelled else 'predicted'}"
        )
        mark = _point(x(a), y(b), 8.5, f"ranked {'dft' if candidate.is_labelled else ''}", tip, str(candidate.rank))
        shown.append(mark)
    name = escape(f"{BY_COLUMN[across].title} against {BY_COLUMN[up].title}: distances to target {target.id}")
    return (
        f'<svg class="plot points" role="group" aria-label="{name}" viewBox="0 0 {WIDTH_PX:.0f} {HEIGHT_PX:.0f}">'
        f"{''.join(parts)}{''.join(shown)}</svg>"
    )


def _title(target: Target, column: str) -> str:
    item = BY_COLUMN[column]
    wish = next(wish for wish in target.wishes if wish.column == column)
    plain = replace(wish, weight=1.0)
    return escape(f"{item.title} from {'the ' + wish.towards if wish.towards else plain.text} (meV)")


def _point(x: float, y: float, radius: float, kind: str, tip: str, text: str = "") -> str:
    """A mark that names itself when it is pointed at or has the focus."""
    name = escape(tip, quote=True)
    inside = f'<text x="{x:.1f}" y="{y + 3.6:.1f}" text-anchor="middle">{text}</text>' if text else ""
    return (
        f'<g class="point {kind.strip()}" role="img" tabindex="-1" aria-label="{name}" data-tip="{name}">'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>{inside}</g>'
    )
