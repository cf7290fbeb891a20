"""A potential that counts atoms: energy minus 1 eV for each Mo, S or Cu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Structure

from defectgen.score.potentials.potential import Evaluation, PotentialScorer


class CountingPotential:
    name = "counting"
    elements = frozenset({"Mo", "S", "Cu", "W", "Se"})
    atom_shifts_ev: Mapping[str, float] = {}

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        return [Evaluation(-float(len(s)), np.zeros((len(s), 3)), np.zeros((3, 3))) for s in structures]

    def calculator(self) -> Any:
        raise AssertionError("energies of cells as they are need no calculator")

    @classmethod
    def scorer(cls) -> PotentialScorer:
        return PotentialScorer(cls())
