"""What a campaign counts against, and results that contradict each other or are of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from made_up_dft import host, host_file, truth, write_results

from defectgen.campaign import running
from defectgen.campaign.adding import Reading, add_results, read_calculation
from defectgen.campaign.folder import Campaign, new_campaign
from defectgen.campaign.pool import pool_of
from defectgen.campaign.proposing import propose
from defectgen.campaign.store import DONE, FAILED
from defectgen.core import Configuration
from defectgen.dft.ase_files import frame_text, read_ase_results
from defectgen.dft.layer_settings import LayerSettings
from defectgen.dft.result import DftResult, Fingerprint
from defectgen.dft.settings import AseSettings, DftSettings
from defectgen.errors import DefectgenError
from defectgen_cli.app import main


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return new_campaign(tmp_path / "ws2", host(tmp_path), max_defects=2)


def frames(path: Path) -> list[Any]:
    found: Any = read(path, index=":")
    return list(found)


def parts(folder: Path, items: list[Configuration]) -> tuple[list[Any], list[Any]]:
    """Frames of the host and the elements, and those of the structures."""
    folder.mkdir(exist_ok=True)
    all_of_them = frames(write_results(folder / "all.extxyz", items))
    n = len(items)
    return [all_of_them[0], *all_of_them[n + 1 :]], all_of_them[1 : n + 1]


def energy(campaign: Campaign, item: Configuration) -> float | None:
    row = next(row for row in campaign.store.rows() if row.key == item.key)
    return row.computed.get("formation_energy_ev")


def test_own_calculations_have_their_own_values_beside_a_file_of_all_references(
    campaign: Campaign, tmp_path: Path
) -> None:
    items = [row.configuration for row in propose(campaign, 4).rows]
    add_results(campaign, [write_results(tmp_path / "all.extxyz", items[:3])])
    place = campaign.folder / "calculations" / "00004"
    place.mkdir(parents=True)
    write(place / "own.extxyz", parts(tmp_path / "own", items[3:])[1][0])
    reading, reason = read_calculation(campaign, place)
    assert reason == ""
    assert reading is not None
    assert reading.configuration == items[3]
    assert reading.values == pytest.approx(truth(items[3]), abs=1e-6)
    kept = sorted((campaign.folder / "references").rglob("*.extxyz"))
    assert [len(frames(path)) for path in kept] == [1] * 5  # not the structures that lay beside them


def test_references_of_one_name_are_all_kept_inside_the_folder(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 2).rows]
    references, defects = parts(tmp_path / "p", items)
    files = []
    for number, atoms in enumerate(references):
        del atoms.info["name"]  # the frame is called 1 then, in each file
        files.append(tmp_path / f"file{number}.extxyz")
        write(files[-1], atoms)
    assert len(set(add_results(campaign, files).references)) == 5
    assert add_results(campaign, files).references == ()  # there already
    write(tmp_path / "late.extxyz", defects[0])
    add_results(campaign, [tmp_path / "late.extxyz"])
    assert energy(campaign, items[0]) == pytest.approx(truth(items[0])["formation_energy_ev"], abs=1e-6)
    other = new_campaign(tmp_path / "other", campaign.host)
    references[1].info["name"] = "../../outside"
    write(tmp_path / "odd.extxyz", references[1])
    assert add_results(other, [tmp_path / "odd.extxyz"]).references == ("outside",)
    assert {path.parent for path in tmp_path.rglob("outside")} == {other.folder / "references"}


def test_a_second_host_of_another_energy_is_left_out_and_told(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 1).rows]
    add_results(campaign, [write_results(tmp_path / "a.extxyz", items)])
    other = parts(tmp_path / "p", items)[0][0]
    other.calc = SinglePointCalculator(other, energy=other.get_potential_energy() + 0.5)
    other.info["name"] = "host_again"
    write(tmp_path / "b.extxyz", other)
    found = add_results(campaign, [tmp_path / "b.extxyz"])
    assert found.references == ()
    assert "host_again is left out: its energy is +0.500 eV from that of the pristine WS2 3x3" in found.notes[0]


def test_results_that_contradict_what_is_kept_are_told(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 2).rows]
    references, defects = parts(tmp_path / "p", items)
    again = defects[0].copy()
    again.info |= defects[0].info
    again.calc = SinglePointCalculator(again, energy=defects[0].get_potential_energy() - 0.25)
    write(tmp_path / "twice.extxyz", [*references, *defects, again])
    found = add_results(campaign, [tmp_path / "twice.extxyz"])
    assert (len(found.new), found.known) == (2, 1)
    value = truth(items[0])["formation_energy_ev"]
    label = items[0].label
    assert f"1 {label} has a result already, which is kept: E_form {value:.3f} eV; another one says" in found.notes[0]
    assert energy(campaign, items[0]) == pytest.approx(value, abs=1e-6)
    assert add_results(campaign, [write_results(tmp_path / "same.extxyz", items)]).notes == ()


def test_values_that_were_missing_come_with_the_references(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 2).rows]
    references, defects = parts(tmp_path / "p", items)
    write(tmp_path / "defects.extxyz", defects)
    found = add_results(campaign, [tmp_path / "defects.extxyz"])
    assert "hand over the pristine host and the elements by its settings, then the same results again" in found.notes[0]
    assert energy(campaign, items[0]) is None
    write(tmp_path / "references.extxyz", references)
    add_results(campaign, [tmp_path / "references.extxyz"])
    assert len(add_results(campaign, [tmp_path / "defects.extxyz"]).new) == 2
    for row, item in zip(campaign.store.rows(), items, strict=True):
        assert row.state == DONE
        assert row.computed == pytest.approx(truth(item), abs=1e-6)
        assert LayerSettings.from_text(row.settings) is not None


def test_energies_in_other_units_are_refused(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 2).rows]
    references, defects = parts(tmp_path / "p", items)
    for atoms in defects[:1]:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy() / 27.2114)
    write(tmp_path / "hartree.extxyz", [*references, *defects])
    found = add_results(campaign, [tmp_path / "hartree.extxyz"])
    assert [row.key for row in found.new] == [items[1].key]
    assert "cannot be: are all energies in eV and of the whole cell?" in found.refused[0][1]


def test_results_of_another_calculator_are_refused(tmp_path: Path) -> None:
    made = new_campaign(tmp_path / "c", host(tmp_path), max_defects=1, engine="chgnet", start=False)
    items = [row.configuration for row in propose(made, 2).rows]
    other = write_results(tmp_path / "m.extxyz", items, code="ase", functional="m3gnet")
    with pytest.raises(DefectgenError, match=r"computed by m3gnet, this campaign is of chgnet"):
        add_results(made, [other])
    unnamed = frames(other)
    for atoms in unnamed:
        del atoms.info["functional"]
    write(tmp_path / "n.extxyz", unnamed)
    with pytest.raises(DefectgenError, match=r"does not name its calculator \(in files of ASE: functional=chgnet\)"):
        add_results(made, [tmp_path / "n.extxyz"])
    assert not (made.folder / "references").exists()
    same = write_results(tmp_path / "s.extxyz", items, code="ase", functional="chgnet")
    assert len(add_results(made, [same]).new) == 2


def test_a_structure_that_became_another_one_has_no_values(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other, third = propose(campaign, 3).rows
    place = campaign.folder / "calculations" / "one"
    place.mkdir(parents=True)
    add_results(campaign, [write_results(tmp_path / "r.extxyz", [third.configuration])])
    write(place / "own.extxyz", parts(tmp_path / "p", [other.configuration])[1][0])
    row = campaign.store.rows()[0]
    moved, _ = read_calculation(campaign, place)
    assert isinstance(moved, Reading)
    monkeypatch.setattr(running, "read_calculation", lambda *_: (moved, ""))
    tally = running._Tally()
    running._record(campaign, row, running.TaskOutcome("done"), tally, lambda _: None)
    after = campaign.store.rows()[0]
    assert (after.state, dict(after.computed)) == (FAILED, {})
    assert after.reason.startswith(f"its atoms moved into {other.configuration.label} (")


@pytest.mark.parametrize(("said", "known"), [("no", False), ("F", False), (True, True), ("yes", True), ("soon", None)])
def test_whether_a_frame_converged_is_read_as_it_is_said(tmp_path: Path, said: object, known: bool | None) -> None:
    item = next(iter(propose(new_campaign(tmp_path / "c", host(tmp_path)), 1).rows)).configuration
    path = write_results(tmp_path / "r.extxyz", [item], converged=said)
    result = next(read_ase_results(path))[1]
    assert isinstance(result, DftResult)
    assert result.electronic_converged is known


def test_a_frame_is_read_as_it_was(tmp_path: Path) -> None:
    item = next(iter(propose(new_campaign(tmp_path / "c", host(tmp_path)), 1).rows)).configuration
    path = write_results(tmp_path / "r.extxyz", [item], cutoff_ev=350.0, charge=-1.0, magnetization_mu_b=1.5)
    name, result = list(read_ase_results(path))[1]
    assert isinstance(result, DftResult)
    (tmp_path / "again.extxyz").write_text(frame_text(result, name))
    _, again = next(read_ase_results(tmp_path / "again.extxyz"))
    assert isinstance(again, DftResult)
    assert np.allclose(again.structure.frac_coords, result.structure.frac_coords, atol=1e-7)
    for field in ("code", "fingerprint", "electronic_converged", "levels", "charge", "magnetization_mu_b"):
        assert getattr(again, field) == getattr(result, field), field
    assert (again.energy_ev, again.vacuum_level_ev) == (result.energy_ev, result.vacuum_level_ev)


def test_settings_without_arguments_are_read_as_earlier_versions_wrote_them() -> None:
    earlier = LayerSettings(Fingerprint("ase", "chgnet", basis="{}"))
    assert LayerSettings.from_text(earlier.text()) == LayerSettings(Fingerprint("ase", "chgnet"))


LJ = "ase.calculators.lj:LennardJones"


def test_a_run_computes_the_references_that_were_not_handed_over(tmp_path: Path, tools: Path) -> None:
    settings = DftSettings(relax=False, ase=AseSettings(calculator=LJ))
    made = new_campaign(tmp_path / "c", host(tmp_path), max_defects=1, engine=LJ, settings=settings, start=False)
    items = [row.configuration for row in propose(made, 2).rows]
    references, _ = parts(tmp_path / "p", items)
    (made.folder / "references").mkdir()  # as a disk leaves it that was full when the first one was to be copied
    for atoms in references:
        atoms.info |= {"code": "ase", "functional": LJ}
        atoms.calc = LennardJones()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    write(tmp_path / "some.extxyz", references[:3])
    kept = add_results(made, [tmp_path / "some.extxyz"]).references
    said: list[str] = []
    options = running.RunOptions(python=str(tools / "python"), limit=1)
    assert running.run_campaign(made, options=options, say=said.append).done == 1
    left = {"element_Mo", "element_S", "element_Se", "element_W"} - set(kept)
    assert (len(kept), len(left)) == (3, 2)
    assert said[0] == f"first the references: {', '.join(sorted(left))}"
    assert "formation_energy_ev" in made.store.rows()[0].computed
    write(tmp_path / "rest.extxyz", references[3:])
    found = add_results(made, [tmp_path / "rest.extxyz"])
    assert (found.references, len(found.notes)) == ((), 2)  # the campaign has computed its own
    whole = new_campaign(tmp_path / "w", made.host, max_defects=1, engine=LJ, settings=settings, start=False)
    propose(whole, 1)
    add_results(whole, [tmp_path / "some.extxyz", tmp_path / "rest.extxyz"])
    said.clear()
    assert running.run_campaign(whole, options=options, say=said.append).done == 1
    assert not any("references" in line for line in said)


def test_what_all_counts_against_stays_when_another_phase_is_handed_over(campaign: Campaign, tmp_path: Path) -> None:
    items = list(pool_of(campaign.host, 1, 0).configurations)
    add_results(campaign, [write_results(tmp_path / "a.extxyz", items[:1])])
    references, defects = parts(tmp_path / "p", items)
    for atoms in references[1:]:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy() - 0.4)
    write(tmp_path / "b.extxyz", [*references, *defects[1:]])
    found = add_results(campaign, [tmp_path / "b.extxyz"])
    assert found.references == ()
    assert "element_W is left out: its energy is -0.400 eV from that of W, by atom, which the campaign has" in str(
        found.notes
    )
    for item in items:
        assert energy(campaign, item) == pytest.approx(truth(item)["formation_energy_ev"], abs=1e-6), item


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"converged": False}, "its electronic cycle did not converge"), ({"charge": 1.0}, "it has charge +1")],
)
def test_references_that_nothing_can_count_against_are_left_out(
    campaign: Campaign, tmp_path: Path, changed: dict[str, object], why: str
) -> None:
    items = [row.configuration for row in propose(campaign, 1).rows]
    references, defects = parts(tmp_path / "p", items)
    references[0].info |= changed
    write(tmp_path / "a.extxyz", [*references, *defects])
    found = add_results(campaign, [tmp_path / "a.extxyz"])
    assert f"host is left out: {why}" in found.notes
    assert "host" not in found.references
    assert set(found.new[0].computed) == {"band_gap_ev"}
    add_results(campaign, [write_results(tmp_path / "b.extxyz", items)])
    assert campaign.store.rows()[0].computed == pytest.approx(truth(items[0]), abs=1e-6)


def test_elements_without_a_known_phase_are_told_and_cost_themselves_alone(
    tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "as_it_is.yaml").write_text("relax: false")
    words = ["campaign", "new", str(host_file(tmp_path)), "-o", str(tmp_path / "c"), "--supercell", "3x3"]
    words += ["--allow", "W:Hg,Mo", "--max-defects", "1", "--engine", LJ]
    assert main([*words, "--settings", str(tmp_path / "as_it_is.yaml")]) == 0
    assert "note: no elemental phase of Hg is known here" in capsys.readouterr().out
    made = Campaign.open(tmp_path / "c")
    rows = propose(made, 2).rows
    said: list[str] = []
    found = running.run_campaign(made, options=running.RunOptions(python=str(tools / "python")), say=said.append)
    assert (found.done, len(found.failed)) == (1, 1)
    assert said[1] == "first the references: host_WS2_3x3, element_Mo, element_W"
    assert "no chemical potential of Hg" in found.failed[0][1]
    done = next(row for row in made.store.rows() if row.state == DONE)
    assert done.configuration.label == "Mo_W"
    mercury = Atoms("Hg", cell=[3, 3, 3], pbc=True)
    mercury.calc = SinglePointCalculator(mercury, energy=-0.3)
    mercury.info |= {"code": "ase", "functional": LJ, "converged": True}
    write(tmp_path / "mercury.extxyz", mercury)
    assert add_results(made, [tmp_path / "mercury.extxyz"]).references == ("mercury_1",)
    again = running.RunOptions(python=str(tools / "python"), retry_failed=True)
    assert running.run_campaign(made, options=again).done == 1
    assert {row.state for row in made.store.rows()} == {DONE}
    assert len(rows) == 2
