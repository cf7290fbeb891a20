"""What a model says of other pieces: what it says of whole completions, and all of it together one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.llm.alternatives import EditPlaces, piece_log_probabilities
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.grammar import END

HOST, TASK = get_host("MoS2", (3, 3)), DefectTask()
PROMPT = TASK.prompt(HOST, {"homo_ev": 0.3, "lumo_ev": 1.1})
GRAMMAR = TASK.grammar(HOST, 5, min_defects=0)
EDITS = [(1, "W"), (9, "VAC"), (12, "Se"), (20, "VAC")]


def places(number: int) -> EditPlaces:
    """So many edits; everything that may stand in each place."""
    state, pieces, wanted = GRAMMAR.start, [], []
    for site, species in EDITS[:number]:
        wanted.append(tuple(GRAMMAR.choices(state)))
        pieces.append(f" {species} {HOST.site_name(site)}")
        state = GRAMMAR.choices(state)[pieces[-1]]
    return EditPlaces(PROMPT, tuple(pieces), (*wanted, tuple(GRAMMAR.choices(state))))


def test_they_make_up_the_likelihood_of_completions(tiny_generator: Any) -> None:
    model, tokenizer = tiny_generator.model, tiny_generator.tokenizer
    asked = [places(number) for number in (4, 0, 2)]
    found = list(piece_log_probabilities(model, TokenGrammar(GRAMMAR, tokenizer), asked, batch_size=2))
    for one, judged in zip(asked, found, strict=True):
        for values in judged:
            assert np.exp(values).sum() == pytest.approx(1, abs=1e-9), "one of all that may stand there comes"
        chosen = [
            values[wanted.index(piece)]
            for values, wanted, piece in zip(judged, one.wanted, (*one.pieces, END), strict=True)
        ]
        [whole] = log_likelihoods(model, tokenizer, [Text(PROMPT, "".join(one.pieces), GRAMMAR)])
        assert sum(chosen) == pytest.approx(whole.nats, abs=1e-3)


def test_a_place_knows_nothing_of_what_comes_after_it(tiny_generator: Any) -> None:
    grammar = TokenGrammar(GRAMMAR, tiny_generator.tokenizer)
    long, short = piece_log_probabilities(tiny_generator.model, grammar, [places(4), places(2)])
    for one, other in zip(long[:3], short, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_what_the_grammar_forbids_has_no_probability(tiny_generator: Any) -> None:
    grammar = TokenGrammar(GRAMMAR, tiny_generator.tokenizer)
    wanted = ((" VAC A00", " Se A00"), (" VAC A00", " VAC A02"))
    [(first, second)] = piece_log_probabilities(
        tiny_generator.model, grammar, [EditPlaces(PROMPT, (" W A01",), wanted)]
    )
    assert np.isfinite(first[0])
    assert first[1] == second[0] == -np.inf, "no selenium on molybdenum, and sites in their order"
    assert np.isfinite(second[1])
    forbidden = TASK.completion(Configuration.of(HOST, EDITS[:1])).replace("W", "Se")
    with pytest.raises(DefectgenError, match="does not allow ' Se"):
        list(piece_log_probabilities(tiny_generator.model, grammar, [EditPlaces(PROMPT, (forbidden,), ((), ()))]))
