"""Potentials that need no library and whose energies are known by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from defectgen.score.potentials.potential import Evaluation

ATOM_EV = {"Mo": -10.0, "S": -4.5, "W": -12.0, "Se": -4.0, "Na": -1.0, "Cl": -2.0}


@dataclass(frozen=True)
class AdditivePotential:
    """Energy: a number for each atom; forces and stress: zero."""

    atom_ev: Mapping[str, float] = field(default_factory=lambda: ATOM_EV)
    shifts_ev: Mapping[str, float] = field(default_factory=dict)
    name: str = "additive"

    @property
    def elements(self) -> frozenset[str]:
        return frozenset(self.atom_ev)

    @property
    def atom_shifts_ev(self) -> Mapping[str, float]:
        return self.shifts_ev

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        return [
            Evaluation(
                sum(self.atom_ev[site.specie.symbol] + self.shifts_ev.get(site.specie.symbol, 0.0) for site in cell),
                np.zeros((len(cell), 3)),
                np.zeros((3, 3)),
            )
            for cell in structures
        ]

    def calculator(self) -> Any:
        raise AssertionError("energies of cells as they are need no calculator")


@dataclass(frozen=True)
class CalculatedPotential(AdditivePotential):
    """Energy and forces by a function of the positions, for ASE."""

    function: Any = None

    def calculator(self) -> Any:
        from ase.calculators.calculator import Calculator, all_changes

        function = self.function

        class Made(Calculator):  # type: ignore[misc]
            implemented_properties = ("energy", "forces")

            def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
                super().calculate(atoms, properties, system_changes)
                energy, forces = function(self.atoms.get_positions())
                self.results = {"energy": energy, "free_energy": energy, "forces": forces}

        return Made()


def springs(rest: NDArray[np.float64], stiffness: float = 5.0) -> Any:
    """A spring from each atom to its place of rest."""

    def function(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        away = positions - rest
        return 0.5 * stiffness * float((away**2).sum()), -stiffness * away

    return function
