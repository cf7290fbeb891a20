"""A bulk crystal: lattice parameters, species and fractional coordinates of one unit cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from defectgen.errors import DefectgenError
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

Triple = tuple[float, float, float]

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe "
    "Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "  # codespell:ignore nd
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr "
    "Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
ELEMENTS: tuple[str, ...] = tuple(_SYMBOLS.split())
"""Symbols of the elements in the order of the periodic table; isotopes (D, T) are none."""

SYMBOLS = frozenset(ELEMENTS)
"""The same to look one up in."""


def volume_fraction(angles: Sequence[float]) -> float:
    """Volume of a cell over the product of its lengths, from its angles in degrees; 0 for impossible angles."""
    a, b, c = (math.cos(math.radians(angle)) for angle in angles)
    return math.sqrt(max(0.0, 1 - a * a - b * b - c * c + 2 * a * b * c))


@dataclass(frozen=True, repr=False)
class Crystal(OneLine):
    """One unit cell in the order in which its atoms were given.

    Attributes:
        lengths: of the lattice vectors a, b, c in angstrom.
        angles: alpha, beta, gamma in degrees.
        species: element symbols, shape (n,).
        fractional: coordinates in units of the lattice vectors, shape (n, 3).
    """

    lengths: Triple
    angles: Triple
    species: tuple[str, ...]
    fractional: tuple[Triple, ...]

    def __post_init__(self) -> None:
        numbers = [*self.lengths, *self.angles, *(x for xyz in self.fractional for x in xyz)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("got a number that is not finite, expected finite lengths, angles and coordinates")
        if not self.species or len(self.species) != len(self.fractional):
            raise ValueError(
                f"got {len(self.species)} species and {len(self.fractional)} positions, expected as many, at least one"
            )
        if unknown := sorted(set(self.species) - SYMBOLS):
            raise ValueError(f"got {', '.join(unknown)}, expected symbols of elements")
        if min(self.lengths) <= 0:
            raise ValueError(f"got lengths {self.lengths}, expected more than 0 angstrom")
        if not all(0 < angle < 180 for angle in self.angles) or volume_fraction(self.angles) < 1e-6:
            raise ValueError(f"got angles {self.angles}, expected three that enclose a volume")

    @property
    def volume(self) -> float:
        """Volume of the cell in cubic angstrom."""
        a, b, c = self.lengths
        return a * b * c * volume_fraction(self.angles)

    @property
    def elements(self) -> tuple[str, ...]:
        """Distinct elements in the order of the periodic table."""
        return tuple(sorted(set(self.species), key=ELEMENTS.index))

    @property
    def formula(self) -> str:
        """Reduced formula as pymatgen writes it, e.g. ``LiFePO4``."""
        from pymatgen.core import Composition

        counts = {symbol: self.species.count(symbol) for symbol in self.elements}
        return str(Composition(counts).reduced_formula)

    def translated(self, shift: Sequence[float]) -> Crystal:
        """The crystal with all atoms moved by `shift` (fractional, shape (3,)) and wrapped into [0, 1)."""
        return replace(
            self,
            fractional=tuple(_triple(wrap(x + s) for x, s in zip(xyz, shift, strict=True)) for xyz in self.fractional),
        )

    def reordered(self, order: Sequence[int]) -> Crystal:
        """The crystal with its atoms in another order: `order` names each of them once, from 0."""
        return replace(
            self,
            species=tuple(self.species[k] for k in order),
            fractional=tuple(self.fractional[k] for k in order),
        )

    def substituted(self, old: str, new: str) -> Crystal:
        """The crystal with every atom of element `old` replaced by `new`."""
        return replace(self, species=tuple(new if symbol == old else symbol for symbol in self.species))

    @classmethod
    def from_structure(cls, structure: Structure) -> Crystal:
        """The crystal of a pymatgen structure; oxidation states are dropped, the order of atoms is kept.

        Raises:
            DefectgenError: no atoms, sites of mixed occupation, or a species that is no element.
        """
        if not structure.is_ordered:
            raise DefectgenError("the crystal has sites of partial or mixed occupation, expected one atom a site.")
        species = [getattr(specie, "element", specie).symbol for specie in structure.species]
        try:
            return cls(
                lengths=_triple(structure.lattice.abc),
                angles=_triple(structure.lattice.angles),
                species=tuple(species),
                fractional=tuple(_triple(wrap(x) for x in site.frac_coords) for site in structure),
            )
        except ValueError as error:
            raise DefectgenError(f"not a crystal: {error}.") from error

    def to_structure(self) -> Structure:
        """The crystal as a pymatgen structure."""
        from pymatgen.core import Lattice, Structure

        lattice = Lattice.from_parameters(*self.lengths, *self.angles)
        return Structure(lattice, list(self.species), [list(xyz) for xyz in self.fractional])


def wrap(x: float) -> float:
    """A fractional coordinate in [0, 1)."""
    inside = float(x) % 1.0
    return 0.0 if inside >= 1.0 else inside


def _triple(values: Sequence[float] | object) -> Triple:
    a, b, c = values  # type: ignore[misc]
    return float(a), float(b), float(c)
