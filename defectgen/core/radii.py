"""Atomic radii, which say how near atoms of a crystal may come."""

from __future__ import annotations

from functools import cache

WITHOUT_RADIUS_ANGSTROM = 1.5


@cache
def atomic_radius(symbol: str) -> float:
    """Atomic radius in angstrom: Slater's, else a calculated one, else 1.5.

    Source: Slater, J Chem Phys 41, 3199 (1964), doi 10.1063/1.1725697; calculated ones as pymatgen has them.
    """
    from pymatgen.core import Element

    element = Element(symbol)
    return float(element.atomic_radius or element.atomic_radius_calculated or WITHOUT_RADIUS_ANGSTROM)
