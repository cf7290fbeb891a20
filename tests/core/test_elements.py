"""The table of elements that may be swapped: the rule of the paper, checked on the radii themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pymatgen.core import Element

from defectgen.core.elements import RADIUS_TOLERANCE_ANGSTROM, swap_candidates, swap_table


def test_each_swap_has_a_similar_radius_in_the_same_state() -> None:
    table = swap_table()
    assert len(table) > 60
    for symbol, states in table.items():
        for state, others in states.items():
            radius = Element(symbol).ionic_radii[state]
            differences = [abs(radius - Element(other).ionic_radii[state]) for other in others]
            assert max(differences) < RADIUS_TOLERANCE_ANGSTROM + 1e-9
            assert all(b > a - 1e-9 for a, b in pairwise(differences)), "the nearest radius comes first"
            assert symbol not in others
            assert len(set(others)) == len(others)


def test_no_pair_within_the_tolerance_is_missing() -> None:
    """The listing of the paper, word for word, finds the same pairs but for those at 0.1 angstrom sharp."""
    elements = list(Element)
    for element in elements:
        listed = {
            (other.symbol, state)
            for state, radius in element.ionic_radii.items()
            for other in elements
            if state in other.ionic_radii
            and abs(radius - other.ionic_radii[state]) < 0.1
            and other.symbol != element.symbol
        }
        ours = {(o, state) for state, others in swap_table().get(element.symbol, {}).items() for o in others}
        assert ours <= listed
        for other, state in listed - ours:
            assert abs(element.ionic_radii[state] - Element(other).ionic_radii[state]) == pytest.approx(0.1, abs=1e-9)


def test_the_relation_is_symmetric() -> None:
    table = swap_table()
    assert len(table) > 50
    for symbol, states in table.items():
        for state, others in states.items():
            assert all(symbol in table[other][state] for other in others)


def test_chemistry_that_everyone_knows() -> None:
    table = swap_table()
    assert "Hf" in table["Zr"][4]
    assert {"Cu", "Zn", "Co"} <= set(table["Mg"][2])
    assert table["Zn"][2][0] == "Co", "0.885 and 0.88 angstrom"
    assert swap_candidates("Na") == (), "Ag+ is 0.13 angstrom larger, Li+ 0.26 smaller"
    assert swap_candidates("O") == swap_candidates("F") == ()
    assert dict(table["S"]) == {4: ("Si",)}, "Se2- is 0.14 angstrom larger than S2-: only cations can be swapped"
    assert swap_candidates("Zr") == tuple(sorted(swap_candidates("Zr")))


def test_a_tighter_tolerance_gives_a_part_of_the_table() -> None:
    narrow = swap_table(0.03)
    for symbol, states in narrow.items():
        for state, others in states.items():
            assert set(others) <= set(swap_table()[symbol][state])
    assert sum(len(o) for s in narrow.values() for o in s.values()) < sum(
        len(o) for s in swap_table().values() for o in s.values()
    )
