"""One decoration in the cells that other programs would write: it is recognized as the same one, or refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase.build import graphene, mx2
from ase.io import write
from numpy.typing import NDArray
from pymatgen.core import Structure

import defectgen as dg
from defectgen.core.slab import NotADecorationError

WANTED = dg.Configuration.of(dg.host("MoS2"), {0: "W", 70: "VAC"})
IDEAL = WANTED.to_structure()
CELL = np.array(IDEAL.lattice.matrix)
PLACES = np.array(IDEAL.cart_coords)
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
"""A rotation that leaves no axis where it was."""


def strained() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2 % in the plane, 40 angstrom of cell, another origin."""
    cell, places = CELL.copy(), PLACES.copy()
    cell[:2] *= 1.02
    cell[2, 2] = 40.0
    places[:, :2] *= 1.02
    return cell, places + np.array([1.2, 2.3, 7.0])


SETTINGS = {
    "a and b swapped, left-handed": (CELL[[1, 0, 2]], PLACES),
    "c down, left-handed": (CELL * [[1], [1], [-1]], PLACES),
    "vacuum along b": (CELL[[0, 2, 1]], PLACES),
    "vacuum along a, left-handed": (CELL[[2, 1, 0]], PLACES),
    "wrapped over the boundary": (CELL, PLACES - [0.0, 0.0, PLACES[:, 2].mean()]),
    "gamma 60": (np.array([CELL[0], CELL[0] + CELL[1], CELL[2]]), PLACES),
    "turned in space": (CELL @ TURN.T, PLACES @ TURN.T),
    "upside down": (CELL, PLACES * [1, 1, -1]),
    "c leans": (np.array([CELL[0], CELL[1], CELL[2] + 0.3 * CELL[0] / 8]), PLACES),
    "strained, shifted, more vacuum": strained(),
}


@pytest.mark.parametrize("form", ["cif", "poscar"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str, form: str, tmp_path: Path) -> None:
    cell, places = SETTINGS[name]
    structure = Structure(cell, IDEAL.species, places, coords_are_cartesian=True, to_unit_cell=True)
    path = tmp_path / ("x.cif" if form == "cif" else "POSCAR")
    structure.to(str(path), fmt=form)
    found = dg.read_structure(path)
    assert isinstance(found, dg.Configuration)
    assert found.canonical() == WANTED.canonical()


def frame(rows: list[str], comment: str) -> str:
    return "\n".join([str(len(rows)), comment, *rows]) + "\n"


def test_extended_xyz_with_more_or_less_than_usual(tmp_path: Path) -> None:
    lattice = 'Lattice="' + " ".join(f"{value:.8f}" for value in CELL.ravel()) + '"'
    symbols = [item.symbol for item in IDEAL.species]
    rows = [f"{symbol} {x:.8f} {y:.8f} {z:.8f}" for symbol, (x, y, z) in zip(symbols, PLACES, strict=True)]
    usual = f"{lattice} Properties=species:S:1:pos:R:3"
    for text in (
        frame(rows, lattice),
        frame(rows, f'{usual} pbc="F F F"'),
        frame([f"{row} 0 0 0 0.5" for row in rows], f"{usual}:forces:R:3:magmom:R:1"),
        frame(rows, usual).replace("\n", "\r\n"),
    ):
        (tmp_path / "x.extxyz").write_text(text, newline="")
        found = dg.read_structure(tmp_path / "x.extxyz")
        assert isinstance(found, dg.Configuration)
        assert found.canonical() == WANTED.canonical()
    for text, reason in (
        (frame(rows, "made by hand"), "no cell"),
        (frame([*rows[:-1], "S nan 0 0"], usual), "no finite numbers"),
        (frame([*rows[:-1], rows[-1].replace("S", "D")], usual), "'D' is no element"),
        (frame(rows, f"{usual}:forces:R:3"), "cannot be read as extended XYZ"),
    ):
        (tmp_path / "x.extxyz").write_text(text)
        with pytest.raises(dg.DefectgenError, match=reason):
            dg.read_structure(tmp_path / "x.extxyz")


def test_other_encodings_line_ends_and_isotopes(tmp_path: Path) -> None:
    text = IDEAL.to(fmt="cif")
    for content in (text.encode("utf-16"), text.replace("\n", "\r").encode(), text.replace("  ", "\t").encode()):
        (tmp_path / "x.cif").write_bytes(content)
        assert dg.read_structure(tmp_path / "x.cif") == WANTED
    poscar = IDEAL.to(fmt="poscar")
    (tmp_path / "POSCAR").write_text(poscar.replace(" S", " D"))
    (tmp_path / "CONTCAR.gz").write_bytes(gzip.compress(poscar.encode()))
    for name, reason in (("POSCAR", "'D', which is no element"), ("CONTCAR.gz", "is compressed, expected text")):
        with pytest.raises(dg.DefectgenError, match=reason):
            dg.read_structure(tmp_path / name)


def test_cells_as_ase_builds_them(tmp_path: Path) -> None:
    layer = mx2("MoS2", kind="2H", a=3.19, thickness=3.127, size=(8, 8, 1), vacuum=10)
    del layer[1]
    nitride = graphene(formula="BN", a=2.51, size=(8, 8, 1), vacuum=10)
    nitride.symbols[3] = "C"
    for number, (atoms, host, label) in enumerate(((layer, "MoS2", "v_S"), (nitride, "BN", "C_N"))):
        for suffix in (".cif", ".vasp", ".extxyz"):
            path = tmp_path / f"{number}{suffix}"
            write(path, atoms)
            found = dg.read_structure(path)
            assert isinstance(found, dg.Configuration)
            assert (found.host.name, found.host.size, found.label) == (host, "8x8", label)
    cell = layer.cell.array * [[1.05], [1.05], [1]]
    layer.set_cell(cell, scale_atoms=True)
    write(tmp_path / "strained.vasp", layer)
    with pytest.raises(NotADecorationError, match=r"one of 64 unit cells strained by [45]\.\d %, expected at most 3 %"):
        dg.Configuration.from_structure(Structure.from_file(tmp_path / "strained.vasp"))
    other = mx2("MoS2", kind="1T", a=3.19, thickness=3.127, size=(8, 8, 1), vacuum=10)
    write(tmp_path / "1T.vasp", other)
    with pytest.raises(NotADecorationError, match="angstrom from the nearest site"):
        dg.Configuration.from_structure(Structure.from_file(tmp_path / "1T.vasp"))
