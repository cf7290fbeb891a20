"""Compositions that oxidation states can make neutral."""

from __future__ import annotations

import pytest

from defectgen.core.charge import balanced, electronegativity, oxidation_states


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((("Na", 1), ("Cl", 1)), True),
        ((("Na", 1), ("Cl", 2)), False),
        ((("O", 4), ("Li", 1), ("Fe", 1), ("P", 1)), True),
        ((("Li", 1), ("Fe", 1), ("P", 1), ("O", 7)), False),
        ((("Fe", 3), ("O", 4)), False),  # iron has one state in all places, as in SMACT's rule
        ((("C", 1), ("O", 2)), True),
        ((("Na", 2),), None),
        ((("Cu", 3), ("Au", 1)), None),
        ((("Na", 1), ("Ne", 1)), False),
    ],
)
def test_rules(counts: tuple[tuple[str, int], ...], verdict: bool | None) -> None:
    assert balanced(counts) is verdict
    assert balanced(tuple(reversed(counts))) is verdict


def test_an_anion_is_the_more_electronegative() -> None:
    """Nitrogen has positive states, chlorine too: only the sign that goes with the electronegativity counts."""
    assert oxidation_states("Cl")[0] == -1
    assert max(oxidation_states("Cl")) > 1
    assert not balanced((("Na", 7), ("Cl", 1))), "Na has no negative state, and Cl of +7 would need one"
    assert electronegativity("Ne") == 0.0
