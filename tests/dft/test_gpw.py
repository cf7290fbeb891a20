"""Files of GPAW as it wrote them: one that is kept, and fresh ones where GPAW is installed.

The kept one is a chain of nitrogen atoms 4.2 angstrom apart, computed by GPAW 22.8 (Debian) as `CASES` say.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import defectgen as dg
from defectgen.dft.codes import CODES, EngineOptions
from defectgen.dft.result import Fingerprint
from defectgen.dft.results import dft_results

DATA = Path(__file__).parent / "data"

CASES = """
import json
from ase import Atoms
from gpaw import GPAW, FermiDirac, KohnShamConvergenceError

sheet = Atoms("BN", cell=[[2.51, 0, 0], [-1.255, 2.17372, 0], [0, 0, 7.0]], pbc=[1, 1, 0],
              scaled_positions=[[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
chain = Atoms("N", cell=[4.2, 4.2, 4.2], positions=[[2.1, 2.1, 2.1]], pbc=[1, 0, 0], magmoms=[3])
cases = {
    "nitrogen": (chain, {"occupations": FermiDirac(0.05), "kpts": (4, 1, 1), "setups": {"N": "paw"}}),
    "usual": (sheet, {"kpts": {"size": (3, 3, 1), "gamma": True}}),
    "cold": (sheet, {"occupations": {"name": "marzari-vanderbilt", "width": 0.2}, "kpts": (2, 2, 1)}),
    "none": (sheet, {"occupations": {"width": 0.0}}),
    "unconverged": (sheet, {"maxiter": 3}),
}
said = {}
for name, (atoms, given) in cases.items():
    calc = GPAW(mode="lcao", basis="dzp", xc="PBE", h=0.35, txt=f"{name}.txt", **given)
    work = atoms.copy()
    work.calc = calc
    try:
        energy = work.get_potential_energy()
    except KohnShamConvergenceError:
        energy = None
    calc.write(f"{name}.gpw")
    spins = range(calc.get_number_of_spins())
    said[name] = {"energy": energy, "fermi": calc.get_fermi_level(),
                  "moment": calc.get_magnetic_moment() if energy else 0,
                  "edges": [calc.get_homo_lumo(spin).tolist() for spin in spins]}
print(json.dumps(said))
"""

SMEARINGS = {
    "nitrogen": ("fermi-dirac", 0.05), "usual": ("fermi-dirac", 0.1), "cold": ("marzari-vanderbilt", 0.2),
    "none": ("fixed", 0.0), "unconverged": ("fermi-dirac", 0.1),
}  # fmt: skip


def test_a_file_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "nitrogen.gpw"
    path.write_bytes(gzip.decompress((DATA / "gpaw-nitrogen.gpw.gz").read_bytes()))
    assert CODES["gpaw"].claims(path) == 2
    found = CODES["gpaw"].read(path)
    assert found.electronic_converged
    assert found.ionic_converged is None, "a file says nothing of a relaxation"
    assert found.version == "22.8.0"
    assert found.energy_ev == pytest.approx(8.710565016999995)
    assert found.fermi_level_ev == pytest.approx(-4.856829241168118)
    assert found.magnetization_mu_b == pytest.approx(3.0, abs=1e-6), "of one cell, not of its four k points"
    assert [level.homo_ev for level in found.levels] == pytest.approx([-7.40904450, -15.43326178])
    assert found.lumo_ev == pytest.approx(-3.60809991)
    assert found.charge == 0.0
    assert found.fingerprint == Fingerprint(
        "gpaw", "PBE", None, "lcao dzp h=0.35", (("N", "paw"),), (4, 1, 1), True, "fermi-dirac", 0.05
    )
    frame = dft_results([path]).frame
    assert frame["total_magnetization_mu_b"].to_list() == pytest.approx([3.0], abs=1e-6)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(dg.DefectgenError, match=r"nitrogen\.gpw: cannot be read as a \.gpw file"):
        CODES["gpaw"].read(path)


def test_files_that_gpaw_writes_now(tmp_path: Path) -> None:
    try:
        python = CODES["gpaw"].command(EngineOptions())[0]
    except dg.DefectgenError as error:
        pytest.skip(str(error))
    done = subprocess.run([python, "-c", CASES], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for name, said in json.loads(done.stdout).items():
        found = CODES["gpaw"].read(tmp_path / f"{name}.gpw")
        assert (found.fingerprint.smearing, found.fingerprint.width_ev) == SMEARINGS[name]
        assert found.electronic_converged == (name != "unconverged")
        assert found.energy_ev == (None if said["energy"] is None else pytest.approx(said["energy"]))
        assert found.fermi_level_ev == pytest.approx(said["fermi"])
        assert len(found.levels) == len(said["edges"])
        if name == "nitrogen":
            assert found.magnetization_mu_b == pytest.approx(said["moment"], abs=0.05)  # that of the density's grid
        else:
            assert found.magnetization_mu_b is None
            edges = [found.levels[0].homo_ev, found.levels[0].lumo_ev]
            assert edges == pytest.approx(np.array(said["edges"][0]).tolist())
        assert found.fingerprint.basis == "lcao dzp h=0.35"
        assert found.fingerprint.functional == "PBE"
        if name != "unconverged" and found.version < "24":
            text = CODES["gpaw"].read(tmp_path / f"{name}.txt")
            assert text.energy_ev == pytest.approx(found.energy_ev, abs=1e-5)
            assert (text.fingerprint.smearing, text.fingerprint.width_ev) == SMEARINGS[name]
    row = dft_results([tmp_path / "unconverged.gpw"]).frame.row(0, named=True)
    assert not row["converged"]
    assert row["energy_ev"] is None


def test_the_text_of_a_newer_gpaw_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("  __  _  _\n | _ |_)|_||  |\n |__||  | ||/\\| - 26.7.0\n\nUser:   me@here\n")
    assert CODES["gpaw"].claims(path) == 1
    with pytest.raises(dg.DefectgenError, match=r"out\.txt: is the text of a newer GPAW.* Give its \.gpw file"):
        CODES["gpaw"].read(path)
