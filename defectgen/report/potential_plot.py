"""Formation energies against the chemical potential, over the range in which the host is stable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from defectgen.core.properties import FORMATION
from defectgen.design.candidates import Candidate, DesignRun
from defectgen.design.growth_conditions import Conditions, formula_unit
from defectgen.report.axes import Axis, frame_svg, span

WIDTH_PX, HEIGHT_PX = 480.0, 330.0
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 62.0, 44.0, 12.0, 46.0
MAX_LINES = 8
LABEL_STEP_PX = 14.0
LEAST_EV = 0.2
"""Width of the energy axis at least."""


def potential_svg(run: DesignRun, candidates: Sequence[Candidate]) -> str:
    """A line for each candidate, from where the host's last element is scarce to where it is plentiful.

    The change is exact, see `defectgen.design.growth_conditions`; elements from outside stay at their own phase,
    or where the run has them.

    Args:
        run: of a host of two elements whose formation enthalpy is among the settings.
        candidates: those to show, best first.

    Returns:
        The SVG, or nothing where the range is not known.
    """
    enthalpy = run.settings.get("host_formation_enthalpy_ev")
    unit, _ = formula_unit(run.host)
    shown = [c for c in candidates[:MAX_LINES] if math.isfinite(c.best_values.get(FORMATION, math.nan))]
    if not isinstance(enthalpy, int | float) or not enthalpy < 0 or len(unit) != 2 or not shown:
        return ""
    given = run.settings.get("chemical_potentials_ev")
    if isinstance(given, str):  # the targets have conditions of their own
        return ""
    now = {str(e): float(v) for e, v in given.items()} if isinstance(given, Mapping) else {}
    other, element = unit
    low = enthalpy / unit[element]

    def energy(candidate: Candidate, potential_ev: float) -> float:
        own = {element: potential_ev, other: (enthalpy - unit[element] * potential_ev) / unit[other]}
        there, here = Conditions({**now, **own}, ""), Conditions(now, "")
        configuration = candidate.configuration
        return candidate.best_values[FORMATION] - here.shift_ev(configuration) + there.shift_ev(configuration)

    ends = [(c, energy(c, low), energy(c, 0.0)) for c in shown]
    x = Axis(low, 0.0, LEFT_PX, WIDTH_PX - RIGHT_PX, f"Δμ of {escape(element)} (eV)")
    energies = [value for _, *pair in ends for value in pair]
    y = Axis(*span(energies, least=LEAST_EV), HEIGHT_PX - BOTTOM_PX, TOP_PX, "formation energy of the cell (eV)")
    parts = [frame_svg(x, y)]
    for place, anchor, text in ((x.start_px + 4, "start", f"{other}-rich"), (x.end_px - 4, "end", f"{element}-rich")):
        parts.append(f'<text x="{place:.0f}" y="{TOP_PX + 14:.0f}" text-anchor="{anchor}">{escape(text)}</text>')
    if element in now:
        parts.append(f'<path class="now" d="M{x(now[element]):.1f} {y.start_px:.0f}V{y.end_px:.0f}"/>')
    heights = _apart([y(right) for *_, right in ends], TOP_PX, HEIGHT_PX - BOTTOM_PX)
    for (candidate, left, right), height in zip(ends, heights, strict=True):
        tip = (
            f"#{candidate.rank} {candidate.configuration.label}: {left:z.2f} eV {other}-rich, {right:z.2f} eV "
            f"{element}-rich, {run.labels_by if FORMATION in candidate.dft else 'predicted'}"
        )
        name = escape(tip, quote=True)
        kind = "dft" if FORMATION in candidate.dft else "predicted"
        parts.append(
            f'<g class="point line {kind} k{(candidate.rank - 1) % 6 + 1}" role="img" tabindex="-1" '
            f'aria-label="{name}" data-tip="{name}"><path d="M{x.start_px:.0f} {y(left):.1f}L{x.end_px:.0f} '
            f'{y(right):.1f}"/><text x="{x.end_px + 7:.0f}" y="{height + 4:.1f}">#{candidate.rank}</text></g>'
        )
    title = escape(f"Formation energies of {len(shown)} candidates against the chemical potential of {element}")
    return (
        f'<svg class="plot points" role="group" aria-label="{title}" viewBox="0 0 {WIDTH_PX:.0f} {HEIGHT_PX:.0f}">'
        f"{''.join(parts)}</svg>"
    )


def _apart(places: Sequence[float], low: float, high: float) -> list[float]:
    """Places moved apart, in their order, until a line of text fits between any two, and into the frame."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    found = [0.0] * len(places)
    last = low - LABEL_STEP_PX
    for k in order:
        last = found[k] = max(places[k], last + LABEL_STEP_PX)
    last = high + LABEL_STEP_PX
    for k in reversed(order):
        last = found[k] = min(found[k], last - LABEL_STEP_PX)
    return found
