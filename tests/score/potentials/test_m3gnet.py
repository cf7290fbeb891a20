"""M3GNet: which way its messages go, what it refuses, and, with real weights, that its numbers are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.potentials import m3gnet
from defectgen.score.potentials.m3gnet import KNOWN_EV_PER_ATOM, VARIABLE, M3GNet, known_errors_ev, load_m3gnet
from defectgen.score.potentials.potential import PotentialScorer

pytestmark = pytest.mark.skipif(find_spec("matgl") is None, reason="M3GNet needs the m3gnet extra")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small potential with random weights, saved as matgl does."""
    import torch
    from matgl.apps.pes import Potential
    from matgl.models import M3GNet as Network

    torch.manual_seed(0)
    elements = ("O", "Na", "Mg", "Si", "S", "Cl", "Mo")
    network = Network(
        element_types=elements, dim_node_embedding=8, dim_edge_embedding=8, units=8, nblocks=2, is_intensive=False
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    Potential(network, data_std=2000.0, calc_stresses=True).save(folder)
    return folder


def expect_of(folder: Path, sums_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the energies of the potential in this folder, summed there, the known ones."""
    import matgl

    potential = matgl.load_model(folder).eval()
    m3gnet._sum_at(potential, sums_at)
    errors = known_errors_ev(M3GNet("tiny", potential, sums_at))
    known = {formula: KNOWN_EV_PER_ATOM[formula] + error for formula, error in errors.items()}
    monkeypatch.setattr(m3gnet, "KNOWN_EV_PER_ATOM", MappingProxyType(known))


@pytest.mark.parametrize("sums_at", ["destination", "source"])
def test_messages_are_summed_where_the_known_energies_come_out(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sums_at: str
) -> None:
    monkeypatch.setattr(m3gnet, "CHECK_TOLERANCE_EV", 1e-2)
    expect_of(tiny, sums_at, monkeypatch)
    assert load_m3gnet(tiny, tmp_path).sums_at == sums_at


def test_the_aggregation_belongs_to_one_potential(tiny: Path) -> None:
    import matgl

    first, second = matgl.load_model(tiny).eval(), matgl.load_model(tiny).eval()
    before = known_errors_ev(M3GNet("tiny", second, "source"))
    m3gnet._sum_at(first, "destination")
    changed = known_errors_ev(M3GNet("tiny", first, "destination"))
    assert known_errors_ev(M3GNet("tiny", second, "source")) == before
    assert max(abs(changed[formula] - before[formula]) for formula in before) > 0.03
    m3gnet._sum_at(first, "source")
    assert known_errors_ev(M3GNet("tiny", first, "source")) == pytest.approx(before, abs=1e-2)


def test_wrong_energies_are_refused_before_use(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DefectgenError, match=r"tiny gives wrong energies for known solids: NaCl .* expected NaCl"):
        load_m3gnet(tiny, tmp_path)


def test_wrong_folders_and_files_are_one_line(tiny: Path, tmp_path: Path) -> None:
    for model, message in (
        (None, "no M3GNet model is named"),
        (" ", "no M3GNet model is named"),
        (tmp_path / "none", "is not a folder"),
        (tmp_path, r"model\.json, model\.pt, state\.pt missing"),
        (tiny.parent, "It has the models tiny: name one"),
    ):
        with pytest.raises(UsageError, match=message):
            load_m3gnet(model, tmp_path)
    for name in ("state.pt", "model.json"):
        damaged = tmp_path / f"damaged-{name}"
        damaged.mkdir()
        for part in tiny.iterdir():
            content = part.read_bytes()
            (damaged / part.name).write_bytes(content[: len(content) // 2] if part.name == name else content)
        with pytest.raises(DefectgenError, match="files are damaged or of another kind") as caught:
            load_m3gnet(damaged, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_name_that_the_hub_cannot_give_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matgl

    def refuse(*_: Any, **options: Any) -> None:
        assert options == {"cache_dir": str(tmp_path)}
        raise RuntimeError("unknown") from OSError("no such model. Try another.")

    monkeypatch.setattr(matgl, "load_model", refuse)
    with pytest.raises(DefectgenError, match=r"the hub gave no model M3GNet-X \(OSError: no such model\)"):
        load_m3gnet("M3GNet-X", tmp_path)


def test_nothing_is_written_to_the_home_folder(tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "from pathlib import Path; from defectgen.score.potentials.m3gnet import load_m3gnet\n"
        "try:\n"
        f"    load_m3gnet({str(tiny)!r}, Path({str(tmp_path / 'cache')!r}))\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "print(Path.home())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MPL", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"HOME": str(home)}, capture_output=True, text=True, check=True
    )
    assert "wrong energies" in done.stdout
    assert done.stdout.splitlines()[-1] == str(home)
    assert list(home.iterdir()) == []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> M3GNet:
    name = os.environ.get(VARIABLE)
    if not name:
        pytest.skip(f"{VARIABLE} is not set: tests on real M3GNet weights left out")
    return load_m3gnet(name, tmp_path_factory.mktemp("cache"))


def test_real_weights_give_known_energies(real: M3GNet) -> None:
    assert max(abs(error) for error in known_errors_ev(real).values()) < 0.06


def test_a_batch_equals_single_structures(real: M3GNet) -> None:
    cells = [
        Configuration.of(get_host(name, size), edits).to_structure()
        for name, size, edits in (("MoS2", (3, 3), {9: VACANCY}), ("BN", (4, 4), {0: "C"}), ("GaSe", (2, 2), {}))
    ]
    for together, alone in zip(real.evaluate(cells), [real.evaluate([cell])[0] for cell in cells], strict=True):
        assert together.energy_ev == pytest.approx(alone.energy_ev, abs=1e-3)
        assert np.abs(together.forces - alone.forces).max() < 1e-3
        assert np.abs(together.stress - alone.stress).max() < 1e-4


def test_forces_and_stress_are_the_slopes_of_the_energy(real: M3GNet) -> None:
    from pymatgen.core import Lattice, Structure

    cell = Configuration.of(get_host("MoS2", (2, 2)), {4: VACANCY}).to_structure()
    found = real.evaluate([cell])[0]
    step = 0.01
    atom, axis = np.unravel_index(int(np.abs(found.forces).argmax()), found.forces.shape)
    shifted = []
    for sign in (1, -1):
        moved = cell.copy()
        moved.translate_sites([int(atom)], sign * step * np.eye(3)[axis], frac_coords=False)
        strained = Structure(
            Lattice(cell.lattice.matrix * (1 + sign * step * np.array([1, 0, 0]))), cell.species, cell.frac_coords
        )
        shifted.append([result.energy_ev for result in real.evaluate([moved, strained])])
    slopes = (np.array(shifted[0]) - np.array(shifted[1])) / (2 * step)
    assert found.forces[atom, axis] == pytest.approx(-slopes[0], rel=0.05, abs=0.02)
    assert found.stress[0, 0] * cell.volume == pytest.approx(slopes[1], rel=0.05, abs=0.1)


def test_the_calculator_of_ase_agrees(real: M3GNet) -> None:
    from ase import Atoms

    cell = Configuration.of(get_host("MoS2", (2, 2)), {4: VACANCY}).to_structure()
    atoms = Atoms([s.specie.symbol for s in cell], positions=cell.cart_coords, cell=cell.lattice.matrix, pbc=True)
    atoms.calc = real.calculator()
    found = real.evaluate([cell])[0]
    assert atoms.get_potential_energy() == pytest.approx(found.energy_ev, abs=1e-3)
    assert np.abs(atoms.get_forces() - found.forces).max() < 1e-3
    assert atoms.get_stress()[0] == pytest.approx(found.stress[0, 0], abs=1e-4)


def test_defects_of_the_real_potential(real: M3GNet, mos2: Host) -> None:
    scores = PotentialScorer(real).score([Configuration.of(mos2, {}), Configuration.of(mos2, {64: VACANCY})])
    assert scores["formation_energy_ev"][0] == pytest.approx(0.0, abs=0.02)
    assert 1.0 < scores["formation_energy_ev"][1] < 3.0


def test_a_saved_model_names_its_files(tiny: Path) -> None:
    assert json.loads((tiny / "model.json").read_text())["@class"] == "Potential"
    assert sorted(path.name for path in tiny.iterdir()) == sorted(m3gnet.FILES)
