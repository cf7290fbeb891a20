"""Bulk crystals as a table: columns and units, broken rows named and left out, parts without shared formulas."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ase.io import write
from crystal_files import cif_text, made_up_crystals, published_rows, write_csv
from pymatgen.io.cif import CifWriter

from defectgen.core.crystal import Crystal
from defectgen.data import mp20
from defectgen.data.mp20 import crystal_of, read_crystals, shared_formulas, split_by_formula
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.io.structures import checked_atoms, read_structure

DATA_VARIABLE = "DEFECTGEN_MP20"
CRYSTALS = made_up_crystals(20, seed=1)
ON_ONE_PLACE = Crystal((4.0,) * 3, (90.0,) * 3, ("Na", "Cl"), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))


@pytest.fixture(autouse=True)
def _cache(own_cache: Path) -> None:
    """No test reads or writes the user's cache."""


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return published_rows(CRYSTALS)


def test_a_row_has_its_labels_with_units_and_its_crystal(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    data = read_crystals(write_csv(tmp_path / "some.csv", rows))
    assert (len(data.frame), data.skipped, data.own_split) == (20, (), False)
    row = data.frame.row(4, named=True)
    assert {name: row[name] for name in ("source", "row", "id", "formula", "n_atoms", "spacegroup")} == {
        "source": "some.csv",
        "row": 5,
        "id": "mp-5",
        "formula": CRYSTALS[4].formula,
        "n_atoms": len(CRYSTALS[4].species),
        "spacegroup": 6,
    }
    assert (row["formation_energy_per_atom_ev"], row["band_gap_ev"], row["e_above_hull_ev"]) == (-1.25, 1.0, 0.05)
    for k, crystal in enumerate(CRYSTALS):
        read = crystal_of(data.frame.row(k, named=True))
        assert read.species == crystal.species
        np.testing.assert_allclose(read.fractional, crystal.fractional, atol=1e-8)


def test_labels_may_be_missing(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    for row in rows:
        del row["formation_energy_per_atom"], row["material_id"], row["spacegroup.number"]
    rows[0]["band_gap"], rows[1]["band_gap"] = "", "nan"
    frame = read_crystals(write_csv(tmp_path / "some.csv", rows)).frame
    assert frame["band_gap_ev"].null_count() == 2
    assert frame["formation_energy_per_atom_ev"].null_count() == frame["spacegroup"].null_count() == 20
    assert frame["id"].to_list() == [f"some-{k}" for k in range(1, 21)]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("cif", "# generated using pymatgen\ndata_X\n", "no atoms"),
        ("cif", "", "not a CIF of one crystal"),
        ("cif", cif_text(CRYSTALS[0]), f"pretty_formula is {CRYSTALS[2].formula}, the crystal is"),
        ("cif", cif_text(ON_ONE_PLACE), "does not give each atom a place: atoms 1 and 2 are on one place"),
        ("pretty_formula", "no formula", "pretty_formula is no formula, the crystal is"),
        ("band_gap", "wide", "band_gap is 'wide', expected a number"),
        ("band_gap", -0.1, "band_gap is -0.1, expected 0 or more"),
        ("e_above_hull", -0.1, "e_above_hull is -0.1, expected 0 or more"),
        ("spacegroup.number", 300, "spacegroup.number is 300, expected 1 to 230"),
        ("spacegroup.number", 1.5, "spacegroup.number is 1.5, expected 1 to 230"),
    ],
)
def test_a_broken_row_is_named_and_left_out(
    tmp_path: Path, rows: list[dict[str, object]], column: str, value: object, reason: str
) -> None:
    rows[2][column] = value
    file = write_csv(tmp_path / "some.csv", rows)
    for _ in range(2):  # the second time from the cache
        data = read_crystals(file)
        assert len(data.frame) == 19
        assert "mp-3" not in data.frame["id"]
        [skipped] = data.skipped
        assert (skipped.source, skipped.row, skipped.id) == ("some.csv", 3, "mp-3")
        assert str(skipped).startswith(f"row 3 of some.csv (mp-3): {reason}")


