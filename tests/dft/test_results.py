"""Results: what is read from each code's files, and what is made of it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from pymatgen.io.vasp import Locpot, Poscar
from vasprun_files import write_vasprun

import defectgen as dg
from defectgen.dft.codes.vasp_outputs import read_vasp
from defectgen.dft.comparison import compare, scale_warnings, summary
from defectgen.dft.elemental_phases import element_structure
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.results import dft_results, parse_potentials
from defectgen_cli.app import main
from defectgen_cli.results import _text

HOST_LEVELS = [[(-3.0, 1.0), (-1.0, 1.0), (0.8, 0.0)]]
UP, DOWN = [(-3.0, 1.0), (-0.2, 1.0), (0.9, 0.0)], [(-3.0, 1.0), (-0.8, 1.0), (0.1, 0.0)]


@pytest.fixture(scope="module")
def host() -> dg.Host:
    return dg.host("MoS2", "3x3")


@pytest.fixture(scope="module")
def vacancy(host: dg.Host) -> dg.Configuration:
    return dg.Configuration.from_key(host, "VAC@B00")


@pytest.fixture
def runs(tmp_path: Path, host: dg.Host, vacancy: dg.Configuration) -> Path:
    """Results of a vacancy, its host and sulphur, as VASP leaves them."""
    folder = tmp_path / "runs"
    dft_inputs(vacancy, folder)
    write_vasprun(folder / "001_v_S", vacancy.to_structure(), -194.0, [UP, DOWN])
    write_vasprun(folder / "host_MoS2_3x3", dg.Configuration.of(host, {}).to_structure(), -200.0, HOST_LEVELS)
    write_vasprun(folder / "element_S", element_structure("S")[0], -33.0, HOST_LEVELS, mesh=(1, 1, 1))
    return folder


def row(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    return frame.row(by_predicate=pl.col("name") == name, named=True)


def test_energies_levels_and_formation_energy(runs: Path, vacancy: dg.Configuration) -> None:
    table = dft_results(runs)
    found = row(table.frame, "001_v_S")
    assert (found["role"], found["host"], found["label"]) == ("defect", "MoS2", "v_S")
    assert found["configuration"] == vacancy.canonical().key
    assert found["converged"]
    assert found["band_gap_ev"] == pytest.approx(0.9)  # the smaller one of 1.1 and 0.9
    assert found["homo_raw_ev"] == pytest.approx(-0.2)
    assert found["lumo_raw_ev"] == pytest.approx(0.1)
    assert found["homo_minority_raw_ev"] == pytest.approx(-0.8)
    assert found["formation_energy_ev"] == pytest.approx(-194 + 200 - 33 / 8)
    assert found["homo_ev"] is None
    assert "levels are raw" in found["note"]
    assert (found["functional"], found["cutoff_ev"], found["setups"]) == ("PBE", 500, "Mo:Mo_sv S:S")
    assert row(table.frame, "host_MoS2_3x3")["lumo_ev"] == pytest.approx(1.8)
    assert table.warnings == ()


def test_levels_are_aligned_by_the_potential_in_the_vacuum(runs: Path) -> None:
    for name, level in (("001_v_S", 4.0), ("host_MoS2_3x3", 3.7)):
        structure = read_vasp(runs / name / "vasprun.xml").structure
        grid = np.full((4, 4, 40), -8.0)
        z = np.arange(40) / 40
        heights = structure.frac_coords[:, 2]
        grid[:, :, np.abs((z[:, None] - heights + 0.5) % 1 - 0.5).min(axis=1) > 0.2] = level
        Locpot(Poscar(structure), {"total": grid}).write_file(str(runs / name / "LOCPOT"))
    found = row(dft_results(runs).frame, "001_v_S")
    assert found["level_method"] == "vacuum level"
    assert found["homo_ev"] == pytest.approx(-0.2 - (-1.0) - 0.3, abs=1e-3)
    assert found["lumo_ev"] - found["homo_ev"] == pytest.approx(0.3)


def test_other_settings_are_never_mixed(runs: Path, vacancy: dg.Configuration) -> None:
    write_vasprun(runs / "001_v_S", vacancy.to_structure(), -194.0, [UP, DOWN], encut=400.0)
    table = dft_results(runs)
    found = row(table.frame, "001_v_S")
    assert found["formation_energy_ev"] is None
    assert found["homo_ev"] is None
    assert "cutoff_ev 400.0 against 500.0" in found["note"]
    assert any("2 settings" in line and "400 eV" in line for line in table.warnings)
    assert table.frame["settings_id"].n_unique() == 2
    write_vasprun(runs / "001_v_S", vacancy.to_structure(), -194.0, [UP, DOWN], mesh=(1, 1, 1))
    assert "k points of 10 angstrom against 77" in row(dft_results(runs).frame, "001_v_S")["note"]


@pytest.mark.parametrize(
    ("smearing", "note", "warns"),
    [
        ((0, 0.1), "", False),  # the last try of a cell that does not converge
        ((-5, 0.05), "", False),
        ((0, 0.5), "smearing gaussian 0.5 eV against gaussian 0.05 eV", True),
        ((1, 0.1), "smearing methfessel-paxton 1 0.1 eV against gaussian 0.05 eV", True),
    ],
)
def test_smearing_is_a_setting(
    runs: Path, vacancy: dg.Configuration, smearing: tuple[int, float], note: str, warns: bool
) -> None:
    write_vasprun(runs / "001_v_S", vacancy.to_structure(), -194.0, [UP, DOWN], smearing=smearing)
    table = dft_results(runs)
    found = row(table.frame, "001_v_S")
    assert ("against" in found["note"]) == warns
    assert note in found["note"]
    assert ("smearing gaussian 0.1 eV" in found["note"]) == (smearing == (0, 0.1))
    assert any("2 settings" in line and note in line for line in table.warnings) == warns
    assert (found["formation_energy_ev"] is None) == warns
    ids = dict(table.frame.select("name", "settings_id").rows())
    assert ids["element_S"] == ids["host_MoS2_3x3"]
    assert (ids["001_v_S"] == ids["host_MoS2_3x3"]) != warns


def test_other_k_points_are_not_compared_with_predictions(runs: Path, vacancy: dg.Configuration) -> None:
    predicted = pl.DataFrame({"configuration": [vacancy.canonical().key], "label": ["v_S"], "band_gap_ev": [1.0]})
    other = write_vasprun(runs / "002_v_S", vacancy.to_structure(), -194.0, [UP, DOWN], mesh=(1, 1, 1))
    table = dft_results(runs)
    assert compare(predicted, table.frame)["name"].to_list() == ["001_v_S"]
    assert scale_warnings(table.frame) == ["not compared, by other settings than the host's: 002_v_S."]
    assert any("k points of 10 angstrom against 77" in line for line in table.warnings)
    shutil.rmtree(runs / "host_MoS2_3x3")
    assert compare(predicted, dft_results(runs).frame)["name"].to_list() == ["001_v_S"]
    shutil.rmtree(other.parent)
    assert scale_warnings(dft_results(runs).frame) == []


def test_a_cell_without_spin_among_others_with_it_is_told(runs: Path, vacancy: dg.Configuration) -> None:
    write_vasprun(runs / "002_v_S", vacancy.to_structure(), -194.0, HOST_LEVELS)
    (line,) = dft_results(runs).warnings
    assert "without spin" in line
    assert "002_v_S" in line
    shutil.rmtree(runs / "001_v_S")
    assert dft_results(runs).warnings == ()


def test_chemical_potentials_may_be_given(runs: Path) -> None:
    given = parse_potentials(["S=-4.0"])
    found = row(dft_results(runs, chemical_potentials=given).frame, "001_v_S")
    assert found["formation_energy_ev"] == pytest.approx(2.0)
    shutil.rmtree(runs / "element_S")
    found = row(dft_results(runs).frame, "001_v_S")
    assert found["formation_energy_ev"] is None
    assert "no chemical potential of S" in found["note"]
    assert parse_potentials(["2dmd"])["S"] == -4.127
    assert parse_potentials(["S=-4.0", "2dmd"])["S"] == -4.0
    with pytest.raises(dg.UsageError, match="several chemical potentials of S"):
        parse_potentials(["S=-4.0", "S=-5.0"])
    for bad in ("S", "S=x", "Q=1", "S=nan", "S=inf"):
        with pytest.raises(dg.UsageError, match="chemical potential"):
            parse_potentials([bad])


def test_unconverged_truncated_and_compressed_files(runs: Path, vacancy: dg.Configuration) -> None:
    structure = vacancy.to_structure()
    for name, flags in (("scf", {"electronic": False}), ("forces", {"ionic": False})):
        write_vasprun(runs / name, structure, -193.0, [UP, DOWN], **flags)  # type: ignore[arg-type]
    whole = (runs / "001_v_S" / "vasprun.xml").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("odd", b"<modeling></modeling>")):
        (runs / name).mkdir()
        (runs / name / "vasprun.xml").write_bytes(content)
    (runs / "zipped").mkdir()
    (runs / "zipped" / "vasprun.xml.gz").write_bytes(gzip.compress(whole))
    (runs / "zipped-cut").mkdir()
    (runs / "zipped-cut" / "vasprun.xml.gz").write_bytes(gzip.compress(whole)[:-100])
    table = dft_results(runs)
    assert row(table.frame, "zipped")["formation_energy_ev"] == row(table.frame, "001_v_S")["formation_energy_ev"]
    scf, forces = row(table.frame, "scf"), row(table.frame, "forces")
    assert (scf["electronic_converged"], scf["converged"]) == (False, False)
    assert scf["formation_energy_ev"] is None
    assert (forces["electronic_converged"], forces["ionic_converged"], forces["converged"]) == (True, False, False)
    for name in ("cut", "empty", "odd", "zipped-cut"):
        note = row(table.frame, name)["note"]
        assert "vasprun.xml" in note
        assert "start it again" in note
        assert "\n" not in note
    assert sum("vasprun.xml" in line for line in table.warnings) == 4


def test_a_charged_cell_has_no_formation_energy(runs: Path, vacancy: dg.Configuration) -> None:
    write_vasprun(runs / "001_v_S", vacancy.to_structure(), -190.0, [UP, DOWN], charge=-1)
    found = row(dft_results(runs).frame, "001_v_S")
    assert found["charge"] == -1
    assert found["formation_energy_ev"] is None
    assert "doped" in found["note"]


def test_a_result_of_another_host_is_told(runs: Path) -> None:
    other = dg.Configuration.of(dg.host("MoS2", "4x4"), {}).to_structure()
    write_vasprun(runs / "other", other, -300.0, HOST_LEVELS)
    table = dft_results(runs)
    found = row(table.frame, "other")
    assert found["role"] == "other"
    assert found["note"].startswith("of another host: no decoration of MoS2 3x3")
    assert sum("another host" in line for line in table.warnings) == 1


def test_nothing_to_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "void").mkdir()
    assert main(["results", str(tmp_path / "void")]) == 2
    assert "no results of a DFT code found" in capsys.readouterr().err
    assert main(["results", str(tmp_path / "none")]) == 1
    assert "is not there" in capsys.readouterr().err
    (tmp_path / "void" / "vasprun.xml").write_text("<modeling><calc")
    assert main(["results", str(tmp_path / "void")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ends in the middle" in err


def test_predicted_against_computed(runs: Path, vacancy: dg.Configuration) -> None:
    predicted = pl.DataFrame(
        {
            "configuration": [vacancy.canonical().key, "VAC@A00"],
            "label": ["v_S", "v_Mo"],
            "band_gap_ev": [1.0, 0.5],
            "band_gap_uncertainty_ev": [0.05, 0.05],
            "homo_ev": [0.1, 0.1],
        }
    )
    table = compare(predicted, dft_results(runs).frame)
    assert table.height == 1  # the level is raw, the other configuration was not computed
    found = table.row(0, named=True)
    assert (found["property"], found["label"], found["name"]) == ("band_gap_ev", "v_S", "001_v_S")
    assert found["error"] == pytest.approx(0.1)
    assert found["error_in_intervals"] == pytest.approx(2.0)
    assert "0 of 1 inside" in summary(table)[0]


def test_total_energies_of_other_settings_are_not_compared(runs: Path, vacancy: dg.Configuration) -> None:
    key = vacancy.canonical().key
    predicted = pl.DataFrame({"configuration": [key], "label": ["v_S"], "energy_per_atom_ev": [-7.4]})
    frame = dft_results(runs).frame
    assert compare(predicted, frame)["computed"].to_list() == pytest.approx([-194 / 26])
    assert scale_warnings(frame) == []
    other = frame.with_columns(code=pl.lit("gpaw"))
    assert compare(predicted, other).height == 0
    assert "computed by gpaw PBE" in scale_warnings(other)[0]


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.parquet"
    assert main(["results", str(runs), "-o", str(table), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in shown["results"]] == ["001_v_S", "element_S", "host_MoS2_3x3"]
    assert pl.read_parquet(table)["band_gap_ev"].to_list()[0] == pytest.approx(0.9)
    assert main(["results", str(runs), "-o", str(table)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["results", str(runs), "-o", "t.xlsx"]) == 2
    assert main(["results", str(runs), "--predicted", str(tmp_path / "none")]) == 2
    assert "no predictions" in capsys.readouterr().err


def test_zero_is_shown_without_a_sign() -> None:
    row = dict.fromkeys(
        (
            "label",
            "host",
            "supercell",
            "band_gap_ev",
            "formation_energy_ev",
            "energy_ev",
            "note",
            "electronic_converged",
            "ionic_converged",
        )
    )
    row |= {"name": "a", "role": "defect", "converged": True, "homo_ev": -0.0001, "lumo_ev": -0.0006}
    assert _text(row) == "a: defect; HOMO 0.000, LUMO -0.001 eV"


def test_ase_files_with_energies(host: dg.Host, vacancy: dg.Configuration, tmp_path: Path) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect
    from ase.io import write

    atoms = vacancy.to_ase()
    atoms.calc = SinglePointCalculator(atoms, energy=-194.5)
    atoms.info.update(name="mine", homo_ev=-0.3, lumo_ev=0.7, code="castep", converged=True)
    write(tmp_path / "a.extxyz", [atoms])
    with connect(tmp_path / "b.db") as database:
        database.write(atoms, name="yours", homo_ev=-0.3, lumo_ev=0.8, functional="PBE")
    frame = dft_results([tmp_path / "a.extxyz", tmp_path / "b.db"], host=host).frame
    assert frame["energy_ev"].to_list() == [-194.5, -194.5]
    assert frame["band_gap_ev"].to_list() == pytest.approx([1.0, 1.1])
    assert frame["configuration"].unique().to_list() == [vacancy.canonical().key]
    assert frame["converged"].to_list() == [True, False]
    frames = (tmp_path / "a.extxyz").read_text()
    damaged = "\n".join(["not a number", *frames.splitlines()[1:]])
    (tmp_path / "d.extxyz").write_text(f"{damaged}\n{frames}")
    frame = dft_results(tmp_path / "d.extxyz", host=host).frame
    assert frame["energy_ev"].to_list() == [None, -194.5], "a damaged frame costs itself alone"
    assert frame["name"].to_list() == ["1", "mine"]
    assert "d.extxyz#1: cannot be read as extended XYZ (line 1 is 'not a number'" in frame["note"][0]
    (tmp_path / "e.db").write_text("no database")
    with pytest.raises(dg.DefectgenError, match=r"e\.db: cannot be read as a database of ASE \(file is not a database"):
        dft_results(tmp_path / "e.db", host=host)
    write(tmp_path / "c.extxyz", [vacancy.to_ase()])
    with pytest.raises(dg.DefectgenError, match="no structure in it has an energy"):
        dft_results(tmp_path / "c.extxyz", host=host)


def test_what_a_frame_does_not_say_has_not_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A layer that no known host is like is to be named."""
    cell = dg.Configuration.of(dg.host("MoS2", (3, 3)), {}).to_ase()
    frames = []
    for element, said in (("Mo", {}), ("Ti", {}), ("Mo", {"converged": False})):
        atoms: Any = cell.copy()
        atoms.symbols[[symbol == "Mo" for symbol in cell.symbols]] = element
        atoms.calc = SinglePointCalculator(atoms, energy=-80.0)
        atoms.info |= said
        frames.append(atoms)
    write(tmp_path / "mine.extxyz", frames)
    main(["results", str(tmp_path / "mine.extxyz")])
    unsaid, other, failed = capsys.readouterr().out.splitlines()
    assert "pristine in MoS2 3x3;" in unsaid
    assert unsaid.endswith("convergence is not known")
    assert "Name the host with --host, --supercell and --allow" in other
    assert "pristine in MoS2 3x3 (not converged);" in failed


