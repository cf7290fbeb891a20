"""Whether crystals are what they were asked to be."""

from __future__ import annotations

import math
import re

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.space_group import crystal_space_group
from defectgen.metrics.generated_entries import Crystals, Entry

METASTABLE_EV = 0.1
"""Energy above the hull in eV/atom below which a crystal counts as metastable, as there."""

STABLE_EV = 0.0
"""Energy above the hull in eV/atom below which it counts as stable, as there."""

NEAR_GAP_EV = 0.5
"""A band gap no further from the asked one than this is met; what predicts gaps of bulk crystals errs about as much."""

CHECKED = ("formula", "spacegroup", "e_above_hull", "band_gap")
"""Conditions that can be checked, see `checkable`."""


def checkable(crystals: Crystals) -> tuple[str, ...]:
    """Those of `CHECKED` that can be checked: the last two where energies above the hull and band gaps are known."""
    known = {"e_above_hull": bool(crystals.stability_column), "band_gap": bool(crystals.gap_source)}
    return tuple(condition for condition in CHECKED if known.get(condition, True))


def meets(entry: Entry, condition: str) -> bool | None:
    """Whether an entry is what was asked; None if it was not asked or cannot be checked.

    - ``formula``: the same reduced formula;
    - ``spacegroup``: the number that spglib finds within 0.2 angstrom;
    - ``e_above_hull``: on the asked side of 0.1 eV/atom, by the energies that came with the crystals;
    - ``band_gap``: within `NEAR_GAP_EV` of the asked one, by the predicted gaps.

    A crystal that cannot be read does not meet its condition; a condition that cannot be read was not asked.
    """
    value = entry.conditions.get(condition)
    if condition == "formula":
        ratios = _ratios(str(value)) if value is not None else None
        return None if ratios is None else entry.crystal is not None and ratios == _counts(entry.crystal)
    number = asked_number(entry, condition)
    if number is None:
        return None
    if entry.crystal is None:
        return False
    return is_met(condition, number, entry)


def is_met(condition: str, asked: float, entry: Entry) -> bool:
    """Whether an entry has an asked number (see `meets`), whatever it was asked for itself."""
    if condition == "spacegroup":
        return entry.crystal is not None and asked == crystal_space_group(entry.crystal)
    if condition == "band_gap":
        return entry.band_gap_ev is not None and abs(entry.band_gap_ev - asked) <= NEAR_GAP_EV
    energy = entry.e_above_hull_ev
    return energy is not None and (energy < METASTABLE_EV) == (asked < METASTABLE_EV)


def unreadable(entry: Entry, condition: str) -> bool:
    """Whether something was asked that cannot be read, such as the space group ``Fm-3m``; it counts as not asked."""
    value = entry.conditions.get(condition)
    if value is None:
        return False
    return _ratios(str(value)) is None if condition == "formula" else asked_number(entry, condition) is None


def asked_number(entry: Entry, condition: str) -> float | None:
    """The number asked for by a condition other than ``formula``; None if there is none that can be."""
    try:
        number = float(entry.conditions.get(condition))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if condition == "spacegroup":
        return number if number in range(1, 231) else None
    return number if math.isfinite(number) and (number >= 0 or condition != "band_gap") else None


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
