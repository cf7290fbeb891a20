"""Relaxation with forces known by hand: where it must end, and the ways in which it goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_potentials import CalculatedPotential, springs

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.errors import UsageError
from defectgen.score.potentials import relaxation
from defectgen.score.potentials.relaxation import relax


@pytest.fixture(scope="module")
def cell() -> Host:
    return get_host("MoS2", (3, 3))


def test_atoms_end_where_the_forces_vanish(cell: Host) -> None:
    structure = Configuration.of(cell, {0: VACANCY}).to_structure()
    start = structure.cart_coords.copy()
    rest = start.copy()
    rest[5] += [0.2, 0.1, 0.0]
    result = relax(structure, CalculatedPotential(function=springs(rest)), fmax_ev_angstrom=1e-4)
    assert (result.status, result.usable) == (relaxation.CONVERGED, True)
    assert np.abs(result.structure.cart_coords - rest).max() < 1e-3
    assert result.energy_change_ev == pytest.approx(-0.5 * 5.0 * 0.05, abs=1e-6)
    n = len(structure)
    assert result.max_displacement_angstrom == pytest.approx(np.hypot(0.2, 0.1) * (1 - 1 / n), abs=1e-3)
    assert np.array_equal(structure.cart_coords, start), "the structure given is left as it was"
    assert result.structure.lattice == structure.lattice
    assert result.structure.species == structure.species
    assert result.max_force_ev_angstrom < 1e-4


def falling(positions: Any) -> tuple[float, Any]:
    return float(1e4 * positions[:, 2].sum()), np.tile([0.0, 0.0, -1e4], (len(positions), 1))


def restless(positions: Any) -> tuple[float, Any]:
    forces = np.zeros_like(positions)
    forces[0, 0] = 0.3
    return 0.0, forces


def broken(_: Any) -> tuple[float, Any]:
    return float("nan"), np.zeros((27, 3))


def lifted(positions: Any) -> tuple[float, Any]:
    forces = np.zeros_like(positions)
    forces[9, 2] = -1.0 if positions[9, 2] < positions[:, 2].mean() else 1.0
    return -float(abs(positions[9, 2])), forces


@pytest.mark.parametrize(
    ("function", "status", "detail", "max_steps"),
    [
        (falling, relaxation.EXPLODED, "eV/atom", 50),
        (broken, relaxation.EXPLODED, "no number", 50),
        (restless, relaxation.NOT_CONVERGED, "force 0.30 eV/angstrom after 4 steps", 4),
        (lifted, relaxation.BROKEN, "2 separate pieces", 40),
    ],
)
def test_divergence_is_named(cell: Host, function: Any, status: str, detail: str, max_steps: int) -> None:
    structure = Configuration.of(cell, {}).to_structure()
    result = relax(structure, CalculatedPotential(function=function), max_steps=max_steps)
    assert result.status == status
    assert detail in result.summary
    assert result.usable == (status == relaxation.NOT_CONVERGED)


def test_atoms_pulled_together_are_found_before_they_meet(cell: Host) -> None:
    structure = Configuration.of(cell, {}).to_structure()
    rest = structure.cart_coords.copy()
    near = min(range(9, 27), key=lambda k: float(np.linalg.norm(rest[k] - rest[0])))
    rest[near] = rest[0] + [0.3, 0.0, 0.0]
    result = relax(structure, CalculatedPotential(function=springs(rest, 1.0)))
    assert result.status == relaxation.TOO_CLOSE
    assert "Mo" in result.detail
    assert "angstrom apart" in result.detail
    again = relax(result.structure, CalculatedPotential(function=springs(rest, 1.0)))
    assert (again.status, again.steps) == (relaxation.TOO_CLOSE, 0)
    assert "before any step" in again.detail


def test_what_the_potential_does_not_know_is_refused(cell: Host) -> None:
    with pytest.raises(UsageError, match="never saw Cu"):
        relax(Configuration.of(cell, {10: "Cu"}).to_structure(), CalculatedPotential(function=restless))
