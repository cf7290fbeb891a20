"""Structures back to configurations: whatever their axes, origin, vacuum, strain, relaxation and order of elements."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene, mx2
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host, get_host, host_names
from defectgen.core.matching import (
    configuration_from_structure,
    known_configuration,
    match_structure,
    recognize,
)
from defectgen.core.placing import _has_rivals
from defectgen.core.slab import NotADecorationError

HOSTS = [get_host(name) for name in host_names()]
TURNS = [((1, 0), (0, 1)), ((0, 1), (1, 0)), ((-1, 0), (0, -1)), ((1, 1), (0, 1)), ((0, -1), (1, 1)), ((1, 0), (2, 1))]


def random_decoration(host: Host, n_defects: int, rng: np.random.Generator) -> Configuration:
    sites = rng.choice(host.n_sites, n_defects, replace=False)
    news = [host.allowed[host.site_cell(int(site))[0]] for site in sites]
    return Configuration.of(
        host, [(int(site), str(rng.choice(list(new)))) for site, new in zip(sites, news, strict=True)]
    )


def rewritten(structure: Structure, rng: np.random.Generator) -> Structure:
    """The same crystal in other words: another basis of its lattice, axes in another order, origin and direction."""
    turn = TURNS[int(rng.integers(len(TURNS)))]
    rows = np.eye(3)
    rows[:2, :2] = turn
    lattice = rows @ structure.lattice.matrix
    frac = structure.frac_coords @ np.linalg.inv(rows)
    frac = frac + rng.random(3)
    if rng.random() < 0.5:
        lattice[2], frac[:, 2] = -lattice[2], -frac[:, 2]
    order = rng.permutation(3)
    atoms = rng.permutation(len(structure))
    species = [structure[int(k)].specie.symbol for k in atoms]
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return Structure(lattice[order] @ turned, species, frac[atoms][:, order] % 1.0)


def relaxed(structure: Structure, rng: np.random.Generator) -> Structure:
    """Another vacuum, up to 1.5 % of strain, and atoms moved by up to half an angstrom."""
    matrix = structure.lattice.matrix.copy()
    height = matrix[2, 2]
    z = structure.frac_coords[:, 2] * height + rng.random() * height
    matrix[2, 2] = height + rng.uniform(-1.0, 15.0)
    frac = structure.frac_coords.copy()
    frac[:, 2] = z / matrix[2, 2]
    matrix[:2, :2] = matrix[:2, :2] @ (np.eye(2) + rng.uniform(-0.015, 0.015, (2, 2)) * np.array([[1, 0.5], [0.5, 1]]))
    moves = rng.normal(scale=0.12, size=(len(structure), 3))
    moves *= np.minimum(1.0, 0.5 / np.linalg.norm(moves, axis=1))[:, None]
    return Structure(matrix, structure.species, frac @ matrix + moves, coords_are_cartesian=True)


def test_relaxed_cells_in_other_words_keep_their_configuration() -> None:
    rng = np.random.default_rng(20)
    lost = []
    for host in HOSTS:
        for number in range(30):
            wanted = random_decoration(host, int(rng.integers(1, 7)), rng)
            cell = rewritten(relaxed(wanted.to_structure(), rng), rng)
            try:
                found = recognize(cell, HOSTS).configuration
            except NotADecorationError as error:
                lost.append(f"{wanted} {number}: {error}")
                continue
            if found.host != host or found.canonical() != wanted.canonical():
                lost.append(f"{wanted} {number}: {found}")
    assert lost == []


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_a_cell_as_the_host_is_written_keeps_its_sites(host: Host) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        wanted = random_decoration(host, 5, rng)
        match = match_structure(host, wanted.to_structure())
        assert match.configuration == wanted
        assert match.transformation == ""
        assert match.distance_angstrom < 1e-6


def bn_in_the_other_order() -> Structure:
    structure = Configuration.of(get_host("BN"), {}).to_structure()
    structure.replace_species({"B": "N", "N": "B"})
    return structure


def test_elements_on_each_others_sites_are_no_antisites() -> None:
    match = recognize(bn_in_the_other_order(), HOSTS)
    assert match.configuration == Configuration.of(get_host("BN"), {})
    assert match.transformation.startswith("a, b, c of the host are -a, -b, c of the file")
    swapped = bn_in_the_other_order()
    swapped.remove_sites([70])
    assert swapped[3].specie.symbol == "N"
    swapped.replace(3, "C")
    found = recognize(swapped, HOSTS).configuration
    assert found.label == "v_B+C_N"


def as_structure(atoms: Atoms) -> Structure:
    return Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True)


@pytest.mark.parametrize(
    ("formula", "a", "thickness", "host"),
    [("MoS2", 3.18, 3.19, "MoS2"), ("MoS2", 3.16, 3.17, "MoS2"), ("WSe2", 3.28, 3.34, "WSe2")],
)
def test_cells_of_ases_builder(formula: str, a: float, thickness: float, host: str) -> None:
    atoms = mx2(formula, "2H", a=a, thickness=thickness, size=(8, 8, 1), vacuum=9.0)
    chalcogen = formula[2:4].rstrip("2") if formula.startswith("MoS") else "Se"
    del atoms[next(k for k, symbol in enumerate(atoms.get_chemical_symbols()) if symbol == chalcogen)]
    found = recognize(as_structure(atoms), HOSTS).configuration
    assert (found.host.name, found.host.size, found.label) == (host, "8x8", f"v_{chalcogen}")
    wide = mx2(formula, "2H", a=a, thickness=thickness, size=(5, 5, 1), vacuum=12.0)
    assert (recognize(as_structure(wide), HOSTS).configuration.host.size) == "5x5"
    with pytest.raises(NotADecorationError, match="nearest site"):
        recognize(as_structure(mx2(formula, "1T", a=a, thickness=thickness, size=(8, 8, 1), vacuum=9.0)), HOSTS)


@pytest.mark.parametrize(
    ("metal", "chalcogen", "a", "heights"),
    [("Ga", "Se", 3.755, (1.23, 2.41)), ("Ga", "Se", 3.82, (1.24, 2.4)), ("In", "Se", 4.0, (1.39, 2.64))],
)
def test_monochalcogenides_from_their_lattice(
    metal: str, chalcogen: str, a: float, heights: tuple[float, float]
) -> None:
    """As one makes them from the hexagonal cell of the bulk: metals at the origin, the other elements at 1/3, 2/3."""
    third = 1 / 3
    inner, outer = (height / 22.0 for height in heights)
    unit = Structure(
        Lattice.hexagonal(a, 22.0),
        [metal, metal, chalcogen, chalcogen],
        [(0, 0, 0.5 - inner), (0, 0, 0.5 + inner), (third, 2 * third, 0.5 + outer), (third, 2 * third, 0.5 - outer)],
    )
    cell = unit * (6, 6, 1)
    cell.remove_sites([len(cell) - 1])
    found = recognize(cell, HOSTS).configuration
    assert (found.host.name, found.host.size, found.label) == (f"{metal}{chalcogen}", "6x6", f"v_{chalcogen}")


def test_graphene_and_other_layers_are_other_compounds() -> None:
    cell = graphene(size=(8, 8, 1), vacuum=10.0)
    with pytest.raises(NotADecorationError, match="C is another compound"):
        recognize(as_structure(cell), HOSTS)
    with pytest.raises(NotADecorationError, match="C is another compound, 64 of 64 sites of B hold C"):
        recognize(as_structure(cell), [get_host("BN")])
    for formula, a in (("MoSe2", 3.32), ("WS2", 3.18), ("MoTe2", 3.55), ("TaS2", 3.32)):
        with pytest.raises(NotADecorationError, match=f"({formula}|Te2Mo) is another compound"):
            recognize(as_structure(mx2(formula, "2H", a=a, size=(8, 8, 1), vacuum=9.0)), HOSTS)
    alloy = as_structure(mx2("MoSe2", "2H", a=3.32, size=(8, 8, 1), vacuum=9.0))
    alloy.replace(0, "W")
    with pytest.raises(NotADecorationError, match="63 of 64 sites of W hold Mo"):
        recognize(alloy, HOSTS)
    bulk = Configuration.of(get_host("BN"), {}).to_structure()
    thin = Structure(Lattice(bulk.lattice.matrix * [[1], [1], [3.33 / 20]]), bulk.species, bulk.frac_coords)
    with pytest.raises(NotADecorationError, match=r"widest empty slab of the cell is 3\.3\d angstrom"):
        recognize(thin, HOSTS)


def test_bulk_crystals_are_told_as_that_whatever_the_host_and_thin_vacuum_is_enough() -> None:
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    layered = Structure.from_spacegroup(
        194, Lattice.hexagonal(3.16, 12.3), ["Mo", "S"], [[1 / 3, 2 / 3, 0.25], [1 / 3, 2 / 3, 0.621]]
    )
    for crystal, gap in ((salt, "2.82"), (silicon, "1.36"), (layered, "2.98")):
        for host in (None, get_host("MoS2"), get_host("BP")):
            with pytest.raises(NotADecorationError) as error:
                known_configuration(crystal, host)
            assert str(error.value) == (
                f"the structure is a bulk crystal, not a layer: the widest empty slab of the cell is {gap} angstrom, "
                "expected at least 4 of vacuum across one axis. Give a cell with one layer and vacuum."
            )
    whole = Configuration.of(get_host("BN"), {0: "VAC"}).to_structure()
    thin = Structure(Lattice(whole.lattice.matrix * [[1], [1], [4.05 / 20]]), whole.species, whole.frac_coords)
    assert known_configuration(thin).label == "v_B"


SHAPES = [
    ("MoS2", ((5, 0, 0), (0, 5, 0), (0, 0, 1)), "5x5"),
    ("WSe2", ((7, 0, 0), (0, 7, 0), (0, 0, 1)), "7x7"),
    ("BN", ((6, 0, 0), (0, 4, 0), (0, 0, 1)), "6x4"),
    ("GaSe", ((7, 0, 0), (0, 7, 0), (0, 0, 1)), "7x7"),
    ("P", ((5, 0, 0), (0, 4, 0), (0, 0, 1)), "5x4"),
    ("MoS2", ((5, 0, 0), (3, 6, 0), (0, 0, 1)), ""),
    ("MoS2", ((6, 0, 0), (2, 4, 0), (0, 0, 1)), ""),
    ("InSe", ((3, 0, 0), (2, 4, 0), (0, 0, 1)), ""),
    ("BN", ((4, 1, 0), (-1, 3, 0), (0, 0, 1)), ""),
]


@pytest.mark.parametrize(("name", "matrix", "size"), SHAPES)
def test_other_supercells_are_recognized(name: str, matrix: tuple[tuple[int, ...], ...], size: str) -> None:
    unit = Configuration.of(get_host(name, (1, 1)), {}).to_structure()
    cell = unit.make_supercell(matrix, in_place=False)
    rng = np.random.default_rng(1)
    host = recognize(cell, HOSTS).configuration.host
    assert host.name == name
    assert host.n_sites == len(cell)
    assert not size or host.size == size
    for _ in range(4):
        changed = cell.copy()
        gone, other = (int(k) for k in rng.choice(len(cell), 2, replace=False))
        lost, replaced = cell[gone].specie.symbol, cell[other].specie.symbol
        new = next(new for new in get_host(name).allowed[get_host(name).species.index(replaced)] if new != VACANCY)
        changed.replace(other, new)
        changed.remove_sites([gone])
        found = recognize(rewritten(changed, rng), HOSTS).configuration
        assert found.host == host
        assert found.kinds == {(lost, VACANCY): 1, (replaced, new): 1}
        again = recognize(found.to_structure(), HOSTS).configuration
        assert again.canonical() == found.canonical()
        apart = changed.copy()
        assert recognize(rewritten(apart, rng), HOSTS).configuration.canonical() == found.canonical()


def test_a_rectangular_cell_has_a_unit_cell_of_its_own() -> None:
    unit = Configuration.of(get_host("MoS2", (1, 1)), {}).to_structure()
    cell = unit.make_supercell(((6, 0, 0), (4, 8, 0), (0, 0, 1)), in_place=False)
    assert np.allclose(cell.lattice.angles, 90)
    host = recognize(cell, HOSTS).configuration.host
    assert (host.n_basis, host.size, host.n_sites) == (6, "6x4", 144)


def test_a_given_host_is_taken_at_its_word() -> None:
    cell = Configuration.of(get_host("MoS2", (6, 6)), {0: "W"}).to_structure()
    with pytest.raises(NotADecorationError, match=r"in-plane cell is 19\.14 x 19\.14"):
        configuration_from_structure(get_host("MoS2"), cell)
    assert known_configuration(cell).host.size == "6x6"


def test_a_layer_without_symmetry_is_told_from_its_mirror_image() -> None:
    lattice = ((4.0, 0.0, 0.0), (1.1, 5.1, 0.0), (0.0, 0.0, 18.0))
    coords = ((0.0, 0.0, 0.5), (0.31, 0.57, 0.55), (0.74, 0.28, 0.44))
    host = Host("TiOS", lattice, ("Ti", "O", "S"), coords, (3, 3), ())
    wanted = Configuration.of(host, {4: VACANCY})
    structure = wanted.to_structure()
    rng = np.random.default_rng(5)
    assert match_structure(host, rewritten(structure, rng)).configuration.canonical() == wanted.canonical()
    over = structure.copy()
    over.apply_operation(_mirror_z())
    match = match_structure(host, over)
    assert match.configuration.canonical() == wanted.canonical()
    assert match.mirrored
    assert "mirrored" in match.transformation
    turned = Structure(structure.lattice.matrix @ np.diag([1.0, -1.0, -1.0]), structure.species, structure.frac_coords)
    assert not match_structure(host, turned).mirrored


def _mirror_z():  # type: ignore[no-untyped-def]
    from pymatgen.core import SymmOp

    return SymmOp.from_rotation_and_translation(np.diag([1.0, 1.0, -1.0]))


def test_the_answer_tells_origin_and_strain() -> None:
    structure = Configuration.of(get_host("MoS2"), {64: VACANCY}).to_structure()
    structure.translate_sites(range(len(structure)), [0.3, -0.4, 0.0], frac_coords=False)
    structure.apply_strain([0.01, -0.01, 0.0])
    match = recognize(structure, HOSTS)
    assert match.transformation.startswith("origin moved by 0.50 angstrom in the plane; strained by +1.0 % along a")
    assert match.configuration.label == "v_S"


@pytest.mark.parametrize(
    ("name", "rivals"), [("MoS2", False), ("WSe2", False), ("GaSe", False), ("InSe", False), ("BN", True), ("P", True)]
)
def test_hosts_that_lie_on_themselves_in_two_ways_are_known(name: str, rivals: bool) -> None:
    assert _has_rivals(get_host(name, (6, 4))) is rivals


@pytest.mark.parametrize("seed", range(8))
def test_cells_of_hbn_in_other_words_are_the_same_crystal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    host = get_host("BN", (6, 4))
    expected = Configuration.of(host, {0: VACANCY, 15: "C"})
    for structure in (rewritten(expected.to_structure(), rng), relaxed(expected.to_structure(), rng)):
        assert recognize(structure, HOSTS).configuration.canonical() == expected.canonical()


def test_messages_call_a_host_as_people_do() -> None:
    cell = Configuration.of(get_host("MoS2", (2, 2)), {}).to_structure()
    with pytest.raises(NotADecorationError, match="no decoration of BP 6x6: MoS2 is another compound"):
        known_configuration(cell, get_host("P"))
