"""Outputs of VASP as it wrote them, whole and in the ways in which they come from a cluster.

The silicon files in data are from the tests of NOMAD's parsers (nomad-parser-plugins-electronic 1.1.0, Apache-2.0): a
relaxation of five atoms with spin (VASP 5.4.1), and a mesh (VASP 5.2.2). Runs whose cycles or steps did not converge, a
static and a killed one are from those of AiiDA-VASP 5.1.0 (VASP 5.4.4, MIT), the one with stars from those of parsevasp
3.4.0 (VASP 5.4.1, MIT). Numbers stand beside them as VASP printed them.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import math
import os
import re
import shutil
from pathlib import Path

import pytest
from vasprun_files import write_vasprun

import defectgen as dg
from defectgen.dft.codes import CODES
from defectgen.dft.codes.vasp_outputs import read_vasp
from defectgen.dft.codes.vasp_settings import functional, hubbard_terms, setups
from defectgen.dft.result import DftResult, Fingerprint
from defectgen.dft.results import dft_results

DATA = Path(__file__).parent / "data"

VARIABLE = "DEFECTGEN_VASP_FILES"


@pytest.fixture(scope="module")
def outcar() -> str:
    return gzip.decompress((DATA / "OUTCAR-silicon.gz").read_bytes()).decode("latin-1")


@pytest.fixture(scope="module")
def vasprun() -> str:
    return gzip.decompress((DATA / "vasprun-silicon.xml.gz").read_bytes()).decode("latin-1")


def of_text(text: str, folder: Path, name: str = "OUTCAR") -> DftResult:
    (folder / name).write_text(text, encoding="latin-1")
    return read_vasp(folder / name)


def test_a_relaxation_by_its_outcar_alone(outcar: str, tmp_path: Path) -> None:
    found = of_text(outcar, tmp_path)
    assert found.converged
    assert found.version == "5.4.1"
    assert found.energy_ev == pytest.approx(-20.34803283)  # energy(sigma->0) of the second ionic step
    assert found.fermi_level_ev == pytest.approx(-5.1136)
    assert [(level.homo_ev, level.lumo_ev) for level in found.levels] == [(-5.1418, -3.7805)] * 2
    assert found.magnetization_mu_b == pytest.approx(9e-7)
    assert found.charge == 0  # NELECT = 20, five atoms of four electrons
    assert found.site_potentials_ev[0] == pytest.approx(-93.7732, abs=0.05)
    assert len(found.site_potentials_ev) == len(found.structure) == 5
    assert found.fingerprint == Fingerprint("vasp", "PBE", 245.3, "", (("Si", "Si"),), (), True, "gaussian", 0.0)


def test_a_relaxation_that_was_killed_has_its_last_whole_step(outcar: str, tmp_path: Path) -> None:
    behind = outcar.index("Iteration    2(   2)")
    found = of_text(outcar[:behind], tmp_path)
    assert found.energy_ev == pytest.approx(-20.34797581)
    assert found.fermi_level_ev == pytest.approx(-5.1369)
    assert (found.electronic_converged, found.ionic_converged) == (True, False)
    later = outcar.index("------------------------ aborting", outcar.index("E-fermi :  -5.1136"))
    found = of_text(outcar[:later], tmp_path)  # levels of the second step are there, its energy is not
    assert (found.energy_ev, found.fermi_level_ev) == pytest.approx((-20.34797581, -5.1369))
    with pytest.raises(dg.DefectgenError, match="ends before the first ionic step is done"):
        of_text(outcar[: outcar.index("E-fermi")], tmp_path)


def test_a_last_step_that_used_all_its_cycles_did_not_converge(outcar: str, tmp_path: Path) -> None:
    first, mark, last = outcar.rpartition("aborting loop because EDIFF is reached")
    assert mark in first  # the step before did
    found = of_text(first + "aborting loop EDIFF was not reached (unconverged)" + last, tmp_path)
    assert found.electronic_converged is False


def test_stars_for_numbers_cost_a_level(outcar: str, vasprun: str, tmp_path: Path) -> None:
    start = outcar.rindex("E-fermi")
    bad = outcar[:start] + outcar[start:].replace("     20      -0.0110", "     20 ***********")
    found = of_text(bad, tmp_path)
    assert found.levels[0].homo_ev == -5.1418
    assert "1 levels are no numbers" in found.notes
    row = next(line for line in vasprun.splitlines() if "<r>" in line and "0.0000 </r>" in line)
    stars = of_text(vasprun.replace(row, "       <r> **********    0.0000 </r>", 1), tmp_path, "vasprun.xml")
    assert math.isfinite(stars.levels[0].homo_ev)
    assert math.isfinite(stars.levels[0].lumo_ev)
    assert "1 levels are no numbers" in stars.notes


def test_files_of_other_kinds_are_refused_in_one_line(outcar: str, vasprun: str, tmp_path: Path) -> None:
    with pytest.raises(dg.DefectgenError, match=r"not those of DFT \(ALGO = EVGW0\)"):
        of_text(outcar.replace(" INCAR:", " INCAR:\n   ALGO = EVGW0", 1), tmp_path)
    with pytest.raises(dg.DefectgenError, match="not those of DFT"):
        of_text(
            vasprun.replace("<incar>", '<incar>\n  <i type="string" name="ALGO"> GW0</i>', 1), tmp_path, "vasprun.xml"
        )
    with pytest.raises(dg.DefectgenError, match="does not begin with VASP's version"):
        of_text("hello", tmp_path)
    with pytest.raises(dg.DefectgenError, match="1 potentials, 0 kinds of ions"):
        of_text(outcar.replace("ions per type =", "ions"), tmp_path)
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(outcar.encode("latin-1"))[:5000])
    with pytest.raises(dg.DefectgenError, match="cannot be unpacked"):
        read_vasp(tmp_path / "OUTCAR.gz")


def test_the_energy_of_vasprun_is_that_of_the_last_cycle(vasprun: str, tmp_path: Path) -> None:
    assert vasprun.rindex('<i name="e_0_energy">      0.00000000 </i>') > vasprun.rindex("</scstep>")  # VASP's own slip
    found = of_text(vasprun, tmp_path, "vasprun.xml")
    assert found.energy_ev == pytest.approx(-10.83271590)
    assert found.fermi_level_ev == pytest.approx(5.24231519)
    assert found.gap_ev == pytest.approx(5.9148 - 5.2330)
    assert found.charge == 0
    assert found.fingerprint.mesh == (15, 15, 15)


def test_a_band_structure_has_levels_and_no_energy(vasprun: str, tmp_path: Path) -> None:
    text, changed = re.subn(r'name="ICHARG">\s*\d+', 'name="ICHARG">    11', vasprun)
    assert changed
    found = of_text(text, tmp_path, "vasprun.xml")
    assert found.energy_ev is None
    assert found.levels
    assert "a band structure at a fixed density: its energy is not used" in found.notes


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files(ending: str, pack: object, outcar: str, vasprun: str, tmp_path: Path) -> None:
    assert callable(pack)
    for name, text, energy in (("OUTCAR", outcar, -20.34803283), ("vasprun.xml", vasprun, -10.8327159)):
        path = tmp_path / f"{name}.{ending}"
        path.write_bytes(pack(text.encode("latin-1")))
        assert CODES["vasp"].claims(path)
        assert read_vasp(path).energy_ev == pytest.approx(energy)


def test_of_a_run_in_steps_the_last_counts(tmp_path: Path) -> None:
    names = [
        "vasprun.xml.bands", "OUTCAR.relax1.gz", "vasprun.xml.relax1", "OUTCAR.relax2.gz", "vasprun.xml.relax2.gz",
        "vasprun.xml.relax10", "vasprun.xml.static", "OUTCAR", "vasprun.xml.gz",
    ]  # fmt: skip
    ranks = [CODES["vasp"].claims(Path(name)) for name in names]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert not any(
        CODES["vasp"].claims(Path(n)) for n in ("vasprun.xml.orig", "OUTCAR.bak.gz", "OUTCAR2", "vasprun.txt")
    )
    structure = dg.Configuration.of(dg.host("MoS2", "3x3"), {}).to_structure()
    for number in (1, 2):
        path = write_vasprun(tmp_path, structure, -180.0 - number, [[(-1.0, 1.0), (0.5, 0.0)]])
        path.rename(tmp_path / f"vasprun.xml.relax{number}")
    (row,) = dft_results(tmp_path).frame.to_dicts()
    assert row["energy_ev"] == pytest.approx(-182.0)


def test_folders_of_steps_are_one_calculation(tmp_path: Path) -> None:
    structure = dg.Configuration.of(dg.host("MoS2", "3x3"), {}).to_structure()
    for number in (1, 2, 10):
        write_vasprun(tmp_path / "pristine" / f"relax{number}", structure, -180.0 - number, [[(-1.0, 1.0), (0.5, 0.0)]])
    write_vasprun(tmp_path / "other" / "relax1", structure, -170.0, [[(-1.0, 1.0), (0.5, 0.0)]])
    rows = dft_results(tmp_path).frame.to_dicts()
    assert [(row["name"], row["energy_ev"]) for row in rows] == [("other", -170.0), ("pristine", -190.0)]


def test_functionals_with_all_that_changes_energies() -> None:
    titles = ["PAW_PBE Mo_sv 02Feb2006", "PAW_PBE S 06Sep2000"]
    assert functional({"GGA": "--"}, titles, {}) == "PBE"
    assert functional({"GGA": "PS", "IVDW": 12}, titles, {}) == "PBEsol+D3(BJ)"
    assert functional({"GGA": "PE", "METAGGA": "--", "LHFCALC": "T", "HFSCREEN": "0.2"}, titles, {}) == (
        "PBE hybrid 0.25 0.2"
    )
    assert functional({"GGA": "--", "METAGGA": " R2SCAN"}, titles, {}) == "R2SCAN"
    assert functional({"GGA": "MK", "LUSE_VDW": True}, titles, {}) == "optB86b+vdW-DF"
    assert functional({}, ["PAW Si 02Apr1999"], {}) == "LDA"
    hubbard = hubbard_terms(["Mo", "S"], [4.0, 0.0], [1.0, 0.0])
    assert hubbard == {"Mo": 3.0}
    assert functional({"GGA": "PE"}, titles, hubbard) == "PBE+U"
    assert setups(titles, hubbard) == (("Mo", "Mo_sv/U=3.0"), ("S", "S"))


def test_cells_with_a_hubbard_term_compare_with_elements_that_have_none() -> None:
    host = Fingerprint("vasp", "PBE+U", 500.0, setups=(("Mo", "Mo_sv/U=3.0"), ("S", "S")))
    assert host.differs(Fingerprint("vasp", "PBE", 500.0, setups=(("S", "S"),))) == ""
    assert "Mo_sv/U=3.0" in host.differs(Fingerprint("vasp", "PBE", 500.0, setups=(("Mo", "Mo_sv"),)))
    assert host.differs(Fingerprint("vasp", "PBE+D3", 500.0, setups=(("S", "S"),)))


def kept(name: str, folder: Path, write: str) -> Path:
    """A file of the data under the name that VASP gives it."""
    path = folder / write
    path.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    return path


@pytest.mark.parametrize(
    ("stem", "energy", "electronic", "ionic"),
    [("cycles", -6.50149309, False, True), ("steps", -10.53701997, True, False)],
)
def test_runs_that_did_not_converge(stem: str, energy: float, electronic: bool, ionic: bool, tmp_path: Path) -> None:
    whole = read_vasp(kept(f"vasprun-{stem}.xml", tmp_path, "vasprun.xml"))
    assert (whole.electronic_converged, whole.ionic_converged) == (electronic, ionic)
    assert whole.energy_ev == pytest.approx(energy)
    alone = read_vasp(kept(f"OUTCAR-{stem}", tmp_path, "OUTCAR"))
    assert alone.energy_ev == pytest.approx(energy)
    assert alone.levels[0].homo_ev == pytest.approx(whole.levels[0].homo_ev, abs=1e-4)
    assert alone.ionic_converged == (stem == "cycles"), "NSW is -1 where atoms are not moved"
    assert alone.electronic_converged == electronic, "VASP 5 writes that EDIFF is reached after its last cycle too"
    row = dft_results([tmp_path / "vasprun.xml"]).frame.row(0, named=True)
    assert not row["converged"]
    assert ("electronic" if stem == "cycles" else "ionic") in row["note"]
    packed = tmp_path / "vasprun.xml.gz"
    packed.write_bytes(gzip.compress((tmp_path / "vasprun.xml").read_bytes()))
    assert read_vasp(packed).electronic_converged == electronic
    packed.write_bytes(packed.read_bytes()[:4000])
    with pytest.raises(dg.DefectgenError, match=r"vasprun\.xml\.gz: ends in the middle or is no XML"):
        read_vasp(packed)


def test_a_static_run_converges_by_its_cycles_alone(tmp_path: Path) -> None:
    found = read_vasp(kept("OUTCAR-static", tmp_path, "OUTCAR"))
    assert found.converged
    assert found.energy_ev == pytest.approx(-6.50161629)


def test_a_run_that_was_killed_in_its_first_step_is_one_line(tmp_path: Path) -> None:
    path = kept("vasprun-killed.xml", tmp_path, "vasprun.xml")
    with pytest.raises(dg.DefectgenError, match="ends in the middle or is no XML") as error:
        read_vasp(path)
    assert "\n" not in str(error.value)
    assert "start it again" in str(error.value)


def test_settings_that_are_stars_do_not_hide_the_result(tmp_path: Path) -> None:
    path = kept("vasprun-stars.xml", tmp_path, "vasprun.xml")
    assert '<i type="int" name="KINTER">******</i>' in path.read_text()
    found = read_vasp(path)
    assert found.converged
    assert found.energy_ev == pytest.approx(-43.39087657)
    assert found.path == path
    assert "settings that are no numbers: KINTER" in found.notes


def real_file(name: str) -> Path:
    """One of the files that ASE tests its reader of VASP with, from its package or the folder that a variable names."""
    spec = importlib.util.find_spec("ase")
    assert spec is not None
    assert spec.origin is not None
    places = [Path(spec.origin).parent / "test" / "testdata" / "vasp"]
    places += [Path(os.environ[VARIABLE])] if VARIABLE in os.environ else []
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        pytest.skip(f"this ASE brings no test data and {VARIABLE} names no folder with it: VASP's own files left out")
    return found


def test_a_real_vasprun_of_diamond() -> None:
    found = read_vasp(real_file("vasprun_pstress.xml"))
    assert found.version == "6.3.0"
    assert found.energy_ev == pytest.approx(-20.24010135)
    assert found.gap_ev == pytest.approx(14.5994 - 9.049)  # at the k points of the mesh
    assert found.fermi_level_ev == pytest.approx(9.21741277)
    assert found.converged
    assert found.structure.composition.reduced_formula == "C"
    assert (found.fingerprint.functional, found.fingerprint.cutoff_ev) == ("LDA", 400)


def test_a_real_vasprun_of_rock_salt_compressed_and_cut(tmp_path: Path) -> None:
    content = real_file("vasprun_dfpt.xml").read_bytes()
    (tmp_path / "vasprun.xml.gz").write_bytes(gzip.compress(content))
    found = read_vasp(tmp_path / "vasprun.xml.gz")
    assert found.structure.composition.reduced_formula == "NaCl"
    assert found.gap_ev == pytest.approx(5.6402 - 0.1414)
    assert found.fingerprint.functional == "PBE"
    assert found.charge == 0
    (tmp_path / "vasprun.xml").write_bytes(content[:-3000])
    with pytest.raises(dg.DefectgenError, match="ends in the middle"):
        read_vasp(tmp_path / "vasprun.xml")


def test_a_real_vasprun_that_used_all_its_steps(tmp_path: Path) -> None:
    content = real_file("vasprun_pstress.xml").read_bytes()
    assert content.count(b'name="NELM">    60<') == 1
    steps = content.count(b"</scstep>")
    path = tmp_path / "vasprun.xml"
    path.write_bytes(content.replace(b'name="NELM">    60<', f'name="NELM">    {steps}<'.encode()))
    found = read_vasp(path)
    assert found.electronic_converged is False
    assert not found.converged


def test_a_real_outcar(tmp_path: Path) -> None:
    shutil.copy(real_file("OUTCAR_example_1"), tmp_path / "OUTCAR")
    found = read_vasp(tmp_path / "OUTCAR")
    assert found.version == "5.3.3"
    assert found.energy_ev == pytest.approx(-68.23102426)
    assert found.magnetization_mu_b == pytest.approx(17.0482806)
    assert len(found.site_potentials_ev) == len(found.structure) == 18
    assert found.converged
    assert dict(found.fingerprint.setups) == {"Ni": "Ni"}
