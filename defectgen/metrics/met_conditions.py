"""Whether crystals are what they were asked to be."""

from __future__ import annotations

import math
import re

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.space_group import crystal_space_group
from defectgen.metrics.generated_entries import Entry

METASTABLE_EV = 0.1
"""Energy above the hull in eV/atom below which a crystal counts as metastable, as there."""

STABLE_EV = 0.0
"""Energy above the hull in eV/atom below which it counts as stable, as there."""

CHECKED = ("formula", "spacegroup", "e_above_hull")
"""Conditions that can be checked; the last one only where energies above the hull are given."""


def meets(entry: Entry, condition: str) -> bool | None:
    """Whether an entry is what was asked; None if it was not asked or cannot be checked.

    - ``formula``: the same reduced formula;
    - ``spacegroup``: the number that spglib finds within 0.2 angstrom;
    - ``e_above_hull``: on the asked side of 0.1 eV/atom, by the energies that came with the crystals.

    A crystal that cannot be read does not meet its condition; a condition that cannot be read was not asked.
    """
    asked = _asked(entry, condition)
    if asked is None:
        return None
    if entry.crystal is None:
        return False
    if condition == "formula":
        return asked == _counts(entry.crystal)
    if condition == "spacegroup":
        return asked == crystal_space_group(entry.crystal)
    return entry.e_above_hull_ev is not None and (entry.e_above_hull_ev < METASTABLE_EV) == asked


def unreadable(entry: Entry, condition: str) -> bool:
    """Whether something was asked that cannot be read, such as the space group ``Fm-3m``; it counts as not asked."""
    return entry.conditions.get(condition) is not None and _asked(entry, condition) is None


def _asked(entry: Entry, condition: str) -> dict[str, int] | int | bool | None:
    """What was asked: counts of elements, a number, or whether it is to be metastable; None if nothing readable."""
    value = entry.conditions.get(condition)
    if condition == "formula":
        return _ratios(str(value)) if value is not None else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if condition == "spacegroup":
        return int(number) if number in range(1, 231) else None
    return number < METASTABLE_EV if condition == "e_above_hull" and math.isfinite(number) else None


def _counts(crystal: Crystal) -> dict[str, int]:
    counts = {symbol: crystal.species.count(symbol) for symbol in crystal.elements}
    divisor = math.gcd(*counts.values())
    return {symbol: count // divisor for symbol, count in counts.items()}


def _ratios(formula: str) -> dict[str, int] | None:
    """Counts of a formula in lowest terms; None if it is none."""
    from pymatgen.core import Composition

    formula = "".join(formula.split())
    if not re.fullmatch(r"[A-Za-z0-9()]+", formula):
        return None
    try:
        counts = {symbol: int(n) for symbol, n in Composition(formula).get_el_amt_dict().items()}
    except ValueError:
        return None
    if not counts.keys() <= set(ELEMENTS):  # pymatgen knows dummies such as Me
        return None
    divisor = math.gcd(*counts.values())
    return {symbol: n // divisor for symbol, n in counts.items()} if divisor else None