def test_cells_of_one_element_are_layers_where_they_are_one(tmp_path: Path) -> None:
    layer = dg.host("BP", (3, 3))
    vacancy = next(dg.enumerate(layer, "v_P"))
    phase = element_structure("P")[0]
    cells = {
        "host": dg.Configuration.of(layer, {}).to_structure(), "vacancy": vacancy.to_structure(), "black": phase,
        "unit": dg.Configuration.of(dg.host("BP", (1, 1)), {}).to_structure(),
    }  # fmt: skip
    energies = {"host": -5.30, "vacancy": -5.25, "black": -5.36, "unit": -5.30}
    for name, cell in cells.items():
        symbols = [site.specie.symbol for site in cell]
        atoms = Atoms(symbols, positions=cell.cart_coords, cell=cell.lattice.matrix, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=energies[name] * len(atoms))
        atoms.info |= {"name": name, "code": "mine", "converged": True}
        write(tmp_path / f"{name}.extxyz", atoms)
    for host in (None, layer):
        frame = dg.dft_results(tmp_path, host=host).frame
        assert dict(frame.select("name", "role").iter_rows()) == {
            "host": "host", "vacancy": "defect", "black": "element", "unit": "host",
        }, host  # fmt: skip
        value = frame.filter(frame["name"] == "vacancy")["formation_energy_ev"].item()
        n = layer.n_sites
        assert value == pytest.approx(-5.25 * (n - 1) + 5.30 * n - 5.36, abs=1e-6)
