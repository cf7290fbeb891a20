"""The captured passes of the GPU kit, here uncaptured: their numbers are those of transformers and peft."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
from passes import Losses, TextLosses
from plain_llama import PlainLlama
from sampler import Sampler
from tiny_model import save_tiny_llama, tiny_tokenizer

from defectgen.core.hosts import get_host
from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.decode.tensor_sampler import log_probabilities
from defectgen.tasks.defect.site_grammar import EditsGrammar

PROMPTS = ("MoS2 8x8 HOMO 0.1 LUMO 1.2:", "P 6x6 HOMO 0.123:", "MoS2 8x8:") * 3
KINDS = (0, 1, 0) * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, GrammarTables, PlainLlama]:
    from transformers import AutoModelForCausalLM

    tokenizer, folder = tiny_tokenizer(), tmp_path_factory.mktemp("tiny")
    save_tiny_llama(tokenizer, folder)
    causal = AutoModelForCausalLM.from_pretrained(folder).eval()
    causal.requires_grad_(False)
    mos2, phosphorus = get_host("MoS2"), get_host("P")
    grammars = [EditsGrammar(mos2, 24, 4, mos2.allowed), EditsGrammar(phosphorus, 6, 3, phosphorus.allowed)]
    tables = GrammarTables.of(grammars, tokenizer)
    plain = PlainLlama(causal, tables.tokens, 4, 8.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in plain.up.values():
            weight.normal_(0, 0.05)
    return causal, tokenizer, tables, plain


def test_samples_are_valid_and_likelihoods_are_those_of_peft(model: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    causal, tokenizer, tables, plain = model
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    found = Sampler(plain, tables, tokenizer, 8, 60).sample(prompts, KINDS, 1.0, 3)
    for edits, kind in zip(found.edits, KINDS, strict=True):
        grammar = tables.grammars[kind]
        assert grammar.min_defects <= len(edits) <= grammar.max_defects
        assert [site for site, _ in edits] == sorted({site for site, _ in edits})
    plain.save(tmp_path, {"steps": 1})
    adapted = PeftModel.from_pretrained(causal, str(tmp_path)).eval()
    reference = log_probabilities(adapted, tables, KINDS, prompts, found.tokens).detach().numpy()
    adapted.unload()
    assert np.abs(reference - found.log_likelihood).max() < 0.05  # the saved weights have 8 bits
    completions = [[token for token in row if token != PAD] for row in found.tokens.tolist()]
    again = Losses(plain, tables, 220, 600).backward(prompts, KINDS, completions, np.ones(9))
    assert np.abs(again.numpy() - found.log_likelihood).max() < 1e-3


def test_the_same_seed_draws_the_same(model: Any) -> None:
    _, tokenizer, tables, plain = model
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    sampler = Sampler(plain, tables, tokenizer, 4, 60)
    first, second, other = (sampler.sample(prompts, KINDS, 1.0, seed).edits for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_a_step_along_the_gradient_raises_the_likelihood(model: Any) -> None:
    _, tokenizer, tables, plain = model
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    found = Sampler(plain, tables, tokenizer, 8, 60).sample(prompts, KINDS, 1.0, 7)
    completions = [[token for token in row if token != PAD] for row in found.tokens.tolist()]
    losses = Losses(plain, tables, 220, 600)
    before = losses.backward(prompts, KINDS, completions, np.ones(9)).sum()
    with torch.no_grad():
        for weight in plain.trained:
            assert weight.grad is not None
            weight -= 1e-4 * weight.grad
    after = losses.backward(prompts, KINDS, completions, np.ones(9)).sum()
    assert after > before


def test_losses_of_whole_texts_are_those_of_transformers(model: Any) -> None:
    causal, tokenizer, tables, _ = model
    plain = PlainLlama(causal, tables.tokens, 4, 8.0)
    prompt, completion = tokenizer("MoS2 8x8 HOMO 0.1:").input_ids, tokenizer(" VAC A00 Se B14").input_ids
    examples = [(prompt, completion, 1.0), (prompt[:4], completion[:5], 1.0)]
    total = 0.0
    for before, after, _ in examples:
        with torch.no_grad():
            logits = causal(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(after), reduction="sum"))
    losses = TextLosses(plain, 96, 200)
    expected = total / sum(len(after) for _, after, _ in examples)
    assert losses.evaluate(examples) == pytest.approx(expected, abs=1e-4)
    assert float(losses.backward(examples)) == pytest.approx(expected, abs=1e-4)
