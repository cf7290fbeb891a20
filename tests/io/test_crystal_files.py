"""Crystals from files of every kind."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from fake_crystal_potential import labelled_table, rocksalt

from defectgen.data.mp20 import read_crystals as read_data
from defectgen.errors import DefectgenError
from defectgen.io.crystal_files import crystal_files, left_out_files, read_crystals
from defectgen.io.structures import read_structures
from defectgen.metrics.generated_entries import read_entries
from defectgen.stability.assessment import ROWS


def test_crystals_of_every_kind_of_file(tmp_path: Path) -> None:
    salt = rocksalt("Na", "Cl")
    samples = tmp_path / "samples"
    samples.mkdir()
    cif = salt.to(fmt="cif")
    frame = {
        "index": [0, 1, 2],
        "cif": [cif, None, cif],
        "valid": [True, False, False],
        "reason": ["", "no lattice", "distance: refused"],
    }
    pl.DataFrame(frame).write_parquet(samples / "samples.parquet")
    labelled_table(tmp_path / "t.csv")
    (tmp_path / "files").mkdir()
    salt.to(filename=str(tmp_path / "files" / "a.cif"))
    salt.to(filename=str(tmp_path / "files" / "POSCAR"), fmt="poscar")
    cell = " ".join(str(x) for x in salt.lattice.matrix.ravel())
    atoms = "\n".join(f"{s.specie.symbol} {s.x} {s.y} {s.z}" for s in salt)
    frame_text = f'2\nLattice="{cell}" Properties=species:S:1:pos:R:3\n{atoms}\n'
    (tmp_path / "files" / "two.extxyz").write_text(frame_text * 2)
    (tmp_path / "files" / "deep").mkdir()
    salt.to(filename=str(tmp_path / "files" / "deep" / "b.vasp"), fmt="poscar")
    found = list(read_crystals(tmp_path / "files"))
    assert [Path(named.name).name for named in found] == ["POSCAR", "a.cif", "b.vasp"], "frames repeat the others"
    found += read_crystals(tmp_path / "files" / "two.extxyz")
    assert len(found) == 5
    assert all(named.structure and named.structure.matches(salt) for named in found)
    assert [(n.name, n.structure is None, n.note, n.refused) for n in read_crystals(samples)] == [
        ("samples.parquet#0", False, "", False),
        ("samples.parquet#1", True, "no lattice", True),
        ("samples.parquet#2", True, "distance: refused", True),
    ]
    entries = read_entries([tmp_path / "files"]).entries
    assert [entry.crystal.formula if entry.crystal else None for entry in entries] == ["NaCl"] * 3
    (tmp_path / "tables").mkdir()
    labelled_table(tmp_path / "tables" / "test.csv")
    assert len(list(read_crystals(tmp_path / "tables"))) == len(read_entries([tmp_path / "tables"]).entries) == 6
    (tmp_path / "run" / "relaxed").mkdir(parents=True)
    (tmp_path / "run" / ROWS).write_text("")
    for path in (tmp_path / "run" / "relaxed" / "a.cif", tmp_path / "run" / "POSCAR"):
        salt.to(filename=str(path), fmt="cif" if path.suffix else "poscar")
    assert [path.name for path in crystal_files(tmp_path / "run")] == ["a.cif"], "not its inputs for VASP as well"
    rows = list(read_crystals(tmp_path / "t.csv"))
    assert (len(rows), rows[-1].structure) == (6, None)
    assert "not a CIF of one crystal" in rows[-1].note
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "holds no crystals"), (tmp_path / "none", "does not exist")):
        with pytest.raises(DefectgenError, match=message):
            list(read_crystals(path))
    (tmp_path / "tables" / "a.csv").write_text("a\n1\n")
    (bare, *others) = read_crystals(tmp_path / "tables")
    assert (bare.structure, bare.note) == (None, "no column cif, got a. Expected the text of a CIF in each row.")
    assert len(others) == 6, "the other table is read"


def row_of(symbols: str, text: str = "", **cell: object) -> str:
    """The CIF of two atoms in a cell of 4 angstrom, with other positions or another cell."""
    lines = ["data_x", *(f"_cell_length_{k} {cell.get(k, 4)}" for k in "abc")]
    lines += [f"_cell_angle_{name} 90" for name in ("alpha", "beta", "gamma")]
    occupancies = text.startswith("occupancy")
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_fract_{k}" for k in "xyz")]
    lines += ["_atom_site_occupancy"] * occupancies
    ends = [" 1", f" {text.split()[1]}"] if occupancies else ["", ""]
    last = text if text and not occupancies else "0.5 0.5 0.5"
    a, b = symbols.split()
    return "\n".join([*lines, f"{a} 0 0 0{ends[0]}", f"{b} {last}{ends[1]}"]) + "\n"


BAD_ROWS = {
    row_of("Na Cl", "0.5 0.5 nan"): "no finite position for atom 2",
    row_of("Na Cl", "1e7 0.5 0.5"): "has atom 2 at 1e+07 cell vectors from the origin, expected at most 100",
    row_of("Na Cl", a="inf"): "no cell",
    row_of("Na Cl", c=1e6): "has a cell vector of 1e+06 angstrom, expected at most 10000",
    row_of("Na X"): "'X' is no element",
    row_of("Na Cl", "occupancy 0.5"): "occupancy 0.5 of atom 2 (Cl), expected 1",
    row_of("Na Cl").replace("data_x", "data_x\n_chemical_formula_sum 'Na2 Cl'"): "states the formula Na2 Cl",
}


def test_rows_are_checked_as_files_are(tmp_path: Path) -> None:
    """The same verdict of stability, evaluate bulk and build-data, as a row and as a file."""
    pl.DataFrame({"cif": [row_of("Na Cl"), *BAD_ROWS]}).write_csv(tmp_path / "t.csv")
    entries = read_entries([tmp_path / "t.csv"]).entries
    named = list(read_crystals(tmp_path / "t.csv"))
    records = read_data(tmp_path / "t.csv", cache=False)
    assert entries[0].crystal is not None
    assert named[0].structure is not None
    assert records.frame["row"].to_list() == [1]
    for entry, crystal, row, (text, reason) in zip(
        entries[1:], named[1:], records.skipped, BAD_ROWS.items(), strict=True
    ):
        (tmp_path / "a.cif").write_text(text)
        (file,) = read_structures(tmp_path / "a.cif")
        assert entry.crystal is crystal.structure is file.structure is None, text
        assert entry.problem == crystal.note == row.problem
        assert reason in entry.problem
        assert entry.problem in file.note


def test_what_folders_hold_besides_is_told(tmp_path: Path) -> None:
    for name in ("a.cif", "deep/POSCAR", "notes.txt", "deep/frames.extxyz", "t.csv", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in left_out_files([tmp_path, tmp_path / "a.cif"])]
    assert names == ["deep/frames.extxyz", "notes.txt", "t.csv"]
    (tmp_path / "samples.parquet").touch()
    assert left_out_files([tmp_path]) == [], "one of ours"
