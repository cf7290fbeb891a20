"""Compositions as tables: the tokens that cursors allow, samples that parse, and their likelihoods."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
from composition_tables import CompositionTables
from passes import Losses
from plain_llama import PlainLlama
from sampler import Sampler

from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.llm.decode.tensor_grammar import PAD
from defectgen.llm.decode.token_grammar import Cursor, TokenGrammar
from defectgen.tasks.defect.composition_grammar import CompositionGrammar
from defectgen.tasks.defect.encodings import get_encoding

FORM = get_encoding("composition")
GRAMMARS = (
    FORM.grammar(get_host("MoS2"), 24, min_defects=4),
    FORM.grammar(get_host("MoS2", (2, 2)), 4, min_defects=4),
    FORM.grammar(get_host("BN", (3, 2)), 6, min_defects=0),
    FORM.grammar(get_host("WSe2"), 12, min_defects=11, kinds=("vacancy",)),
    FORM.grammar(get_host("P"), 9, min_defects=3),
)


@pytest.fixture(scope="module")
def tables(tiny_generator: Any) -> CompositionTables:
    assert all(isinstance(grammar, CompositionGrammar) for grammar in GRAMMARS)
    return CompositionTables.of(GRAMMARS, tiny_generator.tokenizer)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", range(len(GRAMMARS)))
def test_they_allow_what_cursors_allow(tiny_generator: Any, tables: CompositionTables, index: int) -> None:
    compiled = TokenGrammar(GRAMMARS[index], tiny_generator.tokenizer)
    rng = np.random.default_rng(index)
    for _ in range(8):
        cursor, places = Cursor(compiled, compiled.grammar.start), tables.start(torch.tensor([index]))
        made = []
        while not cursor.finished:
            columns, allowed = tables.allowed(places)
            tokens = tables.tokens[columns[allowed]].tolist()
            assert sorted(tokens) == sorted(cursor.allowed)
            token = int(rng.choice(tokens))
            slot = (allowed & (tables.tokens[columns] == token)).int().argmax(dim=1)
            cursor.step(token)
            places, edit = tables.advance(places, slot)
            if int(edit) >= 0:
                made.append(tables.edits[int(edit)])
        assert bool(places.ended)
        configuration = Configuration(GRAMMARS[index].host, tuple(sorted(made)))
        assert FORM.completion(configuration) == cursor.text
        assert FORM.parse(configuration.host, cursor.text) == configuration


def test_samples_are_in_range_and_their_likelihoods_are_those_of_training(tiny_generator: Any) -> None:
    chosen = [GRAMMARS[0], GRAMMARS[4]]
    tables = CompositionTables.of(chosen, tiny_generator.tokenizer)  # type: ignore[arg-type]
    plain = PlainLlama(tiny_generator.model, tables.tokens, 4, 8.0)
    kinds = [0, 1, 0, 1]
    texts = [FORM.prompt(chosen[k].host, {"homo_ev": 0.1}) for k in kinds]
    prompts = tiny_generator.tokenizer(texts).input_ids
    found = Sampler(plain, tables, tiny_generator.tokenizer, 4, 60).sample(prompts, kinds, 1.0, 3)
    for edits, kind in zip(found.edits, kinds, strict=True):
        assert chosen[kind].min_defects <= len(edits) <= chosen[kind].max_defects
        assert Configuration(chosen[kind].host, edits).follows_rules()
    completions = [[token for token in row if token != PAD] for row in found.tokens.tolist()]
    again = Losses(plain, tables, 160, 600).backward(prompts, kinds, completions, np.ones(4))
    assert np.abs(again.numpy() - found.log_likelihood).max() < 1e-3


def test_hosts_without_room_are_refused(tiny_generator: Any) -> None:
    small = FORM.grammar(get_host("MoS2", (2, 2)), 5)
    with pytest.raises(DefectgenError, match="got 5 defects, expected at most 4"):
        CompositionTables.of([small], tiny_generator.tokenizer)  # type: ignore[list-item]
