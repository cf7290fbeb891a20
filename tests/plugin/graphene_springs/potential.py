"""A potential: bonds of 5 eV between neighbours at graphene's distance."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymatgen.core import Structure

from defectgen.score.potentials.potential import Evaluation, PotentialScorer
from defectgen.score.scorers import ScorerEntry, ScorerOptions

BOND_EV = 5.0
BOND_ANGSTROM = 2.46 / 3**0.5


class Springs:
    """Nearest neighbours attract each other, whatever they are."""

    name = "springs"
    elements = frozenset({"B", "C", "N"})
    atom_shifts_ev: Mapping[str, float] = {}

    def calculator(self) -> Any:
        from ase.calculators.morse import MorsePotential

        return MorsePotential(epsilon=BOND_EV, r0=BOND_ANGSTROM, rho0=6.0, rcut1=1.2, rcut2=1.4)

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        found = []
        for structure in structures:
            atoms = structure.to_ase_atoms()
            atoms.calc = self.calculator()
            found.append(Evaluation(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)))
        return found


def load(_: ScorerOptions) -> PotentialScorer:
    return PotentialScorer(Springs())


SPRINGS = ScorerEntry("a spring for each bond", load, is_potential=True)
