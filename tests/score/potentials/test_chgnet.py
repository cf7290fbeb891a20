"""CHGNet on what it was trained to know; only where its extra is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from defectgen.core import VACANCY, Configuration, Host
from defectgen.score.potentials.chgnet import CHGNet, anion_shifts_ev, load_chgnet
from defectgen.score.potentials.potential import PotentialScorer

pytestmark = pytest.mark.skipif(find_spec("chgnet") is None, reason="CHGNet needs the chgnet extra")


@pytest.fixture(scope="module")
def loaded() -> CHGNet:
    return load_chgnet()


def test_energies_are_those_of_pbe_with_anion_corrections(loaded: CHGNet, mos2: Host) -> None:
    scores = PotentialScorer(loaded).score([Configuration.of(mos2, {}), Configuration.of(mos2, {64: VACANCY})])
    plain = scores["energy_per_atom_ev"][0] - anion_shifts_ev()["S"] * 2 / 3
    assert plain == pytest.approx(-7.226, abs=0.05), "without the correction it is the energy of the Materials Project"
    assert scores["formation_energy_ev"][0] == pytest.approx(0.0, abs=0.02)
    assert 1.5 < scores["formation_energy_ev"][1] < 3.0


def test_the_calculator_is_silent_and_agrees(loaded: CHGNet, capsys: pytest.CaptureFixture[str]) -> None:
    from ase import Atoms

    from defectgen.core import get_host

    cell = Configuration.of(get_host("MoS2", (2, 2)), {4: VACANCY}).to_structure()
    atoms = Atoms([s.specie.symbol for s in cell], positions=cell.cart_coords, cell=cell.lattice.matrix, pbc=True)
    atoms.calc = loaded.calculator()
    assert atoms.get_potential_energy() == pytest.approx(loaded.evaluate([cell])[0].energy_ev, abs=1e-3)
    assert capsys.readouterr().out == ""
    assert {"Mo", "S", "W", "Se", "B", "N", "Ga", "In", "P", "C"} <= loaded.elements
