"""A potential of crystals that needs no library: a bulk modulus, springs and an energy for each element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pymatgen.core import Lattice, Structure

from defectgen.score.potentials.potential import Evaluation

ATOM_EV = {"Na": -1.3, "Cl": -1.8, "Mg": -1.5, "Ca": -2.0, "O": -4.9, "Fe": -8.0}
VOLUME_AN_ATOM = 20.0


def bonding_ev(structure_symbols: Sequence[str]) -> float:
    """Energy of the cell beyond its elements: -0.5 eV for each atom of a compound."""
    return -0.5 * len(structure_symbols) if len(set(structure_symbols)) > 1 else 0.0


@dataclass(frozen=True)
class CrystalPotential:
    """Energy: elements, bonding, and 0.1 eV times the square of the relative change of volume from 20 A^3 an atom."""

    atom_ev: Mapping[str, float] = field(default_factory=lambda: ATOM_EV)
    shifts_ev: Mapping[str, float] = field(default_factory=dict)
    name: str = "fake"
    distort: Callable[[Any], float] | None = None
    calls: list[int] = field(default_factory=list)

    @property
    def elements(self) -> frozenset[str]:
        return frozenset(self.atom_ev)

    @property
    def atom_shifts_ev(self) -> Mapping[str, float]:
        return self.shifts_ev

    def energy_and_stress(self, symbols: Sequence[str], volume: float) -> tuple[float, Any]:
        n = len(symbols)
        strain = volume / (VOLUME_AN_ATOM * n) - 1
        energy = sum(self.atom_ev[s] for s in symbols) + bonding_ev(symbols) + 0.1 * n * strain**2
        return energy, 0.2 * n * strain / (VOLUME_AN_ATOM * n) * np.eye(3)

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        results = []
        for cell in structures:
            energy, stress = self.energy_and_stress([site.specie.symbol for site in cell], cell.volume)
            results.append(Evaluation(energy, np.zeros((len(cell), 3)), stress))
        return results

    def calculator(self) -> Any:
        from ase.calculators.calculator import Calculator, all_changes

        potential = self

        class Made(Calculator):  # type: ignore[misc]
            implemented_properties = ("energy", "forces", "stress")

            def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
                super().calculate(atoms, properties, system_changes)
                potential.calls.append(len(self.atoms))
                symbols = self.atoms.get_chemical_symbols()
                energy, stress = potential.energy_and_stress(symbols, self.atoms.get_volume())
                if potential.distort is not None:
                    energy += potential.distort(self.atoms)
                voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
                self.results = {"energy": energy, "forces": np.zeros((len(symbols), 3)), "stress": voigt}

        return Made()


def rocksalt(cation: str, anion: str, a: float = 5.4) -> Structure:
    """A primitive cell of two atoms; a = 5.4 has 39.4 A^3 a cell, nearly the volume at rest."""
    cell = [[0.0, a / 2, a / 2], [a / 2, 0.0, a / 2], [a / 2, a / 2, 0.0]]
    return Structure(Lattice(cell), [cation, anion], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


def element_cell(symbol: str, a: float = 2.7) -> Structure:
    """A simple cubic cell of one atom, 19.7 A^3."""
    return Structure(Lattice.cubic(a), [symbol], [[0.0, 0.0, 0.0]])


def labelled_table(path: Path) -> Path:
    """Three salts and two elements with labels, and one broken CIF."""
    salts = [
        ("NaCl", rocksalt("Na", "Cl"), -2.0),
        ("MgO", rocksalt("Mg", "O"), -3.0),
        ("CaO", rocksalt("Ca", "O"), -3.2),
    ]
    salts += [("Na", element_cell("Na"), 0.0), ("Ca", element_cell("Ca"), 0.0)]
    rows = [{"pretty_formula": f, "formation_energy_per_atom": e, "cif": c.to(fmt="cif")} for f, c, e in salts]
    rows.append({"pretty_formula": "NaCl", "formation_energy_per_atom": -9.0, "cif": "data_\nbroken"})
    pl.DataFrame(rows).write_csv(path)
    return path
