"""Hosts from files: the same cells as the built-in ones, whatever axis holds the vacuum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host, Rule, get_host, host_names, site_permutations
from defectgen.core.classes import class_from_label
from defectgen.core.counting import count_classes
from defectgen.core.matching import configuration_from_structure
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_files import find_host, parse_rules, parse_supercell

GRAPHENE = Structure(Lattice.hexagonal(2.46, 15.0), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


def unit_cell(host: Host) -> Structure:
    return Structure(host.lattice, host.species, host.frac_coords)


@pytest.mark.parametrize("name", host_names())
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("moved", [0.0, 0.7])
def test_a_file_gives_the_built_in_host_back(name: str, axis: int, moved: float, tmp_path: Path) -> None:
    host = get_host(name, (3, 3))
    cell = unit_cell(host)
    cell.translate_sites(range(len(cell)), [0, 0, moved], to_unit_cell=False)
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]  # the vacuum goes to this axis
    back = list(np.argsort(order))
    lattice = cell.lattice.matrix[back]
    leaning = lattice.copy()
    leaning[axis] += 0.4 * lattice[order[0]]
    shifted = Structure(leaning, cell.species, cell.cart_coords, coords_are_cartesian=True)
    path = tmp_path / "cell.cif"
    shifted.to(str(path))
    found = find_host(str(path), (3, 3), host.rules)
    assert len(site_permutations(found)) == len(site_permutations(host))
    pristine = Configuration.of(found, {}).to_structure()
    assert configuration_from_structure(host, pristine).n_defects == 0


def test_graphene_is_a_host_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "graphene.cif"
    GRAPHENE.to(str(path))
    host = find_host(str(path), (6, 6), parse_rules(["C:B,N,VAC"]))
    assert host.name == "C"
    assert len(site_permutations(host)) == 36 * 12  # reflection in the plane moves no site
    assert count_classes(host, class_from_label(host, "v_C")) == 1
    assert find_host(str(path), (6, 6)).rules == (Rule("C", VACANCY),)


def test_a_cell_that_is_not_primitive_has_the_symmetry_of_the_crystal(tmp_path: Path) -> None:
    square = Structure(Lattice.tetragonal(2.5, 15.0), ["C"], [[0, 0, 0.5]])
    double = square * (1, 2, 1)
    paths = [tmp_path / "one.cif", tmp_path / "two.cif"]
    square.to(str(paths[0]))
    double.to(str(paths[1]))
    one, two = find_host(str(paths[0]), (4, 4)), find_host(str(paths[1]), (4, 2))
    assert len(site_permutations(one)) == len(site_permutations(two)) == 16 * 8
    for label in ("2v_C", "3v_C"):
        assert count_classes(one, class_from_label(one, label)) == count_classes(two, class_from_label(two, label))


def test_cells_that_are_symmetric_only_roughly_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rough.cif"
    Structure(Lattice.hexagonal(2.46, 15.0), ["C", "C"], [[0.33, 0.67, 0.5], [0.67, 0.33, 0.5]]).to(str(path))
    with pytest.raises(DefectgenError, match=r"symmetric to 0\.1 angstrom only"):
        find_host(str(path), (4, 4))


def test_supercells_too_large_for_their_group_are_refused() -> None:
    with pytest.raises(UsageError, match="too many for its symmetry group"):
        site_permutations(get_host("MoS2", (50, 50)))


def test_files_that_are_no_layer_say_why(tmp_path: Path) -> None:
    bulk = tmp_path / "bulk.cif"
    Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(str(bulk))
    with pytest.raises(DefectgenError, match=r"bulk crystal, not a layer: it has at most 2\.1 angstrom of vacuum"):
        find_host(str(bulk), (2, 2))
    thin = tmp_path / "thin.cif"
    Structure(Lattice.hexagonal(2.46, 5.0), ["C", "C"], [[0, 0, 0], [1 / 3, 2 / 3, 0]]).to(str(thin))
    with pytest.raises(DefectgenError, match=r"thin\.cif has at most 5\.0 angstrom of vacuum along an axis, expected"):
        find_host(str(thin), (2, 2))
    loose = tmp_path / "loose.cif"
    Structure(Lattice.cubic(7.0), ["Cs"], [[0, 0, 0]]).to(str(loose))
    with pytest.raises(DefectgenError, match="vacuum along 3 axes"):
        find_host(str(loose), (2, 2))
    layer = tmp_path / "layer.cif"
    GRAPHENE.to(str(layer))
    with pytest.raises(UsageError, match="needs the size of its supercell"):
        find_host(str(layer))
    with pytest.raises(UsageError, match="C has no Mo"):
        find_host(str(layer), (2, 2), parse_rules(["Mo:W"]))
    big = tmp_path / "big.cif"
    (GRAPHENE * (4, 4, 1)).to(str(big))
    with pytest.raises(DefectgenError, match="has 32 atoms"):
        find_host(str(big), (1, 1))
    with pytest.raises(DefectgenError, match="is not a file"):
        find_host(str(tmp_path / "none.cif"), (2, 2))


@pytest.mark.parametrize("text", ["Mo", "Mo:", "Mo:Xx", "Mo:Mo", "VAC:Mo", ":W"])
def test_rules_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="rule"):
        parse_rules([text])


def test_a_supercell_with_the_sign_of_multiplication() -> None:
    assert parse_supercell("4\u00d75") == parse_supercell("4X5") == (4, 5)


@pytest.mark.parametrize("text", ["8", "8x", "0x8", "8x8x1", "-1x2"])
def test_supercells_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected two numbers from 1 to 99 such as 8x8"):
        parse_supercell(text)


@pytest.mark.parametrize(
    ("distance", "height", "apart"),
    [(3.35, 20.0, None), (4.5, 20.0, None), (6.5, 30.0, "6.5"), (18.0, 36.0, "18.0"), (20.0, 32.0, "12.0")],
)
@pytest.mark.parametrize("axis", [2, 1])
def test_layers_with_vacuum_between_them_are_no_host(
    distance: float, height: float, apart: str | None, axis: int, tmp_path: Path
) -> None:
    """Two layers that touch are one; those of a cell that is doubled along its normal are two, wherever they lie."""
    flat = [(x, y, z) for z in (0.2, 0.2 + distance / height) for x, y in ((1 / 3, 2 / 3), (2 / 3, 1 / 3))]
    cell = Structure(Lattice.hexagonal(2.46, height), ["C"] * 4, flat)
    order = [0, 1, 2] if axis == 2 else [2, 0, 1]
    cell = Structure(cell.lattice.matrix[order], cell.species, cell.frac_coords[:, order])
    path = tmp_path / "two.vasp"
    cell.to(str(path), fmt="poscar")
    if apart is None:
        assert len(find_host(str(path), (3, 3)).species) == 4
        return
    with pytest.raises(DefectgenError, match=f"holds 2 separate layers, {apart} angstrom apart, expected one layer"):
        find_host(str(path), (3, 3))
