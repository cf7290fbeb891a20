"""What one finished calculation says, as the code wrote it, and by which settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure


MARK = "#"
"""Stands between the name of a pseudopotential and digits of its content's checksum, where that is known."""


UNKNOWN_CODE = "unknown"
"""Of a result whose file does not say what computed it."""

HALF = 0.02
"""Occupations as near to one half are half: those of a pair of levels that shares an electron differ by rounding."""


PLUS_U, U_MARK = "+U", "/U="
"""The first ends a functional with Hubbard terms; after the second the term of an element stands with its setup, eV."""


@dataclass(frozen=True)
class SpinLevels:
    """Highest occupied and lowest empty level of one spin channel, eV on the zero of the code; NaN where there is none.

    Attributes:
        homo_ev: highest level that is occupied by half or more.
        lumo_ev: lowest level that is occupied by half or less; a level that is half full is both.
    """

    homo_ev: float
    lumo_ev: float

    @property
    def gap_ev(self) -> float:
        """Gap of the channel, 0 for a metal; NaN without bands above."""
        gap = self.lumo_ev - self.homo_ev
        return 0.0 if gap < 0.0 else gap  # NaN stays NaN


def spin_levels(levels_ev: NDArray[np.float64], occupations: NDArray[np.float64]) -> SpinLevels:
    """Highest occupied and lowest empty level.

    Args:
        levels_ev: Kohn-Sham levels of one channel, any shape; those that are no numbers do not count.
        occupations: likewise, 1 for a full level.
    """
    known = np.isfinite(levels_ev)
    levels_ev, occupations = levels_ev[known], occupations[known]
    full = occupations > 0.5
    homo, lumo = levels_ev[full].max(initial=-math.inf), levels_ev[~full].min(initial=math.inf)
    half = levels_ev[np.abs(occupations - 0.5) < HALF]
    if half.size:
        homo, lumo = max(homo, half.min()), min(lumo, half.max())
    return SpinLevels(*(float(level) if math.isfinite(level) else math.nan for level in (homo, lumo)))


@dataclass(frozen=True)
class Fingerprint:
    """The settings on which energies and levels depend.

    Attributes:
        code: e.g. ``vasp``.
        functional: e.g. ``PBE``, ``PBE+U``.
        cutoff_ev: of plane waves; None for other bases.
        basis: of a code without plane waves, e.g. ``lcao dzp h=0.25``.
        setups: (element, PAW setup or pseudopotential) pairs, sorted; after `MARK` a checksum of the latter.
        mesh: k points along a, b, c; empty if not known.
        spin: whether both channels were computed.
        smearing: kind of the occupations, e.g. ``gaussian``; empty if not known.
        width_ev: of the smearing, 0 without one; None if not known.
    """

    code: str
    functional: str = ""
    cutoff_ev: float | None = None
    basis: str = ""
    setups: tuple[tuple[str, str], ...] = ()
    mesh: tuple[int, ...] = ()
    spin: bool = False
    smearing: str = ""
    width_ev: float | None = None

    @property
    def smearing_text(self) -> str:
        """Kind and width, e.g. ``gaussian 0.05 eV``."""
        return f"{self.smearing} {self.width_ev:g} eV" if self.width_ev else self.smearing

    @property
    def id(self) -> str:
        """Eight digits that calculations share whose code, functional, cutoff and basis are the same."""
        text = json.dumps([self.code, self.functional, self.cutoff_ev, self.basis])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def differs(self, other: Fingerprint) -> str:
        """What keeps two calculations from being compared, in one clause; empty if nothing does."""
        for name in ("code", "functional", "cutoff_ev", "basis"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "functional":  # a cell without the elements that have a U is computed without
                mine, theirs = mine.removesuffix(PLUS_U), theirs.removesuffix(PLUS_U)
            if mine != theirs:
                return f"{name} {mine or 'unknown'} against {theirs or 'unknown'}"
        known = dict(other.setups)
        for element, setup in self.setups:
            if not _same_setup(known.get(element, setup), setup):
                return f"setup {setup} against {known[element]} for {element}"
        return ""


def _same_setup(mine: str, theirs: str) -> bool:
    """Whether two setups are one: by their content where it is known of both, else by their names; and of one U."""
    (mine, _, hubbard), (theirs, _, other_hubbard) = mine.partition(U_MARK), theirs.partition(U_MARK)
    if hubbard != other_hubbard:
        return False
    (name, _, content), (other_name, _, other_content) = mine.partition(MARK), theirs.partition(MARK)
    return content == other_content if content and other_content else name == other_name


@dataclass(frozen=True, repr=False)
class DftResult(OneLine):
    """One finished, or unfinished, calculation.

    Attributes:
        path: the file that was read.
        code: name of the code.
        version: of the code, empty if not known.
        structure: last atoms.
        fingerprint: see `Fingerprint`.
        energy_ev: of the cell, without the entropy of the smearing where the code gives it so; None if there is none.
        electronic_converged: whether the last self-consistent cycle converged; None if not known.
        ionic_converged: whether forces are as small as asked for, True where atoms were not moved; None if not known.
        levels: one a spin channel, majority first; empty if not known.
        fermi_level_ev: on the zero of the code.
        magnetization_mu_b: modulus of the cell's magnetization; None without spin or if not known.
        charge: of the cell; None if not known.
        vacuum_level_ev: electrostatic potential in the vacuum on the zero of the levels; None if not known.
        site_potentials_ev: electrostatic potential at each atom, any constant zero; empty if not known.
        notes: what the reader has to know.
    """

    path: Path
    code: str
    version: str
    structure: Structure
    fingerprint: Fingerprint
    energy_ev: float | None = None
    electronic_converged: bool | None = None
    ionic_converged: bool | None = None
    levels: tuple[SpinLevels, ...] = ()
    fermi_level_ev: float | None = None
    magnetization_mu_b: float | None = None
    charge: float | None = None
    vacuum_level_ev: float | None = None
    site_potentials_ev: tuple[float, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def converged(self) -> bool:
        """Whether both cycles are known to have converged."""
        return self.electronic_converged is True and self.ionic_converged is True

    @property
    def homo_ev(self) -> float | None:
        """Highest occupied level of both channels, on the zero of the code."""
        return max(_numbers(level.homo_ev for level in self.levels), default=None)

    @property
    def lumo_ev(self) -> float | None:
        """Lowest empty level of both channels, on the zero of the code."""
        return min(_numbers(level.lumo_ev for level in self.levels), default=None)

    @property
    def gap_ev(self) -> float | None:
        """The smaller one of the two channels' gaps, as 2DMD defines it."""
        return min(_numbers(level.gap_ev for level in self.levels), default=None)


def _numbers(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
