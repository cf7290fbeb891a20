"""Relaxation of crystals, corrections, references and the verdict, with a potential known by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_crystal_potential import ATOM_EV, VOLUME_AN_ATOM, CrystalPotential, element_cell, labelled_table, rocksalt
from pymatgen.core import Composition, Lattice, Structure

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_files import NamedCrystal
from defectgen.score.potentials import relaxation
from defectgen.score.potentials.relaxation import CRYSTAL, relax
from defectgen.stability.assessment import (
    ROWS,
    RelaxationSettings,
    check_folder,
    judge,
    relax_all,
    summarize,
)
from defectgen.stability.corrections import correction_ev, hubbard_u_ev, mp2020_correction_ev
from defectgen.stability.hull import FORMATION, TOTAL, Hull
from defectgen.stability.references import elemental_references, fit_references, pick_rows, references_from_table
from defectgen.stability.study_folder import write_results

SETTINGS = RelaxationSettings("fake", 200, 1e-2)
CORRECTED = {"Cl": -0.614, "O": -0.687}
"""eV an atom: Table 1 of Wang et al., Sci Rep 11, 15496 (2021)."""


def test_the_cell_goes_to_the_volume_without_stress() -> None:
    start = rocksalt("Na", "Cl", 6.0)
    found = relax(start, CrystalPotential(), CRYSTAL, fmax_ev_angstrom=1e-3)
    assert (found.status, found.usable, found.detail) == (relaxation.CONVERGED, True, "")
    assert found.structure.volume == pytest.approx(2 * VOLUME_AN_ATOM, rel=0.02)
    assert found.volume_ratio == pytest.approx(found.structure.volume / start.volume)
    assert found.energy_ev_per_atom == pytest.approx((-1.3 - 1.8) / 2 - 0.5, abs=1e-3)
    assert found.initial_energy_ev_per_atom > found.energy_ev_per_atom + 0.01
    assert found.max_stress_gpa < 0.1
    assert start.volume == pytest.approx(6.0**3 / 4), "the crystal given is left as it was"


def sinking(atoms: Any) -> float:
    return -100.0 * len(atoms)


def unasked(_: Any) -> float:
    raise AssertionError("the potential was asked")


def broken(_: Any) -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("distort", "status", "detail"),
    [
        (sinking, relaxation.EXPLODED, "the energy fell to -10"),
        (broken, relaxation.EXPLODED, "no number"),
    ],
)
def test_divergence_is_named(distort: Any, status: str, detail: str) -> None:
    found = relax(rocksalt("Na", "Cl"), CrystalPotential(distort=distort), CRYSTAL)
    assert (found.status, found.usable) == (status, False)
    assert detail in found.detail


def test_a_cell_that_flies_apart_atoms_on_top_of_each_other_and_too_few_steps() -> None:
    far = relax(rocksalt("Na", "Cl", 3.0), CrystalPotential(), CRYSTAL, fmax_ev_angstrom=1e-3)
    assert (far.status, far.usable) == (relaxation.CELL_EXPLODED, False), "from 6.75 to 40 A^3"
    assert "the volume changed by a factor of 3" in far.detail
    close = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    found = relax(close, CrystalPotential(), CRYSTAL)
    assert found.status == relaxation.TOO_CLOSE
    assert found.detail == "two atoms 0.40 angstrom apart before any step"
    dense = relax(Structure(Lattice.cubic(1.2), ["Na"], [[0, 0, 0]]), CrystalPotential(distort=unasked), CRYSTAL)
    assert (dense.status, dense.detail) == (relaxation.TOO_CLOSE, "1.73 cubic angstrom an atom before any step")
    few = relax(rocksalt("Na", "Cl", 5.5), CrystalPotential(), CRYSTAL, fmax_ev_angstrom=1e-4, max_steps=2)
    assert (few.status, few.steps, few.usable) == (relaxation.NOT_CONVERGED, 2, True)
    with pytest.raises(UsageError, match="never saw Xe"):
        relax(element_cell("Xe"), CrystalPotential(), CRYSTAL)


def test_crystals_are_relaxed_by_the_careful_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    careful_fire = relaxation.careful_fire

    def watched(atoms: Any) -> Any:
        made.append(careful_fire(atoms))
        return made[-1]

    monkeypatch.setattr(relaxation, "careful_fire", watched)
    found = relax(rocksalt("Na", "Cl", 6.0), CrystalPotential(), CRYSTAL, fmax_ev_angstrom=1e-3)
    assert len(made) == 1
    assert made[0].nsteps == found.steps > 0


def test_corrections_are_those_of_the_paper() -> None:
    assert mp2020_correction_ev(rocksalt("Mg", "O")) == pytest.approx(CORRECTED["O"])
    assert mp2020_correction_ev(rocksalt("Na", "Cl")) == pytest.approx(CORRECTED["Cl"])
    assert mp2020_correction_ev(rocksalt("Fe", "O")) == pytest.approx(CORRECTED["O"] - 2.256), "Fe with U = 5.3 eV"
    assert mp2020_correction_ev(element_cell("O")) == 0.0
    doubled = rocksalt("Mg", "O") * (2, 1, 1)
    assert mp2020_correction_ev(doubled) == pytest.approx(2 * CORRECTED["O"])
    assert hubbard_u_ev(Composition("FeO")) == {"Fe": 5.3}
    assert hubbard_u_ev(Composition("FeS")) == hubbard_u_ev(Composition("MgO")) == {}


def test_a_potential_of_corrected_energies_gets_no_corrections() -> None:
    crystal = rocksalt("Mg", "O")
    assert correction_ev(crystal, CrystalPotential()) == pytest.approx(CORRECTED["O"])
    assert correction_ev(crystal, CrystalPotential(shifts_ev={"O": -0.687})) == 0.0


def test_fitted_references_are_the_energies_of_the_elements() -> None:
    rng = np.random.default_rng(1)
    formulas = [f"{a}{i}{b}{j}" for a in ("Na", "Mg", "Ca") for b in ("Cl", "O") for i in (1, 2) for j in (1, 3)]
    compositions = [Composition(formula) for formula in [*formulas, "CsF"]]
    known = ATOM_EV | {"Cs": -0.9, "F": -1.7}
    labels = list(rng.normal(-1.5, 0.3, len(compositions)))
    energies = [
        label + sum(n * known[e.symbol] for e, n in c.items()) / c.num_atoms
        for c, label in zip(compositions, labels, strict=True)
    ]
    energies[3] += 4.0  # a crystal that the potential gets wrong
    found = fit_references(compositions, energies, labels, "made")
    assert set(found.energy_ev) == {"Na", "Mg", "Ca", "Cl", "O"}, "Cs and F occur in one ratio only"
    for symbol, energy in found.energy_ev.items():
        assert energy == pytest.approx(ATOM_EV[symbol], abs=0.1)
    assert found.formation_ev_per_atom(compositions[0], energies[0]) == pytest.approx(labels[0], abs=0.1)
    with pytest.raises(DefectgenError, match="hull without an elemental reference: Cs, F"):
        found.formation_ev_per_atom(Composition("CsF"), -1.0)
    assert elemental_references({"Na": [-1.0, -1.3]}, "x").energy_ev == {"Na": -1.3}


def test_rows_for_references_cover_each_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defectgen.stability.references.ROWS_AN_ELEMENT", 3)
    rows = [frozenset({"Na", "Cl"})] * 50 + [frozenset({"K", "Cl"})] * 2
    picked = pick_rows(rows, np.random.default_rng(0))
    assert {50, 51} <= set(picked)
    assert 3 <= len(picked) < 10
    assert picked == pick_rows(rows, np.random.default_rng(0)) == sorted(picked)


def test_references_from_a_table_reproduce_its_labels(tmp_path: Path) -> None:
    potential = CrystalPotential()
    found = references_from_table(labelled_table(tmp_path / "t.csv"), potential)
    assert found.source == "5 labelled crystals of t.csv (1 that cannot be computed left out)"
    for cell, label in ((rocksalt("Na", "Cl"), -2.0), (rocksalt("Ca", "O"), -3.2)):
        energy = (potential.evaluate([cell])[0].energy_ev + correction_ev(cell, potential)) / 2
        assert found.formation_ev_per_atom(cell.composition, energy) == pytest.approx(label, abs=1e-3)
    (tmp_path / "no.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2\n")
    with pytest.raises(UsageError, match="no column cif"):
        references_from_table(tmp_path / "no.csv", potential)


def crystals() -> list[NamedCrystal]:
    crowded = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    return [
        NamedCrystal("salt", rocksalt("Na", "Cl")),
        NamedCrystal("torn", None, "cannot be read"),
        NamedCrystal("crowded", crowded),
        NamedCrystal("xenon", element_cell("Xe")),
        NamedCrystal("magnesia", rocksalt("Mg", "O")),
        NamedCrystal("sodium", element_cell("Na")),
    ]


def salt_hull(above_ev: float = 0.05) -> Hull:
    energy = (-1.3 - 1.8 + CORRECTED["Cl"]) / 2 - 0.5
    return Hull("made", TOTAL, "a part", {"Na": -1.3, "Cl2": -1.8, "NaCl": energy - above_ev})


def test_every_crystal_gets_a_row_and_failures_stay_in_the_denominator(tmp_path: Path) -> None:
    rows = relax_all(crystals(), CrystalPotential(), SETTINGS, tmp_path)
    table = judge(rows, salt_hull(), None)
    assert table["status"].to_list() == [
        "converged", "not read", "atoms too close", "unknown element", "converged", "converged",
    ]  # fmt: skip
    assert table["note"][3] == "fake never saw Xe"
    assert "hull without an elemental reference: Mg, O" in table["note"][4]
    assert table["e_above_hull_ev_per_atom"][0] == pytest.approx(0.05, abs=2e-3)
    assert table["metastable"].to_list() == [True, None, None, None, None, True]
    counts = summarize(table)
    assert (counts["crystals"], counts["judged"], counts["metastable"]) == (6, 2, 2)
    assert counts["share_metastable_of_all"] == counts["share_metastable_of_not_refused"] == pytest.approx(2 / 6)
    assert (counts["refused"], counts["failed"]) == (0, 0)
    assert (counts["not_read"], counts["unknown_element"], counts["diverged"], counts["without_reference"]) == (
        1, 1, 1, 1,
    )  # fmt: skip
    assert judge(rows, salt_hull(0.2), None)["metastable"][0] is False


def test_refused_draws_have_a_status_and_a_share_without_them(tmp_path: Path) -> None:
    refused = NamedCrystal("draw", None, "distance: 0.20", refused=True)
    rows = relax_all([crystals()[0], refused, crystals()[1], crystals()[1]], CrystalPotential(), SETTINGS, tmp_path)
    table = judge(rows, salt_hull(), None)
    assert table["status"].to_list() == ["converged", "refused", "not read", "not read"]
    counts = summarize(table)
    assert (counts["refused"], counts["not_read"], counts["diverged"]) == (1, 2, 0)
    assert counts["share_metastable_of_all"] == pytest.approx(1 / 4)
    assert counts["share_metastable_of_not_refused"] == pytest.approx(1 / 3)


def test_what_failed_in_the_library_is_counted_apart_and_tried_again(tmp_path: Path) -> None:
    def crash(_: Any) -> float:
        raise MemoryError

    first = relax_all(crystals()[:1], CrystalPotential(distort=crash), SETTINGS, tmp_path)
    counts = summarize(judge(first, salt_hull(), None))
    assert (counts["failed"], counts["diverged"]) == (1, 0)
    for _ in range(2):
        [row] = relax_all(crystals()[:1], CrystalPotential(), SETTINGS, tmp_path)
        assert row["status"] == "converged"
    assert len((tmp_path / ROWS).read_text().splitlines()) == 3, "the second time it is known"


def test_formation_energies_are_judged_on_their_own_scale(tmp_path: Path) -> None:
    potential = CrystalPotential()
    rows = relax_all([crystals()[0]], potential, SETTINGS, tmp_path)
    references = elemental_references({"Na": [-1.3], "Cl": [-1.8]}, "made")
    table = judge(rows, Hull("made", FORMATION, "", {"NaCl": -0.9}), references)
    expected = -0.5 + CORRECTED["Cl"] / 2
    assert table["formation_energy_ev_per_atom"][0] == pytest.approx(expected, abs=2e-3)
    assert table["e_above_hull_ev_per_atom"][0] == pytest.approx(expected + 0.9, abs=2e-3)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = relax_all(crystals(), CrystalPotential(), SETTINGS, tmp_path / "whole")
    relax_all(crystals()[:1], CrystalPotential(), SETTINGS, tmp_path / "half")
    path = tmp_path / "half" / ROWS
    path.write_text(path.read_text() + '{"digest": "cut o')
    later = CrystalPotential()
    rows = relax_all(crystals(), later, SETTINGS, tmp_path / "half")
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in whole]
    assert len(path.read_text().splitlines()) == 1 + len(rows)
    again = CrystalPotential()
    assert relax_all(crystals(), again, SETTINGS, tmp_path / "half") == rows
    assert again.calls == [], "nothing is computed twice"
    with pytest.raises(UsageError, match=r"holds relaxations with fmax_ev_angstrom 0\.01, max_steps 200"):
        relax_all(crystals(), again, RelaxationSettings("fake", 100, 0.05), tmp_path / "half")


def written(rows: Any, table: Any, folder: Path) -> tuple[int, list[str]]:
    """Number of inputs for VASP, and what is said."""
    manifest, said = write_results(rows, table, folder, {})
    return manifest["counts"]["vasp_inputs"], said


def test_inputs_for_vasp_are_complete_without_licensed_contents(tmp_path: Path) -> None:
    mixed = [NamedCrystal("rust", rocksalt("Fe", "O", 4.3)), crystals()[0]]
    rows = relax_all(mixed, CrystalPotential(), RelaxationSettings("fake", 3, 0.1), tmp_path)
    hull = Hull("made", TOTAL, "", {"Na": -1.3, "Cl": -1.8, "Fe": 0.0, "O": 0.0})
    table = judge(rows, hull, None)
    assert written(rows, table, tmp_path) == (2, [])
    folder = tmp_path / "vasp" / "00000-rust"
    assert sorted(path.name for path in folder.iterdir()) == ["INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"]
    assert (folder / "POTCAR.spec").read_text().split() == ["Fe_pv", "O"]
    assert (folder / "POSCAR").read_text().splitlines()[5].split() == ["Fe", "O"]
    assert "LDAUU = 5.3 0" in (folder / "INCAR").read_text()
    assert len(list((tmp_path / "relaxed").glob("*.cif"))) == 2
    again = judge(rows, Hull("made", TOTAL, "", {"Na": -9.0, "Cl": -9.0}), None)
    assert written(rows, again, tmp_path) == (0, [])
    assert not (tmp_path / "vasp").exists(), "inputs of an earlier hull are gone"


def test_nothing_of_the_user_is_removed(tmp_path: Path) -> None:
    rows = relax_all([crystals()[0], crystals()[5]], CrystalPotential(), SETTINGS, tmp_path)
    hull = Hull("made", TOTAL, "", {"Na": -1.3, "Cl": -1.8})
    assert written(rows, judge(rows, hull, None), tmp_path)[0] == 2
    (tmp_path / "relaxed" / "mine.cif").write_text("x")
    (tmp_path / "relaxed" / "00009-old.cif").write_text("x")
    (tmp_path / "vasp" / "mine").mkdir()
    run = tmp_path / "vasp" / "00000-salt"
    (run / "OUTCAR").write_text("days of work")
    (run / "INCAR").write_text("changed")
    other = judge(rows, Hull("made", TOTAL, "", {"Na": -9.0, "Cl": -9.0}), None)
    for table in (other, judge(rows, hull, None)):
        _, said = written(rows, table, tmp_path)
        assert said == [f"{run} holds more than an input, or was edited, and is left as it is."]
        assert (run / "OUTCAR").read_text() == "days of work"
        assert (run / "INCAR").read_text() == "changed"
        assert len(list(run.iterdir())) == 5
    names = {path.name for path in (tmp_path / "relaxed").iterdir()}
    assert names == {"00000-salt.cif", "00001-sodium.cif", "00009-old.cif", "mine.cif"}
    assert {path.name for path in (tmp_path / "vasp").iterdir()} == {"00000-salt", "00001-sodium", "mine"}


def test_an_input_that_was_edited_stays(tmp_path: Path) -> None:
    rows = relax_all([crystals()[0], crystals()[5]], CrystalPotential(), SETTINGS, tmp_path)
    table = judge(rows, Hull("made", TOTAL, "", {"Na": -1.3, "Cl": -1.8}), None)
    written(rows, table, tmp_path)
    (tmp_path / "vasp" / "00000-salt" / "INCAR").write_text("mine")
    (tmp_path / "vasp" / "00001-sodium" / "INCAR").touch()
    n_inputs, said = written(rows, table, tmp_path)
    assert (n_inputs, len(said)) == (1, 1)
    assert (tmp_path / "vasp" / "00000-salt" / "INCAR").read_text() == "mine"
    assert len(list((tmp_path / "vasp" / "00001-sodium").iterdir())) == 4
    assert written(rows, table, tmp_path)[0] == 1, "what was left is not taken for its own the next time"
    assert (tmp_path / "vasp" / "00000-salt" / "INCAR").read_text() == "mine"


def test_a_folder_of_something_else_is_refused_before_work(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    (tmp_path / "mine" / "vasp").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not empty and holds no relaxations"):
        check_folder(tmp_path / "mine")
    for name in (ROWS, "references.json", f"elements/{ROWS}"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("")
        check_folder(folder)
    (folder / "samples.parquet").write_text("")
    with pytest.raises(UsageError, match="holds samples"):
        check_folder(folder)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from defectgen.score.potentials.m3gnet import VARIABLE, load_m3gnet

    name = os.environ.get(VARIABLE)
    if not name:
        pytest.skip(f"{VARIABLE} is not set: tests on real M3GNet weights left out")
    pytest.importorskip("matgl", reason="M3GNet needs the m3gnet extra")
    return load_m3gnet(name, tmp_path_factory.mktemp("cache"))


def test_real_weights_relax_salt_to_its_pbe_lattice_and_formation_energy(real: Any) -> None:
    """PBE: a = 5.69 angstrom; formation energy with corrections -2.11 eV/atom (mp-22862; by experiment -2.13)."""
    start = rocksalt("Na", "Cl", 6.2)
    found = relax(start, real, CRYSTAL)
    assert found.status == relaxation.CONVERGED
    assert (found.structure.volume * 4) ** (1 / 3) == pytest.approx(5.69, abs=0.06)
    body_centred = Structure(Lattice.cubic(4.19), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    sodium = relax(body_centred, real, CRYSTAL).energy_ev_per_atom
    corrected = found.energy_ev_per_atom + correction_ev(found.structure, real) / 2
    chlorine = -1.84  # eV an atom, PBE energy of the molecule's crystal
    assert corrected - (sodium + chlorine) / 2 == pytest.approx(-2.11, abs=0.1)


def test_rows_are_plain_json(tmp_path: Path) -> None:
    relax_all(crystals(), CrystalPotential(), SETTINGS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    assert lines[0] == {"settings": {"potential": "fake", "max_steps": 200, "fmax_ev_angstrom": 1e-2}}
    assert [row["name"] for row in lines[1:]] == [named.name for named in crystals()]
