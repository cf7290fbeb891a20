"""Likelihoods of given completions: exact, normalized, and equal to what generation reports."""

from __future__ import annotations

import math
from typing import Any

import pytest

from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.llm.generate import Request, Sampling
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.tasks.defect import DefectTask
from defectgen.text.encodings import ENCODINGS, Encoding

VALUES = {"homo_ev": 0.05, "lumo_ev": 1.15}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_it_is_what_generation_reports(tiny_generator: Any, encoding: Encoding) -> None:
    host, task = get_host("MoS2", (2, 2)), DefectTask(encoding)
    prompt, grammar = task.prompt(host, VALUES), task.grammar(host, 3)
    made = list(tiny_generator.generate([Request(prompt, grammar, 7, 3)], Sampling(temperature=1.0)))
    texts = [Text(prompt, completion.text, grammar) for completion in made]
    found = log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts, batch_size=3)
    assert [f.nats for f in found] == pytest.approx([c.log_likelihood for c in made], abs=1e-3)


def test_all_completions_of_a_grammar_sum_to_one(tiny_generator: Any) -> None:
    host, task = get_host("MoS2", (1, 1)), DefectTask()
    grammar, prompt = task.grammar(host, 2), task.prompt(host, VALUES)
    keys = {Configuration.of(host, {a: s}).edits for a in range(3) for s in host.allowed[host.site_cell(a)[0]]}
    every = keys | {tuple(sorted(a + b)) for a in keys for b in keys if a[0][0] != b[0][0]}
    texts = [Text(prompt, task.completion(Configuration.of(host, edits)), grammar) for edits in sorted(every)]
    found = log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts)
    assert sum(math.exp(f.nats) for f in found) == pytest.approx(1.0, abs=1e-4)


def test_without_a_grammar_all_tokens_count(tiny_generator: Any) -> None:
    host, task = get_host("MoS2"), DefectTask()
    prompt, completion = task.prompt(host, VALUES), " VAC A00"
    free, bound = log_likelihoods(
        tiny_generator.model,
        tiny_generator.tokenizer,
        [Text(prompt, completion), Text(prompt, completion, task.grammar(host, 2))],
    )
    assert free.nats < bound.nats < 0
    assert free.tokens == bound.tokens


@pytest.mark.parametrize("completion", [" VAC Z99", " VAC A01 VAC A00", "", " VAC A00 VAC A01 VAC A02"])
def test_a_completion_outside_its_grammar_is_named(tiny_generator: Any, completion: str) -> None:
    host, task = get_host("MoS2"), DefectTask()
    texts = [Text(task.prompt(host, VALUES), completion, task.grammar(host, 2))]
    with pytest.raises(DefectgenError, match="does not allow"):
        list(log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts))
