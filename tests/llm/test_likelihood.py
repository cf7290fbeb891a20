"""Likelihoods of given completions: exact, normalized, and equal to what generation reports."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, PhiConfig, PretrainedConfig

from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS

VALUES = {"homo_ev": 0.05, "lumo_ev": 1.15}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_it_is_what_generation_reports(tiny_generator: Any, encoding: str) -> None:
    host, task = get_host("MoS2", (2, 2)), DefectTask(encoding)
    prompt, grammar = task.prompt(host, VALUES), task.grammar(host, 3)
    made = list(tiny_generator.generate([Request(prompt, grammar, 7, 3)], Sampling(temperature=1.0)))
    texts = [Text(prompt, completion.text, grammar) for completion in made]
    found = log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts, batch_size=3)
    assert [f.nats for f in found] == pytest.approx([c.log_likelihood for c in made], abs=1e-3)


SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [PhiConfig(**SHAPE), GraniteConfig(**SHAPE, logits_scaling=0.2), Gemma2Config(**SHAPE, head_dim=16)],
    ids=["bias", "scale", "soft cap"],
)
def test_scores_are_those_of_the_model_whatever_its_output_layer(tiny_generator: Any, config: PretrainedConfig) -> None:
    tokenizer = tiny_generator.tokenizer
    config.vocab_size = len(tokenizer)
    config.pad_token_id = config.eos_token_id = tokenizer.eos_token_id
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=4.0 if name.endswith("lm_head.bias") else 0.5)
    host, task = get_host("MoS2", (2, 2)), DefectTask()
    prompt, completion, grammar = task.prompt(host, VALUES), " VAC A00", task.grammar(host, 3)
    [judged] = log_likelihoods(model, tokenizer, [Text(prompt, completion)])
    asked, ending = prompt_ids(tokenizer, prompt), [*piece_ids(tokenizer, completion), tokenizer.eos_token_id]
    with torch.inference_mode():
        scores = model(torch.tensor([[*asked, *ending]])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
    assert judged.nats == pytest.approx(float(scores[range(len(ending)), ending].sum()), abs=1e-3)
    made = list(TransformersGenerator(model, tokenizer).generate([Request(prompt, grammar, 5, 3)], Sampling(1.0)))
    found = log_likelihoods(model, tokenizer, [Text(prompt, one.text, grammar) for one in made])
    assert [one.nats for one in found] == pytest.approx([one.log_likelihood for one in made], abs=1e-3)


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
