"""Results whose settings are not the campaign's, from files as GPAW's driver writes them."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ase.io import read
from ase.io.espresso import read_fortran_namelist
from ase.units import Rydberg
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Incar, Kpoints

import defectgen as dg
from defectgen.campaign.adding import add_results
from defectgen.campaign.asked_settings import asked_settings, other_than_asked
from defectgen.campaign.folder import Campaign, new_campaign
from defectgen.campaign.proposing import propose
from defectgen.campaign.running import run_campaign
from defectgen.campaign.store import DONE
from defectgen.dft.codes import CODES
from defectgen.dft.codes.vasp_settings import smearing
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.layer_settings import LayerSettings
from defectgen.dft.result import DftResult, Fingerprint
from defectgen.dft.settings import load_settings
from defectgen.errors import DefectgenError

OUTPUTS = Path(__file__).parents[1] / "dft" / "data"


@pytest.fixture(scope="module")
def host() -> dg.Host:
    return dg.host("BN", "2x2")


@pytest.fixture
def runs(host: dg.Host, tmp_path: Path) -> Path:
    """Calculations of C_N, v_B and v_N with host and elements, as `inputs` writes them, with results."""
    cells = [dg.Configuration.from_key(host, key) for key in ("C@B00", "VAC@A00", "VAC@B00")]
    dft_inputs(cells, tmp_path / "runs", "gpaw")
    for task in (tmp_path / "runs").glob("*/gpaw.json"):
        _result(task.parent)
    return tmp_path / "runs"


@pytest.fixture
def campaign(host: dg.Host, tmp_path: Path) -> Campaign:
    return new_campaign(tmp_path / "c", host, engine="gpaw", settings="2dmd", start=False)


def _result(folder: Path, **changed: object) -> None:
    """A result by the task of the folder, of which some settings are changed."""
    task: dict[str, Any] = json.loads((folder / "gpaw.json").read_text()) | changed
    levels = [[[-6.0, -5.0, -4.2]], [[-6.0, -5.5, -4.4]]][: 2 if task["moments"] else 1]
    values = {
        "task": task, "gpaw": "22.8.0", "electronic_converged": True, "ionic_converged": True,
        "symbols": task["symbols"], "positions": task["positions"], "cell": task["cell"],
        "energy_ev": -8.0 * len(task["symbols"]),
        "levels_ev": levels, "occupations": [[[1.0, 1.0, 0.0]]] * len(levels), "vacuum_level_ev": 0.0,
        "magnetization_mu_b": 0.0 if task["moments"] else None,
    }  # fmt: skip
    (folder / "gpaw-results.json").write_text(json.dumps(values))


def _apart(campaign: Campaign) -> dict[str, str]:
    rows = [json.loads(line) for line in (campaign.folder / "apart.jsonl").read_text().splitlines()]
    return {row["name"]: row["reason"] for row in rows}


def test_what_inputs_and_retries_write_is_accepted(campaign: Campaign, runs: Path) -> None:
    assert json.loads((runs / "host_BN_2x2" / "gpaw.json").read_text())["moments"] == []
    assert json.loads((runs / "002_v_B" / "gpaw.json").read_text())["moments"]
    for remedy in CODES["gpaw"].remedies:
        remedy.apply(runs / "002_v_B")
    _result(runs / "002_v_B")
    found = add_results(campaign, [runs])
    assert (len(found.new), found.refused, found.notes) == (3, (), ())
    assert sorted(found.references) == ["element_B", "element_C", "element_N", "host_BN_2x2"]
    assert all("formation_energy_ev" in row.computed for row in found.new)


CHANGES = [
    ({"mesh": [1, 1, 1]}, "k points of 5 angstrom against"),
    ({"setups": {"B": "hard"}}, "setup hard against default for B"),
    ({"smearing_ev": 0.5}, "smearing fermi-dirac 0.5 eV against fermi-dirac 0.05 eV"),
]


@pytest.mark.parametrize(("changed", "reason"), CHANGES)
def test_other_settings_than_the_hosts_are_refused(
    campaign: Campaign, runs: Path, changed: dict[str, object], reason: str
) -> None:
    _result(runs / "003_v_N", **changed)
    found = add_results(campaign, [runs])
    assert [row.configuration.label for row in found.new] == ["C_N", "v_B"]
    assert reason in _apart(campaign)["003_v_N"]
    assert {row.configuration.label for row in campaign.store.rows() if row.state == DONE} == {"C_N", "v_B"}


@pytest.mark.parametrize(("changed", "reason"), CHANGES)
def test_without_a_host_the_first_result_counts(
    campaign: Campaign, runs: Path, changed: dict[str, object], reason: str
) -> None:
    assert len(add_results(campaign, [runs / "001_C_N"]).new) == 1
    _result(runs / "003_v_N", **changed)
    with pytest.raises(DefectgenError, match="other settings than the campaign's"):
        add_results(campaign, [runs / "003_v_N"])
    assert reason in _apart(campaign)["003_v_N"]
    _result(runs / "host_BN_2x2", **changed)
    found = add_results(campaign, [runs / "host_BN_2x2", runs / "002_v_B"])
    assert (found.references, len(found.new)) == ((), 1)
    assert "1 references not kept (host_BN_2x2)" in found.notes[-1]


def test_setups_of_an_element_that_the_host_lacks_are_compared(campaign: Campaign, runs: Path, host: dg.Host) -> None:
    add_results(campaign, [runs])
    other = dg.Configuration.from_key(host, "C@A00")
    dft_inputs(other, runs.parent / "more", "gpaw")
    _result(runs.parent / "more" / "001_C_B", setups={"C": "hard"})
    with pytest.raises(DefectgenError, match="setup hard against default for C"):
        add_results(campaign, [runs.parent / "more" / "001_C_B"])


def test_a_cell_without_spin_is_accepted_and_told(campaign: Campaign, runs: Path) -> None:
    _result(runs / "002_v_B", moments=[])
    found = add_results(campaign, [runs])
    assert (len(found.new), found.refused) == (3, ())
    assert found.notes == ("computed without spin, where others that may have a moment have it: v_B.",)


OTHER_THAN_ASKED = [
    ({"cutoff_ev": 400.0}, "cutoff_ev 400.0 against 500.0"),
    ({"mesh": [1, 1, 1]}, "k points of 5 angstrom against 75"),
    ({"smearing_ev": 0.5}, "smearing fermi-dirac 0.5 eV against fermi-dirac 0.05 eV"),
    ({"functional": "PBEsol"}, "functional PBEsol against PBE"),
    ({"mode": "lcao"}, "against 500.0"),
]


@pytest.mark.parametrize(("changed", "reason"), OTHER_THAN_ASKED)
def test_results_by_other_settings_than_those_of_the_campaign_are_told_before_anything_is_computed(
    campaign: Campaign, runs: Path, changed: dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in runs.glob("*/gpaw.json"):
        _result(task.parent, **changed)
    notes = add_results(campaign, [runs]).notes
    assert len(notes) == 1
    assert reason in notes[0]
    assert "campaign.yaml" in notes[0]
    monkeypatch.setattr("defectgen.campaign.running.check_engine", lambda *_: ())
    propose(campaign, 1)
    with pytest.raises(DefectgenError, match=re.escape(reason)):
        run_campaign(campaign)
    assert not (campaign.folder / "calculations").exists()


def test_references_alone_by_other_settings_are_told(campaign: Campaign, runs: Path) -> None:
    _result(runs / "host_BN_2x2", cutoff_ev=400.0)
    assert "cutoff_ev 400.0 against 500.0" in add_results(campaign, [runs / "host_BN_2x2"]).notes[-1]


def _told_to_pwx(path: Path) -> LayerSettings:
    """The settings in an input of pw.x, read by ASE."""
    with path.open() as file:
        words, cards = read_fortran_namelist(file)
    mesh = cards[next(k for k, line in enumerate(cards) if line.startswith("K_POINTS")) + 1].split()[:3]
    system = words["system"]
    functional = {"pbe": "PBE"}[system["input_dft"]]
    found = Fingerprint(
        "qe", functional, system["ecutwfc"] * Rydberg, mesh=(int(mesh[0]), int(mesh[1]), int(mesh[2])),
        smearing=system["smearing"], width_ev=system["degauss"] * Rydberg,
    )  # fmt: skip
    return LayerSettings.of(DftResult(path.parent, "qe", "", AseAtomsAdaptor.get_structure(read(path)), found))


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("gpaw", "2dmd"), ("gpaw", "lcao"), ("gpaw", "mp"), ("vasp", "2dmd"), ("vasp", "mp"), ("qe", "2dmd"),
        ("qe", "mp"),
    ],
)  # fmt: skip
def test_what_a_code_is_told_is_what_the_campaign_computes_with(
    host: dg.Host, tmp_path: Path, engine: str, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESPRESSO_PSEUDO", raising=False)
    campaign = new_campaign(tmp_path / "c", host, engine=engine, settings=settings, start=False)
    asked = asked_settings(campaign)
    assert asked is not None
    made = dft_inputs(dg.Configuration.from_key(host, "C@B00"), tmp_path / "in", engine, settings=settings)
    folder = made.folder / "001_C_N"
    if engine == "vasp":
        incar = Incar.from_file(str(folder / "INCAR"))
        points = Kpoints.from_file(str(folder / "KPOINTS"))
        found = Fingerprint(
            "vasp", {"PE": "PBE"}[str(incar["GGA"]).upper()], float(incar["ENCUT"]), mesh=tuple(points.kpts[0]),
            **smearing(incar["ISMEAR"], incar["SIGMA"]),
        )  # fmt: skip
        structure = Structure.from_file(folder / "POSCAR")
        mine = LayerSettings.of(DftResult(folder, "vasp", "", structure, found))
    elif engine == "qe":
        mine = _told_to_pwx(folder / "pw.in")
    else:
        _result(folder)
        mine = LayerSettings.of(CODES["gpaw"].read(folder / "gpaw-results.json"))
    if engine != "qe":  # whose inputs are in Ry, with rounding
        assert mine.differs(asked) == ""
    assert other_than_asked(campaign, [mine]) == ""
    coarse = replace(mine, reach_angstrom=(mine.reach_angstrom or 0.0) / 3)
    assert "k points" in other_than_asked(campaign, [coarse])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ((), ""),
        (("cutoff_ev=300",), "cutoff_ev 200.0 against 300.0"),
        (("functional=PBEsol",), "functional PBE against PBEsol"),
        (("smearing_ev=0.2",), "smearing gaussian 0.05 eV against gaussian 0.2 eV"),
        (("kpoint_length_angstrom=30",), "k points of 5 angstrom against 30"),
    ],
)
def test_what_pwx_wrote_beside_what_the_campaign_computes_with(
    host: dg.Host, tmp_path: Path, changed: tuple[str, ...], reason: str
) -> None:
    path = tmp_path / "C_N" / "out" / "pwscf.xml"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.decompress((OUTPUTS / "pwscf-relaxed.xml.gz").read_bytes()))
    settings = load_settings("2dmd", ["cutoff_ev=200", "kpoint_length_angstrom=5", *changed])
    campaign = new_campaign(tmp_path / "c", host, engine="qe", settings=settings, start=False)
    assert other_than_asked(campaign, [LayerSettings.of(CODES["qe"].read(path))]) == reason
