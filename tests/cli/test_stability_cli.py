"""`defectgen stability` and `defectgen template` from files to tables, with a potential that needs no weights."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from fake_crystal_potential import CrystalPotential, element_cell, rocksalt
from pymatgen.core import Element, Structure

from defectgen.stability import study
from defectgen.stability.hull import TOTAL, Hull, read_hull
from defectgen.web import KEY_VARIABLE, MaterialsProject
from defectgen_cli.app import main


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> CrystalPotential:
    potential = CrystalPotential()
    monkeypatch.setattr(study, "open_potential", lambda *_: potential)
    return potential


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two salts, a foreign element, a broken file."""
    folder = tmp_path / "files"
    folder.mkdir()
    rocksalt("Na", "Cl").to(filename=str(folder / "salt.cif"))
    rocksalt("Mg", "O").to(filename=str(folder / "magnesia.cif"))
    element_cell("Ar").to(filename=str(folder / "argon.cif"))
    (folder / "broken.cif").write_text("data_\n")
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    cells = [("NaCl", rocksalt("Na", "Cl"), -2.0, 0.0), ("Na", element_cell("Na"), 0.0, 0.0)]
    rows = [
        {"pretty_formula": f, "formation_energy_per_atom": e, "e_above_hull": a, "cif": c.to(fmt="cif")}
        for f, c, e, a in cells
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "labels.csv")
    return tmp_path / "labels.csv"


