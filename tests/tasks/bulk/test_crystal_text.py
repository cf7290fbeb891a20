"""Crystals as text: golden strings and prompts, round trips, and texts that are no crystal."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.core.crystal import ELEMENTS, Crystal, volume_fraction
from defectgen.errors import UsageError
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_text import (
    parse_crystal,
    parse_element,
    parse_formula,
    write_crystal,
    write_element,
    write_generation_prompt,
    write_infill_prompt,
)
from defectgen.tasks.parsing import ParseError

SILICON_SULFIDE = Crystal(
    (10.04, 5.66, 5.551),
    (90.0, 89.6, 120.4),
    ("S", "Si", "S"),
    ((0.0, 0.25, 0.998), (0.5, 0.5, 0.123), (0.125, 0.75, 0.004)),
)
STRING = "10.0 5.7 5.6\n90 90 120\nS\n0.00 0.25 0.00\nSi\n0.50 0.50 0.12\nS\n0.12 0.75 0.00"


def test_the_string_is_the_papers() -> None:
    assert write_crystal(SILICON_SULFIDE) == STRING
    assert write_crystal(parse_crystal(STRING)) == STRING


def test_the_unconditional_prompt() -> None:
    assert write_generation_prompt({}) == (
        "Below is a description of a bulk material. Generate a description of the lengths and angles of the lattice "
        "vectors and then the element type and coordinates for each atom within the lattice:\n"
    )


def test_conditions_are_written_in_one_order() -> None:
    values = {"band_gap": 0.51234, "formula": "O2Si", "formation_energy": -3.0, "spacegroup": 152, "e_above_hull": -0.0}
    assert write_generation_prompt(values) == (
        "Below is a description of a bulk material. The chemical formula is SiO2. The space group number is 152. "
        "The energy above the convex hull is 0.000 eV per atom. The band gap is 0.512 eV. "
        "The formation energy is -3.000 eV per atom. Generate a description of the lengths and angles of the lattice "
        "vectors and then the element type and coordinates for each atom within the lattice:\n"
    )
    assert write_generation_prompt({"band_gap": None, "formula": "Si3O6"}).count("SiO2") == 1


def test_masking_goes_by_species_not_by_letters() -> None:
    assert write_infill_prompt(SILICON_SULFIDE, "S") == (
        "Below is a partial description of a bulk material where one element has been replaced with the string "
        '"[MASK]":\n10.0 5.7 5.6\n90 90 120\n[MASK]\n0.00 0.25 0.00\nSi\n0.50 0.50 0.12\n[MASK]\n0.12 0.75 0.00\n'
        "Generate an element that could replace [MASK] in the bulk material:\n"
    )
    with pytest.raises(UsageError, match="got element 'Se' to mask, expected one of the crystal: Si, S"):
        write_infill_prompt(SILICON_SULFIDE, "Se")


def test_an_infill_completion_fills_every_mask() -> None:
    task = BulkTask()
    record = task.infill_record(SILICON_SULFIDE, "S")
    assert record.completion == "S\n" == write_element("S")
    assert task.parse("infill", record.completion, SILICON_SULFIDE, "S") == SILICON_SULFIDE
    assert task.parse("infill", "Te\n", SILICON_SULFIDE, "S").species == ("Te", "Si", "Te")
    for text in ("", "Ln", "S Si", "D"):
        with pytest.raises(ParseError):
            parse_element(text)


@st.composite
def crystals(draw: st.DrawFn) -> Crystal:
    n = draw(st.integers(1, 20))
    angles = draw(
        st.tuples(*[st.floats(20, 160)] * 3)
        .map(lambda three: tuple(float(round(x)) for x in three))
        .filter(lambda three: volume_fraction(three) > 0.02)
    )
    coordinate = st.floats(0, 1, exclude_max=True)
    return Crystal(
        draw(st.tuples(*[st.floats(1, 99)] * 3)),
        angles,
        tuple(draw(st.lists(st.sampled_from(ELEMENTS), min_size=n, max_size=n))),
        tuple(draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=n, max_size=n))),
    )


@given(crystals())
@settings(deadline=None)
def test_round_trip_is_exact_in_text_and_near_in_numbers(crystal: Crystal) -> None:
    text = write_crystal(crystal)
    again = parse_crystal(text)
    assert write_crystal(again) == text
    assert again.species == crystal.species
    assert again.lengths == pytest.approx(crystal.lengths, abs=0.0501)
    assert again.angles == crystal.angles
    for old, new in zip(crystal.fractional, again.fractional, strict=True):
        for x, y in zip(old, new, strict=True):
            assert abs((x - y + 0.5) % 1 - 0.5) <= 0.00501
            assert 0 <= y < 1


@given(st.text(alphabet="0123456789. \nSiOLnMet-+e", max_size=120))
def test_any_text_is_a_crystal_or_a_parse_error(text: str) -> None:
    try:
        crystal = parse_crystal(text)
    except ParseError:
        return
    assert crystal.volume > 0


@given(st.integers(0, len(STRING) - 1), st.characters())
def test_a_changed_letter_is_noticed_or_makes_another_crystal(place: int, letter: str) -> None:
    changed = STRING[:place] + letter + STRING[place + 1 :]
    try:
        crystal = parse_crystal(changed)
    except ParseError:
        return
    assert crystal.species[1] in ELEMENTS
    assert len(crystal.species) == 3
    assert all(math.isfinite(x) and 0 <= x < 1 for xyz in crystal.fractional for x in xyz)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 lines"),
        ("4.0 4.0 4.0\n90 90 90", "2 lines"),
        (STRING.replace("Si", "Ln"), "'Ln' is no element"),
        (STRING.replace("Si", "Met8"), "'Met8' is no element"),
        (STRING.replace("Si", "si"), "'si' is no element"),
        (STRING.replace("10.0 5.7", "10.0 5.7 1.0"), "expected three lengths"),
        (STRING.replace("10.0 ", "-10.0 "), "expected three lengths"),
        (STRING.replace("10.0 ", "1e9 "), "expected three lengths"),
        (STRING.replace("0.50 0.50", "0.50 \u0665"), "expected three coordinates"),
        (STRING.replace("0.50 0.50", "0.50 1.50"), "from 0 to 1"),
        (STRING.replace("90 90 120", "90 30 121"), "enclose a volume"),
        (STRING.replace("10.0", "0.0"), "more than 0 angstrom"),
        (STRING + "\nO", "9 lines"),
    ],
)
def test_why_a_text_is_no_crystal(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_crystal(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"formula": "Met8"}, "got formula 'Met8'"),
        ({"formula": "LnO"}, "got formula"),
        ({"formula": "D2O"}, "got formula"),
        ({"formula": ""}, "got formula"),
        ({"formula": "NaCl0"}, "got formula"),
        ({"formula": "Fe0.5O"}, "got formula"),
        ({"formula": "H2("}, "got formula"),
        ({"spacegroup": 300}, "got space group 300, expected a number from 1 to 230"),
        ({"spacegroup": 0}, "space group 0"),
        ({"e_above_hull": -0.1}, "got e_above_hull -0.1, expected 0 or more"),
        ({"band_gap": -1.0}, "expected 0 or more"),
        ({"band_gap": float("nan")}, "expected 0 or more"),
        ({"formation_energy": float("inf")}, "expected a finite number"),
        ({"colour": "blue"}, "unknown condition 'colour'"),
    ],
)
def test_impossible_conditions_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_generation_prompt(values)


def test_formulas_are_reduced() -> None:
    assert parse_formula("Ca3(PO4)2") == {"Ca": 3, "P": 2, "O": 8}
    assert parse_formula("O2") == {"O": 1}
    assert parse_formula("Fe4O6") == {"Fe": 2, "O": 3}


def test_records_draw_both_tasks_and_every_number_of_conditions() -> None:
    import numpy as np

    task, rng = BulkTask(), np.random.default_rng(0)
    available = {"formula": "SiS2", "spacegroup": 1, "band_gap": 1.0, "e_above_hull": None}
    records = [task.record(SILICON_SULFIDE, available, rng) for _ in range(600)]
    infill = [r for r in records if r.task == "infill"]
    assert len(infill) / 600 == pytest.approx(1 / 3, abs=0.06)
    assert {r.completion for r in infill} == {"S\n", "Si\n"}
    sizes = [len(r.conditions) for r in records if r.task == "generation"]
    for size in range(4):
        assert sizes.count(size) / len(sizes) == pytest.approx(1 / 4, abs=0.07)
    for record in records[:50]:
        assert record.crystal.species == SILICON_SULFIDE.species
        if record.task == "generation":
            assert record.completion == write_crystal(record.crystal)
            assert record.prompt == write_generation_prompt(record.conditions)
    assert len({r.crystal.fractional for r in records}) == 600
    fixed = BulkTask(translate=False)
    assert fixed.record(SILICON_SULFIDE, available, np.random.default_rng(1)).crystal == SILICON_SULFIDE
