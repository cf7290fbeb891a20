"""Relaxation of a bulk crystal, atoms and cell, with a potential, and the ways in which it goes wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import EV_PER_ANGSTROM3_IN_GPA, Potential, require_known
from defectgen.score.potentials.relaxation import CONVERGED, EXPLODED, NOT_CONVERGED, TOO_CLOSE, careful_fire

if TYPE_CHECKING:
    from pymatgen.core import Structure

FORCE_TOLERANCE_EV_ANGSTROM = 0.1
"""Largest force, on atoms and on the cell, at which a crystal counts as relaxed: that of m3gnet's Relaxer."""

MAX_STEPS = 500

CLOSEST_ANGSTROM = 0.5
"""Atoms closer than this are no crystal (Xie et al., ICLR 2022, arXiv 2110.06197)."""

DEEPEST_EV_PER_ATOM = -20.0
"""No solid is bound more than this by PBE (W, the most, has -13): a lower energy is an artefact of the potential."""

DENSEST_ANGSTROM3_PER_ATOM = 2.0
"""Below this atoms are too close. Diamond, of all solids at ambient pressure the densest in atoms, has 5.7. The number
of M3GNet's triplets, and with it memory, grows as the square of the density."""

MAX_VOLUME_RATIO = 3.0
"""A cell that grows or shrinks by more than this factor has come apart or collapsed."""

CELL_EXPLODED = "cell exploded"


@dataclass(frozen=True, repr=False)
class CrystalRelaxation(OneLine):
    """The outcome of one relaxation of atoms and cell.

    Attributes:
        structure: at the end, atoms in the order given.
        status: `CONVERGED`, `NOT_CONVERGED` (within the steps allowed), `EXPLODED`, `TOO_CLOSE` or `CELL_EXPLODED`.
        detail: the status in one clause with numbers, empty if converged.
        steps: steps of the optimizer.
        initial_energy_ev_per_atom: as given.
        energy_ev_per_atom: at the end.
        max_force_ev_angstrom: largest force on an atom at the end.
        max_stress_gpa: largest component of the stress at the end.
        volume_ratio: volume at the end over volume as given.
        seconds: that it took.
    """

    structure: Structure
    status: str
    detail: str
    steps: int
    initial_energy_ev_per_atom: float
    energy_ev_per_atom: float
    max_force_ev_angstrom: float
    max_stress_gpa: float
    volume_ratio: float
    seconds: float

    @property
    def usable(self) -> bool:
        """Whether energy and structure can be used: it did not diverge."""
        return self.status in (CONVERGED, NOT_CONVERGED)


def relax_crystal(
    structure: Structure,
    potential: Potential,
    *,
    max_steps: int = MAX_STEPS,
    fmax_ev_angstrom: float = FORCE_TOLERANCE_EV_ANGSTROM,
) -> CrystalRelaxation:
    """Move atoms and cell to a local minimum of the energy, without any constraint of symmetry.

    The optimizer is `defectgen.score.potentials.relaxation.careful_fire` on the atoms and the deformation of the
    cell (ase's UnitCellFilter; its FrechetCellFilter spends more time on matrix functions than the potential on a
    cell of five atoms).

    Args:
        structure: what to relax; it is not changed.
        potential: what computes energies, forces and stresses.
        max_steps: most steps of the optimizer.
        fmax_ev_angstrom: largest force, on atoms and on the cell, at which it stops.

    Returns:
        How far it got; a relaxation that diverged says so in its status and keeps the last atoms.

    Raises:
        UsageError: a structure that the potential cannot compute.
    """
    from ase import Atoms, filters

    with_cell: Any = filters.UnitCellFilter
    require_known(structure, potential)
    started = time.monotonic()
    species = [site.specie.symbol for site in structure]
    atoms: Any = Atoms(species, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
    if crowded := _crowded(structure):
        return _outcome(structure, atoms, TOO_CLOSE, f"{crowded} before any step", 0, np.nan, started)
    atoms.calc = potential.calculator()
    first = float(atoms.get_potential_energy()) / len(atoms)
    status, detail = _divergence(structure, atoms, first)
    if status:
        return _outcome(structure, atoms, status, detail, 0, first, started)
    filtered = with_cell(atoms)
    optimizer = careful_fire(filtered)
    for converged in optimizer.irun(fmax=fmax_ev_angstrom, steps=max_steps):
        status, detail = _divergence(structure, atoms, float(atoms.get_potential_energy()) / len(atoms))
        if status:
            break
        if converged:
            status = CONVERGED
            break
    if not status:
        force = float(np.linalg.norm(filtered.get_forces(), axis=1).max())
        status, detail = NOT_CONVERGED, f"force {force:.2f} eV/angstrom after {max_steps} steps"
    return _outcome(structure, atoms, status, detail, optimizer.nsteps, first, started)


def _divergence(structure: Structure, atoms: Any, energy_ev_per_atom: float) -> tuple[str, str]:
    """How a step shows that the potential is out of its depth: status and detail, both empty if it does not."""
    if not np.isfinite(energy_ev_per_atom):
        return EXPLODED, "the energy is no number"
    if energy_ev_per_atom < DEEPEST_EV_PER_ATOM:
        return EXPLODED, f"the energy fell to {energy_ev_per_atom:.1f} eV/atom"
    ratio = abs(float(atoms.get_volume())) / structure.volume
    if not 1 / MAX_VOLUME_RATIO < ratio < MAX_VOLUME_RATIO:
        return CELL_EXPLODED, f"the volume changed by a factor of {ratio:.2f}"
    crowded = _crowded(_structure_of(structure, atoms))
    return (TOO_CLOSE, crowded) if crowded else ("", "")


def _crowded(structure: Structure) -> str:
    """What says that atoms, images included, are too close; empty if they are not."""
    each = structure.volume / len(structure)
    if each < DENSEST_ANGSTROM3_PER_ATOM:
        return f"{each:.2f} cubic angstrom an atom"
    distances = structure.get_neighbor_list(CLOSEST_ANGSTROM)[3]
    return f"two atoms {distances.min():.2f} angstrom apart" if len(distances) else ""


def _structure_of(structure: Structure, atoms: Any) -> Structure:
    """The species of a structure where the atoms are now."""
    from pymatgen.core import Structure

    positions = atoms.get_positions()
    return Structure(atoms.cell.array, structure.species, positions, coords_are_cartesian=True, to_unit_cell=True)


def _outcome(
    structure: Structure, atoms: Any, status: str, detail: str, steps: int, first: float, started: float
) -> CrystalRelaxation:
    energy = force = stress = np.nan
    if atoms.calc is not None:
        energy = float(atoms.get_potential_energy()) / len(atoms)
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        stress = float(np.abs(atoms.get_stress()).max()) * EV_PER_ANGSTROM3_IN_GPA
    return CrystalRelaxation(
        structure=_structure_of(structure, atoms),
        status=status,
        detail="" if status == CONVERGED else detail,
        steps=steps,
        initial_energy_ev_per_atom=first,
        energy_ev_per_atom=energy,
        max_force_ev_angstrom=force,
        max_stress_gpa=stress,
        volume_ratio=abs(float(atoms.get_volume())) / structure.volume,
        seconds=time.monotonic() - started,
    )
