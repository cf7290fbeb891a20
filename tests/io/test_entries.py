"""Hosts from databases that a user has: ASE's as C2DB, JARVIS' JSON, OPTIMADE as MC2D, a zip of CIFs."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Structure

import defectgen as dg
from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.io.database_entries import read_entry, split_entry
from defectgen_cli.app import main


def unit_cell(name: str) -> Structure:
    return Configuration.of(get_host(name, (1, 1)), {}).to_structure()


@pytest.fixture(scope="module")
def c2db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of ASE with rows as C2DB names them."""
    from ase import Atoms
    from ase.db import connect

    path = tmp_path_factory.mktemp("c2db") / "c2db.db"
    with connect(path, use_lock_file=False) as database:
        for name, uid in (("MoS2", "1MoS2-1"), ("WSe2", "1WSe2-1"), ("BN", "1BN-1"), ("BN", "1BN-2"), ("BN", "1BN-2")):
            cell = unit_cell(name)
            atoms: Any = Atoms([site.specie.symbol for site in cell], positions=cell.cart_coords,
                               cell=cell.lattice.matrix, pbc=(1, 1, 0))  # fmt: skip
            database.write(atoms, uid=uid, gap=1.6)
    return path


def jarvis_record(name: str, identity: str) -> dict[str, Any]:
    """As jarvis-tools writes it."""
    cell = unit_cell(name)
    if find_spec("jarvis") is not None:
        from jarvis.core.atoms import Atoms

        atoms = Atoms(
            lattice_mat=cell.lattice.matrix.tolist(), coords=cell.frac_coords.tolist(),
            elements=[site.specie.symbol for site in cell], cartesian=False,
        ).to_dict()  # fmt: skip
    else:
        atoms = {
            "lattice_mat": cell.lattice.matrix.tolist(), "coords": cell.frac_coords.tolist(), "cartesian": False,
            "elements": [site.specie.symbol for site in cell], "props": [""] * len(cell),
        }  # fmt: skip
    return {"jid": identity, "formula": name, "atoms": atoms, "optb88vdw_bandgap": "na"}


def check(file: Path, identity: str, name: str) -> None:
    host = dg.read_host(f"{file}#{identity}", "4x4")
    home = get_host(name, (4, 4))
    assert (host.name, host.size, host.n_sites) == (home.name, "4x4", home.n_sites)
    counted = [len(list(dg.enumerate(one, "v_S" if name == "MoS2" else "v_Se"))) for one in (host, home)]
    assert counted == [1, 1]
    assert read_entry(file, identity).lattice.a == pytest.approx(unit_cell(name).lattice.a)


def test_rows_of_ases_database_by_uid_or_number(c2db: Path) -> None:
    check(c2db, "1MoS2-1", "MoS2")
    check(c2db, "1WSe2-1", "WSe2")
    check(c2db, "1", "MoS2")
    with pytest.raises(DefectgenError, match=r"no entry '1MoS2-2' among 5\. Near ones: 1MoS2-1"):
        read_entry(c2db, "1MoS2-2")
    with pytest.raises(DefectgenError, match="2 entries '1BN-2' among 5"):
        read_entry(c2db, "1BN-2")


def test_records_of_jarvis_also_zipped(tmp_path: Path) -> None:
    records = [jarvis_record("MoS2", "JVASP-664"), jarvis_record("WSe2", "JVASP-652")]
    path = tmp_path / "dft_2d.json"
    path.write_text(json.dumps(records))
    check(path, "JVASP-664", "MoS2")
    with zipfile.ZipFile(tmp_path / "dft_2d.json.zip", "w") as archive:
        archive.write(path, path.name)
    check(tmp_path / "dft_2d.json.zip", "JVASP-652", "WSe2")
    records[0]["atoms"].pop("coords")
    path.write_text(json.dumps(records))
    with pytest.raises(DefectgenError, match="entry 'JVASP-664' cannot be read as a structure"):
        read_entry(path, "JVASP-664")


