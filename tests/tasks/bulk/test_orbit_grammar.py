"""Crystals written as orbits: they have the symmetry asked for, and formulas that no orbits add up to are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import spglib

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.orbits import SiteKind, primitive_group
from defectgen.core.space_group import crystal_space_group
from defectgen.errors import UsageError
from defectgen.generate.crystal_request import CrystalRequest
from defectgen.generate.sampling import generation_job, spacegroup_check
from defectgen.llm.decode.guide import pack_grammar, unpack_grammar
from defectgen.metrics.atom_distances import radii_apart
from defectgen.tasks.bulk.crystal_text import parse_crystal, parse_formula, write_crystal
from defectgen.tasks.bulk.orbit_grammar import OrbitGrammar
from defectgen.tasks.bulk.orbit_lattice import GroupLattice
from defectgen.tasks.bulk.orbit_places import rooms
from defectgen.tasks.grammar import END
from defectgen.tasks.parsing import ParseError


def walk(grammar: OrbitGrammar, rng: np.random.Generator) -> tuple[str, int]:
    """A random walk with cells of usual size: the text, and how many pieces were a choice."""
    state, text, n_choices = grammar.start, "", 0
    while True:
        following = grammar.choices(state)
        pieces = list(following)
        if state[0] == "lattice" and len(pieces) > 1:
            least, most = (4, 9) if "." in pieces[0] else (50, 130)
            pieces = [piece for piece in pieces if least <= float(piece) <= most] or pieces
        piece = pieces[int(rng.integers(len(pieces)))]
        n_choices += len(following) > 1
        if piece == END:
            return text, n_choices
        text, state = text + piece, following[piece]


def is_invariant(crystal: Crystal, number: int) -> bool:
    """Whether every operation of a group maps the crystal, cell included, onto itself."""
    group, metric = primitive_group(number), np.array(crystal.to_structure().lattice.metric_tensor)
    at, species = np.array(crystal.fractional), np.array(crystal.species)
    for rotation, translation in zip(group.rotations, group.translations / 24, strict=True):
        apart = (at @ rotation.T + translation)[:, None] - at
        same = np.abs(apart - np.rint(apart)).max(axis=2) < 1e-6
        if not (same & (species[:, None] == species)).any(axis=1).all():
            return False
        if not np.allclose(rotation.T @ metric @ rotation, metric, atol=1e-5 * metric.max()):
            return False
    return True


def check_walk(number: int, seed: int) -> Crystal:
    """A random crystal of a group: all operations leave it, and what spglib finds has the group in it."""
    grammar = OrbitGrammar(min_distance=0.5, radii=0.75, spacegroup=number)
    text, _ = walk(grammar, np.random.default_rng(seed))
    crystal = grammar.crystal(text)
    assert is_invariant(crystal, number), text
    cell = crystal.to_structure().lattice.matrix.tolist()
    kinds = [ELEMENTS.index(symbol) for symbol in crystal.species]
    found = spglib.get_symmetry((cell, crystal.fractional, kinds), symprec=0.1)
    assert len(found["rotations"]) >= primitive_group(number).order
    rounded = parse_crystal(text)
    assert rounded.species == crystal.species
    assert write_crystal(rounded) == text
    return crystal


@pytest.mark.slow
@pytest.mark.job
def test_every_space_group_is_met() -> None:
    found = {number: crystal_space_group(check_walk(number, number)) for number in range(1, 231)}
    assert sum(number == asked for asked, number in found.items()) > 200


@pytest.mark.parametrize("number", [5, 62])
def test_random_orbits_have_their_space_group(number: int) -> None:
    crystal = check_walk(number, 3)
    assert crystal_space_group(crystal) == number
    assert len(crystal.species) <= 20
    assert radii_apart(crystal, 0.73)


@pytest.mark.parametrize(
    ("number", "kinds"),
    [  # International Tables A, multiplicities over those of the centring
        (2, [(1, 8), (2, None)]),
        (62, [(4, 2), (4, None), (8, None)]),
        (194, [(2, 4), (4, None), (6, 1), (6, None), (12, None), (24, None)]),
        (227, [(2, 2), (4, 2), (8, None), (12, None), (24, None), (48, None)]),
    ],
)
def test_positions_are_those_of_the_international_tables(number: int, kinds: list[tuple[int, int | None]]) -> None:
    assert primitive_group(number).kinds == tuple(SiteKind(*kind) for kind in kinds)


def test_a_place_near_a_special_position_is_on_it() -> None:
    group = primitive_group(194)
    third = group.orbit((33, 67, 25))
    assert np.allclose(third, [(1 / 3, 2 / 3, 1 / 4), (2 / 3, 1 / 3, 3 / 4)])
    assert len(group.orbit((30, 67, 25))) > 2
    assert group.kind_at[33, 67, 25] == 1


@pytest.mark.parametrize(
    ("number", "chosen", "numbers"),
    [
        (225, (3.9,), (3.9, 3.9, 3.9, 60, 60, 60)),
        (229, (3.0,), (3.0, 3.0, 3.0, 109.4712, 109.4712, 109.4712)),
        (139, (5.0, 110.0), (5, 5, 5, 110, 110, 108.4171)),
        (194, (3.2, 5.1), (3.2, 3.2, 5.1, 90, 90, 120)),
        (14, (5.0, 5.1, 5.2, 80.0), (5, 5.1, 5.2, 80, 90, 90)),
        (22, (5.0, 5.5, 6.0), (5, 5.5, 6, 51.3178, 59.1695, 69.5127)),
    ],
)
def test_numbers_of_a_lattice_follow_from_the_free_ones(
    number: int, chosen: tuple[float, ...], numbers: tuple[float, ...]
) -> None:
    lattice = GroupLattice(number)
    assert len(lattice.free) == len(chosen)
    assert np.allclose(lattice.numbers(chosen), numbers, atol=1e-3)


def test_a_formula_is_made_of_orbits() -> None:
    composition = tuple(parse_formula("SrTiO3").items())
    grammar = OrbitGrammar(composition=composition, min_distance=0.5, radii=0.5, spacegroup=221)
    text, n_choices = walk(grammar, np.random.default_rng(1))
    assert parse_formula(grammar.crystal(text).formula) == dict(composition)
    assert n_choices < len(text.split()) / 2
    job = generation_job({"formula": "SrTiO3", "spacegroup": 221}, orbits=True)
    perovskite = "3.9 3.9 3.9\n90 90 90\nSr\n0.01 0.00 0.00\nTi\n0.50 0.50 0.51\nO"
    perovskite += "\n0.50 0.50 0.00\nO\n0.00 0.50 0.50\nO\n0.50 0.00 0.50"
    crystal, reason = job.read(perovskite)
    assert crystal is not None
    assert (reason, crystal.fractional[:2]) == ("", ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))
    assert spacegroup_check(221)(crystal) == ""
    assert spacegroup_check(99)(crystal) == "spacegroup: 221, asked 99"
    assert job.read(perovskite.replace("0.00 0.50 0.50", "0.10 0.50 0.50"))[1].startswith("text: the atoms after")


def test_impossible_requests_are_refused_before_the_model() -> None:
    with pytest.raises(UsageError, match=r"no cell of at most 20 atoms has formula SrTiO3 and space group 230, whose"):
        CrystalRequest({"formula": "SrTiO3", "spacegroup": 230}).job(None)
    CrystalRequest({"formula": "SrTiO3", "spacegroup": 230}, exact_formula=False).job(None)
    with pytest.raises(UsageError, match="space group 228 has 4 atoms at least, 3 are allowed"):
        CrystalRequest({"spacegroup": 228}, max_atoms=3, orbits=True).job(None)
    for conditions, settings in (({}, {}), ({"spacegroup": 62}, {"free": True})):
        with pytest.raises(UsageError, match="--orbits is a grammar of --spacegroup N"):
            CrystalRequest(conditions, orbits=True, **settings)
    with pytest.raises(ParseError, match="2 lines"):
        OrbitGrammar(spacegroup=2).crystal("1 1 1\n90 90 90")


def test_other_processes_get_the_grammar() -> None:
    grammar = OrbitGrammar(max_atoms=4, spacegroup=62)
    packed = pack_grammar(grammar)
    assert json.loads(packed)["spacegroup"] == 62
    assert unpack_grammar(packed) == grammar


def test_a_crystal_does_not_end_with_too_much_symmetry() -> None:
    grammar = OrbitGrammar(elements=("Na", "Cl"), min_distance=0.5, radii=0.5, spacegroup=216)
    text, state = "4.0 4.0 4.0\n60 60 60\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50", grammar.start
    while text:  # rock salt has the space group 225; zinc blende has 216
        piece = max((p for p in grammar.choices(state) if p != END and text.startswith(p)), key=len)
        text, state = text.removeprefix(piece), grammar.choices(state)[piece]
    assert END not in grammar.choices(state)
    assert "\nNa\n" in grammar.choices(state)


def test_a_large_cell_has_room_everywhere() -> None:
    """Half the shortest vector of a cell of 24 angstrom is more than the table of distances holds."""
    room = rooms(123, (240.0, 240.0, 240.0, 90.0, 90.0, 90.0), (), 20)
    assert room[0, 0, 0] == 127  # the nearest image lies further off than distances are known
    assert room.max() <= 255
