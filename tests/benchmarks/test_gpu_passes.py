"""The captured passes of the GPU kit, here uncaptured: their numbers are those of transformers and peft."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
from passes import IGNORED, Losses, TextLosses, widths_of
from pieces import compiled, negative_likelihoods
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
    [first, *_] = [weight.grad.clone() for weight in plain.up.values() if weight.grad is not None]
    assert float(losses.backward(examples, 2 * sum(len(after) for _, after, _ in examples))) == pytest.approx(
        expected, abs=1e-4
    )
    assert torch.allclose(next(iter(plain.up.values())).grad, 1.5 * first, atol=1e-7)


def test_gradients_are_those_of_peft(model: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    causal, tokenizer, _, plain = model
    prompt, completion = tokenizer("MoS2 8x8 HOMO 0.1:").input_ids, tokenizer(" VAC A00 Se B14").input_ids
    plain.save(tmp_path, {})
    adapted = PeftModel.from_pretrained(causal, str(tmp_path), is_trainable=True)
    logits = adapted(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(completion)).backward()
    TextLosses(plain, 96, 200).backward([(prompt, completion, 1.0)])
    for name, part in (("q_proj", "self_attn"), ("v_proj", "self_attn"), ("up_proj", "mlp"), ("down_proj", "mlp")):
        theirs = getattr(getattr(adapted.base_model.model.model.layers[0], part), name)
        for ours, wanted in ((plain.down, theirs.lora_A), (plain.up, theirs.lora_B)):
            found, expected = ours[name].grad[0], wanted["default"].weight.grad
            assert (found - expected).norm() < 0.02 * expected.norm()  # the saved weights have 8 bits
    adapted.unload()


def test_one_graph_serves_all_layers_and_widths(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo

    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    _, tokenizer, _, plain = model
    long, short = tokenizer(PROMPTS[0]).input_ids, tokenizer(PROMPTS[2]).input_ids
    examples = [(long * 2, long[:9], 1.0), (short, short[:3], 1.0), (short, long[:3], 1.0)]
    losses = TextLosses(plain, 64, 192)
    expected = float(losses.backward(examples[:1])), float(losses.backward(examples[1:]))
    assert len(losses._passes) == 2
    gradients = [weight.grad.clone() for weight in plain.trained]
    monkeypatch.setattr(plain, "pieces", plain.plain.faster("aot_eager"))
    again = TextLosses(plain, 64, 192)
    found = float(again.backward(examples[:1])), float(again.backward(examples[1:]))
    assert found == pytest.approx(expected, abs=1e-5)
    for weight, gradient in zip(plain.trained, gradients, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-5)


def test_what_does_not_compile_in_time_stays_as_it_is(
    model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    plain = model[3].plain
    monkeypatch.setattr(type(plain), "faster", lambda self: self)
    assert compiled(plain, lambda _: time.sleep(5), 0.2) is None
    assert "not compiled after 0 s: _TooSlow: longer than 0.2 s" in capsys.readouterr().out
    assert compiled(plain, lambda _: 1 / 0) is None
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert compiled(plain, lambda _: None) is plain


def test_gradient_of_negative_likelihoods() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 11, requires_grad=True)
    labels = torch.tensor([3, IGNORED, 0, 10, 5, IGNORED])
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    expected.backward()
    found, gradient = negative_likelihoods(logits.detach(), labels)
    assert float(found) == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient, logits.grad, atol=1e-6)


@pytest.mark.parametrize("tokens", [6144, 7680, 15_360])
def test_passes_have_the_same_number_of_tokens_and_room(model: Any, tokens: int) -> None:
    widths = widths_of(tokens, 477)
    assert widths[-1] >= 477
    assert all(tokens % width == 0 for width in widths)
    assert widths_of(100, 220)[-1] == 220
    losses = TextLosses(model[3], 477, tokens)
    lengths = np.random.default_rng(0).integers(30, 478, 200)
    cut = list(losses.cut(lengths))
    assert sorted(int(k) for _, rows in cut for k in rows) == list(range(200))
    assert all(lengths[rows].max() <= width and len(rows) <= tokens // width for width, rows in cut)