def test_the_same_composition_in_other_words_is_no_contradiction(tmp_path: Path) -> None:
    [crystal] = [c for c in made_up_crystals(60, seed=2) if len(c.elements) == 3 and "(" not in c.formula][:1]
    [row] = published_rows([crystal])
    row["pretty_formula"] = " ".join(f"{e}{2 * crystal.species.count(e)}" for e in reversed(crystal.elements))
    assert read_crystals(write_csv(tmp_path / "a.csv", [row])).frame["formula"].to_list() == [crystal.formula]


def test_three_published_files_keep_their_parts(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    for name, part in {"train": rows[:12], "val": rows[12:15], "test": rows[15:]}.items():
        write_csv(tmp_path / f"{name}.csv", part)
    rows[0]["material_id"] = "other"
    write_csv(tmp_path / "more.csv", rows[:1])
    data = read_crystals(tmp_path)
    assert data.own_split
    found = dict(data.frame.group_by("split").agg("id").iter_rows())
    assert {name: len(ids) for name, ids in found.items()} == {"train": 12, "validation": 3, "test": 5}
    assert sorted(found["validation"]) == ["mp-13", "mp-14", "mp-15"]
    (tmp_path / "val.csv").unlink()
    with pytest.raises(UsageError, match=r"holds test.csv and train.csv but no val.csv"):
        read_crystals(tmp_path)


def test_a_folder_of_cifs_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.cif").write_text(cif_text(CRYSTALS[0]))
    (folder / "deep/b.CIF").write_text(cif_text(CRYSTALS[1]))
    (folder / "deep/c.cif").write_text("nothing")
    (folder / "d.cif").write_bytes(b"\xff\xfe\xff")
    (folder / "notes.txt").write_text("x")
    data = read_crystals(folder)
    assert data.frame["id"].to_list() == ["a", "deep/b"]
    assert data.frame["formula"].to_list() == [CRYSTALS[0].formula, CRYSTALS[1].formula]
    assert data.frame.select(*mp20.LABELS, "spacegroup").null_count().row(0) == (2, 2, 2, 2)
    assert [item.source for item in data.skipped] == ["d.cif", "deep/c.cif"]
    assert "deep/c.cif: cannot be read as CIF (not a CIF" in str(data.skipped[1])
    assert read_crystals(folder / "a.cif").frame["id"].to_list() == ["a"]


def test_other_structure_files_are_crystals_too(tmp_path: Path) -> None:
    """As for every command: POSCAR beside CIF; files of several where there are none of these."""
    (tmp_path / "cells").mkdir()
    first, second = (crystal.to_structure() for crystal in CRYSTALS[:2])
    first.to(str(tmp_path / "cells" / "POSCAR"), fmt="poscar")
    (tmp_path / "cells" / "b.mcif").write_text(cif_text(CRYSTALS[1]))
    (tmp_path / "cells" / "latin.cif").write_bytes("# \u00c5\n".encode("latin-1") + cif_text(CRYSTALS[2]).encode())
    frame = read_crystals(tmp_path / "cells").frame
    assert dict(frame.select("id", "formula").iter_rows()) == {
        "POSCAR": CRYSTALS[0].formula, "b": CRYSTALS[1].formula, "latin": CRYSTALS[2].formula,
    }  # fmt: skip
    assert checked_atoms(frame["cif"][0]).crystal().formula == CRYSTALS[0].formula
    (tmp_path / "frames").mkdir()
    write(tmp_path / "frames" / "all.extxyz", [item.to_ase_atoms() for item in (first, second)], format="extxyz")
    frame = read_crystals(tmp_path / "frames").frame
    assert frame["id"].to_list() == ["all.extxyz#1", "all.extxyz#2"]
    assert frame["formula"].to_list() == [crystal.formula for crystal in CRYSTALS[:2]]


def test_a_table_contradicts_itself_as_a_file_does(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    text = cif_text(CRYSTALS[0]).replace("data_", "data_x\n_chemical_formula_sum 'Xe2 Kr'\n#", 1)
    rows[0]["cif"] = text
    (tmp_path / "a.cif").write_text(text)
    [skipped] = read_crystals(write_csv(tmp_path / "some.csv", rows)).skipped
    with pytest.raises(DefectgenError, match="states the formula Xe2 Kr"):
        read_structure(tmp_path / "a.cif")
    assert skipped.problem.startswith("states the formula Xe2 Kr")


def test_the_cache_is_used_until_the_file_changes(
    tmp_path: Path, rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "some.csv", rows)
    first = read_crystals(file).frame
    reads: list[object] = []
    read = mp20._read
    monkeypatch.setattr(mp20, "_read", lambda *given: reads.append(given) or read(*given))
    assert read_crystals(file).frame.equals(first)
    assert reads == []
    write_csv(file, rows[:10])
    assert len(read_crystals(file).frame) == 10
    assert read_crystals(file, cache=False).frame.equals(first[:10])
    assert len(reads) == 2


def test_data_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "a.xyz").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / "bare.csv").write_text("material_id\nmp-1\n")
    (tmp_path / "cut.csv").write_text('material_id,cif\nmp-1,"data_x\n')
    (tmp_path / "none.csv").write_text("material_id,cif\nmp-1,data_x\nmp-2,data_y\n")
    (tmp_path / "header.csv").write_text("material_id,cif\n")
    for path, kind, reason in [
        (tmp_path / "nowhere", UsageError, "does not exist. Expected CSV tables with a column cif, or CIF"),
        (empty, UsageError, "empty holds no crystals"),
        (tmp_path / "a.txt", UsageError, "is no file of crystals"),
        (tmp_path / "a.xyz", DefectgenError, "the first is a.xyz: holds no structure"),
        (tmp_path / "bare.csv", DefectgenError, "has no column 'cif'; its columns are material_id"),
        (tmp_path / "none.csv", DefectgenError, "none of 2 crystals can be used, the first is row 1 of none.csv"),
        (tmp_path / "header.csv", DefectgenError, "no crystals"),
        (tmp_path / "cut.csv", DefectgenError, "cut.csv"),
    ]:
        with pytest.raises(kind) as error:
            read_crystals(path)
        assert reason in str(error.value)
        assert "\n" not in str(error.value)


