"""Prompts of the published code of Gruver et al.: their words, their draws, and adapters that carry their name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from tiny_model import tiny_tokenizer

from defectgen.core.crystal import Crystal
from defectgen.errors import UsageError
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_text import write_crystal, write_generation_prompt, write_infill_prompt
from defectgen.tasks.bulk.prompts import GRUVER, OURS, prompt_style

QUARTZ = Crystal(
    (4.97, 4.97, 5.458),
    (90.0, 89.9999999, 119.7),
    ("Si", "O", "O"),
    ((0.25, 0.0, 0.998), (0.5, 0.5, 0.123), (0.125, 0.75, 0.25)),
)
LABELS = {"formula": "SiO2", "spacegroup": 152, "e_above_hull": 0.0, "band_gap": 5.69781, "formation_energy": -3.27}


def test_sentences_are_those_of_their_code():
    """``llama_finetune.py``: the formula first, values to four decimals without trailing zeros."""
    values = {"spacegroup": 152, "band_gap": 5.69781, "formula": "O2Si", "formation_energy": -3.27, "e_above_hull": 0.0}
    assert write_generation_prompt(values, GRUVER) == (
        "Below is a description of a bulk material. The chemical formula is SiO2. The spacegroup number is 152. "
        "The band gap is 5.6978. The formation energy per atom is -3.27. The energy above the convex hull is 0.0. "
        "Generate a description of the lengths and angles of the lattice vectors and then the element type and "
        "coordinates for each atom within the lattice:\n"
    )
    assert write_generation_prompt({}, GRUVER) == write_generation_prompt({}, OURS)


def test_angles_are_cut_as_there_and_rounded_as_here():
    assert write_crystal(QUARTZ, GRUVER).split("\n")[:2] == ["5.0 5.0 5.5", "90 90 119"]
    assert write_crystal(QUARTZ, OURS).split("\n")[1] == "90 90 120"
    assert "\n90 90 119\n[MASK]\n" in write_infill_prompt(QUARTZ, "Si", GRUVER)


def test_their_draws():
    """No condition in a fifth of the generations, no other without the formula; masks by atoms, ended by the end."""
    task, rng = BulkTask(GRUVER), np.random.default_rng(0)
    records = [task.record(QUARTZ, LABELS, rng) for _ in range(3000)]
    infill = [record for record in records if record.task == "infill"]
    assert len(infill) / 3000 == pytest.approx(0.34, abs=0.03)
    masked = Counter(record.completion for record in infill)
    assert set(masked) == {"Si", "O"}
    assert masked["O"] / len(infill) == pytest.approx(2 / 3, abs=0.05)
    asked = [list(record.conditions) for record in records if record.task == "generation"]
    sizes = Counter(map(len, asked))
    assert set(sizes) == {0, 2, 3, 4, 5}
    assert all(abs(n / len(asked) - 0.2) < 0.04 for n in sizes.values())
    assert all(keys[:1] in ([], ["formula"]) for keys in asked)
    assert len({tuple(keys) for keys in asked if len(keys) == 5}) == 24, "the others in any order"


def test_an_element_without_a_line_break_is_told_from_a_longer_one():
    """C is the beginning of Cd and Co; with the end after it, each can be written and nothing else."""
    grammar = BulkTask(GRUVER).infill_grammar(("C", "Cd", "Co", "N"))
    compiled = TokenGrammar(grammar, tiny_tokenizer())
    found, unfinished = [], [compiled.start()]
    while unfinished:
        cursor = unfinished.pop()
        done = list(cursor.pending)
        for token in cursor.allowed:
            other = compiled.start()
            for step in [*done, token]:
                other.step(step)
            other.run_forced()
            (found if other.finished else unfinished).append(other)
    assert sorted(cursor.text for cursor in found) == ["C", "Cd", "Co", "N"]
    assert BulkTask(GRUVER).parse("infill", "Cd", QUARTZ, "Si").species == ("Cd", "O", "O")


def test_styles_have_names():
    assert prompt_style("gruver2024") is GRUVER
    with pytest.raises(UsageError, match=re.escape("unknown prompts 'llama'. Expected one of: defectgen, gruver2024.")):
        prompt_style("llama")
