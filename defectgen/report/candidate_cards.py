"""A candidate as a card: its picture and all its values as text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defectgen.core.names import kroger_vink
from defectgen.core.properties import BY_COLUMN, PROPERTIES, Property
from defectgen.design.candidates import Candidate
from defectgen.design.wishes import Wish
from defectgen.report.lattice import lattice_svg
from defectgen.report.rows import Row, half_width_text

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Line:
    """One property of a candidate's card, as text; empty where there is nothing to say."""

    title: str
    description: str
    asked: str
    predicted: str
    uncertainty: str
    deviation: str
    verdict: str
    dft: str = ""


@dataclass(frozen=True)
class CandidateCard:
    """One of the best candidates with its picture."""

    row: Row
    name: Markup
    kroger_vink: Markup
    picture: Markup
    lines: tuple[Line, ...]
    relaxation: str


def candidate_card(row: Row) -> CandidateCard:
    """A candidate with its picture and all its values as text."""
    from markupsafe import Markup

    configuration = row.configuration
    return CandidateCard(
        row=row,
        name=subscripts(configuration.label),
        kroger_vink=subscripts(kroger_vink(configuration.kinds, configuration.host.elements)),
        picture=Markup(lattice_svg(configuration)),
        lines=_lines(row.candidate),
        relaxation=_relaxation_text(row.candidate),
    )


def _relaxation_text(candidate: Candidate) -> str:
    """What a potential made of the atoms, in one line; empty if none was asked."""
    result = candidate.relaxation
    if result is None:
        return ""
    text = f"relaxed by {result.potential}: {result.summary}"
    if result.usable:
        change = f"{result.energy_change_ev:+z.2f}".replace("-", "\u2212")
        text += f"; energy {change} eV, largest displacement {result.max_displacement_angstrom:.2f} \u00c5"
        if result.formation_energy_ev is not None:
            text += f", formation energy {result.formation_energy_ev:z.2f} eV by it"
        text += f"; geometry: {result.verdict}"
    return text


def _lines(candidate: Candidate) -> tuple[Line, ...]:
    """What was asked for first, then the rest of the predicted properties."""
    asked = {wish.column: wish for wish in candidate.target.wishes}
    ordered = [*(p for p in PROPERTIES if p.column in asked), *(p for p in PROPERTIES if p.column not in asked)]
    lines = []
    for item in ordered:
        value = candidate.predicted.get(item.column)
        if value is None:
            continue
        error = candidate.uncertainty.get(item.column)
        known = candidate.dft.get(item.column)
        deviation = candidate.deviation(item.column)
        verdict = ""
        if known is None and deviation is not None and error is not None and math.isfinite(error):
            verdict = "inside" if abs(deviation) <= error else "outside"
        lines.append(
            Line(
                title=item.title if item.unit == "eV" else f"{item.title}, {item.unit}",
                description=item.description,
                asked=_cell_text(asked[item.column]) if item.column in asked else "",
                predicted=number_text(value, item),
                uncertainty="" if error is None else half_width_text(error, item),
                deviation="" if deviation is None else _signed_mev(deviation * item.weight_ev),
                verdict=verdict,
                dft="" if known is None else number_text(known, item),
            )
        )
    return tuple(lines)


def wish_text(wish: Wish) -> str:
    """A wish with its unit and true minus signs, e.g. ``0.500 to 0.800 eV``."""
    item = BY_COLUMN[wish.column]
    low, high = number_text(wish.low, item), number_text(wish.high, item)
    if wish.towards:
        text = f"as {'small' if wish.towards == 'min' else 'large'} as possible"
    elif wish.low == wish.high:
        text = f"{low} {item.unit}"
    elif math.isinf(wish.low):
        text = f"at most {high} {item.unit}"
    elif math.isinf(wish.high):
        text = f"at least {low} {item.unit}"
    else:
        text = f"{low} to {high} {item.unit}"
    return text if wish.weight == 1 else f"{text} (weight {wish.weight:g})"


def _cell_text(wish: Wish) -> str:
    """A wish in few characters for a table's cell, e.g. ``0.500``, ``0.500 to 0.800``, ``\u2265 0.500`` or ``min``."""
    item = BY_COLUMN[wish.column]
    low, high = number_text(wish.low, item), number_text(wish.high, item)
    if wish.towards:
        return wish.towards
    if wish.low == wish.high:
        return low
    if math.isinf(wish.low):
        return f"\u2264\xa0{high}"
    return f"\u2265\xa0{low}" if math.isinf(wish.high) else f"{low}\xa0to {high}"


def number_text(value: float | None, item: Property) -> str:
    """A value in its unit with the property's decimals and a true minus sign."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return item.text(value).replace("-", "\u2212")


def _signed_mev(value_ev: float) -> str:
    if not math.isfinite(value_ev):
        return "\u2013"
    value = round(value_ev * 1000)
    return f"{value:+d}".replace("-", "\u2212") if value else "0"


def subscripts(name: str) -> Markup:
    """A defect label, Kroger-Vink name or property with its index as a subscript, its charge as a superscript."""
    from markupsafe import Markup, escape

    text = re.sub(r"_([A-Za-z]+)", r"<sub>\1</sub>", str(escape(name)))
    text = re.sub(r"(?<![A-Za-z])v(?=<sub>)", "<i>v</i>", text)
    text = re.sub(r"(?:^|(?<=\+))(\d+)(?=[A-Z<])", "\\1\u2009", text)
    text = text.replace("\u00d7", "<sup>\u00d7</sup>")
    return Markup(re.sub(r"\s*\+\s*", " + ", text))
