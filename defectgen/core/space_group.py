"""The space group of a crystal, and of a host's unit cell with which of its atoms are equivalent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.host import Host
from defectgen.core.symmetry import SYMPREC_ANGSTROM

CRYSTAL_ANGSTROM = 0.2
"""Tolerance for bulk crystals, that of Gruver et al., ICLR 2024, doi 10.48550/arXiv.2402.04379, section 5."""


def crystal_space_group(crystal: Crystal) -> int | None:
    """Number of the space group within 0.2 angstrom, None if there is none.

    Source: spglib, Togo et al., Sci Technol Adv Mater Methods 4, 2384822 (2024), doi 10.1080/27660400.2024.2384822.
    """
    import spglib

    lattice = crystal.to_structure().lattice.matrix.tolist()
    numbers = [ELEMENTS.index(symbol) + 1 for symbol in crystal.species]
    found = spglib.get_symmetry_dataset((lattice, crystal.fractional, numbers), symprec=CRYSTAL_ANGSTROM)
    return None if found is None else int(found.number)


@dataclass(frozen=True)
class HostSymmetry:
    """The unit cell and its symmetry, the vacuum taken as periodic.

    Attributes:
        symbol: of the space group, Hermann-Mauguin, e.g. ``P-6m2``.
        number: of the space group.
        n_operations: symmetry operations of the unit cell, translations by its vectors left out.
        distinct_sites: element of each class of equivalent atoms, in the order of the unit cell.
        lengths_angstrom: a, b and c.
        gamma_degree: angle between a and b.
    """

    symbol: str
    number: int
    n_operations: int
    distinct_sites: tuple[str, ...]
    lengths_angstrom: tuple[float, float, float]
    gamma_degree: float


def host_symmetry(host: Host) -> HostSymmetry:
    """The symmetry of a host's unit cell to within `SYMPREC_ANGSTROM`, by spglib.

    Raises:
        ValueError: spglib finds none.
    """
    import spglib

    numbers = [host.elements.index(element) + 1 for element in host.species]
    found = spglib.get_symmetry_dataset((host.lattice, host.frac_coords, numbers), symprec=SYMPREC_ANGSTROM)
    if found is None:
        raise ValueError(f"spglib found no symmetry for {host.name}")
    a, b, c = host.lattice
    lengths = math.hypot(*a), math.hypot(*b), math.hypot(*c)
    cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (lengths[0] * lengths[1])
    return HostSymmetry(
        symbol=str(found.international),
        number=int(found.number),
        n_operations=len(found.rotations),
        distinct_sites=tuple(host.species[atom] for atom in sorted({int(n) for n in found.equivalent_atoms})),
        lengths_angstrom=lengths,
        gamma_degree=math.degrees(math.acos(max(-1.0, min(1.0, cosine)))),
    )
