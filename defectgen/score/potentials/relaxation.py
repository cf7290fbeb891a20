"""Relaxation of atoms, and of their cell if it may change, with a potential, and the ways in which it goes wrong."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import EV_PER_ANGSTROM3_IN_GPA, Potential, require_known
from defectgen.score.validity import closest_pair, n_pieces

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_STEP_ANGSTROM = 0.1

CONVERGED, NOT_CONVERGED = "converged", "not converged"
EXPLODED, TOO_CLOSE, BROKEN, CELL_EXPLODED = "energy exploded", "atoms too close", "layer broke", "cell exploded"


@dataclass(frozen=True, repr=False)
class Relaxation(OneLine):
    """The outcome of one relaxation.

    Attributes:
        structure: at the end, atoms in the order given.
        status: `CONVERGED`, `NOT_CONVERGED` (within the steps allowed), `EXPLODED`, `TOO_CLOSE`, `BROKEN` (a layer,
            into more pieces than there were) or `CELL_EXPLODED`.
        detail: the status in one clause with numbers, empty if converged.
        steps: steps of the optimizer.
        initial_energy_ev: of the cell as given.
        energy_ev: of the cell at the end.
        max_force_ev_angstrom: largest force on an atom at the end.
        max_displacement_angstrom: farthest that an atom moved, the drift of all of them taken off.
        potential: its name.
        max_stress_gpa: largest component of the stress at the end; NaN in a cell that was kept.
        volume_ratio: volume at the end over volume as given.
        seconds: that it took.
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
    max_stress_gpa: float = np.nan
    volume_ratio: float = 1.0
    seconds: float = 0.0

    @property
    def energy_change_ev(self) -> float:
        """Energy at the end minus energy as given, of the cell."""
        return self.energy_ev - self.initial_energy_ev

    @property
    def initial_energy_ev_per_atom(self) -> float:
        return self.initial_energy_ev / len(self.structure)

    @property
    def energy_ev_per_atom(self) -> float:
        return self.energy_ev / len(self.structure)

    @property
    def summary(self) -> str:
        """The status with its numbers, e.g. ``not converged: force 0.21 eV/angstrom after 100 steps``."""
        return f"{self.status}: {self.detail}" if self.detail else f"{self.status} in {self.steps} steps"

    @property
    def usable(self) -> bool:
        """Whether the structure can be trusted as far as it got: it did not diverge."""
        return self.status in (CONVERGED, NOT_CONVERGED)


class Freedom(Protocol):
    """What may move in a relaxation, and what is watched.

    Attributes:
        max_steps: most steps of the optimizer unless told otherwise.
        fmax_ev_angstrom: largest force at which it stops unless told otherwise.
    """

    @property
    def max_steps(self) -> int: ...

    @property
    def fmax_ev_angstrom(self) -> float: ...

    def variables(self, atoms: Any) -> Any:
        """What the optimizer moves: ase's atoms, or a filter of them."""
        ...

    def moved(self, structure: Structure, atoms: Any) -> Structure:
        """The species of a structure where the atoms are now."""
        ...

    def max_stress_gpa(self, atoms: Any) -> float:
        """Largest component of the stress; NaN where it does not matter."""
        ...

    def crowded(self, structure: Structure) -> str:
        """What says that atoms are too close; empty if they are not."""
        ...

    def divergence(self, structure: Structure, atoms: Any, energies_ev: Sequence[float]) -> tuple[str, str]:
        """How a step shows that the potential is out of its depth: status and detail, both empty if it does not."""
        ...

    def end(self, structure: Structure, end: Structure) -> tuple[str, str]:
        """What is wrong with the structure at the end, likewise."""
        ...


