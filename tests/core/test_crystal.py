"""The type of a bulk crystal: exact both ways with pymatgen, and nothing impossible gets in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import DummySpecies, Element, Lattice, Structure

from defectgen.core.crystal import ELEMENTS, Crystal, volume_fraction, wrap
from defectgen.errors import DefectgenError

ROCKSALT = Crystal((4.2, 4.2, 4.2), (60.0, 60.0, 60.0), ("Na", "Cl"), ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))


def test_the_elements_are_those_of_the_periodic_table() -> None:
    assert tuple(Element.from_Z(z).symbol for z in range(1, 119)) == ELEMENTS


def test_pymatgen_and_back_keeps_order_and_volume() -> None:
    structure = Structure(Lattice.hexagonal(3.2, 5.1), ["Zn", "O", "Zn", "O"], np.linspace(0, 0.9, 12).reshape(4, 3))
    crystal = Crystal.from_structure(structure)
    assert crystal.species == ("Zn", "O", "Zn", "O")
    assert crystal.volume == pytest.approx(structure.volume)
    assert crystal.formula == "ZnO"
    again = crystal.to_structure()
    assert again.distance_matrix == pytest.approx(structure.distance_matrix)
    charged = structure.copy()
    charged.add_oxidation_state_by_element({"Zn": 2, "O": -2})
    assert Crystal.from_structure(charged) == crystal


def test_mixed_sites_are_refused() -> None:
    mixed = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(DefectgenError, match="mixed occupation"):
        Crystal.from_structure(mixed)
    with pytest.raises(DefectgenError, match="expected symbols of elements"):
        Crystal.from_structure(Structure(Lattice.cubic(3), [DummySpecies("Xa")], [[0, 0, 0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": ("Ln", "Cl")}, "got Ln"),
        ({"species": ("Na",)}, "1 species and 2 positions"),
        ({"species": (), "fractional": ()}, "at least one"),
        ({"lengths": (0.0, 1.0, 1.0)}, "more than 0 angstrom"),
        ({"angles": (30.0, 30.0, 90.0)}, "enclose a volume"),
        ({"angles": (90.0, 90.0, 180.0)}, "enclose a volume"),
        ({"lengths": (math.nan, 1.0, 1.0)}, "not finite"),
    ],
)
def test_impossible_crystals_are_refused(change: dict[str, object], message: str) -> None:
    values = {"lengths": ROCKSALT.lengths, "angles": ROCKSALT.angles}
    values |= {"species": ROCKSALT.species, "fractional": ROCKSALT.fractional} | change
    with pytest.raises(ValueError, match=message):
        Crystal(**values)


@given(st.tuples(*[st.floats(-3, 3)] * 3))
def test_translation_wraps_and_keeps_distances(shift: tuple[float, float, float]) -> None:
    moved = ROCKSALT.translated(shift)
    assert all(0 <= x < 1 for xyz in moved.fractional for x in xyz)
    assert moved.to_structure().get_distance(0, 1) == pytest.approx(ROCKSALT.to_structure().get_distance(0, 1))
    assert (moved.species, moved.lengths) == (ROCKSALT.species, ROCKSALT.lengths)


def test_wrapping_never_gives_one() -> None:
    assert wrap(-1e-18) == 0.0
    assert wrap(1.0) == 0.0
    assert wrap(-0.25) == 0.75


def test_volume_fraction_of_known_cells() -> None:
    assert volume_fraction((90, 90, 90)) == pytest.approx(1)
    assert volume_fraction((90, 90, 120)) == pytest.approx(math.sqrt(3) / 2)
    assert volume_fraction((60, 60, 60)) == pytest.approx(1 / math.sqrt(2))
    assert volume_fraction((120, 120, 120)) == pytest.approx(0, abs=1e-6)


def test_substitution_takes_the_whole_symbol() -> None:
    crystal = Crystal((5.0,) * 3, (90.0,) * 3, ("S", "Si", "Se"), ((0.0,) * 3, (0.3,) * 3, (0.6,) * 3))
    assert crystal.substituted("S", "Te").species == ("Te", "Si", "Se")
    assert crystal.elements == ("Si", "S", "Se")
