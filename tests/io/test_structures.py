"""The one reader: every kind of file, the same verdict for all, and what cannot be read beside what can."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write
from pymatgen.core import Lattice, Structure

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_files import read_crystals
from defectgen.io.host_files import host_from_file
from defectgen.io.structures import chosen_files, read_structure, read_structures, skipped_files
from defectgen.metrics.generated_entries import read_entries

CELL = Lattice.from_parameters(3.18, 3.18, 20, 90, 90, 120)
WS2 = Structure(CELL, ["W", "S", "S"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5785], [2 / 3, 1 / 3, 0.4215]])
HEAD = """_cell_length_a 3.180(2)
_cell_length_b 3.18
_cell_length_c 20.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
"""
SITES = """loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
W1 W 0.33333333 0.66666667 0.5 1
S1 S 0.66666667 0.33333333 0.5785 .
S2 S2- 0.66666667 0.33333333 0.4215 1
"""
POSCAR = """WS2
1.0
3.18 0 0
-1.59 2.753960784 0
0 0 20
W S
1 2
Direct
0.33333333 0.66666667 0.5
0.66666667 0.33333333 0.5785
0.66666667 0.33333333 0.4215
"""
LABELS_ONLY = SITES.replace("_atom_site_type_symbol\n", "").replace("W1 W ", "W1 ").replace("S1 S ", "SE1 ")

GOOD = {
    "plain.cif": f"data_a\n{HEAD}{SITES}",
    "symbol.cif": f"data_a\n{HEAD}_symmetry_space_group_name_H-M 'P -6 m 2'\n{SITES.replace('S2 S2-', '#')}",
    "crlf.cif": f"data_a\n{HEAD}{SITES}".replace("\n", "\r\n"),
    "mark.cif": f"\ufeffdata_a\n{HEAD}{SITES}",
    "leading.cif": f"data_global\n_journal_year 2020\ndata_a\n{HEAD}{SITES}",
    "plain.vasp": POSCAR,
    "potentials.vasp": POSCAR.replace("W S\n", "W_sv/3f2a S/9be1\n"),
    "scales.vasp": POSCAR.replace("1.0", "2 1 1").replace("3.18 0", "1.59 0").replace("-1.59 2", "-0.795 2"),
}
BAD = {
    "cell.cif": (GOOD["plain.cif"].replace("3.180(2)", "?"), "no cell"),
    "partial.cif": (GOOD["plain.cif"].replace("0.4215 1", "0.4215 0.5"), "occupancy 0.5 of atom 3 (S)"),
    "dummy.cif": (GOOD["plain.cif"].replace("W1 W", "X1 X"), "'X' is no element"),
    "two.cif": (GOOD["plain.cif"] + GOOD["plain.cif"].replace("data_a", "data_b"), "2 of 2 blocks have atoms"),
    "twice.cif": (GOOD["plain.cif"] + "W2 W 0.33333333 0.66666667 0.5 1\n", "atoms 1 and 4 are on one place"),
    "group.cif": (
        f"data_a\n{HEAD}_space_group_IT_number 187\n_chemical_formula_sum 'W1 S2'\nloop_\n"
        f"_symmetry_equiv_pos_as_xyz\n'x,y,z'\n{SITES.replace('S2 S2-', '#')}",
        "has only the operation x,y,z and the atoms S1 W1",
    ),
    "only.cif": (
        f"data_a\n{HEAD}_space_group_IT_number 187\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n"
        f"{SITES.replace('S2 S2-', '#')}",
        "has only the operation x,y,z and no formula",
    ),
    "units.cif": (
        f"data_a\n{HEAD}_chemical_formula_sum 'W1 S2'\n_cell_formula_units_Z 2\n{SITES}",
        "states 2 formula units of W1 S2, but its atoms are S2 W1",
    ),
    "vasp4.vasp": (POSCAR.replace("W S\n", ""), "names no elements"),
    "row.vasp": (POSCAR.rsplit("\n", 2)[0] + "\n", "fewer rows than atoms"),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_command_reads_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(GOOD[name], encoding="utf-8", newline="")
    found = read_structure(path)
    assert found.matches(WS2, stol=0.01, primitive_cell=False, scale=False)
    assert next(read_crystals(path)).structure == found
    (entry,) = read_entries([path]).entries
    assert entry.crystal is not None
    assert entry.crystal.to_structure() == found
    assert host_from_file(path, (4, 4)).name == "WS2"


def test_latin_text_and_labels_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    path.write_bytes(b"# \xc5ngstr\xf6m\n" + GOOD["plain.cif"].encode())
    assert read_structure(path) == read_structure_of(tmp_path, GOOD["plain.cif"])
    upper = LABELS_ONLY.replace("S2 S2- ", "SE2 ").replace("W1", "MO1")
    assert read_structure_of(tmp_path, f"data_a\n{HEAD}{upper}").composition.formula == "Mo1 Se2"


def read_structure_of(folder: Path, text: str) -> Structure:
    (folder / "text.cif").write_text(text, encoding="utf-8")
    return read_structure(folder / "text.cif")


@pytest.mark.parametrize("name", BAD)
def test_no_command_reads_what_another_refuses(name: str, tmp_path: Path) -> None:
    text, reason = BAD[name]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DefectgenError) as error:
        read_structure(path)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    (named,) = read_crystals(path)
    assert (named.structure, reason in named.note) == (None, True)
    if name != "twice.cif":  # a generated crystal with atoms on one place is a crystal, not a valid one
        (entry,) = read_entries([path]).entries
        assert (entry.crystal, reason in entry.problem) == (None, True)


def test_what_symmetry_took_for_granted_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s.cif").write_text(GOOD["symbol.cif"])
    (found,) = read_structures(tmp_path / "s.cif")
    assert any("_symmetry_space_group_name_H-M used" in text for text in found.warnings)


def test_a_bad_frame_does_not_stop_the_others(tmp_path: Path) -> None:
    atoms = Atoms([s.specie.symbol for s in WS2], positions=WS2.cart_coords, cell=CELL.matrix, pbc=True)
    free = Atoms("S", positions=[[0, 0, 0]])
    write(tmp_path / "three.extxyz", [atoms, free, atoms])
    with connect(tmp_path / "three.db") as database:
        for item in (atoms, free, atoms):
            database.write(item)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a/plain.cif", GOOD["plain.cif"])
        archive.writestr("a/broken.cif", BAD["cell.cif"][0])
        archive.write(tmp_path / "three.extxyz", "three.extxyz")
        archive.writestr("__MACOSX/._plain.cif", "x")
        archive.writestr("notes.txt", "x")
    for name in ("three.extxyz", "three.db"):
        found = list(read_structures(tmp_path / name))
        assert [item.name for item in found] == [f"{tmp_path / name}#{n}" for n in (1, 2, 3)]
        assert [item.structure is None for item in found] == [False, True, False]
        assert "no cell" in found[1].note
        with pytest.raises(DefectgenError, match="holds 3 structures, expected one"):
            read_structure(tmp_path / name)
    found = list(read_structures(tmp_path / "all.zip"))
    assert [item.name.partition("#")[2] for item in found] == [
        "a/broken.cif", "a/plain.cif", "three.extxyz#1", "three.extxyz#2", "three.extxyz#3",
    ]  # fmt: skip
    assert [item.structure is None for item in found] == [True, False, False, True, False]
    assert len(list(read_structures(tmp_path))) == 11


@pytest.mark.parametrize("name", ["a.zip", "a.db", "a.extxyz", "a.cif", "POSCAR"])
def test_noise_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 3)
    (found,) = read_structures(tmp_path / name)
    assert found.structure is None
    assert found.note
    assert "\n" not in found.note


def test_a_name_that_is_no_utf8_is_shown_by_its_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/POSCAR_\xff"))
    path.write_text(POSCAR)
    (found,) = read_structures(path)
    assert found.structure is not None
    assert found.name == f"{tmp_path}/POSCAR_\\xff"


UNEVEN = POSCAR.replace("Direct", "Selective\nDirect").replace(" 0.5\n", " 0.5 T T F\n")


def test_what_is_no_text_of_one_structure_is_named(tmp_path: Path) -> None:
    """By no command: what one reads, all read."""
    for name, content, expected in (
        ("a.csv", b"{", "is no structure by its name, expected CIF"),
        ("a.json", b"{", "is no structure by its name"),
        ("a.xsf", b"CRYSTAL", "is no structure by its name"),
        ("CONTCAR", b" \n", "is empty, expected a structure"),
        ("b.cif", b"data_\0", "is no text, expected a CIF or POSCAR"),
        ("uneven.vasp", UNEVEN.encode(), "cannot be read as POSCAR (its rows of atoms differ in their columns"),
        ("strange.vasp", POSCAR.replace("W S\n", "Mx S\n").encode(), "the structure has the species 'Mx', which is no"),
    ):
        (tmp_path / name).write_bytes(content)
        (found,) = read_structures(tmp_path / name)
        assert found.note.startswith(expected), found.note
        assert found.structure is None


def test_folders_stand_for_their_structures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the folders hold no structures"):
        chosen_files([tmp_path])
    (tmp_path / "b.cif").write_text("")
    (tmp_path / "a.vasp").write_text("")
    assert [path.name for path in chosen_files([tmp_path])] == ["a.vasp", "b.cif"]
    with pytest.raises(DefectgenError, match="none is not a file"):
        chosen_files([tmp_path / "none"])


def test_a_structure_that_a_run_wrote_twice_is_read_once(tmp_path: Path) -> None:
    run, cells = tmp_path / "run", tmp_path / "run" / "structures"
    cells.mkdir(parents=True)
    for name in ("a.cif", "a.vasp", "b.vasp", "a-relaxed.cif", "own.vasp"):
        (cells / name).write_text("")
    table = run / "candidates.csv"
    table.write_text("rank,cif,poscar\n1,structures/a.cif,structures/a.vasp\n2,structures/b.cif,structures/b.vasp\n")
    once = ["a-relaxed.cif", "a.cif", "b.vasp", "own.vasp"]  # b.cif was removed
    for place in (run, cells, tmp_path):
        assert [path.name for path in chosen_files([place])] == once
    assert skipped_files([cells]) == []
    for content in ("rank\n", "", "\0\xff,\n1"):
        table.write_text(content, encoding="latin-1")
        assert len(chosen_files([run])) == 5


def test_a_crystal_that_a_sample_folder_holds_twice_is_read_once(tmp_path: Path) -> None:
    cells = tmp_path / "structures"
    cells.mkdir()
    for path in (cells / "0-MoS2.cif", tmp_path / "samples.extxyz"):
        path.write_text("")
    assert len(chosen_files([tmp_path])) == 2, "a folder of one's own"
    (tmp_path / "samples.parquet").write_text("")
    assert [path.name for path in chosen_files([tmp_path])] == ["0-MoS2.cif"]
    (cells / "0-MoS2.cif").unlink()
    assert [path.name for path in chosen_files([tmp_path])] == ["samples.extxyz"]