@pytest.mark.usefixtures("fake")
def test_a_folder_against_labelled_crystals(
    files: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (files / "notes.txt").touch()
    call = ["stability", str(files), "--hull", str(labels), "-o", str(output)]
    assert main([*call, "--json"]) == 3
    captured = capsys.readouterr()
    assert (
        f"{files / 'broken.cif'}: cannot be read as CIF (no atoms with fractional coordinates); skipped."
        in captured.err
    )
    assert "warning: 1 of 4 crystals cannot be read." in captured.err
    assert (
        "warning: 2 of 4 crystals cannot be judged, only relaxed: the hull has no reference of Ar, Mg, O."
        in captured.err
    )
    assert "skipped 1 file that is no crystal by its name: notes.txt" in captured.err
    assert json.loads(captured.out)["skipped"] == [str(files / "notes.txt")]
    assert "3 of 4 crystals have no energy above the hull; see the table." in captured.err
    result = json.loads(captured.out)
    assert result["counts"]["crystals"] == 4
    assert result["counts"]["share_metastable_of_all"] == 0.25
    assert result["counts"]["share_metastable_of_all_95"] == pytest.approx([0.0456, 0.6994], abs=1e-4)
    assert result["hull"]["partial"] == "only the crystals of the file"
    assert result["hull"]["scale"] == "formation"
    assert result["corrections"] == "MP2020 corrections added"
    assert "2 labelled crystals of labels.csv" in result["references"]["source"]
    table = {Path(row["name"]).name: row for row in pl.read_csv(output / "stability.csv").to_dicts()}
    assert table["salt.cif"]["e_above_hull_ev_per_atom"] == pytest.approx(0.0, abs=0.01)
    assert table["salt.cif"]["metastable"] is True
    assert table["argon.cif"]["status"] == "unknown element"
    assert table["argon.cif"]["note"] == "fake never saw Ar"
    assert table["broken.cif"]["status"] == "not read"
    assert "Mg, O" in table["magnesia.cif"]["note"]
    assert [path.name for path in (output / "vasp").iterdir()] == ["00003-salt"]
    assert json.loads((output / "manifest.json").read_text())["counts"] == result["counts"]
    assert main(call) == 3
    shown = capsys.readouterr().out
    assert "1 of 4 crystals (25.0 %, 95 % interval 4.6 to 69.9) are metastable" in shown
    assert "competitors known: for 1 of 1 judged (100.0 %, 95 % interval 20.7 to 100.0)" in shown
    assert "partial: only the crystals of the file" in shown


def test_a_second_call_computes_nothing_again_and_takes_another_hull(
    fake: CrystalPotential, files: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["stability", str(files), "--hull", str(labels), "-o", str(output)]) == 3
    n_calls = len(fake.calls)
    totals = tmp_path / "totals.csv"
    totals.write_text("formula,energy_per_atom\nNa,-1.3\nCl,-1.8\nMg,-1.5\nO,-4.9\nMgO,-9.0\n")
    capsys.readouterr()
    assert main(["stability", str(files), "--hull", str(totals), "-o", str(output), "--json"]) == 3
    assert len(fake.calls) == n_calls
    result = json.loads(capsys.readouterr().out)
    assert (result["counts"]["judged"], result["counts"]["metastable"], result["references"]) == (2, 1, None)
    assert (output / "hull.csv").is_file()
    assert main(["stability", str(files), "--hull", str(totals), "-o", str(output), "--fmax", "0.02"]) == 2
    assert "holds relaxations with fmax_ev_angstrom 0.1" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_elemental_phases_of_the_user_are_references(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text("formula,formation_energy_per_atom\nNaCl,-0.8\n")
    call = ["stability", str(files / "salt.cif"), "--hull", str(tmp_path / "labels.csv"), "-o", str(tmp_path / "out")]
    assert main(call) == 2
    assert "no column cif to compute reference energies from. Give the elemental phases" in capsys.readouterr().err
    elements = tmp_path / "elements"
    elements.mkdir()
    for symbol in ("Na", "Cl"):
        element_cell(symbol).to(filename=str(elements / f"{symbol}.cif"))
    assert main([*call, "--elements", str(elements), "--json"]) == 0
    row = pl.read_csv(tmp_path / "out" / "stability.csv").to_dicts()[0]
    assert row["formation_energy_ev_per_atom"] == pytest.approx(-0.5 - 0.614 / 2, abs=0.01)
    assert row["e_above_hull_ev_per_atom"] == pytest.approx(-0.807 + 0.8, abs=0.01)


@pytest.mark.usefixtures("fake")
def test_wrong_calls_are_one_line(
    files: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.cif").write_text("data_\n")
    (tmp_path / "part.csv").write_text("formula,energy_per_atom\nNa,-1.3\n")
    for given, hull, code, message in (
        (files, "mp-api", 2, f"{KEY_VARIABLE} is not set"),
        (files, str(tmp_path / "none.csv"), 1, "is not a file"),
        (tmp_path / "empty", str(labels), 2, "holds no crystals"),
        (tmp_path / "torn", str(labels), 1, "a.cif: "),
        (
            files,
            str(tmp_path / "part.csv"),
            1,
            "each of 3 crystals has an element of which the hull (part.csv, 1 total energies) has no reference: "
            "Ar, Cl, Mg, O. Add the elements to the hull, or use --hull mp-api.",
        ),
    ):
        assert main(["stability", str(given), "--hull", hull, "-o", str(tmp_path / "out")]) == code
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error


@pytest.mark.usefixtures("fake")
def test_a_folder_of_other_work_is_left_alone(
    files: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    (work / "vasp" / "00000-salt").mkdir(parents=True)
    (work / "vasp" / "00000-salt" / "OUTCAR").write_text("days of work")
    assert main(["stability", str(files), "--hull", str(labels), "-o", str(work)]) == 2
    assert "is not empty and holds no relaxations" in capsys.readouterr().err
    assert [path.name for path in work.rglob("*") if path.is_file()] == ["OUTCAR"]


@pytest.mark.usefixtures("fake")
def test_refused_draws_of_a_samples_folder_are_counted_apart(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    cif = rocksalt("Na", "Cl").to(fmt="cif")
    table = {"index": [0, 1], "cif": [cif, cif], "valid": [True, False], "reason": ["", "charge: no"]}
    pl.DataFrame(table).write_parquet(samples / "samples.parquet")
    call = ["stability", str(samples), "--hull", str(labels), "-o"]
    assert main([*call, str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "1 of 2 are draws that the generator refused" in shown.err
    assert "warning" not in shown.err
    assert "1 of 2 crystals (50.0 %, 95 % interval 9.5 to 90.5) are metastable" in shown.out
    assert "of the 1 that the generator did not refuse 100.0 %, 95 % interval 20.7 to 100.0." in shown.out
    assert pl.read_csv(tmp_path / "out" / "stability.csv")["status"].to_list() == ["converged", "refused"]
    assert main([*call, str(samples)]) == 2
    assert "holds samples" in capsys.readouterr().err
    words = ["evaluate", "bulk", str(samples), "--stability", str(tmp_path / "out" / "stability.csv"), "--json"]
    assert main(words) == 0
    metastable = json.loads(capsys.readouterr().out)["metrics"]["metastable"]
    assert (metastable["value"], metastable["n"], metastable["of"]) == (1.0, 1, 1)


@pytest.mark.usefixtures("fake")
def test_what_the_materials_project_answered_is_kept(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectgen.stability import assessment

    def interrupted(_: object, hull: Hull, __: object) -> None:
        hull.points["NaCl"] = -3.4
        raise KeyboardInterrupt

    project = MaterialsProject("key", "http://127.0.0.1:9")
    monkeypatch.setattr(study, "open_hull", lambda _: Hull("made", TOTAL, "", {}, project))
    monkeypatch.setattr(assessment, "judge", interrupted)
    assert main(["stability", str(files), "--hull", "mp", "-o", str(tmp_path / "out")]) == 130
    assert read_hull(tmp_path / "out" / "hull.csv").points == {"NaCl": -3.4}


def test_a_potential_that_does_not_exist(files: Path, labels: Path, tmp_path: Path) -> None:
    call = ["stability", str(files), "--hull", str(labels), "-o", str(tmp_path / "out"), "--potential", "emt"]
    assert main(call) == 2


def test_templates_are_swapped_as_the_table_says_and_can_be_judged(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "swapped"
    assert main(["template", str(files), "-n", "6", "--seed", "3", "-o", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 6
    samples = pl.read_parquet(output / "samples.parquet")
    assert samples.columns == [
        "index", "raw_text", "valid", "reason", "formula", "cif", "task", "conditions", "seed",
    ]  # fmt: skip
    for row in samples.iter_rows(named=True):
        made = json.loads(row["conditions"])
        known, old, state = {"magnesia": ({"Mg", "O"}, "Mg", 2), "salt": ({"Na", "Cl"}, "Cl", 5)}[
            Path(made["template"]).stem
        ]
        assert made["old"] == old, "neither Na+ nor O2- has a partner"
        assert abs(Element(made["new"]).ionic_radii[state] - Element(old).ionic_radii[state]) < 0.1
        cell = Structure.from_str(row["cif"], fmt="cif")
        assert {site.specie.symbol for site in cell} == known - {old} | {made["new"]}
        assert cell.lattice.abc == pytest.approx(rocksalt("Mg", "O").lattice.abc, abs=1e-3)
        assert Structure.from_file(output / "structures" / f"{row['index']:05d}.cif").matches(cell)
    assert (output / "samples.extxyz").read_text().count("Lattice=") == 6
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["counts"] == {"samples": 6, "valid": 6}
    assert main(["template", str(files), "-n", "6", "--seed", "3", "-o", str(tmp_path / "again")]) == 0
    assert pl.read_parquet(tmp_path / "again" / "samples.parquet").equals(samples)
    assert main(["template", str(files), "-n", "1", "-o", str(output)]) == 2
    (tmp_path / "tables").mkdir()
    pl.DataFrame({"cif": [rocksalt("Mg", "O").to(fmt="cif")]}).write_csv(tmp_path / "tables" / "known.csv")
    assert main(["template", str(tmp_path / "tables"), "-n", "2", "-o", str(tmp_path / "from-table")]) == 0
    assert main(["template", str(files / "argon.cif"), "-n", "1", "-o", str(tmp_path / "salt")]) == 2
    assert "holds an element with a similar ion" in capsys.readouterr().err
