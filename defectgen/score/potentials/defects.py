"""Defects relaxed by a potential: what they cost, how far atoms go, and whether the geometry holds when shaken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from defectgen.core import Configuration, Host, NotADecorationError
from defectgen.core.matching import known_configuration
from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import PotentialScorer
from defectgen.score.potentials.relaxation import Relaxation, relax

if TYPE_CHECKING:
    from pymatgen.core import Structure

SHAKE_ANGSTROM = 0.1
"""Standard deviation of the random displacement of each coordinate of an atom near a defect."""

SHAKEN_WITHIN_ANGSTROM = 5.0
"""Of a changed site: atoms as near as this are displaced."""

DEEPER_EV = 0.05
"""A shaken cell that ends lower by more than this shows that the symmetric geometry does not hold. Below lies what the
forces that a relaxation ends with leave: 10 to 20 meV in cells of 190 atoms."""

STABLE, RECONSTRUCTS, LEFT, DIVERGED = "stable", "reconstructs", "leaves its sites", "diverged"


@dataclass(frozen=True, repr=False)
class DefectRelaxation(Relaxation):
    """The outcome of relaxing a defect: from its ideal sites, then once more with the atoms around it displaced.

    The rest of the attributes is of the deeper one of the two, counted from the ideal sites.

    Attributes:
        formation_energy_ev: against the pristine host relaxed likewise, eV, by the potential; None where a chemical
            potential is not known or the relaxation diverged.
        shaken_energy_change_ev: energy that the displaced cell ends with minus that of the first relaxation, eV; NaN
            if one of the two diverged.
        keeps_sites: whether every atom is still on its own site of the host.
    """

    formation_energy_ev: float | None = None
    shaken_energy_change_ev: float = np.nan
    keeps_sites: bool = True

    @property
    def verdict(self) -> str:
        """`STABLE`, `DIVERGED`, `LEFT` (now another defect), `RECONSTRUCTS` (the symmetric geometry is no minimum)."""
        if not self.usable:
            return DIVERGED
        if not self.keeps_sites:
            return LEFT
        return RECONSTRUCTS if self.shaken_energy_change_ev < -DEEPER_EV else STABLE


@dataclass(repr=False, eq=False)
class DefectRelaxer(OneLine):
    """Relaxes configurations with one potential; remembers what relaxing a pristine host brings.

    Attributes:
        scorer: the potential and its chemical potentials.
        seed: of the displacements.
    """

    scorer: PotentialScorer
    seed: int = 0
    _host_change_ev: dict[Host, float] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, configuration: Configuration) -> DefectRelaxation:
        """Relax the unrelaxed structure of a configuration in its cell.

        Raises:
            UsageError: an element that the potential does not know.
        """
        ideal = configuration.to_structure()
        first = best = relax(ideal, self.scorer.potential)
        gain = np.nan
        if first.usable and configuration.edits:
            second = relax(self._shaken(first.structure, configuration), self.scorer.potential)
            if second.usable:
                gain = second.energy_ev - first.energy_ev
            if gain < -DEEPER_EV:
                moved = second.structure.cart_coords - ideal.cart_coords
                far = float(np.linalg.norm(moved - moved.mean(axis=0), axis=1).max())
                best = replace(
                    second,
                    steps=first.steps + second.steps,
                    initial_energy_ev=first.initial_energy_ev,
                    max_displacement_angstrom=far,
                    seconds=first.seconds + second.seconds,
                )
        values: Mapping[str, object] = {item.name: getattr(best, item.name) for item in fields(Relaxation)}
        return DefectRelaxation(
            **values,  # type: ignore[arg-type]
            formation_energy_ev=self._formation_energy_ev(configuration, best) if best.usable else None,
            shaken_energy_change_ev=gain,
            keeps_sites=not best.usable or _is_still(configuration, best.structure),
        )

    def _shaken(self, structure: Structure, configuration: Configuration) -> Structure:
        """The structure with the atoms around the changed sites displaced."""
        from pymatgen.core import Structure

        host = configuration.host
        changed = host.site_frac_coords[[site for site, _ in configuration.edits]]
        near = structure.lattice.get_all_distances(structure.frac_coords, changed).min(axis=1) < SHAKEN_WITHIN_ANGSTROM
        steps = np.random.default_rng(self.seed).normal(0.0, SHAKE_ANGSTROM, (len(structure), 3))
        places = structure.cart_coords + near[:, None] * steps
        return Structure(structure.lattice, structure.species, places, coords_are_cartesian=True)

    def _formation_energy_ev(self, configuration: Configuration, outcome: Relaxation) -> float | None:
        energy = self.scorer.formation_energy_ev(configuration, outcome.energy_ev)
        return None if energy is None else energy - self._host_change(configuration.host)

    def _host_change(self, host: Host) -> float:
        """What relaxing the pristine supercell brings, eV, from one unit cell."""
        if host not in self._host_change_ev:
            cell = Configuration.of(replace(host, supercell=(1, 1)), {}).to_structure()
            change = relax(cell, self.scorer.potential).energy_change_ev
            self._host_change_ev[host] = host.supercell[0] * host.supercell[1] * change
        return self._host_change_ev[host]


def _is_still(configuration: Configuration, structure: Structure) -> bool:
    try:
        return known_configuration(structure, configuration.host).canonical() == configuration.canonical()
    except NotADecorationError:
        return False
