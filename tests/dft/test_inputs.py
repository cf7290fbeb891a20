"""Inputs: what is written for which cell, compared with pymatgen's own sets where there is one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp import Incar, Kpoints, Poscar
from pymatgen.io.vasp.sets import MPRelaxSet, VaspInputSet

import defectgen as dg
from defectgen.core.matching import configuration_from_structure
from defectgen.dft.codes.vasp import valence
from defectgen.dft.elemental_phases import element_structure
from defectgen.dft.inputs import dft_inputs, read_manifest
from defectgen.dft.settings import DftSettings, load_settings
from defectgen_cli.app import main


@pytest.fixture(scope="module")
def mos2_3x3() -> dg.Host:
    return dg.host("MoS2", "3x3")


@pytest.fixture(scope="module")
def vacancy(mos2_3x3: dg.Host) -> dg.Configuration:
    return dg.Configuration.from_key(mos2_3x3, "VAC@B00")


@pytest.fixture(scope="module")
def vasp_folder(vacancy: dg.Configuration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "vasp"
    dft_inputs(vacancy, folder, charges=(-1, 0, 1))
    return folder


def test_a_folder_holds_defect_host_and_elements(vasp_folder: Path, mos2_3x3: dg.Host) -> None:
    host, calculations = read_manifest(vasp_folder)
    assert host == mos2_3x3
    assert [(name, item["role"], item["charge"]) for name, item in calculations.items()] == [
        ("001_v_S_-1", "defect", -1), ("001_v_S_+0", "defect", 0), ("001_v_S_+1", "defect", 1),
        ("host_MoS2_3x3", "host", 0), ("element_S", "element", 0),
    ]  # fmt: skip
    for name in calculations:
        assert {path.name for path in (vasp_folder / name).iterdir()} == {"INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"}


def test_the_settings_are_those_of_2dmd(vasp_folder: Path) -> None:
    incar = Incar.from_file(str(vasp_folder / "001_v_S_+0" / "INCAR"))
    assert (incar["ENCUT"], incar["GGA"].upper(), incar["ISIF"], incar["ISPIN"]) == (500, "PE", 2, 2)
    assert sum(incar["MAGMOM"]) == 3  # the three Mo around the vacancy
    assert incar["LDIPOL"]
    assert "NELECT" not in incar
    host = Incar.from_file(str(vasp_folder / "host_MoS2_3x3" / "INCAR"))
    assert host["ISPIN"] == 1
    assert "LDIPOL" not in host
    assert "MAGMOM" not in host
    for supercell, mesh in (("8x8", (3, 3, 1)), ("5x5", (5, 5, 1)), ("4x4", (6, 6, 1))):
        settings = load_settings("2dmd")
        from defectgen.dft.calculation import host_calculation

        assert host_calculation(dg.host("MoS2", supercell), settings).mesh == mesh
    assert Kpoints.from_file(str(vasp_folder / "001_v_S_+0" / "KPOINTS")).kpts[0] == (8, 8, 1)


def test_crystals_relax_with_their_cell_and_molecules_in_their_box(mos2_3x3: dg.Host, tmp_path: Path) -> None:
    defect = dg.Configuration.from_key(mos2_3x3, "Se@B00+VAC@B01")
    dft_inputs(defect, tmp_path / "in")
    cells = {
        name: Incar.from_file(str(tmp_path / "in" / name / "INCAR"))["ISIF"] for name in ("element_S", "element_Se")
    }
    assert cells == {"element_S": 2, "element_Se": 3}


def test_charges_change_the_number_of_electrons(vasp_folder: Path) -> None:
    neutral = 9 * 14 + 17 * 6  # Mo_sv, S
    for charge in (-1, 1):
        incar = Incar.from_file(str(vasp_folder / f"001_v_S_{charge:+d}" / "INCAR"))
        assert incar["NELECT"] == neutral - charge
        assert "LDIPOL" not in incar
    text = (vasp_folder / "README.md").read_text()
    assert "doped" in text
    assert "ENCUT" in text


def test_cells_are_centred_ordered_and_matched_back(vasp_folder: Path, vacancy: dg.Configuration) -> None:
    poscar = Poscar.from_file(str(vasp_folder / "001_v_S_+0" / "POSCAR"))
    assert poscar.site_symbols == ["Mo", "S"]
    z = np.asarray(poscar.structure.frac_coords)[:, 2]
    assert (z.max() + z.min()) / 2 == pytest.approx(0.5, abs=1e-6)
    found = configuration_from_structure(vacancy.host, poscar.structure)
    assert found.canonical() == vacancy.canonical()
    spec = (vasp_folder / "001_v_S_+0" / "POTCAR.spec").read_text().split()
    assert spec == ["Mo_sv", "S"]


def test_mp_settings_agree_with_pymatgens_own_set(mos2_3x3: dg.Host, tmp_path: Path) -> None:
    pristine = dg.Configuration.of(mos2_3x3, {})
    dft_inputs(pristine, tmp_path / "mp", settings="mp")
    ours = Incar.from_file(str(tmp_path / "mp" / "host_MoS2_3x3" / "INCAR"))
    theirs = MPRelaxSet(pristine.to_structure(), user_incar_settings={"ISPIN": 1}).incar
    meant = {"ISIF", "ISMEAR", "NSW", "EDIFFG", "LVHAR", "GGA", "MAGMOM"}  # a layer's, and what follows from it
    assert {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} <= meant
    assert ours["ENCUT"] == theirs["ENCUT"] == 520
    spec = (tmp_path / "mp" / "host_MoS2_3x3" / "POTCAR.spec").read_text().split()
    assert spec == ["Mo_pv", "S"]
    mesh = Kpoints.from_file(str(tmp_path / "mp" / "host_MoS2_3x3" / "KPOINTS")).kpts[0]
    theirs_mesh = MPRelaxSet(pristine.to_structure()).kpoints.kpts[0]
    assert all(0 <= mine - other <= 1 for mine, other in zip(mesh[:2], theirs_mesh[:2], strict=True))  # it rounds down
    assert mesh[2] == 1


@pytest.mark.parametrize(
    ("potential", "electrons"),
    [("Mo_sv", 14), ("Mo_pv", 12), ("W", 6), ("S", 6), ("Ga_d", 13), ("Zn", 12), ("Li_sv", 3), ("N", 5), ("Ti_sv", 12)],
)
def test_valence_electrons_of_potentials(potential: str, electrons: int) -> None:
    assert valence(potential) == electrons


def test_a_potential_that_is_not_known_has_no_number() -> None:
    with pytest.raises(dg.UsageError, match="Eu"):
        valence("Eu_2")


@pytest.mark.parametrize(
    ("symbol", "bond", "atoms"),
    [
        ("S", 2.06, 8), ("Se", 2.37, 3), ("Te", 2.84, 3), ("P", 2.22, 4), ("B", 1.7, 12), ("Ga", 2.47, 4),
        ("C", 1.42, 4), ("N", 1.1, 2), ("Mo", 2.73, 1), ("In", 3.25, 1), ("Sn", 2.81, 2), ("Bi", 3.07, 2),
        ("Br", 2.27, 4), ("I", 2.715, 4),
    ],
)  # fmt: skip
def test_elemental_phases_have_their_bonds(symbol: str, bond: float, atoms: int) -> None:
    structure, _ = element_structure(symbol)
    assert len(structure) == atoms
    nearest = min(item.nn_distance for item in structure.get_neighbors(structure[0], 4.0))
    assert nearest == pytest.approx(bond, abs=0.05)


def test_a_relaxed_structure_is_where_the_calculation_starts(
    vacancy: dg.Configuration, mos2_3x3: dg.Host, tmp_path: Path
) -> None:
    relaxed = vacancy.to_structure()
    relaxed.translate_sites([0], [0.1, 0.0, 0.2], frac_coords=False)
    relaxed.to(filename=str(tmp_path / "relaxed.cif"))
    vacancy.image(3).to_structure().to(filename=str(tmp_path / "plain.cif"))
    made = dft_inputs([tmp_path / "plain.cif", tmp_path / "relaxed.cif"], tmp_path / "out", host=mos2_3x3)
    defects = [item for item in made.calculations if item.role == "defect"]
    assert len(defects) == 1
    written = Structure.from_file(str(tmp_path / "out" / defects[0].name / "POSCAR"))
    assert np.allclose(
        np.sort(written.distance_matrix, axis=None), np.sort(relaxed.distance_matrix, axis=None), atol=1e-5
    )


@pytest.mark.parametrize("code", ["gpaw", "qe"])
def test_other_codes_get_the_same_cell(code: str, vacancy: dg.Configuration, tmp_path: Path) -> None:
    made = dft_inputs(vacancy, tmp_path / code, code)
    folder = tmp_path / code / "001_v_S"
    if code == "gpaw":
        task = json.loads((folder / "gpaw.json").read_text())
        assert task["mesh"] == [8, 8, 1]
        assert task["cutoff_ev"] == 500
        assert len(task["positions"]) == 26
        structure = Structure(task["cell"], task["symbols"], task["positions"], coords_are_cartesian=True)
    else:
        from ase.io import read
        from pymatgen.io.ase import AseAtomsAdaptor

        text = (folder / "pw.in").read_text()
        assert "nspin            = 2" in text
        assert "8 8 1" in text
        structure = AseAtomsAdaptor.get_structure(read(str(folder / "pw.in"), format="espresso-in"))
    assert configuration_from_structure(vacancy.host, structure).canonical() == vacancy.canonical()
    assert made.code == code


def test_vacuum_is_added_where_it_is_asked_for(vacancy: dg.Configuration, tmp_path: Path) -> None:
    dft_inputs(vacancy, tmp_path / "a", settings=DftSettings(vacuum_angstrom=20.0), references=False)
    structure = Structure.from_file(str(tmp_path / "a" / "001_v_S" / "POSCAR"))
    z = structure.cart_coords[:, 2]
    assert structure.lattice.c - (z.max() - z.min()) == pytest.approx(20.0)
    assert structure.lattice.c / 2 == pytest.approx((z.max() + z.min()) / 2)


def test_the_command(vacancy: dg.Configuration, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = vacancy.to_structure()
    unknown.replace_species({"Mo": "Pt", "S": "Te"})
    unknown.to(filename=str(tmp_path / "unknown.cif"))
    assert main(["inputs", str(tmp_path / "unknown.cif"), "-o", str(tmp_path / "out")]) == 1
    assert "Name the host with --host" in capsys.readouterr().err
    vacancy.to_structure().to(filename=str(tmp_path / "v.cif"))
    words = ["inputs", str(tmp_path / "v.cif"), "-o", str(tmp_path / "out"), "--json"]
    words += ["--host", "MoS2", "--supercell", "3x3"]
    assert main([*words, "--code", "vsp"]) == 2
    assert "Did you mean vasp" in capsys.readouterr().err
    assert main([*words, "--charge", "one"]) == 2
    assert "whole numbers" in capsys.readouterr().err
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in shown["calculations"]] == ["001_v_S", "host_MoS2_3x3", "element_S"]
    assert main(words) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["inputs", str(tmp_path / "designs"), "-o", str(tmp_path / "other")]) == 1
    assert "designs is not a file or a folder. Expected CIF" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "cutof_ev: 500\n", "cutoff_ev: -5\n", "functional: B3LYP\n", "vasp: {potcar: 1}\n"]
)
def test_senseless_settings_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(dg.UsageError, match=r"mine\.yaml") as error:
        load_settings(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_a_bad_file_or_frame_costs_itself_alone(
    vacancy: dg.Configuration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, host = tmp_path / "cells", ["--host", "MoS2", "--supercell", "3x3"]
    folder.mkdir()
    vacancy.to_structure().to(str(folder / "good.cif"))
    (folder / "broken.cif").write_text("data_x\nnothing")
    wide = vacancy.to_structure()
    wide.scale_lattice(2 * wide.volume)
    wide.to(str(folder / "wide.cif"))
    (folder / "notes.txt").write_text("no structure")
    for command in (["inputs", str(folder), "-o"], ["export", str(folder), "--to", "db", "-o"]):
        out = tmp_path / ("inputs" if command[0] == "inputs" else "cells.db")
        assert main([*command, str(out), *host]) == 3
        said = capsys.readouterr().err
        assert "error: " in said
        assert "broken.cif: cannot be read as CIF" in said
        assert "expected 9.57 x 9.57 angstrom" in said
        assert "notes.txt" in said
        assert said.endswith("warning: 2 structures were left out.\n")
        assert out.exists()
    names = {item["about"] for item in json.loads((tmp_path / "inputs" / "inputs.json").read_text())["calculations"]}
    assert "v_S in MoS2 3x3" in names
    with pytest.raises(dg.DefectgenError, match=r"broken\.cif: cannot be read"):
        dft_inputs(folder, tmp_path / "strict", host=vacancy.host)
    (folder / "good.cif").unlink()
    assert main(["inputs", str(folder), "-o", str(tmp_path / "none"), *host]) == 1
    assert "broken.cif: cannot be read" in capsys.readouterr().err


def test_nothing_to_compute_is_said(mos2_3x3: dg.Host, tmp_path: Path) -> None:
    with pytest.raises(dg.UsageError, match="no defects, and no references are wanted"):
        dft_inputs(dg.Configuration.of(mos2_3x3, {}), tmp_path / "none", references=False)


def test_a_cell_too_small_for_electrons_added_is_told(tmp_path: Path) -> None:
    noted = {}
    for size in ("2x2", "6x6"):
        vacancy = next(dg.enumerate(dg.host("BN", size), "C_N"))
        made = dft_inputs(vacancy, tmp_path / size, "qe", charges=(np.int64(-1), 1), references=False)
        noted[size] = [note for note in made.notes if "uniform background" in note]
        for name, charge in (("001_C_N_-1", -1.0), ("001_C_N_+1", 1.0)):
            text = (tmp_path / size / name / "pw.in").read_text()
            assert f"tot_charge       = {charge}" in text
            assert "assume_isolated" not in text
    area = 4 * np.sqrt(3) / 2 * 2.512**2
    depth = 1.602177e-19 * 20e-10 / (8 * 8.854188e-12 * area * 1e-20)  # a charged sheet and its background
    assert f"({depth:.1f} eV for charge -1)" in noted["2x2"][0]
    assert noted["6x6"] == []


def test_names_of_any_bytes_are_written_about(vacancy: dg.Configuration, tmp_path: Path) -> None:
    made = tmp_path / os.fsdecode(b"r\xffn")
    made.mkdir()
    vacancy.to_structure().to(filename=str(made / "cell.cif"))
    dft_inputs(made, tmp_path / "out", host=vacancy.host, references=False)
    (calculation,) = json.loads((tmp_path / "out" / "inputs.json").read_text("utf-8"))["calculations"]
    assert calculation["about"].startswith("v_S")
    assert "v_S" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_full_disk_is_told_as_that(
    vacancy: dg.Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(VaspInputSet, "write_input", full)
    with pytest.raises(dg.DefectgenError, match="out cannot be written: No space left on device") as raised:
        dft_inputs(vacancy, tmp_path / "out")
    assert "pymatgen" not in str(raised.value)
