"""Crystals from CIF text: equal to pymatgen's, and a clear reason for what is none."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from crystal_files import cif_text, made_up_crystals

from defectgen.core.crystal import Crystal
from defectgen.io.crystal_cif import CifError, crystal_from_cif
from defectgen.io.structures import checked_atoms

SALT = Crystal((5.6, 5.6, 5.6), (90, 90, 90), ("Na", "Cl"), ((0, 0, 0), (0.5, 0.5, 0.5)))

ROCK_SALT = """data_NaCl
_symmetry_space_group_name_H-M   'F m -3 m'
_symmetry_Int_Tables_number   225
_cell_length_a 5.62(1)
_cell_length_b 5.62(1)
_cell_length_c 5.62(1)
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
  Na1 0 0 0
  Cl1 0.5 0.5 0.5
"""


@pytest.mark.parametrize("crystal", made_up_crystals(12, seed=3), ids=lambda crystal: crystal.formula)
def test_a_p1_file_gives_what_was_written(crystal: Crystal) -> None:
    read = crystal_from_cif(cif_text(crystal))
    assert read.species == crystal.species
    np.testing.assert_allclose(read.fractional, crystal.fractional, atol=1e-8)
    np.testing.assert_allclose([*read.lengths, *read.angles], [*crystal.lengths, *crystal.angles], atol=1e-8)


def test_it_is_the_structure_that_pymatgen_reads() -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    for crystal in made_up_crystals(5, seed=4):
        text = cif_text(crystal, 6)
        theirs, ours = Structure.from_str(text, fmt="cif"), crystal_from_cif(text).to_structure()
        assert theirs.composition == ours.composition
        assert StructureMatcher(ltol=1e-4, stol=1e-3, angle_tol=0.01, primitive_cell=False).fit(theirs, ours)


def test_symmetry_operations_are_applied() -> None:
    crystal = crystal_from_cif(ROCK_SALT)
    assert sorted(crystal.species) == ["Cl"] * 4 + ["Na"] * 4
    assert crystal.lengths == (5.62, 5.62, 5.62)
    sodium = {xyz for symbol, xyz in zip(crystal.species, crystal.fractional, strict=True) if symbol == "Na"}
    assert sodium == {(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)}
    listed = crystal_from_cif(
        "data_x\n_cell_length_a 4\n_cell_length_b 5\n_cell_length_c 6\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,z+1/2'\nloop_\n_atom_site_label\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa1 0.25 0.125 0.25\n"
    )
    assert sorted(listed.fractional) == [(0.25, 0.125, 0.25), (0.75, 0.875, 0.75)]


def test_charges_labels_and_errors_of_numbers_are_understood() -> None:
    text = cif_text(SALT).replace("  Na  Na0", "  Na+  Na0").replace("  Cl  Cl1", "  Cl1-  Cl1")
    text = text.replace("0.50000000  0.50000000  0.50000000", "-0.5(1)  1.5  .5")
    assert crystal_from_cif(text) == SALT


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("data_NaCl", "", "not a CIF of one crystal"),
        ("  Cl  Cl1", "  Ln  Ln1", "'Ln' is no element"),
        ("  Cl  Cl1", "  Met8  Met8", "'Met8' is no element"),
        ("0.50000000  0.50000000  0.50000000  1", "0.5 0.5 0.5 0.5", "occupancy 0.5 of atom 2"),
        ("0.50000000  0.50000000  0.50000000  1", "0.5 ? 0.5 1", "no finite position for atom 2"),
        ("_cell_length_a   5.60000000", "", "no cell"),
        ("_cell_length_a   5.60000000", "_cell_length_a -5.6", "expected more than 0"),
        ("_cell_angle_alpha   90.00000000", "_cell_angle_alpha 185", "expected three that enclose a volume"),
        ("'x, y, z'", "'x, y, q'", "unreadable symmetry operation"),
        (" _atom_site_fract_x", " _atom_site_fract_w", "no atoms"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(old: str, new: str, reason: str) -> None:
    text = cif_text(SALT)
    assert old in text
    with pytest.raises(CifError) as error:
        crystal_from_cif(text.replace(old, new))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_block_without_atoms_is_no_second_crystal() -> None:
    text = cif_text(SALT)
    assert crystal_from_cif(f"data_global\n_journal_year 2020\n{text}") == SALT
    with pytest.raises(CifError, match=r"not a CIF of one crystal \(2 of 2 blocks have atoms\)"):
        crystal_from_cif(text + text.replace("data_NaCl", "data_B"))


def test_two_atoms_on_one_place_are_a_crystal_until_someone_asks() -> None:
    text = cif_text(SALT).replace("0.50000000  0.50000000  0.50000000  1", "1.00001 0 0 1")
    crystal = crystal_from_cif(text)
    assert crystal.species == ("Na", "Cl")
    with pytest.raises(CifError, match="atoms 1 and 2 are on one place"):
        checked_atoms(text)
    checked_atoms(cif_text(SALT))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data_x\nloop_\n_a\n_b\n1 2 3\n", "line 2: Wrong number of values in loop"),
        ("nothing", "line 1: expected block header"),
        ("data_x\n_a 1\n_a 2\n", "line 3 in data_x: duplicate tag _a"),
    ],
)
def test_a_damaged_text_is_told_by_its_line(text: str, reason: str) -> None:
    with pytest.raises(CifError) as caught:
        crystal_from_cif(text)
    assert reason in str(caught.value)
    assert "string" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "data_x", "not a cif at all", "\x00", ROCK_SALT.replace("5.62(1)", "?")])
def test_text_that_is_no_crystal_is_refused(text: str) -> None:
    with pytest.raises(CifError):
        crystal_from_cif(text)


def test_any_cut_of_a_file_is_a_crystal_or_a_reason() -> None:
    text = cif_text(made_up_crystals(1, seed=5)[0])
    crystals = 0
    for end in range(0, len(text), 7):
        with contextlib.suppress(CifError):
            crystals += bool(crystal_from_cif(text[:end]))
    assert 0 < crystals < len(text) / 14


LAYER = """data_WSe2
_symmetry_space_group_name_H-M '{symbol}'
_symmetry_Int_Tables_number {number}
_chemical_formula_sum '{formula}'
_cell_length_a 3.32
_cell_length_b 3.32
_cell_length_c 20
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_equiv_pos_as_xyz 'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
  W 0.333333 0.666667 0.5
  Se 0.666667 0.333333 0.584
  Se 0.666667 0.333333 0.416
