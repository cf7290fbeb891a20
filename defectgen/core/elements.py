"""Elements: groups, atomic radii, and which may stand in for which (similar ionic radius at equal oxidation state).

Source of the swaps: Gruver et al., ICLR 2024, appendix C, listing 1 (arXiv 2402.04379), on the radii of Shannon, Acta
Cryst A32, 751 (1976), doi 10.1107/S0567739476001551.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

RADIUS_TOLERANCE_ANGSTROM = 0.1
"""The radii of two ions that may be swapped differ by less than this."""

WITHOUT_RADIUS_ANGSTROM = 1.5
"""Atomic radius of an element for which there is none."""

_DIGITS = 6
"""Decimals of angstrom to which differences are rounded, so that 0.885 - 0.785 is 0.1 and not less."""


@functools.cache
def swap_table(
    tolerance_angstrom: float = RADIUS_TOLERANCE_ANGSTROM,
) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
    """For each element and oxidation state, the elements with a similar radius in that state.

    The radii are pymatgen's ``Element.ionic_radii``: Shannon's crystal radii of the high-spin ion, for
    coordination six where there is one. An element or a state without a partner (Na+, F-) is not in the table.

    Args:
        tolerance_angstrom: radii differ by less than this.

    Returns:
        element -> oxidation state -> elements, the most similar radius first, then by symbol. The relation is
        symmetric, and no element stands for itself.
    """
    from pymatgen.core import Element

    radii: dict[int, list[tuple[str, float]]] = {}
    for symbol in sorted(element.symbol for element in Element):
        for state, found in Element(symbol).ionic_radii.items():
            radii.setdefault(int(state), []).append((symbol, float(found)))
    table: dict[str, dict[int, tuple[str, ...]]] = {}
    for state, ions in sorted(radii.items()):
        for symbol, radius in ions:
            near = [
                (difference, other)
                for other, other_radius in ions
                if other != symbol
                and (difference := round(abs(radius - other_radius), _DIGITS)) < round(tolerance_angstrom, _DIGITS)
            ]
            if near:
                table.setdefault(symbol, {})[state] = tuple(other for _, other in sorted(near))
    return MappingProxyType({symbol: MappingProxyType(table[symbol]) for symbol in sorted(table)})


def swap_candidates(element: str) -> tuple[str, ...]:
    """All elements that may stand in for one, in any of its oxidation states, each once and sorted; may be empty."""
    return tuple(sorted({other for others in swap_table().get(element, {}).values() for other in others}))


@functools.cache
def isovalent(first: str, second: str) -> bool:
    """Whether two elements stand in one group of the periodic table, so that swapping them adds no electron.

    Raises:
        ValueError: a symbol that is no element.
    """
    from pymatgen.core import Element

    one, other = Element(first), Element(second)
    return (one.group, one.block) == (other.group, other.block)


@functools.cache
def atomic_radius(symbol: str) -> float:
    """Atomic radius in angstrom: Slater's, else a calculated one, else 1.5.

    Source: Slater, J Chem Phys 41, 3199 (1964), doi 10.1063/1.1725697; calculated ones as pymatgen has them.
    """
    from pymatgen.core import Element

    element = Element(symbol)
    return float(element.atomic_radius or element.atomic_radius_calculated or WITHOUT_RADIUS_ANGSTROM)
