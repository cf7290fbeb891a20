"""The optimizer of relaxations: as good as ase's, without its leaps."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np

from defectgen.score.potentials.relaxation import MAX_STEP_ANGSTROM, careful_fire


def overlapping() -> Any:
    """Four copper atoms, two of them on each other, in a cell with room."""
    from ase import Atoms
    from ase.calculators.emt import EMT

    places = [[0, 0, 0], [0, 0, 0.9], [2.2, 0, 0.4], [0, 2.4, 0.1]]
    return Atoms("Cu4", positions=places, cell=np.eye(3) * 9, pbc=True, calculator=EMT())  # type: ignore[no-untyped-call]


def leaps(optimizer: Any, atoms: Any) -> list[float]:
    """Norms of the moves between steps, until the forces are below 0.02 eV/angstrom."""
    places = [atoms.get_positions()]
    places += [atoms.get_positions() for _ in optimizer.irun(fmax=0.02, steps=400)]
    assert np.abs(atoms.get_forces()).max() < 0.02
    return [float(np.linalg.norm(after - before)) for before, after in pairwise(places)]


def test_no_move_is_longer_than_a_step_and_half_a_step_back() -> None:
    from ase.optimize import FIRE2

    atoms = overlapping()
    assert max(leaps(FIRE2(atoms, logfile=io.StringIO(), maxstep=MAX_STEP_ANGSTROM), atoms)) > 5 * MAX_STEP_ANGSTROM
    atoms = overlapping()
    assert max(leaps(careful_fire(atoms), atoms)) <= 1.5 * MAX_STEP_ANGSTROM + 1e-9
