"""Atoms are written where there is room: distances as pymatgen has them, radii, cells that are full."""

from __future__ import annotations

import numpy as np
import pytest

from defectgen.core.crystal import Crystal, volume_fraction
from defectgen.core.elements import atomic_radius
from defectgen.metrics.atom_distances import radii_apart
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.clearance import STEPS, Clearance, half_steps, sphere_volume
from defectgen.tasks.bulk.crystal_grammar import CrystalGrammar
from defectgen.tasks.bulk.crystal_text import parse_crystal
from defectgen.tasks.grammar import END


def crowded(grammar: CrystalGrammar, lengths: str, rng: np.random.Generator) -> Crystal:
    """A random cell of as many atoms as may be, with these lengths and random angles."""
    state, text = grammar.start, ""
    for piece in (part for length in lengths.split() for part in (f"{length[:-1]}", length[-1])):
        choices = grammar.choices(state)
        chosen = next(key for key in choices if key.strip() == piece)
        text, state = text + chosen, choices[chosen]
    while True:
        choices = grammar.choices(state)
        open_to = [piece for piece in choices if piece != END]
        if not open_to:
            return parse_crystal(text)
        chosen = open_to[int(rng.integers(len(open_to)))]
        text, state = text + chosen, choices[chosen]


def nearest(crystal: Crystal) -> float:
    """Least distance between two atoms, by pymatgen."""
    distances = crystal.to_structure().distance_matrix
    return float((distances + np.diag(np.full(len(distances), np.inf))).min())


def test_atoms_are_placed_where_there_is_room() -> None:
    rng = np.random.default_rng(3)
    apart = [crowded(CrystalGrammar(12, ("Si", "O"), None, 0.9), "3.1 3.0 4.2", rng) for _ in range(12)]
    anywhere = [crowded(CrystalGrammar(12, ("Si", "O")), "3.1 3.0 4.2", rng) for _ in range(12)]
    assert all(nearest(crystal) >= 0.9 for crystal in apart)
    assert sum(len(crystal.species) == 12 for crystal in apart if volume_fraction(crystal.angles) > 0.5) >= 2
    assert sum(nearest(crystal) < 0.9 for crystal in anywhere) >= 6


def test_atoms_are_placed_half_a_radius_apart_until_the_cell_is_full() -> None:
    rng = np.random.default_rng(4)
    grammar = CrystalGrammar(20, ("Cs", "Cl", "H"), None, 0.5, radii=0.5)
    crystals = [crowded(grammar, "3.3 3.9 4.4", rng) for _ in range(12)]
    assert all(radii_apart(crystal) and nearest(crystal) >= 0.5 for crystal in crystals)
    assert {"Cs", "Cl", "H"} <= {symbol for crystal in crystals for symbol in crystal.species}
    heavy = [crowded(CrystalGrammar(20, ("Cs",), None, 0.5, radii=0.5), "3.3 3.9 4.4", rng) for _ in range(6)]
    assert all(len(crystal.species) < 8 for crystal in heavy)


@pytest.mark.parametrize("cell", [(31, 30, 42, 90, 90, 90), (31, 52, 42, 60, 100, 75), (25, 25, 90, 120, 120, 60)])
@pytest.mark.parametrize("symbols", [("Si", "Si", "Si"), ("O", "Cs", "H"), ("Na", "O", "Cl")])
def test_room_is_what_distances_say(cell: tuple[int, ...], symbols: tuple[str, str, str]) -> None:
    halves = [half_steps(atomic_radius(symbol)) for symbol in symbols]
    places = ((3, 98, 50), (40, 2, 99))
    sites = tuple((*place, half) for place, half in zip(places, halves, strict=False))
    clearance = Clearance(cell, sites, 0, (50, 97)).of(symbols[2], halves[2])
    lengths, angles = tuple(k / 10 for k in cell[:3]), tuple(float(k) for k in cell[3:])
    least = np.array([(atomic_radius(symbol) + atomic_radius(symbols[2])) / 2 for symbol in symbols[:2]])
    spare = []
    for z in range(100):
        points = tuple((x / 100, y / 100, w / 100) for x, y, w in (*places, (50, 97, z)))
        atoms = Crystal(lengths, angles, symbols, points)  # type: ignore[arg-type]
        spare.append(float((atoms.to_structure().distance_matrix[2, :2] - least).min()))
    sure = [z for z, more in enumerate(spare) if more >= 3 / STEPS]
    free = clearance.free() if sure else []
    assert set(sure) <= set(free)
    assert all(spare[z] >= 0 for z in free)


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_atoms_are_placed_by_their_radii(share: float) -> None:
    rng = np.random.default_rng(5)
    grammar = CrystalGrammar(12, ("Cs", "Ti", "O"), None, 0.0, radii=share)
    crystals = [crowded(grammar, "8.0 7.5 8.5", rng) for _ in range(8)]
    assert all(radii_apart(crystal, share) for crystal in crystals)
    several = [crystal for crystal in crystals if len(crystal.species) > 1]
    assert len(several) >= 6
    for crystal in several:
        spheres = sum(4 / 3 * np.pi * (share * atomic_radius(symbol)) ** 3 for symbol in crystal.species)
        assert spheres <= 0.42 * crystal.volume