@dataclass(frozen=True)
class Layer:
    """The atoms of a layer move; cell and vacuum stay as they are.

    Attributes:
        max_steps: see `Freedom`.
        fmax_ev_angstrom: see `Freedom`.
        exploded_ev_per_atom: change of the energy beyond which a relaxation has left what the potential knows.
    """

    max_steps: int = 100
    fmax_ev_angstrom: float = 0.05
    exploded_ev_per_atom: float = 1.0

    def variables(self, atoms: Any) -> Any:
        return atoms

    def moved(self, structure: Structure, atoms: Any) -> Structure:
        from pymatgen.core import Structure

        return Structure(structure.lattice, structure.species, atoms.get_positions(), coords_are_cartesian=True)

    def max_stress_gpa(self, atoms: Any) -> float:  # noqa: ARG002 - of a cell that is kept
        return float("nan")

    def crowded(self, structure: Structure) -> str:
        return closest_pair(structure)

    def divergence(self, structure: Structure, atoms: Any, energies_ev: Sequence[float]) -> tuple[str, str]:
        change = (energies_ev[-1] - energies_ev[0]) / len(atoms)
        if not np.isfinite(energies_ev[-1]):
            return EXPLODED, "the energy is no number"
        if abs(change) > self.exploded_ev_per_atom:
            return EXPLODED, f"the energy changed by {change:+.2f} eV/atom"
        crowded = self.crowded(self.moved(structure, atoms))
        return (TOO_CLOSE, crowded) if crowded else ("", "")

    def end(self, structure: Structure, end: Structure) -> tuple[str, str]:
        pieces = n_pieces(end)
        return (BROKEN, f"{pieces} separate pieces") if pieces > n_pieces(structure) else ("", "")


@dataclass(frozen=True)
class CrystalKind:
    """The atoms of a bulk crystal and its cell move, without any constraint of symmetry.

    Attributes:
        max_steps: see `Freedom`.
        fmax_ev_angstrom: on atoms and on the cell: that of m3gnet's Relaxer.
        closest_angstrom: atoms closer than this are no crystal (Xie et al., ICLR 2022, arXiv 2110.06197).
        deepest_ev_per_atom: no solid is bound more than this by PBE (W, the most, has -13): a lower energy is an
            artefact of the potential.
        densest_angstrom3_per_atom: below this atoms are too close. Diamond, of all solids at ambient pressure the
            densest in atoms, has 5.7. The number of M3GNet's triplets, and with it memory, grows as the square of
            the density.
        max_volume_ratio: a cell that grows or shrinks by more than this factor has come apart or collapsed.
    """

    max_steps: int = 500
    fmax_ev_angstrom: float = 0.1
    closest_angstrom: float = 0.5
    deepest_ev_per_atom: float = -20.0
    densest_angstrom3_per_atom: float = 2.0
    max_volume_ratio: float = 3.0

    def variables(self, atoms: Any) -> Any:
        """The atoms and the deformation of the cell.

        ase's FrechetCellFilter spends more time on matrix functions than the potential on a cell of five atoms.
        """
        from ase import filters

        with_cell: Any = filters.UnitCellFilter
        return with_cell(atoms)

    def moved(self, structure: Structure, atoms: Any) -> Structure:
        from pymatgen.core import Structure

        positions = atoms.get_positions()
        return Structure(atoms.cell.array, structure.species, positions, coords_are_cartesian=True, to_unit_cell=True)

    def max_stress_gpa(self, atoms: Any) -> float:
        return float(np.abs(atoms.get_stress()).max()) * EV_PER_ANGSTROM3_IN_GPA

    def crowded(self, structure: Structure) -> str:
        """See `Freedom.crowded`; images count."""
        each = structure.volume / len(structure)
        if each < self.densest_angstrom3_per_atom:
            return f"{each:.2f} cubic angstrom an atom"
        distances = structure.get_neighbor_list(self.closest_angstrom)[3]
        return f"two atoms {distances.min():.2f} angstrom apart" if len(distances) else ""

    def divergence(self, structure: Structure, atoms: Any, energies_ev: Sequence[float]) -> tuple[str, str]:
        energy = energies_ev[-1] / len(atoms)
        if not np.isfinite(energy):
            return EXPLODED, "the energy is no number"
        if energy < self.deepest_ev_per_atom:
            return EXPLODED, f"the energy fell to {energy:.1f} eV/atom"
        ratio = _volume_ratio(structure, atoms)
        if not 1 / self.max_volume_ratio < ratio < self.max_volume_ratio:
            return CELL_EXPLODED, f"the volume changed by a factor of {ratio:.2f}"
        crowded = self.crowded(self.moved(structure, atoms))
        return (TOO_CLOSE, crowded) if crowded else ("", "")

    def end(self, structure: Structure, end: Structure) -> tuple[str, str]:  # noqa: ARG002 - any crystal will do
        return "", ""