def test_an_id_that_occurs_twice_is_one_crystal_or_an_error(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    file, fourth = tmp_path / "twice.csv", CRYSTALS[3]
    structure = fourth.to_structure()
    moved = structure.copy().translate_sites(range(len(structure)), [0.25, 0.1, 0.3])
    rounded = str(CifWriter(moved, significant_figures=5))
    unlike = structure.copy().translate_sites([0], [0.05, 0, 0])
    once = read_crystals(write_csv(tmp_path / "once.csv", rows)).frame.drop("source")
    for again in (rows[3], rows[3] | {"cif": rounded}):
        data = read_crystals(write_csv(file, [*rows, again]))
        assert data.frame.drop("source").equals(once), "the first row of an id is taken"
        assert [str(item) for item in data.repeated] == ["row 21 of twice.csv (mp-4): repeats row 4 of twice.csv"]
        assert data.skipped == ()
    other = rows[0] | {"material_id": "mp-4"}
    for again, reason in [
        (other, f"crystals ({fourth.formula} and {CRYSTALS[0].formula})"),
        (rows[3] | {"cif": cif_text(Crystal.from_structure(unlike))}, f"crystals ({fourth.formula} in other cells or"),
        (rows[3] | {"cif": str(CifWriter(structure.copy().scale_lattice(structure.volume * 1.1)))}, "crystals ("),
        (rows[3] | {"band_gap": 9.5}, "values of band_gap (0.5 and 9.5)"),
        (rows[3] | {"band_gap": ""}, "values of band_gap (0.5 and none)"),
    ]:
        with pytest.raises(DefectgenError) as error:
            read_crystals(write_csv(file, [*rows, again]))
        assert f"twice.csv: the id mp-4 has two {reason}" in str(error.value)
        assert "in row 4 of twice.csv and row 21 of twice.csv, expected one. Delete the wrong one" in str(error.value)
    broken = read_crystals(write_csv(file, [*rows, other | {"cif": "data_X"}]))
    assert ([item.id for item in broken.skipped], broken.repeated, len(broken.frame)) == (["mp-4"], (), 20)
    for name, part in {"train": rows, "val": published_rows(CRYSTALS[:1], first=90), "test": rows[3:4]}.items():
        write_csv(tmp_path / "parts" / f"{name}.csv", part)
    with pytest.raises(DefectgenError, match=r"two parts \(test and train\), in row 1 of test.csv and row 4 of train"):
        read_crystals(tmp_path / "parts")


def test_no_formula_is_in_two_parts_and_the_order_of_rows_is_all_the_same(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    again = published_rows(CRYSTALS[:10], first=101)  # other crystals of the same formulas
    frame = read_crystals(write_csv(tmp_path / "some.csv", rows + again)).frame
    split = split_by_formula(frame, seed=7)
    assert shared_formulas(split) == {"validation": 0, "test": 0}
    assert split.group_by("formula").agg(pl.col("split").n_unique())["split"].max() == 1
    formulas = dict(split.group_by("split").agg(pl.col("formula").n_unique()).iter_rows())
    assert formulas == {"train": 16, "validation": 2, "test": 2}
    mixed = split_by_formula(frame.sample(fraction=1.0, shuffle=True, seed=1), seed=7)
    assert mixed.sort("id")["split"].equals(split.sort("id")["split"])
    assert not split_by_formula(frame, seed=8)["split"].equals(split["split"])
    leaky = split.with_columns(split=pl.when(pl.col("id") == "mp-101").then(pl.lit("test")).otherwise("split"))
    known = split.filter(id="mp-101")["split"][0] == "train"
    assert shared_formulas(leaky)["test"] == int(known)


@pytest.fixture(scope="module")
def real_dir() -> Path:
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        pytest.skip(f"{DATA_VARIABLE} is not set: tests on real MP-20 data left out")
    return Path(name)


@pytest.fixture(scope="module")
def real(real_dir: Path) -> pl.DataFrame:
    data = read_crystals(real_dir, cache=False)
    assert data.skipped == ()
    return data.frame


def test_real_rows_have_the_ranges_of_mp20(real: pl.DataFrame) -> None:
    assert real["n_atoms"].max() == 20
    assert real["e_above_hull_ev"].max() < 0.1
    assert real["band_gap_ev"].min() == 0.0
    assert real["id"].str.contains(r"^(mp|mvc)-\d+$").all()
    assert real.select("spacegroup", *mp20.LABELS).null_count().sum_horizontal()[0] == 0


def test_real_crystals_are_those_that_pymatgen_reads(real: pl.DataFrame) -> None:
    import warnings

    from pymatgen.core import Structure

    for row in real.sample(12, seed=0).iter_rows(named=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = Structure.from_str(row["cif"], fmt="cif")
        ours = crystal_of(row)
        assert ours == crystal_from_cif(row["cif"])
        assert [str(symbol) for symbol in theirs.species] == list(ours.species), "the order is the same, too"
        np.testing.assert_allclose(theirs.lattice.abc, ours.lengths, atol=1e-6)
        np.testing.assert_allclose(theirs.lattice.angles, ours.angles, atol=1e-6)
        difference = theirs.frac_coords - np.array(ours.fractional)
        assert np.abs(difference - np.round(difference)).max() < 1e-4


def test_real_files_are_fetched_and_found(real_dir: Path, tmp_path: Path) -> None:
    from defectgen.data.locations import crystals_path
    from defectgen_cli.app import main

    source = tmp_path / "given"
    source.mkdir()
    for file in real_dir.glob("*.csv"):
        shutil.copyfile(file, source / file.name)
    assert main(["fetch", "mp20", "--from", str(source)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DATA_VARIABLE)
        assert len(read_crystals(crystals_path(None)).frame) > 0
