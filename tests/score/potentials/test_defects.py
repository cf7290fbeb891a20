"""Defects relaxed twice: whether a geometry holds, with forces known by hand and with CHGNet."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fake_potentials import CalculatedPotential

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.score.potentials.defects import DefectRelaxer
from defectgen.score.potentials.potential import PotentialScorer

WELL_ANGSTROM = 0.3
MOVED = 5
"""An atom beside the vacancy."""


@pytest.fixture(scope="module")
def cell() -> Host:
    return get_host("MoS2", (3, 3))


def landscape(configuration: Configuration, depth: float, pull: float = 0.0) -> CalculatedPotential:
    """Springs to the ideal sites; one atom has two wells beside its site, `depth` eV/angstrom^4, or is pulled away."""
    rest = configuration.to_structure().cart_coords

    def function(positions: Any) -> tuple[float, Any]:
        if len(positions) != len(rest):  # the unit cell of the host
            return 0.0, np.zeros_like(positions)
        off = positions - rest
        forces = -5.0 * off
        energy = 2.5 * float((off**2).sum())
        x = off[MOVED, 0]
        energy += depth * ((x**2 - WELL_ANGSTROM**2) ** 2 - WELL_ANGSTROM**4) - 2.5 * x**2
        forces[MOVED, 0] = -4.0 * depth * x * (x**2 - WELL_ANGSTROM**2)
        energy -= pull * off[MOVED, 2]
        forces[MOVED, 2] += pull
        return energy, forces

    return CalculatedPotential(function=function)


def test_a_symmetric_saddle_is_found_by_shaking(cell: Host) -> None:
    vacancy = Configuration.of(cell, {0: VACANCY})
    found = DefectRelaxer(PotentialScorer(landscape(vacancy, 100.0)))(vacancy)
    assert found.verdict == "reconstructs"
    assert found.shaken_energy_change_ev == pytest.approx(-100.0 * WELL_ANGSTROM**4, abs=0.01)
    assert found.energy_change_ev == pytest.approx(found.shaken_energy_change_ev, abs=0.01), "the deeper one is kept"
    n = len(found.structure)
    assert found.max_displacement_angstrom == pytest.approx(WELL_ANGSTROM * (1 - 1 / n), abs=0.02)
    assert found.keeps_sites


def test_a_minimum_holds_and_its_energy_is_that_of_the_first_relaxation(cell: Host) -> None:
    vacancy = Configuration.of(cell, {0: VACANCY})
    scorer = PotentialScorer(landscape(vacancy, 0.0))
    found = DefectRelaxer(scorer)(vacancy)
    assert found.verdict == "stable"
    assert abs(found.shaken_energy_change_ev) < 0.02
    assert found.max_displacement_angstrom == 0.0
    assert found.formation_energy_ev == pytest.approx(scorer.formation_energy_ev(vacancy, found.energy_ev))


def test_an_atom_that_leaves_its_site_makes_another_defect(cell: Host) -> None:
    vacancy = Configuration.of(cell, {0: VACANCY})
    found = DefectRelaxer(PotentialScorer(landscape(vacancy, 0.0, pull=11.0)))(vacancy)
    assert found.max_displacement_angstrom > 1.5
    assert found.verdict in ("leaves its sites", "diverged")
    assert found.verdict != "diverged" or not found.usable


@pytest.mark.skipif(find_spec("chgnet") is None, reason="CHGNet needs the chgnet extra")
def test_single_vacancies_hold_by_chgnet(cell: Host) -> None:
    from defectgen.design.with_potential import load_relaxer

    found = load_relaxer("chgnet")(Configuration.from_key(cell, "VAC@B00"))
    assert found.verdict == "stable"
    assert found.energy_change_ev < 0
    assert found.formation_energy_ev == pytest.approx(2.0, abs=0.3)