LAYER, CRYSTAL = Layer(), CrystalKind()


def relax(
    structure: Structure,
    potential: Potential,
    freedom: Freedom = LAYER,
    *,
    max_steps: int | None = None,
    fmax_ev_angstrom: float | None = None,
) -> Relaxation:
    """Move atoms, and the cell if it may change, to a local minimum of the energy.

    The optimizer is that of `careful_fire`: quasi-Newton steps fail where the forces of a potential jump, as
    those of M3GNet do when an atom crosses its cutoff.

    Args:
        structure: what to relax; it is not changed.
        potential: what computes energies, forces and, where the cell may change, stresses.
        freedom: `LAYER`, whose cell is kept, or `CRYSTAL`.
        max_steps: most steps of the optimizer; None: as `freedom` says.
        fmax_ev_angstrom: largest force at which it stops; None: as `freedom` says.

    Returns:
        How far it got; a relaxation that diverged says so in its status and keeps the last atoms.

    Raises:
        UsageError: a structure that the potential cannot compute.
    """
    from ase import Atoms

    require_known(structure, potential)
    most = freedom.max_steps if max_steps is None else max_steps
    fmax = freedom.fmax_ev_angstrom if fmax_ev_angstrom is None else fmax_ev_angstrom
    started = time.monotonic()
    species = [site.specie.symbol for site in structure]
    atoms: Any = Atoms(species, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
    energies: list[float] = []
    steps = 0
    crowded = freedom.crowded(structure)
    status, detail = (TOO_CLOSE, f"{crowded} before any step") if crowded else ("", "")
    if not status:
        atoms.calc = potential.calculator()
        energies.append(float(atoms.get_potential_energy()))
        status, detail = freedom.divergence(structure, atoms, energies)
    if not status:
        variables = freedom.variables(atoms)
        optimizer = careful_fire(variables)
        for converged in optimizer.irun(fmax=fmax, steps=most):
            energies.append(float(atoms.get_potential_energy()))
            status, detail = freedom.divergence(structure, atoms, energies)
            if status:
                break
            if converged:
                status = CONVERGED
                break
        steps = optimizer.nsteps
        if not status:
            force = float(np.linalg.norm(variables.get_forces(), axis=1).max())
            status, detail = NOT_CONVERGED, f"force {force:.2f} eV/angstrom after {most} steps"
    end = freedom.moved(structure, atoms)
    if status in (CONVERGED, NOT_CONVERGED) and (wrong := freedom.end(structure, end))[0]:
        status, detail = wrong
    computed = atoms.calc is not None
    shift: NDArray[np.float64] = atoms.get_positions() - structure.cart_coords
    return Relaxation(
        structure=end,
        status=status,
        detail="" if status == CONVERGED else detail,
        steps=steps,
        initial_energy_ev=energies[0] if computed else np.nan,
        energy_ev=energies[-1] if computed else np.nan,
        max_force_ev_angstrom=float(np.linalg.norm(atoms.get_forces(), axis=1).max()) if computed else np.nan,
        max_displacement_angstrom=float(np.linalg.norm(shift - shift.mean(axis=0), axis=1).max()),
        potential=potential.name,
        max_stress_gpa=freedom.max_stress_gpa(atoms) if computed else np.nan,
        volume_ratio=_volume_ratio(structure, atoms),
        seconds=time.monotonic() - started,
    )


def _volume_ratio(structure: Structure, atoms: Any) -> float:
    return abs(float(atoms.get_volume())) / structure.volume


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
