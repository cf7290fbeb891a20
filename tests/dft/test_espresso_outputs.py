"""What pw.x 6.7 left, as it wrote it; and, where it is installed, the way from inputs to results by it.

The files in data are of runs with the potentials of docs/examples/gth_for_pwx.py at the Gamma point: C_N in h-BN 2x2
(relaxed at 200 eV; killed after two of three steps at 300 eV), and N2 in a small box, stopped after three iterations.
Numbers stand beside them as pw.x printed them.
"""

from __future__ import annotations

import gzip
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import defectgen as dg
from defectgen.dft.codes import CODES
from defectgen.dft.codes.espresso_potential import PLANES, plane_averages
from defectgen.dft.compute import DONE, FAILED, compute, result_file
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.result import Fingerprint
from defectgen.dft.results import dft_results
from defectgen.dft.settings import load_settings

DATA = Path(__file__).parent / "data"

RYDBERG = 27.211386245988 / 2

TABLE = Path("/usr/share/cp2k/GTH_POTENTIALS")


def unpacked(name: str, folder: Path, place: str = "out/pwscf.xml") -> Path:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    return path


@pytest.fixture
def carbon() -> dg.Configuration:
    return dg.Configuration.from_key(dg.host("BN", "2x2"), "C@B00")


def test_a_relaxed_cell(carbon: dg.Configuration, tmp_path: Path) -> None:
    path = unpacked("pwscf-relaxed.xml", tmp_path)
    shutil.copy(DATA / "pp-planes.json", path.parent / PLANES)
    found = CODES["qe"].read(path)
    assert found.converged
    assert found.version == "6.7MaX"
    # "Final energy = -86.3297405086 Ry", "smearing contrib. (-TS) = -0.00207556 Ry", of which half is taken off
    assert found.energy_ev == pytest.approx((-86.3297405086 + 0.00207556 / 2) * RYDBERG, abs=1e-5)
    assert found.fermi_level_ev == pytest.approx(-2.8843, abs=5e-5)
    assert found.magnetization_mu_b == pytest.approx(1.00, abs=5e-3)
    up, down = found.levels
    assert (up.homo_ev, up.lumo_ev) == pytest.approx((-3.1409, 0.5603), abs=5e-5)
    assert (down.homo_ev, down.lumo_ev) == pytest.approx((-2.8845, -2.8842), abs=5e-5)
    assert found.fingerprint == Fingerprint(
        "qe",
        "PBE",
        200.0,
        "density to 800 eV",
        (("B", "B.gth"), ("C", "C.gth"), ("N", "N.gth")),
        (1, 1, 1),
        True,
        "gaussian",
        0.05,
    )
    assert found.vacuum_level_ev == pytest.approx(1.987, abs=5e-3)
    (row,) = dft_results(tmp_path).frame.to_dicts()
    assert (row["host"], row["configuration"]) == ("BN", carbon.canonical().key)


def test_a_cycle_that_did_not_converge(tmp_path: Path) -> None:
    found = CODES["qe"].read(unpacked("pwscf-unconverged.xml", tmp_path, "out/pwscf.save/data-file-schema.xml"))
    assert found.electronic_converged is False
    assert found.fingerprint.cutoff_ev == pytest.approx(8 * RYDBERG, abs=1e-3)


def test_a_killed_relaxation_is_not_done_and_goes_on(carbon: dg.Configuration, tmp_path: Path) -> None:
    dft_inputs(carbon, tmp_path / "in", "qe")
    folder = tmp_path / "in" / "001_C_N"
    old = unpacked("pwscf-relaxed.xml", folder)
    os.utime(old, (1, 1))
    inner = unpacked("pwscf-killed.xml", folder, "out/pwscf.save/data-file-schema.xml")
    code = CODES["qe"]
    assert result_file(folder, code) == inner  # the newer one
    found = code.read(inner)
    assert (found.electronic_converged, found.ionic_converged) == (True, False)
    (row,) = dft_results(folder).frame.to_dicts()
    assert not row["converged"]
    code.resume(folder)
    rows = (folder / "pw.in").read_text().partition("ATOMIC_POSITIONS")[2].splitlines()[1:9]
    placed = np.array([[float(word) for word in row.split()[1:4]] for row in rows])
    assert np.allclose(placed, found.structure.cart_coords, atol=1e-8)


def test_plane_averages_of_the_potential(tmp_path: Path) -> None:
    path = unpacked("pp-potential", tmp_path, "potential")
    planes = plane_averages(path)
    assert planes.shape == (18,)
    assert np.allclose(planes[1:9], planes[17:9:-1], atol=1e-3)  # the molecule lies in the middle
    assert planes.argmin() in (7, 8, 10, 11)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="reshape"):
        plane_averages(path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pw.x") is None, reason="no pw.x (apt-get install quantum-espresso)")
@pytest.mark.skipif(not TABLE.is_file(), reason="no pseudopotentials (apt-get install cp2k-data)")
def test_from_inputs_to_results_by_pw(carbon: dg.Configuration, tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "gth_for_pwx.py"))
    script["main"](str(tmp_path / "pseudo"), "B", "N", "C")
    wanted = [
        "cutoff_ev=120", "kpoint_length_angstrom=5", "relax=false", "qe.density_cutoff_factor=4",
        f"qe.pseudo_dir={tmp_path / 'pseudo'}",
    ]  # fmt: skip
    folder = tmp_path / "in"
    dft_inputs(carbon, folder, "qe", settings=load_settings("2dmd", wanted))
    names = ["001_C_N", "host_BN_2x2"]
    (tmp_path / "pseudo").rename(tmp_path / "away")
    assert {(item.status, "which should hold B.gth, N.gth" in item.reason) for item in compute(folder, only=names)} == {
        (FAILED, True)
    }
    (tmp_path / "away").rename(tmp_path / "pseudo")
    file = folder / "001_C_N" / "pw.in"
    file.write_text(file.read_text().replace("electron_maxstep = 200", "electron_maxstep = 3"))
    defect, host = compute(folder, only=names)
    assert (defect.status, host.status) == (DONE, DONE)
    assert [item.change for item in defect.attempts] == ["", "mixing_beta 0.1", "mixing_beta 0.05, 500 steps"]
    rows = {row["role"]: row for row in dft_results(folder).frame.to_dicts()}
    assert rows["defect"]["level_method"] == "vacuum level"
    assert rows["host"]["band_gap_ev"] == pytest.approx(4.0, abs=1.0)
    assert rows["defect"]["total_magnetization_mu_b"] == pytest.approx(1.0, abs=0.1)
    assert not list(folder.rglob("wfc*"))
