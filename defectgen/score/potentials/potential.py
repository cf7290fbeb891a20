"""Interatomic potentials as scorers: energies, forces, stresses and formation energies of atoms as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from defectgen.core import VACANCY, Configuration, Host
from defectgen.errors import UsageError
from defectgen.io.places import atoms_problem
from defectgen.one_line import OneLine
from defectgen.score.protocol import MISSING, Sample, uncertainty_column

if TYPE_CHECKING:
    from pymatgen.core import Structure

CHEMICAL_POTENTIALS_EV: Mapping[str, float] = MappingProxyType(
    {
        "B": -6.704, "C": -9.226, "Ga": -3.03, "In": -2.715, "Mo": -10.9332, "N": -8.324,
        "P": -5.362, "S": -4.127, "Se": -3.489, "W": -13.0106,
    }
)  # fmt: skip
"""Energy of an atom in its elemental phase by PBE, eV: the reservoirs of 2DMD's formation energies.

Source: ``elements.csv`` of Huang et al., npj 2D Mater Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1.
"""

EV_PER_ANGSTROM3_IN_GPA = 160.21766208

UNCERTAIN = frozenset({"formation_energy_ev", "energy_per_atom_ev"})
"""Columns of `defectgen.core.properties` that a potential fills; it has no uncertainty for them."""


@dataclass(frozen=True)
class Evaluation:
    """What a potential says of one structure.

    Attributes:
        energy_ev: of the whole cell.
        forces: eV/angstrom, shape (n_atoms, 3), in the order of the structure's atoms.
        stress: eV/angstrom^3, shape (3, 3); positive where the cell wants to shrink.
    """

    energy_ev: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


class Potential(Protocol):
    """An interatomic potential."""

    @property
    def name(self) -> str:
        """For people and files, e.g. ``M3GNet-MP-2021.2.8-PES``."""
        ...

    @property
    def elements(self) -> frozenset[str]:
        """The elements that it was trained on."""
        ...

    @property
    def atom_shifts_ev(self) -> Mapping[str, float]:
        """By element, what its energies of compounds hold beyond plain PBE, per atom."""
        ...

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        """Energy, forces and stress of each structure, in their order."""
        ...

    def calculator(self) -> Any:
        """The potential as a calculator of ASE, in eV and angstrom."""
        ...


@dataclass(repr=False, eq=False)
class PotentialScorer(OneLine):
    """A potential as a `defectgen.score.protocol.StructureScorer`; remembers the energies of pristine hosts.

    Attributes:
        potential: what computes the energies.
        chemical_potentials_ev: energy of an atom of each element in its reservoir, by PBE, eV; an element that is
            exchanged and not among them leaves no formation energy.
    """

    potential: Potential
    chemical_potentials_ev: Mapping[str, float] = field(default_factory=lambda: CHEMICAL_POTENTIALS_EV)
    _pristine_ev: dict[Host, float] = field(default_factory=dict, init=False, repr=False)

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """See `defectgen.score.protocol.Scorer.score`; of the unrelaxed cells."""
        return self.score_samples([Sample(c.to_structure(), c) for c in configurations])

    def score_samples(self, samples: Sequence[Sample]) -> pl.DataFrame:
        """Energies, largest force and largest stress of atoms as they are.

        Returns:
            ``formation_energy_ev`` (null where there is no configuration), ``energy_per_atom_ev``, their
            uncertainties (null), ``energy_ev``, ``max_force_ev_angstrom``, ``max_stress_gpa`` and `MISSING`.

        Raises:
            UsageError: an element that the potential does not know, a structure that holds no finite atoms, or
                one for which the potential gives no number.
        """
        for sample in samples:
            require_known(sample.structure, self.potential)
        rows = []
        for sample, found in zip(samples, self.potential.evaluate([s.structure for s in samples]), strict=True):
            if not np.isfinite(found.energy_ev):
                raise UsageError(f"{self.potential.name} gives no finite energy: atoms lie on top of each other.")
            formation, reason = None, None
            if sample.configuration is not None:
                reason = self.why_no_formation_energy(sample.configuration) or None
                formation = self.formation_energy_ev(sample.configuration, found.energy_ev)
            force = float(np.linalg.norm(found.forces, axis=1).max())
            rows.append(
                {
                    "formation_energy_ev": formation,
                    "energy_per_atom_ev": found.energy_ev / len(sample.structure),
                    "energy_ev": found.energy_ev,
                    "max_force_ev_angstrom": force,
                    "max_stress_gpa": float(np.abs(found.stress).max()) * EV_PER_ANGSTROM3_IN_GPA,
                    MISSING: reason,
                }
            )
        numbers = ["formation_energy_ev", "energy_per_atom_ev", "energy_ev", "max_force_ev_angstrom", "max_stress_gpa"]
        frame = pl.DataFrame(rows, schema=dict.fromkeys(numbers, pl.Float64) | {MISSING: pl.String})
        return frame.with_columns(
            *(pl.lit(None, pl.Float64).alias(uncertainty_column(column)) for column in sorted(UNCERTAIN))
        )

    def why_no_formation_energy(self, configuration: Configuration) -> str:
        """Why a configuration gets no formation energy: an exchanged element without chemical potential; else empty."""
        exchanged = {element for kind in configuration.kinds for element in kind if element != VACANCY}
        unknown = sorted(exchanged - self.chemical_potentials_ev.keys())
        return f"no formation energy: the chemical potential of {', '.join(unknown)} is not known" if unknown else ""

    def pristine_energy_ev(self, host: Host) -> float:
        """Energy of the pristine supercell at its own geometry, from one unit cell."""
        if host not in self._pristine_ev:
            cell = Configuration.of(replace(host, supercell=(1, 1)), {}).to_structure()
            require_known(cell, self.potential)
            n_cells = host.supercell[0] * host.supercell[1]
            self._pristine_ev[host] = n_cells * self.potential.evaluate([cell])[0].energy_ev
        return self._pristine_ev[host]

    def formation_energy_ev(self, configuration: Configuration, energy_ev: float) -> float | None:
        """E_defect - E_pristine + sum of mu (removed atoms) - sum of mu (added atoms), eV, neutral cell.

        The chemical potentials are moved to the potential's own scale by its `Potential.atom_shifts_ev`, which is 0
        for an element that is not named there. None where one is not known, see `why_no_formation_energy`.
        """
        if self.why_no_formation_energy(configuration):
            return None
        exchanged = 0.0
        for (old, new), count in configuration.kinds.items():
            for element, sign in ((old, 1.0), (new, -1.0)):
                if element == VACANCY:
                    continue
                shift = self.potential.atom_shifts_ev.get(element, 0.0)
                exchanged += sign * count * (self.chemical_potentials_ev[element] + shift)
        return energy_ev - self.pristine_energy_ev(configuration.host) + exchanged


def require_known(structure: Structure, potential: Potential) -> None:
    """Refuse what a potential cannot compute.

    Raises:
        UsageError: no atoms, coordinates that are no numbers, partial occupancy, or an unknown element.
    """
    problem = atoms_problem(structure)
    if problem:
        raise UsageError(f"the structure {problem}.")
    unknown = sorted({site.specie.symbol for site in structure} - potential.elements)
    if unknown:
        raise UsageError(f"{potential.name} never saw {', '.join(unknown)}.")