def test_a_record_of_the_materials_project_and_an_optimade_response_of_one(tmp_path: Path) -> None:
    cell = unit_cell("MoS2")
    (tmp_path / "mp.json").write_text(json.dumps([{"material_id": "mp-2815", "structure": cell.as_dict()}]))
    check(tmp_path / "mp.json", "mp-2815", "MoS2")
    attributes = {
        "lattice_vectors": cell.lattice.matrix.tolist(), "cartesian_site_positions": cell.cart_coords.tolist(),
        "species_at_sites": [site.specie.symbol for site in cell],
        "species": [{"name": name, "chemical_symbols": [name], "concentration": [1.0]} for name in ("Mo", "S")],
    }  # fmt: skip
    (tmp_path / "one.json").write_text(json.dumps({"data": {"id": "mc2d-7", "attributes": attributes}, "meta": {}}))
    check(tmp_path / "one.json", "mc2d-7", "MoS2")
    (tmp_path / "mp.json").write_text(json.dumps([{"material_id": "mp-2815", "atoms": None}]))
    with pytest.raises(DefectgenError, match=r"cannot be read as a structure \(it has no atoms\)"):
        read_entry(tmp_path / "mp.json", "mp-2815")


def test_a_database_without_an_entry_asks_for_one(c2db: Path, tmp_path: Path) -> None:
    with pytest.raises(DefectgenError, match=r"holds 5 structures, .* Name one of its entries: .*c2db\.db#"):
        dg.read_host(c2db, "4x4")
    for text in (json.dumps([jarvis_record("MoS2", "JVASP-664")]), json.dumps({"data": []})):
        (tmp_path / "dft_2d.json").write_text(text)
        with pytest.raises(DefectgenError, match=r"carries no host\. Of a database of layers name the entry: .*json#"):
            dg.read_host(tmp_path / "dft_2d.json", "4x4")


@pytest.mark.skipif(find_spec("optimade") is None, reason="optimade is not installed: install the extra exports")
def test_an_optimade_response(tmp_path: Path) -> None:
    from optimade.adapters.structures.pymatgen import from_pymatgen

    data = [
        {"id": f"mc2d-{n}", "type": "structures",
         "attributes": json.loads(from_pymatgen(unit_cell(name)).model_dump_json())}
        for n, name in enumerate(("MoS2", "WSe2"))
    ]  # fmt: skip
    path = tmp_path / "mc2d.json"
    path.write_text(json.dumps({"data": data, "meta": {}}))
    check(path, "mc2d-0", "MoS2")
    check(path, "mc2d-1", "WSe2")


def test_a_zip_of_cifs_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "mc2d.zip", "w") as archive:
        for name in ("MoS2", "WSe2"):
            archive.writestr(f"structures/{name}.cif", unit_cell(name).to(fmt="cif"))
    check(tmp_path / "mc2d.zip", "WSe2", "WSe2")
    call = ["enumerate", "--host", f"{tmp_path / 'mc2d.zip'}#MoS2", "--supercell", "4x4", "--allow", "S:VAC", "--count"]
    assert main([*call, "--max-defects", "1"]) == 0
    assert "v_S" in capsys.readouterr().out
    assert main([*call[:2], f"{tmp_path / 'mc2d.zip'}#MoSe2", *call[3:], "--max-defects", "1"]) == 1
    assert "has no entry 'MoSe2' among 2. Near ones: MoS2" in capsys.readouterr().err


def test_a_file_without_structures_says_so_and_not_which_entries_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "bin.dat").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(dg.DefectgenError, match=r"bin\.dat: ") as found:
        dg.read_host(f"{tmp_path / 'bin.dat'}#1", "4x4")
    assert "no entry" not in str(found.value)


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path: Path) -> None:
    unit_cell("MoS2").to(filename=str(tmp_path / "MoS2.cif"))
    odd = (tmp_path / "MoS2.cif").rename(tmp_path / "a#b.cif")
    assert split_entry(odd) is None
    assert split_entry("none.db#1") is None
    assert dg.read_host(odd, "3x3").name == "MoS2"
