"""Crystals from files of every kind."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from fake_crystal_potential import labelled_table, rocksalt

from defectgen.errors import DefectgenError
from defectgen.io.crystal_files import crystal_files, read_crystals
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
    assert "cannot be read as CIF" in rows[-1].note
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "empty", "holds no crystals"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "x.csv", "no column cif"),
    ):
        (tmp_path / "x.csv").write_text("a\n1\n")
        with pytest.raises(DefectgenError, match=message):
            list(read_crystals(path))
