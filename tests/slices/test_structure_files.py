"""SLICES strings from and to files; what fails is named and does not end the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host
from defectgen.errors import DefectgenError, UsageError
from defectgen.slices.structure_files import SlicesOutcome, decoration_in_its_cell, encode_files, read_strings
from defectgen_cli.app import main


def test_a_broken_file_does_not_end_the_others(tmp_path: Path) -> None:
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    salt.get_primitive_structure().to(tmp_path / "salt.cif")
    (tmp_path / "broken.cif").write_text("")
    found = encode_files([tmp_path / "broken.cif", tmp_path / "salt.cif"])
    assert [row["n_atoms"] for row in found.made] == [2]
    assert len(found.problems) == 1
    with pytest.raises(DefectgenError, match=r"broken\.cif.*\(1 of 2 failed\.\)$"):
        found.require_all()


def test_folders_and_files_of_several_structures_are_read_as_by_other_commands(
    mos2: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cells"
    (folder / "deep").mkdir(parents=True)
    item = Configuration.of(mos2, {0: VACANCY})
    item.to_structure().to(str(folder / "deep" / "POSCAR"), fmt="poscar")
    write(folder / "two.extxyz", [item.to_ase()] * 2, format="extxyz")
    (folder / "notes.txt").write_text("mine")
    found = encode_files([folder])
    assert [Path(row["file"]).name for row in found.made] == ["POSCAR", "two.extxyz#1", "two.extxyz#2"]
    assert {row["host"] for row in found.made} == {"MoS2"}
    assert len({row["slices"] for row in found.made}) == 1
    assert main(["slices", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [row["slices"] for row in found.made]
    assert "skipped 1 file that is no structure by its name: notes.txt" in captured.err


def test_one_problem_of_one_item_is_told_as_it_is() -> None:
    with pytest.raises(DefectgenError, match=r"^no lattice$"):
        SlicesOutcome((), ("no lattice",), 1).require_all()
    SlicesOutcome(("made",), (), 1).require_all()


def test_only_unrelaxed_decorations_have_the_order_of_the_sites(mos2: Host) -> None:
    item = Configuration.of(mos2, {0: VACANCY})
    assert decoration_in_its_cell(item.to_structure()) == item
    moved = item.to_structure()
    moved.translate_sites([5], [0, 0, 0.05], frac_coords=False)
    assert decoration_in_its_cell(moved) is None


def test_strings_are_read_a_line_each_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "strings.txt"
    path.write_text("\n \n")
    with pytest.raises(UsageError, match="hold no SLICES strings"):
        read_strings([path])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DefectgenError, match="cannot be read as text"):
        read_strings([path])
    path.write_text("no slices at all")
    with pytest.raises(DefectgenError):
        read_strings([path])
