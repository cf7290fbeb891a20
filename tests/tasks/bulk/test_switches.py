"""The switches of appendix A of Gruver et al.: order of the atoms, positions in angstrom, tokens of crystals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer

from defectgen.core.crystal import Crystal
from defectgen.llm.crystal_tokens import TOKENS, add_crystal_tokens
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_text import parse_crystal, write_crystal, write_infill_prompt
from defectgen.tasks.bulk.prompts import GRUVER, OURS, prompt_style
from defectgen.tasks.parsing import ParseError

ANGSTROM = prompt_style("defectgen", absolute=True)
HEXAGONAL = Crystal((4.0, 4.0, 6.0), (90.0, 90.0, 120.0), ("Zn", "O"), ((0.0, 0.0, 0.0), (1 / 3, 2 / 3, 0.5)))


def test_positions_in_angstrom_are_along_x_y_z() -> None:
    assert write_crystal(HEXAGONAL, ANGSTROM) == "4.0 4.0 6.0\n90 90 120\nZn\n0.00 0.00 0.00\nO\n0.00 2.31 3.00"
    prompt = write_infill_prompt(HEXAGONAL, "Zn", ANGSTROM)
    assert "[MASK]\n0.00 0.00 0.00\nO\n0.00 2.31 3.00\n" in prompt
    assert (ANGSTROM.options, GRUVER.options) == ("--prompts defectgen --absolute", "--prompts gruver2024")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 0.9999)] * 3), min_size=1, max_size=6),
    st.tuples(*[st.floats(2.0, 20.0)] * 3),
    st.tuples(*[st.floats(60.0, 115.0)] * 3),
)
def test_positions_in_angstrom_read_back(places: list, lengths: tuple, angles: tuple) -> None:
    crystal = Crystal(lengths, angles, ("Fe",) * len(places), tuple(places))
    read = parse_crystal(write_crystal(crystal, ANGSTROM), ANGSTROM)
    cell = read.to_structure().lattice
    for x, y in zip(crystal.fractional, read.fractional, strict=True):
        assert cell.get_all_distances([x], [y])[0, 0] <= 0.005 * np.sqrt(3) + 1e-6  # half of the last digit


def test_a_place_outside_of_the_cell_is_its_image() -> None:
    text = "4.0 4.0 4.0\n90 90 90\nNa\n-1.00 5.00 0.00"
    assert parse_crystal(text, ANGSTROM).fractional[0] == pytest.approx((0.75, 0.25, 0.0))
    with pytest.raises(ParseError, match="expected three coordinates"):
        parse_crystal(text)
    with pytest.raises(ParseError, match="enclose no volume"):
        parse_crystal("4.0 4.0 4.0\n90 90 0\nNa\n1.00 1.00 1.00", ANGSTROM)


def test_permuted_records_hold_the_same_crystal_in_other_orders() -> None:
    crystal = Crystal((9.0,) * 3, (90.0,) * 3, ("C", "P", "O", "H", "N"), tuple((k / 7,) * 3 for k in range(5)))
    rng = np.random.default_rng(3)
    task = BulkTask(dataclasses.replace(OURS, infill_share=0.0), permute=True)
    shown = [parse_crystal(task.record(crystal, {}, rng).completion) for _ in range(12)]
    assert len({item.species for item in shown}) > 8
    for item in shown:
        first = item.species.index(crystal.species[0])
        moved = [
            (item.fractional[item.species.index(s)][0] - item.fractional[first][0] - k / 7) % 1
            for k, s in enumerate(crystal.species)
        ]
        assert all(min(x, 1 - x) < 0.021 for x in moved), "each element keeps its place beside the others"
    plain = BulkTask(dataclasses.replace(OURS, infill_share=0.0))
    assert parse_crystal(plain.record(crystal, {}, rng).completion).species == crystal.species


def test_tokens_of_crystals_are_whole_words() -> None:
    plain, tokenizer = tiny_tokenizer(), tiny_tokenizer()
    add_crystal_tokens(tokenizer)
    assert len(plain) + 170 < len(tokenizer) <= len(plain) + len(TOKENS), "what is a token already stays that token"
    assert len(TOKENS) == 189
    text = "4.0 4.0 6.0\n90 90 120\nZn\n0.00 0.37 0.99"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(ids) < len(plain(text).input_ids) - 9
    for same in ("10.500 Indeed, SrTiO3 of Below", "0.555"):
        assert tokenizer(same).input_ids == plain(same).input_ids
