"""Completions led through a grammar one token at a time are those of the engine that skips forced tokens."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from defectgen.core import get_host
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.guide import Guide, pack_grammar, unpack_grammar
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.tokens import prompt_ids
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["MoS2", "BN", "P"])
def test_grammars_survive_the_way_to_another_process(encoding: str, name: str) -> None:
    task = DefectTask(encoding)
    grammar = task.grammar(get_host(name, (3, 4)), 4, min_defects=2, kinds=("vacancy",))
    back = unpack_grammar(pack_grammar(grammar))
    assert back == grammar
    assert back.choices(back.start) == grammar.choices(grammar.start)
    assert back != task.grammar(get_host(name, (3, 4)), 3, min_defects=2, kinds=("vacancy",))


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "defectgen.core:get_host", "defectgen.core:nothing"])
def test_nothing_but_our_dataclasses_is_made_from_text(name: str) -> None:
    with pytest.raises(ValueError, match="expected a dataclass of defectgen"):
        unpack_grammar(json.dumps({"class": name}))


def test_a_grammar_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(TypeError, match="got set in a grammar"):
        pack_grammar({"MoS2"})  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.3), Sampling(0.9, top_p=0.7)])
def test_token_by_token_equals_the_engine_that_skips(
    tiny_generator: TransformersGenerator, encoding: str, sampling: Sampling
) -> None:
    """A plain loop of one forward pass a token, led by the guide, gives the same texts and likelihoods."""
    host, task = get_host("MoS2", (2, 2)), DefectTask(encoding)
    request = Request(task.prompt(host, {"homo_ev": 0.05}), task.grammar(host, 3), 3, 11)
    compiled = TokenGrammar(request.grammar, tiny_generator.tokenizer)
    prompt = prompt_ids(tiny_generator.tokenizer, request.prompt)
    model: Any = tiny_generator.model
    completions = list(tiny_generator.generate([request], sampling))
    assert len(completions) == 3
    for sample, expected in enumerate(completions):
        guide, output, likelihood, choices = Guide(compiled, (request.seed, sample)), list[int](), 0.0, 0
        while output[-1:] != [compiled.eos]:
            guide.follow(output)
            if (token := guide.forced) is None:
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + output])).logits[0, -1, guide.allowed].double().numpy()
                log_probabilities = logits - np.logaddexp.reduce(logits)
                guide.draw(np.flip(log_probabilities), sampling)  # a draw that the engine throws away
                k = guide.draw(log_probabilities, sampling)
                token, choices = guide.allowed[k], choices + 1
                likelihood += float(log_probabilities[k])
            output.append(token)
        guide.follow(output)
        assert guide.finished
        assert guide.text == expected.text
        assert likelihood == pytest.approx(expected.log_likelihood, abs=1e-3)
        assert choices == expected.decode_steps
        caught_up = Guide(compiled, (request.seed, sample))
        caught_up.follow(output)
        assert caught_up.text == expected.text


def test_a_token_that_the_grammar_forbids_is_noticed(tiny_generator: TransformersGenerator) -> None:
    compiled = TokenGrammar(DefectTask().grammar(get_host("MoS2"), 2), tiny_generator.tokenizer)
    guide = Guide(compiled, (0,))
    with pytest.raises(KeyError):
        guide.follow([compiled.eos])
