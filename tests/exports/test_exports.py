"""What is handed over is what the tools themselves read: doped, pymatgen-analysis-defects, jobflow, OPTIMADE, ASE."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from defectgen.campaign.folder import new_campaign
from defectgen.campaign.proposing import propose
from defectgen.campaign.running import RunOptions, run_campaign
from defectgen.core import Configuration, Host, get_host
from defectgen.dft.inputs import read_manifest
from defectgen.dft.results import dft_results
from defectgen.dft.settings import AseSettings, DftSettings
from defectgen.errors import DefectgenError, UsageError
from defectgen.exports import ExportItem, ExportOptions, export, export_items
from defectgen_cli.app import main

NEEDS = "tests on the real package of an export; install the extra exports"


def needs(module: str) -> pytest.MarkDecorator:
    name = module.partition(".")[0]
    there = find_spec(name) is not None and (name == module or find_spec(module) is not None)
    return pytest.mark.skipif(not there, reason=f"{module} is not installed: {NEEDS}")


@pytest.fixture(scope="module")
def cell() -> Host:
    return get_host("MoS2", (4, 4))


@pytest.fixture(scope="module")
def several(cell: Host) -> list[ExportItem]:
    """A vacancy with an energy, a substitution without, and a pair across the border of the cell."""
    keys = ("VAC@B00", "W@A00", "VAC@B00+VAC@B33")
    items = export_items([Configuration.from_key(cell, key) for key in keys])
    first = items[0]
    values = {**first.values, "band_gap_ev": 1.1}
    return [ExportItem(first.name, first.configuration, first.structure, values, -340.5, -347.0), *items[1:]]


def written(items: list[ExportItem], path: Path, to: str, options: ExportOptions | None = None) -> list[str]:
    from defectgen.exports import EXPORTERS

    return list(EXPORTERS[to].write(path, items, options or ExportOptions()))


@needs("pymatgen.analysis.defects")
def test_pymatgen_reads_entries_and_defects(several: list[ExportItem], tmp_path: Path) -> None:
    from monty.serialization import loadfn

    notes = written(several, tmp_path / "defects.json", "defects")
    assert notes == ["2 of 3 have no energy by DFT: they are Defect objects."]
    entry, substitution, pair = loadfn(tmp_path / "defects.json")
    assert type(entry).__name__ == "DefectEntry"
    assert (entry.defect.name, entry.charge_state) == ("v_S", 0)
    assert entry.get_ediff() == pytest.approx(6.5)
    site = several[0].configuration.host.site_frac_coords[several[0].configuration.edits[0][0]]
    assert entry.sc_defect_frac_coords == pytest.approx(site % 1.0)
    assert substitution.name == "W_Mo"
    assert pair.name == "v_S+v_S"
    supercell = pair.get_supercell_structure(sc_mat=[[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert StructureMatcher(primitive_cell=False, ltol=0.05, stol=0.05).fit(supercell, several[2].structure)
    far = Configuration.from_key(several[2].configuration.host, "VAC@B00+VAC@B22").to_structure()
    assert not StructureMatcher(primitive_cell=False, ltol=0.05, stol=0.05).fit(supercell, far)


@needs("doped")
def test_doped_makes_its_inputs_from_them(several: list[ExportItem], tmp_path: Path) -> None:
    from doped.vasp import DefectsSet
    from monty.serialization import loadfn

    notes = written(several, tmp_path / "doped.json", "doped")
    assert "1 complex is left out" in notes[0]
    entries = loadfn(tmp_path / "doped.json")
    assert [type(entry).__module__ for entry in entries] == ["doped.core"] * 2
    assert [entry.defect.name for entry in entries] == ["v_S", "W_Mo"]
    made = DefectsSet(entries).defect_sets
    assert list(made) == ["v_S_+0", "W_Mo_+0"]
    assert made["v_S_+0"].defect_supercell.composition.reduced_formula == "Mo16S31"
    with pytest.raises(DefectgenError, match="doped has no defect complexes"):
        written(several[2:], tmp_path / "none.json", "doped")


@needs("optimade")
def test_optimade_accepts_the_response(several: list[ExportItem], tmp_path: Path) -> None:
    from optimade.adapters import Structure as Adapter
    from optimade.models import StructureResponseMany

    written(several, tmp_path / "structures.json", "optimade")
    values = json.loads((tmp_path / "structures.json").read_text())
    response = StructureResponseMany(**values)
    first = response.data[0]
    assert first.attributes.chemical_formula_reduced == "Mo16S31"
    assert first.attributes.chemical_formula_anonymous == "A31B16"
    assert [int(kind) for kind in first.attributes.dimension_types] == [1, 1, 0]
    assert values["data"][0]["attributes"]["_defectgen_band_gap_ev"] == 1.1
    back = Adapter(values["data"][1]).as_pymatgen
    assert back.composition == several[1].structure.composition
    assert back.cart_coords == pytest.approx(several[1].structure.cart_coords)


class EnergyMaker:
    """A maker without a code behind it."""

    def make(self, structure: Structure) -> object:
        from jobflow import job

        counted = job(n_atoms)(structure)
        counted.name = "count"
        return counted


def n_atoms(structure: Structure) -> int:
    return len(structure)


@needs("jobflow")
def test_jobflow_runs_the_flow(several: list[ExportItem], tmp_path: Path) -> None:
    from jobflow import JobStore, run_locally
    from maggma.stores import MemoryStore
    from monty.serialization import loadfn

    from defectgen.exports.flows import flow_of

    options = ExportOptions(f"{__name__}:EnergyMaker")
    assert written(several, tmp_path / "flow.json", "jobflow", options) == []
    flow = loadfn(tmp_path / "flow.json")
    assert [job.name for job in flow.jobs] == ["v_S count", "W_Mo count", "2v_S count"]
    assert flow.jobs[2].metadata["configuration"] == "VAC@B00+VAC@B33"
    results = run_locally(flow_of(several, options.maker), store=JobStore(MemoryStore()), log=False)
    assert sorted(next(iter(found.values())).output for found in results.values()) == [46, 47, 48]
    for name, error in (("atomate2", UsageError), ("no.such:Maker", DefectgenError), ("json:loads", UsageError)):
        with pytest.raises(error, match="maker"):
            flow_of(several, name)


def test_ase_finds_values_in_the_database(several: list[ExportItem], tmp_path: Path) -> None:
    from ase.db import connect

    written(several, tmp_path / "defects.db", "db")
    database = connect(tmp_path / "defects.db")
    (row,) = database.select("band_gap_ev<1.2,label=v_S")
    assert row.energy == pytest.approx(-340.5)
    assert row.data["configuration"] == "VAC@B00"
    assert len(database.get(name="2v_S").toatoms()) == 46


def test_results_carry_their_energies_and_that_of_the_host(cell: Host, tmp_path: Path) -> None:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect
    from ase.io import write

    import defectgen as dg

    vacancy = Configuration.from_key(cell, "VAC@B00")
    made = dg.dft_inputs(vacancy, tmp_path / "dft", code="ase")
    for item in made.calculations:
        atoms: Atoms = Atoms([s.specie.symbol for s in item.structure], positions=item.structure.cart_coords,
                             cell=item.structure.lattice.matrix, pbc=True)  # fmt: skip
        atoms.calc = SinglePointCalculator(atoms, energy=-7.0 * len(atoms))
        atoms.info |= {"code": "mine", "converged": True}
        write(tmp_path / "dft" / item.name / "result.extxyz", atoms)
    (found,) = export_items(tmp_path / "dft")
    assert (found.energy_ev, found.host_energy_ev) == (-7.0 * 47, -7.0 * 48)
    assert export(tmp_path / "dft", tmp_path / "out.db", "db") == (tmp_path / "out.db", ())
    assert connect(tmp_path / "out.db").get(1).energy == pytest.approx(-329.0)


def test_the_energy_of_a_host_in_another_supercell_is_that_of_the_defects_cell(cell: Host, tmp_path: Path) -> None:
    folder = tmp_path / "dft"
    assert main(["inputs", *_cells(cell, tmp_path), "-o", str(folder), "--code", "ase", "--no-references"]) == 0
    small = Configuration.of(get_host("MoS2", (1, 1)), {})
    (folder / "unit").mkdir()
    for name, item, energy in (("001_v_S", Configuration.from_key(cell, "VAC@B00"), -340.5), ("unit", small, -21.7)):
        structure = item.to_structure()
        values = {
            "task": {"name": name, "calculator": "chgnet", "arguments": {}},
            "symbols": [site.specie.symbol for site in structure], "positions": structure.cart_coords.tolist(),
            "cell": structure.lattice.matrix.tolist(), "energy_ev": energy, "ionic_converged": True,
        }  # fmt: skip
        (folder / name / "ase-results.json").write_text(json.dumps(values))
    (item,) = export_items(folder)
    assert item.energy_ev == -340.5
    assert item.host_energy_ev == pytest.approx(-21.7 * 16)


def _cells(cell: Host, folder: Path) -> list[str]:
    Configuration.from_key(cell, "VAC@B00").to_structure().to_file(str(folder / "v_S.cif"))
    return [str(folder / "v_S.cif"), "--host", "MoS2", "--supercell", "4x4"]


@needs("pymatgen.analysis.defects")
def test_a_pristine_cell_among_defects_is_left_out_and_told(several: list[ExportItem], tmp_path: Path) -> None:
    host = Configuration.of(several[0].configuration.host, {})
    pristine = ExportItem("host", host, host.to_structure(), {}, -347.0)
    notes = written([pristine, *several[:1]], tmp_path / "defects.json", "defects")
    assert notes == ["left out, as the pristine host is no defect: host."]
    assert len(json.loads((tmp_path / "defects.json").read_text())) == 1
    with pytest.raises(DefectgenError, match="host is the pristine host, which is no defect"):
        written([pristine], tmp_path / "none.json", "defects")


def test_a_campaign_is_exported_with_its_energies(tmp_path: Path, tools: Path) -> None:
    from ase.db import connect

    lj = "ase.calculators.lj:LennardJones"
    settings = DftSettings(relax=False, ase=AseSettings(calculator=lj))
    host = get_host("MoS2", (3, 3))
    made = new_campaign(tmp_path / "c", host, max_defects=1, engine=lj, settings=settings, start=False)
    with pytest.raises(DefectgenError, match="has computed nothing yet"):
        export_items(tmp_path / "c")
    propose(made, 2)
    assert run_campaign(made, options=RunOptions(python=str(tools / "python"), limit=1)).done == 1
    done = made.store.rows()[0]
    (item,) = export_items(tmp_path / "c")
    assert item.configuration.canonical().key == done.key
    assert item.values["formation_energy_ev"] == done.computed["formation_energy_ev"]
    assert item.energy_ev is not None
    assert item.host_energy_ev is not None
    assert main(["export", str(tmp_path / "c"), "--to", "db", "-o", str(tmp_path / "c.db")]) == 0
    (row,) = connect(str(tmp_path / "c.db")).select()
    assert (row.label, row.energy) == (done.configuration.label, item.energy_ev)
    assert export_items(tmp_path / "c" / "calculations")[0].energy_ev == item.energy_ev
    again = ["inputs", str(tmp_path / "c" / "calculations"), "-o", str(tmp_path / "in"), "--code", "gpaw"]
    assert main([*again, "--host", "MoS2", "--supercell", "3x3"]) == 0  # its elements are no decorations
    assert sum(item["role"] == "defect" for item in read_manifest(tmp_path / "in")[1].values()) == 1
    table = dft_results(tmp_path / "c", host=host)  # the campaign's own database is no result
    assert table.warnings == ()


def test_the_command_exports_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    design = ["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "--proposer", "exhaustive", "-n", "2"]
    assert main([*design, "-o", str(run)]) == 0
    capsys.readouterr()
    out = tmp_path / "run.json"
    assert main(["export", str(run), "--to", "optimade", "-o", str(out)]) == 0
    data = json.loads(out.read_text())["data"]
    assert [item["id"] for item in data] == ["1-001-v_S", "1-002-W_Mo"]
    assert data[0]["attributes"]["_defectgen_dft_homo_ev"] == pytest.approx(0.059, abs=0.001)
    capsys.readouterr()
    for words, said in (
        (("--to", "optimad", "-o", "x.json"), "Did you mean optimade?"),
        (("--to", "db", "-o", "x.json"), "expected a file that ends in .db"),
        (("--to", "optimade", "-o", str(out)), "is there already"),
        (("--to", "db", "-o", "x.db", "--maker", "a:B"), "got --maker for db"),
        (("--to", "jobflow", "-o", str(tmp_path / "f.json"), "--maker", "a"), "got the maker 'a'"),
    ):
        assert main(["export", str(run), *words]) == 2
        assert said in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["export", str(empty), "--to", "db", "-o", str(tmp_path / "e.db")]) == 2
    assert "holds no structures" in capsys.readouterr().err
    assert not (tmp_path / "e.db").exists()
