"""Outputs of Quantum ESPRESSO and GPAW as these codes lay them out, and VASP started by its command."""

from __future__ import annotations

import json
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp import Incar

import defectgen as dg
from defectgen.dft.alignment import FAR_SITES, align
from defectgen.dft.codes import CODES, EngineOptions
from defectgen.dft.codes.espresso import ANGSTROM, EV
from defectgen.dft.compute import DONE, compute
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.result import DftResult, Fingerprint, SpinLevels, spin_levels
from defectgen.dft.results import dft_results

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def vacancy() -> dg.Configuration:
    return dg.Configuration.from_key(dg.host("MoS2", "3x3"), "VAC@B00")


def espresso_xml(structure: Structure, spin: bool = True, scf: str = "true", relaxed: str = "true") -> str:
    """XML in the schema of pw.x 7; one k point, two bands a channel, in hartree and bohr."""
    rows = structure.lattice.matrix / ANGSTROM
    cell = "".join(f"<a{n}>{a} {b} {c}</a{n}>" for n, (a, b, c) in enumerate(rows, 1))
    atoms = "".join(
        f'<atom name="{site.specie.symbol}{1 if site.specie.symbol == "Mo" else ""}" index="{n}">'
        f"{' '.join(str(x / ANGSTROM) for x in site.coords)}</atom>"
        for n, site in enumerate(structure, 1)
    )
    values = [-0.5 / EV, 1.0 / EV, *([-0.3 / EV, 0.2 / EV] if spin else [])]
    filled = [1, 0, 1, 0] if spin else [1, 0]
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0">
<general_info><creator NAME="PWSCF" VERSION="7.2">x</creator></general_info>
<input><control_variables><calculation>relax</calculation></control_variables>
<bands><tot_charge>0.0</tot_charge></bands></input>
<output><convergence_info><scf_conv><convergence_achieved>{scf}</convergence_achieved></scf_conv>
<opt_conv><convergence_achieved>{relaxed}</convergence_achieved></opt_conv></convergence_info>
<atomic_species ntyp="2"><species name="Mo1"><pseudo_file>Mo.UPF</pseudo_file></species>
<species name="S"><pseudo_file>S.UPF</pseudo_file></species></atomic_species>
<atomic_structure nat="{len(structure)}"><atomic_positions>{atoms}</atomic_positions><cell>{cell}</cell>
</atomic_structure><basis_set><ecutwfc>{500 / EV}</ecutwfc></basis_set><dft><functional>PBE</functional></dft>
<magnetization><lsda>{str(spin).lower()}</lsda><total>-1.0</total></magnetization>
<total_energy><etot>-10.0</etot></total_energy>
<band_structure><lsda>{str(spin).lower()}</lsda>{"<nbnd_up>2</nbnd_up>" if spin else ""}
<fermi_energy>{0.25 / EV}</fermi_energy><starting_k_points><monkhorst_pack nk1="3" nk2="3" nk3="1" k1="0"/>
</starting_k_points><ks_energies><k_point weight="1">0 0 0</k_point>
<eigenvalues size="4">{" ".join(map(str, values))}</eigenvalues>
<occupations size="4">{" ".join(map(str, filled))}</occupations></ks_energies></band_structure></output></qes:espresso>
"""


def test_xml_of_espresso(vacancy: dg.Configuration, tmp_path: Path) -> None:
    path = tmp_path / "out" / "pwscf.xml"
    path.parent.mkdir()
    path.write_text(espresso_xml(vacancy.to_structure()))
    found = CODES["qe"].read(path)
    assert found.energy_ev == pytest.approx(-10 * EV)
    assert found.converged
    assert found.levels[1].homo_ev == pytest.approx(-0.5)  # the minority is the channel that stands first
    assert found.gap_ev == pytest.approx(0.5)
    assert found.magnetization_mu_b == 1.0
    assert found.fingerprint == Fingerprint(
        "qe", "PBE", 500.0, "", (("Mo", "Mo.UPF"), ("S", "S.UPF")), (3, 3, 1), True, "fixed", 0.0
    )  # fmt: skip
    frame = dft_results(tmp_path, host=vacancy.host).frame
    assert frame["configuration"].to_list() == [vacancy.canonical().key]
    path.write_text(espresso_xml(vacancy.to_structure(), spin=False, scf="false", relaxed="false"))
    found = CODES["qe"].read(path)
    assert (found.electronic_converged, found.ionic_converged) == (False, False)
    assert found.levels == (SpinLevels(pytest.approx(-0.5), pytest.approx(1.0)),)
    path.write_text(espresso_xml(vacancy.to_structure())[:2500])
    with pytest.raises(dg.DefectgenError, match="ends in the middle"):
        CODES["qe"].read(path)
    path.write_text("<qes:espresso xmlns:qes='x'><input/></qes:espresso>")
    with pytest.raises(dg.DefectgenError, match="no complete output"):
        CODES["qe"].read(path)


def test_espresso_goes_on_from_its_last_atoms(vacancy: dg.Configuration, tmp_path: Path) -> None:
    from ase.io import read

    made = dft_inputs(vacancy, tmp_path / "in", "qe")
    folder = tmp_path / "in" / "001_v_S"
    before = read(str(folder / "pw.in"), format="espresso-in")
    moved = made.calculations[0].structure.copy()
    moved.translate_sites([3], [0.0, 0.0, 0.1], frac_coords=False)
    names = before.get_chemical_symbols()
    ordered = Structure(moved.lattice, names, before.get_scaled_positions() + np.eye(1, 3, 2) * 0.01)
    (folder / "out").mkdir()
    (folder / "out" / "pwscf.xml").write_text(espresso_xml(ordered))
    CODES["qe"].resume(folder)
    after = read(str(folder / "pw.in"), format="espresso-in")
    shift = (after.positions - before.positions) @ np.linalg.inv(before.cell.array)
    assert np.allclose(shift, [0, 0, 0.01], atol=1e-6)
    CODES["qe"].remedies[0].apply(folder)
    assert "mixing_beta      = 0.1" in (folder / "pw.in").read_text()


def gpaw_results(folder: Path, *, spin: bool = False, vacuum: float = 0.0, converged: bool = True) -> None:
    """As the driver writes it."""
    task = json.loads((folder / "gpaw.json").read_text())
    levels = [[[-6.0, -5.0, -4.2]], [[-6.0, -5.5, -4.4]]][: 2 if spin else 1]
    filled = [[[1.0, 0.4, 0.0]], [[1.0, 1.0, 0.0]]] if spin else [[[1.0, 1.0, 0.0]]]
    values = {
        "task": task, "gpaw": "22.8.0", "electronic_converged": converged, "ionic_converged": True,
        "symbols": task["symbols"], "positions": task["positions"], "cell": task["cell"],
    }  # fmt: skip
    if converged:
        values |= {
            "energy_ev": -100.0, "fermi_level_ev": -4.5, "magnetization_mu_b": -0.6 if spin else None,
            "levels_ev": levels, "occupations": filled, "vacuum_level_ev": vacuum,
        }  # fmt: skip
    (folder / "gpaw-results.json").write_text(json.dumps(values))


def test_results_of_the_driver(vacancy: dg.Configuration, tmp_path: Path) -> None:
    dft_inputs(vacancy, tmp_path / "in", "gpaw", settings="lcao")
    gpaw_results(tmp_path / "in" / "001_v_S", spin=True, vacuum=0.1)
    gpaw_results(tmp_path / "in" / "host_MoS2_3x3")
    frame = dft_results(tmp_path / "in").frame
    defect, host = frame.to_dicts()
    assert (host["homo_ev"], host["lumo_ev"]) == pytest.approx((0.0, 0.8))
    assert defect["homo_ev"] == pytest.approx(-5.5 - (-5.0) - 0.1)
    assert defect["band_gap_majority_ev"] == pytest.approx(1.1)  # the channel that stands second holds more
    assert defect["level_method"] == "vacuum level"
    assert defect["total_magnetization_mu_b"] == pytest.approx(0.6)
    assert defect["basis"] == "lcao dzp h=0.25"
    gpaw_results(tmp_path / "in" / "001_v_S", converged=False)
    defect = dft_results(tmp_path / "in").frame.row(0, named=True)
    assert not defect["converged"]
    assert defect["energy_ev"] is None


def test_texts_of_gpaw() -> None:
    found = CODES["gpaw"].read(DATA / "gpaw-oxygen.txt")
    assert CODES["gpaw"].claims(DATA / "gpaw-oxygen.txt") == 1
    assert found.energy_ev == pytest.approx(0.067188)
    assert found.fermi_level_ev == pytest.approx(-6.55503)
    assert found.levels[0].homo_ev == pytest.approx(-9.56706)
    assert math.isnan(found.levels[0].lumo_ev)  # no empty level in this basis
    assert found.lumo_ev == pytest.approx(-6.52038)
    assert found.fingerprint == Fingerprint("gpaw", "PBE", None, "lcao dzp h=0.3", (), (), True, "fermi-dirac", 0.05)


def test_an_unfinished_text_of_gpaw_is_one_line(tmp_path: Path) -> None:
    text = (DATA / "gpaw-oxygen.txt").read_text()
    (tmp_path / "gpaw.txt").write_text(text[: text.index("Converged after")])
    with pytest.raises(dg.DefectgenError, match="no finished calculation") as error:
        CODES["gpaw"].read(tmp_path / "gpaw.txt")
    assert "\n" not in str(error.value)
    (tmp_path / "x.gpw").write_bytes(b"- of UlmAffleck")
    with pytest.raises(dg.DefectgenError, match=r"x\.gpw: cannot be read"):
        CODES["gpaw"].read(tmp_path / "x.gpw")


def test_gpw_files_of_old_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "info.xml").write_text("<gpaw_io/>")
    with tarfile.open(tmp_path / "old.gpw", "w") as file:
        file.add(tmp_path / "info.xml", "info.xml")
    with pytest.raises(dg.DefectgenError, match="of GPAW before version 1"):
        CODES["gpaw"].read(tmp_path / "old.gpw")


def test_functional_of_espresso_with_dispersion_hubbard_terms_and_exact_exchange(
    vacancy: dg.Configuration, tmp_path: Path
) -> None:
    def fingerprint(inside: str) -> Fingerprint:
        text = espresso_xml(vacancy.to_structure())
        path = tmp_path / "pwscf.xml"
        path.write_text(text.replace("<functional>PBE</functional>", inside))
        return CODES["qe"].read(path).fingerprint

    # as pw.x 6.7 writes them; U in rydberg
    van_der_waals = "<vdW><vdw_corr>DFT-D3</vdw_corr><dftd3_version>3</dftd3_version></vdW>"
    assert fingerprint(f"<functional>PBE</functional>{van_der_waals}").functional == "PBE+dft-d3 3"
    none = "<vdW><vdw_corr>none</vdw_corr><non_local_term>VDW2</non_local_term></vdW>"
    assert fingerprint(f"<functional>VDW-DF2</functional>{none}").functional == "VDW-DF2"
    exact = "<exx_fraction>2.5e-1</exx_fraction><screening_parameter>1.06e-1</screening_parameter>"
    assert fingerprint(f"<functional>HSE</functional><hybrid>{exact}</hybrid>").functional == "HSE hybrid 0.25 0.106"
    hubbard = '<dftU><Hubbard_U specie="Mo1" label="4d">1.469972887026198e-1</Hubbard_U></dftU>'
    found = fingerprint(f"<functional>PBE</functional>{hubbard}")
    assert found.functional == "PBE+U"
    assert found.setups == (("Mo", "Mo.UPF/U=2"), ("S", "S.UPF"))


def test_levels_by_the_potential_at_far_sites() -> None:
    host = dg.host("MoS2", "5x5")
    pristine = dg.Configuration.of(host, {})
    defect = dg.Configuration.from_key(host, "VAC@B00+Se@B11")

    def result(configuration: dg.Configuration, zero: float, homo: float) -> DftResult:
        structure = configuration.to_structure()
        near = structure.get_sites_in_sphere(host.site_cart_coords[host.parse_site("B00")], 6.0, include_index=True)
        values = [-80.0 + zero if site.specie.symbol == "Mo" else -70.0 + zero for site in structure]
        if configuration.edits:
            for neighbour in near:
                values[neighbour.index] += 5.0
        return DftResult(
            Path("x"), "vasp", "6", structure, Fingerprint("vasp"), levels=(SpinLevels(homo, homo + 1),),
            site_potentials_ev=tuple(values),
        )  # fmt: skip

    found = align(result(defect, 0.3, 0.0), defect, result(pristine, 0.0, -1.0), pristine)
    assert found is not None
    assert found.method == FAR_SITES
    assert found.zero_ev == pytest.approx(-1.0 + 0.3)


def test_levels_of_metals_and_of_full_bands() -> None:
    assert spin_levels(np.array([0.0, 1.0, 0.5]), np.array([1.0, 0.6, 0.4])) == SpinLevels(1.0, 0.5)
    assert SpinLevels(1.0, 0.5).gap_ev == 0.0
    pair = np.array([[0.0, 1.0, 1.0, 3.0]])
    for shares in ((0.499, 0.501), (0.5, 0.5), (0.500001, 0.500001), (0.499999, 0.499999)):  # two levels, one electron
        assert spin_levels(pair, np.array([[1.0, *shares, 0.0]])) == SpinLevels(1.0, 1.0)
    full = spin_levels(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert math.isnan(full.gap_ev)


VASP = """
import pathlib, shutil, sys
incar = pathlib.Path("INCAR").read_text()
source = "good.xml" if "ALGO = All" in incar else "bad.xml"
shutil.copy(source, "vasprun.xml")
shutil.copy("moved.vasp", "CONTCAR")
"""


def test_vasp_by_its_command_is_tried_again_with_another_algorithm(vacancy: dg.Configuration, tmp_path: Path) -> None:
    from vasprun_files import write_vasprun

    made = dft_inputs(vacancy, tmp_path / "in", references=False)
    folder = tmp_path / "in" / "001_v_S"
    structure = made.calculations[0].structure
    levels = [[(-1.0, 1.0), (0.5, 0.0)]]
    for name, converged in (("good", True), ("bad", False)):
        file = write_vasprun(tmp_path / name, structure, -190.0, levels, electronic=converged)
        file.rename(folder / f"{name}.xml")
    moved = structure.copy()
    moved.translate_sites([0], [0, 0, 0.2], frac_coords=False)
    moved.to(filename=str(folder / "moved.vasp"), fmt="poscar")
    (tmp_path / "vasp.py").write_text(VASP)
    (outcome,) = compute(tmp_path / "in", options=EngineOptions(command=f"{sys.executable} {tmp_path / 'vasp.py'}"))
    assert outcome.status == DONE
    assert [item.change for item in outcome.attempts] == ["", "ALGO = All"]
    assert Incar.from_file(str(folder / "INCAR"))["ALGO"] == "All"
    resumed = Structure.from_file(str(folder / "POSCAR"))
    assert np.allclose(resumed.cart_coords, moved.cart_coords, atol=1e-5)
