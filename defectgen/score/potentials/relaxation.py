"""Relaxation of atoms in a fixed cell with a potential, and the ways in which it goes wrong."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import Potential, require_known
from defectgen.score.validity import closest_pair, n_pieces

if TYPE_CHECKING:
    from pymatgen.core import Structure

FORCE_TOLERANCE_EV_ANGSTROM = 0.05
"""Largest force at which a structure counts as relaxed."""

MAX_STEPS = 100

EXPLODED_EV_PER_ATOM = 1.0
"""Change of the energy by atom beyond which a relaxation has left what the potential knows."""

MAX_STEP_ANGSTROM = 0.1

CONVERGED, NOT_CONVERGED = "converged", "not converged"
EXPLODED, TOO_CLOSE, BROKEN = "energy exploded", "atoms too close", "layer broke"


@dataclass(frozen=True, repr=False)
class Relaxation(OneLine):
    """The outcome of one relaxation.

    Attributes:
        structure: the atoms at the end, in the order given and in the same cell.
        status: `CONVERGED`, `NOT_CONVERGED` (within the steps allowed), `EXPLODED`, `TOO_CLOSE` or `BROKEN`
            (into more pieces than there were).
        detail: the status in one clause with numbers, empty if converged.
        steps: steps of the optimizer.
        initial_energy_ev: of the cell as given.
        energy_ev: of the cell at the end.
        max_force_ev_angstrom: largest force at the end.
        max_displacement_angstrom: farthest that an atom moved, the drift of the whole layer taken off.
        potential: its name.
    """

    structure: Structure
    status: str
    detail: str
    steps: int
    initial_energy_ev: float
    energy_ev: float
    max_force_ev_angstrom: float
    max_displacement_angstrom: float
    potential: str

    @property
    def energy_change_ev(self) -> float:
        """Energy at the end minus energy as given, of the cell."""
        return self.energy_ev - self.initial_energy_ev

    @property
    def summary(self) -> str:
        """The status with its numbers, e.g. ``not converged: force 0.21 eV/angstrom after 100 steps``."""
        return f"{self.status}: {self.detail}" if self.detail else f"{self.status} in {self.steps} steps"

    @property
    def usable(self) -> bool:
        """Whether the structure can be trusted as far as it got: it did not diverge."""
        return self.status in (CONVERGED, NOT_CONVERGED)


def relax(
    structure: Structure,
    potential: Potential,
    *,
    max_steps: int = MAX_STEPS,
    fmax_ev_angstrom: float = FORCE_TOLERANCE_EV_ANGSTROM,
) -> Relaxation:
    """Move the atoms to a local minimum of the energy; cell and vacuum stay as they are.

    The optimizer is that of `careful_fire`: quasi-Newton steps fail where the forces of a potential jump, as
    those of M3GNet do when an atom crosses its cutoff.

    Args:
        structure: what to relax; it is not changed.
        potential: what computes energies and forces.
        max_steps: most steps of the optimizer.
        fmax_ev_angstrom: largest force at which it stops.

    Returns:
        How far it got; a relaxation that diverged says so in its status and keeps the last atoms.

    Raises:
        UsageError: a structure that the potential cannot compute.
    """
    from ase import Atoms

    require_known(structure, potential)
    species = [site.specie.symbol for site in structure]
    atoms: Any = Atoms(species, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
    start = atoms.get_positions()
    crowded = closest_pair(structure)
    if crowded:
        return _outcome(structure, atoms, start, TOO_CLOSE, f"{crowded} before any step", 0, [np.nan], potential)
    atoms.calc = potential.calculator()
    energies = [float(atoms.get_potential_energy())]
    status, detail = "", _exploded(energies, len(atoms))
    if detail:
        return _outcome(structure, atoms, start, EXPLODED, detail, 0, energies, potential)
    optimizer = careful_fire(atoms)
    for converged in optimizer.irun(fmax=fmax_ev_angstrom, steps=max_steps):
        energies.append(float(atoms.get_potential_energy()))
        detail = _exploded(energies, len(atoms))
        if detail:
            status = EXPLODED
            break
        crowded = closest_pair(_with_positions(structure, atoms.get_positions()))
        if crowded:
            status, detail = TOO_CLOSE, crowded
            break
        if converged:
            status = CONVERGED
            break
    if not status:
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        status, detail = NOT_CONVERGED, f"force {force:.2f} eV/angstrom after {max_steps} steps"
    if status in (CONVERGED, NOT_CONVERGED):
        pieces = n_pieces(_with_positions(structure, atoms.get_positions()))
        if pieces > n_pieces(structure):
            status, detail = BROKEN, f"{pieces} separate pieces"
    return _outcome(structure, atoms, start, status, detail, optimizer.nsteps, energies, potential)


def careful_fire(atoms: Any) -> Any:
    """ase's FIRE2 on atoms or a filter of them, its steps bounded as a whole to `MAX_STEP_ANGSTROM` (of a filter: in
    its own coordinates), and to half as much more when it turns back.

    ase bounds steps, but neither the velocity that they add up nor the half step back when the energy rises, so
    that after large forces one such step can throw the atoms on each other.

    Source: Guenole et al., Comput Mater Sci 175, 109584 (2020), doi 10.1016/j.commatsci.2020.109584.
    """
    from ase.optimize import FIRE2

    class CarefulFIRE(FIRE2):
        def step(self, f: Any = None) -> None:
            super().step(f)
            velocity: Any = self.v
            velocity *= min(1.0, MAX_STEP_ANGSTROM / max(self.dt * float(np.linalg.norm(velocity)), 1e-12))

    return CarefulFIRE(atoms, logfile=io.StringIO(), maxstep=MAX_STEP_ANGSTROM)


def _exploded(energies: list[float], n_atoms: int) -> str:
    """How the last energy shows that the potential is out of its depth; empty if it does not."""
    change = (energies[-1] - energies[0]) / n_atoms
    if not np.isfinite(energies[-1]):
        return "the energy is no number"
    return f"the energy changed by {change:+.2f} eV/atom" if abs(change) > EXPLODED_EV_PER_ATOM else ""


def _outcome(
    structure: Structure,
    atoms: Any,
    start: NDArray[np.float64],
    status: str,
    detail: str,
    steps: int,
    energies: list[float],
    potential: Potential,
) -> Relaxation:
    moved = atoms.get_positions() - start
    moved -= moved.mean(axis=0)
    force = np.nan if atoms.calc is None else float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    return Relaxation(
        structure=_with_positions(structure, atoms.get_positions()),
        status=status,
        detail="" if status == CONVERGED else detail,
        steps=steps,
        initial_energy_ev=energies[0],
        energy_ev=energies[-1],
        max_force_ev_angstrom=force,
        max_displacement_angstrom=float(np.linalg.norm(moved, axis=1).max()),
        potential=potential.name,
    )


def _with_positions(structure: Structure, positions: NDArray[np.float64]) -> Structure:
    from pymatgen.core import Structure

    return Structure(structure.lattice, structure.species, positions, coords_are_cartesian=True)