"""


@pytest.mark.parametrize(
    ("symbol", "number"), [("P -6 m 2", 187), ("?", "187"), ("P 3 m 1", 156), ("P 1", 1), ("no such group", "?")]
)
def test_a_named_group_that_the_atoms_have_or_more(symbol: str, number: object) -> None:
    assert checked_atoms(LAYER.format(symbol=symbol, number=number, formula="W1 Se2")).species == ("W", "Se", "Se")


@pytest.mark.parametrize(
    ("symbol", "number"), [("P -3 m 1", 164), ("?", 164), ("P -3 m 1", "?"), ("P 63/m m c", 194), ("P -6 m 2", 164)]
)
def test_a_named_group_that_the_atoms_do_not_have(symbol: str, number: object) -> None:
    reason = r"names the space group P .* \((164|194)\), but its atoms have P -6 m 2 \(187\)"
    with pytest.raises(CifError, match=reason):
        checked_atoms(LAYER.format(symbol=symbol, number=number, formula="W1 Se2"))


def test_a_formula_in_capitals_is_that_of_its_elements() -> None:
    assert checked_atoms(LAYER.format(symbol="P 1", number=1, formula="W1 SE2")).species == ("W", "Se", "Se")
    with pytest.raises(CifError, match="states the formula W1 TE2, but its atoms are Se2 W1"):
        checked_atoms(LAYER.format(symbol="P 1", number=1, formula="W1 TE2"))
