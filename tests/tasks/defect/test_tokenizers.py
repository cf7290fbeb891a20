"""How the tokenizers of SmolLM2, Llama, Gemma and Mistral split what the prompts are made of."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectgen.core import get_host
from defectgen.tasks.defect.encodings import get_encoding
from defectgen.tasks.numbers import format_number

VARIABLE = "DEFECTGEN_TOKENIZERS"
SPLITS = {"smollm2": r"\d", "llama2": r"\d", "llama3": r"\d{1,3}", "gemma": r"\d", "mistral": r"\d"}
"""The pieces into which each tokenizer cuts a run of digits, from the left."""


def tokenizer_file(name: str) -> Path:
    if name == "smollm2":
        from defectgen.data.assets import asset_path
        from defectgen.errors import DefectgenError

        try:
            folder = asset_path("smollm2-135m")
        except DefectgenError as error:
            pytest.skip(f"tokenizer of SmolLM2 left out: {error}")
        found = sorted(folder.rglob("tokenizer.json"))
        if not found:
            pytest.skip("tokenizer of SmolLM2 left out: the base model has not been converted yet")
        return found[0]
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        pytest.skip(f"{VARIABLE} is not set: tokenizer of {name} left out (docs/task.md says where it comes from)")
    return Path(folder) / name / "tokenizer.json"


@cache
def tokenizer(name: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_file(name)))


def pieces(name: str, text: str) -> list[str]:
    encoded = tokenizer(name).encode(text, add_special_tokens=False)
    return [text[a:b] for a, b in encoded.offsets if b > a]


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_numbers_are_cut_in_the_way_that_their_decimals_expect(name: str, decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for value in rng.uniform(-70, 70, size=200):
        text = f"HOMO {format_number(float(value), decimals)}:"
        digits = [piece.strip() for piece in pieces(name, text) if re.search(r"\d", piece)]
        expected = [cut for run in re.findall(r"\d+", text) for cut in re.findall(SPLITS[name], run)]
        assert digits == expected, text


@pytest.mark.parametrize("name", SPLITS)
def test_every_line_of_sites_costs_the_same_number_of_tokens(name: str) -> None:
    """So a site is at the same place in every prompt of a host, whatever the wording."""
    lines = [x for x in get_encoding("crystal").prompt(get_host("MoS2"), {}).splitlines() if x.startswith("[MASK] 0.")]
    assert len({len(pieces(name, line)) for line in lines}) == 1