def test_hydrogen_does_not_fill_what_is_too_small_for_oxygen() -> None:
    """Two caesium atoms fill nearly 0.42 of the cell: what is left is enough for hydrogen, or for oxygen too."""
    half, oxygen, hydrogen = (half_steps(1.5 * atomic_radius(symbol)) for symbol in ("Cs", "O", "H"))
    grammar = CrystalGrammar(20, ("Cs", "O", "H"), None, 0.0, radii=0.75)
    edges = [(a, a, c) for a in range(50, 56) for c in range(50, 61)]
    left = {cell: 0.42e-3 * cell[0] * cell[1] * cell[2] - 2 * sphere_volume(half) for cell in edges}
    tight = [cell for cell, volume in left.items() if sphere_volume(hydrogen) < volume < sphere_volume(oxygen)]
    roomy = [cell for cell, volume in left.items() if sphere_volume(oxygen) < volume < 2]
    assert tight
    assert roomy
    for cell in (*tight, *roomy):
        clearance = Clearance((*cell, 90, 90, 90), ((0, 0, 0, half), (50, 50, 50, half)), counts=(("Cs", 2),))
        more = {"\nO\n", "\nH\n"} if cell in roomy else set()
        assert set(grammar.choices(("atom", (2,), clearance))) == {END, *more}


def test_an_atom_is_no_nearer_to_its_own_image() -> None:
    thin, wide = (24, 60, 60, 90, 90, 90), (30, 60, 60, 90, 90, 90)
    caesium = half_steps(atomic_radius("Cs"))
    assert Clearance(thin).widest() < caesium <= Clearance(wide).widest()


def test_atoms_that_would_just_touch_are_kept_apart() -> None:
    calcium = half_steps(atomic_radius("Ca"))
    clearance = Clearance((60, 60, 60, 90, 90, 120), ((21, 22, 93, calcium),), 0, (21, 22)).of("Ca", calcium)
    assert 93 - 30 not in clearance.free()
    assert 93 - 31 in clearance.free()


def test_a_full_cell_ends_and_one_too_small_for_any_atom_has_one() -> None:
    rng = np.random.default_rng(0)
    assert len(crowded(CrystalGrammar(20, ("Si",), None, 0.9), "1.0 1.0 1.0", rng).species) < 4
    assert len(crowded(CrystalGrammar(20, ("Cs",), None, 0.0, radii=0.5), "1.0 1.0 1.0", rng).species) == 1


def test_a_formula_is_kept_where_there_is_no_room_for_it_and_no_further_unit_begun() -> None:
    grammar = BulkTask().grammar(20, formula="Cs2O", radii=0.75)
    crystal = crowded(grammar, "1.0 1.0 1.0", np.random.default_rng(0))
    assert sorted(crystal.species) == ["Cs", "Cs", "O"]
    assert not radii_apart(crystal)


@pytest.mark.parametrize("formula", ["Cs2O", "TiO2"])
def test_the_cell_of_a_formula_has_its_volume_where_the_lengths_admit_it(formula: str) -> None:
    grammar, rng = BulkTask().grammar(20, formula=formula, radii=0.75), np.random.default_rng(1)
    composition = dict(grammar.composition or ())
    spheres = sum(n * 4 / 3 * np.pi * (0.75 * atomic_radius(element)) ** 3 for element, n in composition.items())
    filled = []
    for _ in range(20):
        crystal = crowded(grammar, f"{rng.choice(['1.0', '3.0', '5.5'])} {rng.choice(['1.5', '4.0'])}", rng)
        a, b, _ = crystal.lengths
        volume = float(np.prod(crystal.lengths)) * volume_fraction(crystal.angles)
        units = len(crystal.species) / sum(composition.values())
        if 0.9 * a * b * 99 > spheres / 0.42:
            filled.append(units * spheres / volume)
    assert max(filled) <= 0.42
    assert len(filled) >= 10


def test_a_formula_unit_is_begun_only_where_there_is_room_for_it() -> None:
    rng = np.random.default_rng(6)
    grammar = CrystalGrammar(20, ("Na", "Cl"), (("Na", 1), ("Cl", 1)), 0.5, radii=0.75)
    crystals = [crowded(grammar, "4.5 4.5 4.5", rng) for _ in range(20)]
    assert sum(radii_apart(crystal, 0.75) for crystal in crystals) >= 3
    assert {crystal.formula for crystal in crystals} == {"NaCl"}
