"""Whether oxidation states of elements can make a composition neutral: a quick rule for what is being written."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable


@functools.lru_cache(maxsize=65536)
def balanced(counts: tuple[tuple[str, int], ...]) -> bool | None:
    """Whether a composition is neutral with one oxidation state for all atoms of an element.

    Every cation must be less electronegative (Pauling) than every anion. The states are those that occur in the ICSD
    and the common ones, by pymatgen.

    Args:
        counts: element and number of atoms, each element once.

    Returns:
        None for a single element and for metals among themselves, to which the question does not apply.
    """
    from pymatgen.core import Element

    elements = sorted(counts, key=lambda pair: (electronegativity(pair[0]), pair[0]))
    if len(elements) < 2 or all(Element(symbol).is_metal for symbol, _ in elements):
        return None
    for split in range(1, len(elements)):
        cations, anions = elements[:split], elements[split:]
        if electronegativity(cations[-1][0]) >= electronegativity(anions[0][0]):
            continue
        if _sums(cations, 1) & _sums(anions, -1):
            return True
    return False


def _sums(elements: Iterable[tuple[str, int]], sign: int) -> set[int]:
    """Absolute charges that elements can have together if the states of all have one sign."""
    found = {0}
    for symbol, n in elements:
        states = [abs(state) for state in oxidation_states(symbol) if state * sign > 0]
        found = {charge + n * state for charge in found for state in states}
    return found


@functools.cache
def oxidation_states(symbol: str) -> tuple[int, ...]:
    """Oxidation states of an element, without zero: those that occur in the ICSD and the common ones."""
    from pymatgen.core import Element

    element = Element(symbol)
    states = (*element.icsd_oxidation_states, *element.common_oxidation_states)
    return tuple(sorted({int(state) for state in states} - {0}))


@functools.cache
def electronegativity(symbol: str) -> float:
    """Pauling electronegativity, zero where there is none (noble gases)."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen tells that a noble gas has none
        value = float(Element(symbol).X)
    return 0.0 if math.isnan(value) else value
