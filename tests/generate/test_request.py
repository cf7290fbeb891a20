"""What a user asks of a model of bulk crystals, before any model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from defectgen.errors import UsageError
from defectgen.generate.crystal_request import CrystalRequest, trained_elements
from defectgen.generate.sampling import MAX_ATOMS, RADII_SHARE
from defectgen.llm.adapter import AdapterCard
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS

CARD = AdapterCard("base", "bulk", 1, (), {}, {}, {"max_atoms": 6, "elements": ["Cl", "Na"]})
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def salt(tmp_path: Path) -> Path:
    SALT.get_primitive_structure().to(tmp_path / "licl.cif")
    return tmp_path / "licl.cif"


def test_an_adapter_decides_what_the_user_leaves_open() -> None:
    request = CrystalRequest({"formula": "NaCl", "band_gap": None})
    assert request.stated == {"formula": "NaCl"}
    for card, elements, most in ((CARD, ("Cl", "Na"), 6), (None, MP_ELEMENTS, MAX_ATOMS)):
        job = request.job(card)
        assert (job.elements, job.max_atoms, dict(job.composition or {})) == (elements, most, {"Na": 1, "Cl": 1})
    asked = CrystalRequest({}, elements=("Li", "F"), max_atoms=3).job(CARD)
    assert (asked.elements, asked.max_atoms) == (("Li", "F"), 3)
    assert (trained_elements(CARD), trained_elements(None)) == (("Cl", "Na"), ())


def test_a_crystal_is_mutated_within_the_trained_elements(salt: Path) -> None:
    job = CrystalRequest({}, infill=salt, mask="Li", any_element=True).job(CARD)
    assert (job.task, job.elements, job.masked) == ("infill", ("Cl", "Na"), "Li")
    with pytest.raises(UsageError, match="needs --mask, one of Li, Cl"):
        CrystalRequest({}, infill=salt).job(CARD)


@pytest.mark.parametrize(
    ("settings", "n_checks"),
    [({}, 2), ({"radii": 0.0}, 1), ({"neutral": True}, 3), ({"infill": Path("x.cif"), "mask": "Li"}, 1)],
)
def test_the_checks_are_those_asked_for(settings: dict[str, Any], n_checks: int) -> None:
    assert len(CrystalRequest({}, **settings).checks()) == n_checks


def test_mutations_keep_the_distances_of_their_crystal() -> None:
    assert CrystalRequest({}).radii_share == RADII_SHARE
    assert CrystalRequest({}, infill=Path("x.cif"), mask="Li").radii_share == 0
    assert CrystalRequest({}, infill=Path("x.cif"), mask="Li", radii=0.6).radii_share == 0.6


@pytest.mark.parametrize(
    ("conditions", "settings", "message"),
    [
        ({}, {"mask": "Li"}, "go with --infill FILE"),
        ({"formula": "NaCl"}, {"infill": Path("x.cif"), "max_atoms": 2}, "got --infill and formula, max_atoms"),
        ({}, {"free": True, "engine": "vllm"}, "got --free with --engine vllm"),
        ({"band_gap": None}, {"guidance": 2.0}, "--guidance stresses conditions. State one"),
        ({"band_gap": 1.0}, {"guidance": 2.0, "free": True}, "leave out --free"),
        ({"formula": "NaCl"}, {"balance": 5.0}, "which the formula decides already"),
        ({"band_gap": 1.0}, {"guidance": 2.0, "engine": "vllm"}, "got --guidance with --engine vllm"),
    ],
)
def test_parts_that_do_not_go_together(conditions: dict[str, object], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CrystalRequest(conditions, **settings)
