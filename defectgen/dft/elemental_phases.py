"""Elemental phases: the reservoirs that atoms are taken from and put into.

Simple lattices come from ASE's table of reference states, diatomic molecules from its table of molecules; the others
are the ground states of these elements as X-ray diffraction found them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.errors import UsageError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOLECULES = ("H", "N", "O", "F", "Cl")
"""Elements of diatomic molecules."""

BOX_ANGSTROM = 12.0

MAGNETIC = frozenset({"O", "Cr", "Mn", "Fe", "Co", "Ni"})
"""Elements whose phases here are computed with spin."""


@dataclass(frozen=True)
class _Crystal:
    """An elemental crystal: space group, lattice in angstrom and degrees, fractional coordinates, name of the phase."""

    group: str
    lattice: tuple[float, float, float, float, float, float]
    sites: tuple[tuple[float, float, float], ...]
    phase: str


def _hexagonal(a: float, c: float) -> tuple[float, float, float, float, float, float]:
    return a, a, c, 90.0, 90.0, 120.0


def _right(a: float, b: float, c: float) -> tuple[float, float, float, float, float, float]:
    return a, b, c, 90.0, 90.0, 90.0


_CRYSTALS: dict[str, _Crystal] = {
    "B": _Crystal(
        "R-3m", _hexagonal(4.908, 12.567),
        ((-0.21563, -0.43126, 0.22603), (-0.13663, -0.27326, 0.35723)), "alpha",
    ),
    "C": _Crystal("P6_3/mmc", _hexagonal(2.461, 6.708), ((0, 0, 0.25), (1 / 3, 2 / 3, 0.25)), "graphite"),
    "P": _Crystal("Cmce", _right(3.3136, 10.478, 4.3763), ((0, 0.10168, 0.08056),), "black"),
    "Ga": _Crystal("Cmce", _right(4.5192, 7.6586, 4.5258), ((0, 0.1539, 0.081),), "alpha"),
    "As": _Crystal("R-3m", _hexagonal(3.7598, 10.5475), ((0, 0, 0.22707),), "grey"),
    "Se": _Crystal("P3_121", _hexagonal(4.3662, 4.9536), ((0.2254, 0, 1 / 3),), "trigonal"),
    "In": _Crystal("I4/mmm", _right(3.2523, 3.2523, 4.9461), ((0, 0, 0),), "tetragonal"),
    "Sn": _Crystal("Fd-3m", _right(6.4892, 6.4892, 6.4892), ((0, 0, 0),), "alpha"),
    "Br": _Crystal("Cmce", _right(6.67, 4.48, 8.72), ((0, 0.135, 0.11),), "orthorhombic"),
    "Sb": _Crystal("R-3m", _hexagonal(4.307, 11.273), ((0, 0, 0.23349),), "grey"),
    "Te": _Crystal("P3_121", _hexagonal(4.4572, 5.9290), ((0.2633, 0, 1 / 3),), "trigonal"),
    "I": _Crystal("Cmce", _right(7.136, 4.686, 9.784), ((0, 0.15434, 0.11741),), "orthorhombic"),
    "Bi": _Crystal("R-3m", _hexagonal(4.546, 11.862), ((0, 0, 0.23389),), "A7"),
}  # fmt: skip


def element_structure(symbol: str) -> tuple[Structure, str]:
    """The elemental phase of an element, and what it is.

    Returns:
        The crystal's primitive cell, or a molecule in a box of `BOX_ANGSTROM`; and e.g. ``bcc crystal``.

    Raises:
        UsageError: no phase is known here.
    """
    from ase import build
    from ase.data import atomic_numbers, reference_states
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.ase import AseAtomsAdaptor

    builder: Any = build  # without types
    adapt: Any = AseAtomsAdaptor.get_structure
    if symbol in MOLECULES:
        atoms: Any = builder.molecule(f"{symbol}2")
        return _boxed([symbol, symbol], atoms.positions), f"{symbol}2 molecule"
    if symbol == "S":
        return _boxed([symbol] * 8, _ring_of_eight()), "S8 molecule"
    if symbol in _CRYSTALS:
        known = _CRYSTALS[symbol]
        lattice = Lattice.from_parameters(*known.lattice)
        found = Structure.from_spacegroup(known.group, lattice, [symbol] * len(known.sites), list(known.sites))
        return found.get_primitive_structure(), f"{known.phase} crystal ({known.group})"
    state: Any = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    if state is not None and state.get("symmetry") in ("bcc", "fcc", "hcp", "diamond"):
        return adapt(builder.bulk(symbol)), f"{state['symmetry']} crystal"
    raise UsageError(
        f"no elemental phase of {symbol} is known here.", f"Give its structure with --element {symbol}=FILE."
    )


def has_phase(symbol: str) -> bool:
    """Whether `element_structure` knows one."""
    try:
        element_structure(symbol)
    except UsageError:
        return False
    return True


def is_molecule(symbol: str) -> bool:
    """Whether `element_structure` is a molecule in a box."""
    return symbol in MOLECULES or symbol == "S"


def _boxed(symbols: list[str], positions: Any) -> Structure:
    from pymatgen.core import Structure

    centred = np.asarray(positions) - np.mean(positions, axis=0) + BOX_ANGSTROM / 2
    return Structure(np.eye(3) * BOX_ANGSTROM, symbols, centred, coords_are_cartesian=True)


def _ring_of_eight() -> list[tuple[float, float, float]]:
    """The crown of S8: bonds of 2.06 angstrom, angles of 108 degrees."""
    bond, angle = 2.06, math.radians(108.0)
    radius = 2 * bond * math.sin(angle / 2) / math.sqrt(2)
    rise = math.sqrt(bond**2 - (2 * radius * math.sin(math.pi / 8)) ** 2)
    return [
        (radius * math.cos(k * math.pi / 4), radius * math.sin(k * math.pi / 4), rise * (0.5 if k % 2 else -0.5))
        for k in range(8)
    ]
