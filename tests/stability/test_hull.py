"""Hulls known by hand, from each kind of source, and what is missing in them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from fake_crystal_potential import rocksalt
from local_server import served
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from defectgen import web
from defectgen.errors import DefectgenError, UsageError
from defectgen.stability.hull import FORMATION, TOTAL, NoReferenceError, project_hull, read_hull, save_hull
from defectgen.stability.thermo import PAGE, competing_energies
from defectgen.web import KEY_VARIABLE, URL_VARIABLE, MaterialsProject
from defectgen_cli.app import main

ENERGIES = {"Na": -1.3, "Cl2": -1.8, "NaCl": -3.4}


def entries(energies: dict[str, float]) -> list[ComputedEntry]:
    return [ComputedEntry(f, e * Composition(f).num_atoms) for f, e in energies.items()]


@pytest.fixture
def nacl(tmp_path: Path) -> Path:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([entry.as_dict() for entry in entries(ENERGIES)]))
    return path


def test_a_compound_on_the_tie_line_is_at_zero_and_its_neighbours_are_between(nacl: Path) -> None:
    hull = read_hull(nacl)
    assert (hull.scale, hull.partial) == (TOTAL, "only the entries of the file")
    assert hull.above(Composition("NaCl"), -3.4).energy_ev == pytest.approx(0.0, abs=1e-9)
    assert hull.above(Composition("Na4Cl4"), -3.35).energy_ev == pytest.approx(0.05)
    assert hull.above(Composition("NaCl"), -3.5).energy_ev == pytest.approx(-0.1), "a new stable phase is below"
    on_line = 0.5 * -3.4 + 0.5 * -1.3  # Na3Cl is half NaCl and half Na, by atoms
    found = hull.above(Composition("Na3Cl"), on_line + 0.02)
    assert found.energy_ev == pytest.approx(0.02)
    assert found.decomposition == "0.5 Na + 0.5 NaCl"
    assert (found.n_competing, hull.above(Composition("Na"), -1.2).n_competing) == (1, 0)


def test_the_lowest_of_several_phases_is_the_hull_and_order_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "e.json.gz"
    listed = [*entries(ENERGIES), *entries({"NaCl": -3.1}), *entries({"Na": -1.0})]
    for content in (listed, listed[::-1]):
        with gzip.open(path, "wt") as file:
            json.dump([entry.as_dict() for entry in content], file)
        assert read_hull(path).above(Composition("NaCl"), -3.4).energy_ev == pytest.approx(0.0, abs=1e-9)


def test_an_element_without_reference_is_named(nacl: Path) -> None:
    with pytest.raises(NoReferenceError, match=r"hull without an elemental reference: K, Xe \(in entries.json"):
        read_hull(nacl).above(Composition("KXeCl"), -1.0)


def test_entries_that_say_how_they_were_run_are_corrected(tmp_path: Path) -> None:
    """O in an oxide: -0.687 eV an atom (Wang et al., 2021); Fe with U in an oxide: -2.256."""
    oxide = ComputedStructureEntry(rocksalt("Mg", "O", 4.25), -12.0, parameters={"run_type": "GGA", "hubbards": {}})
    oxide.parameters["software"] = "vasp"
    done = ComputedEntry("CaO", -12.0, correction=-1.0, parameters={"run_type": "GGA"})
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([oxide.as_dict(), done.as_dict()]))
    hull = read_hull(path)
    assert hull.points["MgO"] == pytest.approx((-12.0 - 0.687) / 2)
    assert hull.points["CaO"] == pytest.approx(-13.0 / 2), "what is corrected already is taken as it is"
    assert "2 entries, 1 of them corrected here" in hull.source


def test_the_structure_of_an_entry_tells_a_peroxide(tmp_path: Path) -> None:
    """Pyrite-type ZnO2 holds O2 units of 1.47 angstrom: -0.465 eV an O atom (Wang et al., 2021) instead of -0.687."""
    cell = Structure.from_spacegroup("Pa-3", Lattice.cubic(4.871), ["Zn", "O"], [[0, 0, 0], [0.413] * 3])
    raw = ComputedStructureEntry(cell, -60.0, parameters={"run_type": "GGA", "hubbards": {}, "software": "vasp"})
    (tmp_path / "e.json").write_text(json.dumps([raw.as_dict()]))
    assert read_hull(tmp_path / "e.json").points["ZnO2"] == pytest.approx((-60.0 - 8 * 0.465) / 12)


def test_rows_without_an_energy_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("formula,energy_per_atom\nNa,-1.3\nCl,\nNaCl,-3.4\n")
    hull = read_hull(tmp_path / "t.csv")
    assert hull.points == {"Na": -1.3, "NaCl": -3.4}
    assert "2 total energies (1 rows without one left out)" in hull.source


def test_formation_energies_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "pretty_formula,formation_energy_per_atom,e_above_hull\nNaCl,-2.0,0.1\nNaCl,-1.5,0.0\nMgCl2,-1.9,0\n"
    )
    hull = read_hull(path)
    assert hull.scale == FORMATION
    assert hull.elements == {"Na", "Mg", "Cl"}
    assert "minus e_above_hull" in hull.source
    assert hull.points["NaCl"] == pytest.approx(-2.1), "energy minus energy above the whole hull lies on the whole hull"
    assert hull.above(Composition("NaCl"), -2.05).energy_ev == pytest.approx(0.05)
    assert hull.above(Composition("Na"), 0.03).energy_ev == pytest.approx(0.03), "each element is its own zero"
    assert hull.above(Composition("NaMg"), -0.1).energy_ev == pytest.approx(-0.1)
    with pytest.raises(NoReferenceError, match="reference: K"):
        hull.above(Composition("KCl"), -2.0)


@pytest.mark.parametrize(("column", "value"), [("energy_per_atom", -3.4), ("energy", -6.8), ("energy_ev", -6.8)])
def test_total_energies_of_a_table(tmp_path: Path, column: str, value: float) -> None:
    path = tmp_path / "totals.csv"
    path.write_text(f"formula,{column}\nNa,-1.3\nCl,-1.8\nNaCl,{value}\n")
    hull = read_hull(path)
    assert hull.scale == TOTAL
    assert hull.above(Composition("NaCl"), -3.3).energy_ev == pytest.approx(0.1)
    save_hull(hull, tmp_path / "again.csv")
    assert read_hull(tmp_path / "again.csv").points == hull.points


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "no list of computed entries"),
        ("a.json", "[]", "the list is empty"),
        ("a.json", '[{"x": 1}]', "an item is no entry"),
        ("a.csv", "formula,x\nNa,1\n", "no column of formulas or of energies, got formula, x"),
        ("a.csv", "formula,energy\nNa,abc\n", "row 1: expected a formula and an energy, got 'Na' and 'abc'"),
        ("a.csv", "formula,energy\nNa,-1\nXx2,-1\n", "row 2: expected a formula"),
        ("a.csv", "formula,energy\nNa,nan\n", "row 1: expected a formula"),
        ("a.csv", "formula,energy\n", "holds no rows"),
        ("a.csv", "formula,energy\nNa,\n", "holds no rows with an energy"),
        ("a.txt", "x", "is no hull"),
    ],
)
def test_files_that_are_no_hull_are_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DefectgenError, match=message) as caught:
        read_hull(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(DefectgenError, match="is not a file"):
        read_hull(tmp_path / "none.csv")


class Thermo:
    """The route materials/thermo, as the Materials Project answers it."""

    def __init__(self) -> None:
        self.compounds: list[dict[str, Any]] = [
            {"formula_pretty": f, "energy_per_atom": e} for f, e in ENERGIES.items()
        ]
        self.asked: list[dict[str, list[str]]] = []
        self.url = ""
        self.broken = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["X-API-KEY"] != "right-key":
            handler.send_error(403)
            return
        url = urlparse(handler.path)
        query = parse_qs(url.query)
        self.asked.append(query)
        if url.path != "/materials/thermo/":
            handler.send_error(404)
            return
        systems = set(query["chemsys"][0].split(","))
        if self.broken in systems:
            handler.send_error(400)
            return
        rows = [
            row
            for row in self.compounds
            if "-".join(sorted(e.symbol for e in Composition(row["formula_pretty"]).elements)) in systems
        ]
        skip, limit = int(query["_skip"][0]), int(query["_limit"][0])
        body = json.dumps({"data": rows[skip : skip + limit], "meta": {"total_doc": len(rows)}}).encode()
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Thermo]:
    thermo = Thermo()
    with served(thermo.answer) as thermo.url:
        monkeypatch.setenv(KEY_VARIABLE, "right-key")
        monkeypatch.setenv(URL_VARIABLE, thermo.url + "/")
        monkeypatch.setattr(web, "BACKOFF_S", 0.0)
        yield thermo


def test_the_materials_project_is_asked_once_for_each_system(project: Thermo) -> None:
    hull = project_hull(MaterialsProject.from_environment())
    assert hull.above(Composition("NaCl"), -3.3).energy_ev == pytest.approx(0.1)
    assert hull.above(Composition("Na3Cl"), -2.0).decomposition == "0.5 Na + 0.5 NaCl"
    assert len(project.asked) == 1
    query = project.asked[0]
    assert query["chemsys"] == ["Cl,Na,Cl-Na"]
    assert query["thermo_types"] == ["GGA_GGA+U"]
    assert project.url in hull.source
    assert hull.partial == ""
    with pytest.raises(NoReferenceError, match="reference: K"):
        hull.above(Composition("KCl"), -3.0)
    assert "right-key" not in repr(hull)


def test_the_energies_of_a_system_are_fetched_into_a_hull(
    project: Thermo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.compounds += [{"formula_pretty": "Na2Cl2", "energy_per_atom": -3.2}]  # higher than NaCl
    project.compounds += [{"formula_pretty": "KCl", "energy_per_atom": -3.0}]  # of another system
    call = ["fetch", "materials-project", "--system", "Na-Cl", "-o", str(tmp_path / "hull.csv")]
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["formulas"] == 3
    hull = read_hull(tmp_path / "hull.csv")
    assert hull.scale == TOTAL
    assert set(hull.points) == {"Na", "Cl2", "NaCl"}
    assert hull.above(Composition("NaCl"), -3.3).energy_ev == pytest.approx(0.1)
    assert "right-key" not in (tmp_path / "hull.csv").read_text()
    assert main(call) == 2
    assert "exists. Choose another name or add --force." in capsys.readouterr().err
    assert main([*call, "--force"]) == 0
    assert "Na-Cl: lowest energies of 3 formulas" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["materials-project", "--system", "Na-Xx", "-o", "x.csv"],
            "got --system 'Na-Xx', expected different elements",
        ),
        (
            ["materials-project", "--system", "Na-Na", "-o", "x.csv"],
            "got --system 'Na-Na', expected different elements",
        ),
        (["materials-project", "--system", "Na-K", "-o", "x.csv"], "has no entry of K in Na-K"),
        (["materials-project", "--system", "Na-Cl", "-o", "x.json"], "expected a name that ends with .csv"),
        (["materials-project", "--system", "Na-Cl"], "--system and -o go together"),
        (["mp20", "--system", "Na-Cl", "-o", "x.csv"], "got --system for mp20, which is fetched into the cache"),
    ],
)
@pytest.mark.usefixtures("project")
def test_systems_that_cannot_be_fetched(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_answers_of_several_pages_are_put_together(project: Thermo) -> None:
    project.compounds += [{"formula_pretty": f"Na{n}Cl", "energy_per_atom": -1.0} for n in range(2, PAGE + 10)]
    found = competing_energies(MaterialsProject.from_environment(), ["Na", "Cl"])
    assert len(found) == len(project.compounds) > PAGE
    assert len(project.asked) == 2


def test_many_systems_are_asked_for_in_parts(project: Thermo) -> None:
    """Eight elements have 255 systems, whose names are too long for one address."""
    elements = ["Na", "Cl", "Mg", "O", "Ca", "Fe", "K", "Br"]
    found = competing_energies(MaterialsProject.from_environment(), elements)
    assert sorted(found) == sorted(ENERGIES.items())
    named = [query["chemsys"][0].split(",") for query in project.asked]
    assert [len(systems) for systems in named] == [100, 100, 55]
    assert len({system for systems in named for system in systems}) == 255


def test_a_system_without_an_answer_is_said_and_does_not_end_the_others(project: Thermo) -> None:
    project.broken = "K"
    hull = project_hull(MaterialsProject.from_environment())
    for _ in range(2):
        with pytest.raises(NoReferenceError, match="answered 400"):
            hull.above(Composition("KCl"), -3.0)
    assert len(project.asked) == 1, "it is not asked again and again"
    assert hull.above(Composition("NaCl"), -3.3).energy_ev == pytest.approx(0.1)


def test_a_key_that_is_not_accepted_ends_the_run(project: Thermo) -> None:
    hull = project_hull(MaterialsProject("wrong-key", project.url))
    with pytest.raises(DefectgenError, match="does not accept the key") as caught:
        hull.above(Composition("NaCl"), -3.3)
    assert not isinstance(caught.value, NoReferenceError)


def test_no_key_a_wrong_key_and_no_connection_are_one_line(project: Thermo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefectgenError, match=f"does not accept the key in {KEY_VARIABLE}") as caught:
        competing_energies(MaterialsProject("wrong-key", project.url), ["Na"])
    assert "wrong-key" not in str(caught.value)
    with pytest.raises(DefectgenError, match="answered 404"):
        competing_energies(MaterialsProject("right-key", project.url + "/elsewhere"), ["Na"])
    with pytest.raises(DefectgenError, match=r"gave nothing at http://127\.0\.0\.1:9 in 4 attempts"):
        competing_energies(MaterialsProject("right-key", "http://127.0.0.1:9"), ["Na"])
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UsageError, match=f"{KEY_VARIABLE} is not set"):
        MaterialsProject.from_environment()


def test_an_answer_of_another_form_is_one_line(project: Thermo) -> None:
    project.compounds[:] = [{"formula_pretty": "Na", "energy_per_atom": None}]
    with pytest.raises(DefectgenError, match="is not the Materials Project's"):
        competing_energies(MaterialsProject.from_environment(), ["Na"])


def test_the_files_of_a_folder_make_one_hull(nacl: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hull"
    folder.mkdir()
    nacl.rename(folder / "entries.json")
    (folder / "more.csv").write_text("formula,energy_per_atom\nK,-1.1\nNaCl,-3.5\n")
    (folder / "README.txt").write_text("not a hull")
    hull = read_hull(folder)
    assert (hull.scale, hull.partial) == (TOTAL, "only the entries of 2 files")
    assert hull.points == {"Na": -1.3, "Cl2": -1.8, "NaCl": -3.5, "K": -1.1}
    assert "entries.json" in hull.source
    assert "more.csv" in hull.source
    (folder / "labels.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.1\n")
    with pytest.raises(UsageError, match=r"labels.csv has formation energies, which do not go with other files"):
        read_hull(folder)
    save_hull(hull, folder / "hull.csv")
    assert read_hull(folder).points == hull.points, "of a study its own hull alone"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no hull. Expected files that end in .csv, .json, .json.gz"):
        read_hull(tmp_path / "empty")
