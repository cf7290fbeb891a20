"""A study of stability in a folder, with a potential known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from fake_crystal_potential import CrystalPotential, element_cell, rocksalt

from defectgen.errors import DefectgenError, UsageError
from defectgen.stability.assessment import REFERENCES, RelaxationSettings
from defectgen.stability.hull import FORMATION, TOTAL, Hull, read_hull
from defectgen.stability.study import (
    Study,
    element_references,
    open_potential,
    read_all,
    run_study,
    unjudged,
    without_reference,
)
from defectgen.web import MaterialsProject

pytest.importorskip("ase", reason="relaxation needs the m3gnet extra")

SETTINGS = RelaxationSettings("fake", 200, 0.1)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    rocksalt("Na", "Cl").to(filename=str(folder / "salt.cif"))
    rocksalt("Mg", "O").to(filename=str(folder / "magnesia.cif"))
    (folder / "broken.cif").write_text("data_\n")
    return folder


def study(files: Path, hull: Hull, folder: Path) -> Study:
    return run_study(read_all([files]), hull, CrystalPotential(), SETTINGS, folder, hull_file=Path("hull.csv"))


def test_a_study_writes_what_it_returns(files: Path, tmp_path: Path) -> None:
    hull = Hull("made", TOTAL, "", {"Na": -1.3, "Cl2": -1.8})
    found = study(files, hull, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == found.manifest
    assert found.counts["judged"] == found.counts["metastable"] == found.counts["vasp_inputs"] == 1
    assert unjudged(found.counts) == "1 not read, 1 without a reference on the hull"
    assert pl.read_csv(tmp_path / "out" / "stability.csv")["name"].to_list() == found.table["name"].to_list()
    assert read_hull(tmp_path / "out" / "hull.csv").points == hull.points
    assert found.references is None
    found.require_judged()


def test_nothing_judged_names_the_first_and_what_to_do(files: Path, tmp_path: Path) -> None:
    found = study(files, Hull("made", TOTAL, "", {"Fe": -8.0}), tmp_path / "out")
    with pytest.raises(DefectgenError) as caught:
        found.require_judged()
    assert str(caught.value).startswith(
        "none of 3 crystals can be judged: 1 not read, 2 without a reference on the hull; the first: "
    )
    assert str(caught.value).endswith("Add the element to the hull, or use --hull mp-api.")


def test_what_the_hull_lacks_is_known_before_anything_is_relaxed(files: Path) -> None:
    crystals = read_all([files])
    assert without_reference(crystals, Hull("made", TOTAL, "", {"Na": -1.3, "Cl2": -1.8})) == (1, ("Mg", "O"))
    whole = {"Na": -1.3, "Cl2": -1.8, "Mg": -1.5, "O2": -4.9}
    assert without_reference(crystals, Hull("made", TOTAL, "", whole)) == (0, ())
    assert without_reference(crystals, Hull("made", FORMATION, "", {"MgO": -3.0, "NaCl": -2.0})) == (0, ())
    with pytest.raises(
        DefectgenError, match=r"each of 2 crystals has an element of which the hull \(made\) has no reference: Cl, Mg"
    ):
        without_reference(crystals, Hull("made", TOTAL, "", {"Fe": -8.0}))
    asked = Hull("made", TOTAL, "", {}, MaterialsProject("key", "http://127.0.0.1:9"))
    assert without_reference(crystals, asked) == (0, ())


def test_reference_energies_are_computed_once_for_a_table(files: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    cells = [("NaCl", rocksalt("Na", "Cl"), -2.0), ("Na", element_cell("Na"), 0.0)]
    rows = [{"formula": f, "formation_energy_per_atom": e, "cif": cell.to(fmt="cif")} for f, cell, e in cells]
    pl.DataFrame(rows).write_csv(table)
    hull, potential = read_hull(table), CrystalPotential()
    first = element_references(hull, table, None, potential, SETTINGS, tmp_path / "out")
    n_calls = len(potential.calls)
    assert (tmp_path / "out" / REFERENCES).is_file()
    again = element_references(hull, table, None, CrystalPotential(), SETTINGS, tmp_path / "out")
    assert again == first
    assert len(potential.calls) == n_calls
    pl.DataFrame(rows[:1]).write_csv(table)
    other = element_references(read_hull(table), table, None, potential, SETTINGS, tmp_path / "out")
    assert other != first, "another table, other references"
    total = Hull("made", TOTAL, "", {"Na": -1.3})
    assert element_references(total, table, None, potential, SETTINGS, tmp_path) is None
    with pytest.raises(UsageError, match="the hull has total energies"):
        element_references(total, table, files, potential, SETTINGS, tmp_path)
    with pytest.raises(UsageError, match="holds no elemental phase that can be relaxed"):
        element_references(hull, table, files, potential, SETTINGS, tmp_path / "out")


def test_what_cannot_be_opened_is_one_line(files: Path) -> None:
    with pytest.raises(UsageError, match="got potential 'emt', expected m3gnet or chgnet"):
        open_potential("emt")
    with pytest.raises(DefectgenError, match=r"broken\.cif: ") as alone:
        read_all([files / "broken.cif"])
    assert "1 crystals" not in str(alone.value)
