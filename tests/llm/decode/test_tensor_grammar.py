"""Grammars as tables: the tokens that cursors allow, and the likelihoods that the other engines report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from defectgen.core import Configuration, get_host
from defectgen.errors import DefectgenError
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.decode.tensor_sampler import Samples, TensorSampler, log_probabilities
from defectgen.llm.decode.token_grammar import Cursor, TokenGrammar
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.site_grammar import EditsGrammar, allowed_for_kinds

MOS2 = get_host("MoS2", (2, 2))
GRAMMARS = (
    EditsGrammar(MOS2, 4, 2, MOS2.allowed),
    EditsGrammar(get_host("BN", (3, 2)), 12, 0, get_host("BN", (3, 2)).allowed),
    EditsGrammar(MOS2, 12, 12, MOS2.allowed),
    EditsGrammar(get_host("WSe2"), 3, 1, allowed_for_kinds(get_host("WSe2"), ("vacancy",))),
)
VALUES = {"homo_ev": 0.05, "lumo_ev": 1.15}


@pytest.fixture(scope="module")
def tables(tiny_generator: Any) -> GrammarTables:
    return GrammarTables.of(GRAMMARS, tiny_generator.tokenizer)


def drawn(
    generator: Any, tables: GrammarTables, rows: int = 40, **options: Any
) -> tuple[list[str], list[int], Samples]:
    grammar = [k % len(GRAMMARS) for k in range(rows)]
    prompts = [
        DefectTask().prompt(GRAMMARS[k].host, VALUES if row % 3 else {"gap_ev": 1.0}) for row, k in enumerate(grammar)
    ]
    sampler = TensorSampler(generator.model, generator.tokenizer, tables)
    seed = torch.Generator().manual_seed(3)
    return prompts, grammar, sampler.sample(prompts, grammar, generator=seed, **options)


@pytest.mark.parametrize("index", range(len(GRAMMARS)))
def test_they_allow_what_cursors_allow(tiny_generator: Any, tables: GrammarTables, index: int) -> None:
    compiled = TokenGrammar(GRAMMARS[index], tiny_generator.tokenizer)
    rng = np.random.default_rng(index)
    for _ in range(15):
        cursor, places = Cursor(compiled, compiled.grammar.start), tables.start(torch.tensor([index]))
        written: list[str] = []
        while not cursor.finished:
            columns, allowed = tables.allowed(places)
            tokens = tables.tokens[columns[allowed]].tolist()
            assert sorted(tokens) == sorted(cursor.allowed)
            token = int(rng.choice(tokens))
            slot = (allowed & (tables.tokens[columns] == token)).int().argmax(dim=1)
            cursor.step(token)
            places, edit = tables.advance(places, slot)
            if int(edit) >= 0:
                site, species = tables.edits[int(edit)]
                written.append(f" {species} {GRAMMARS[index].host.site_name(site)}")
        assert bool(places.ended)
        assert "".join(written) == cursor.text


@pytest.mark.parametrize("batch_size", [7, 100])
def test_samples_are_valid_lists_of_allowed_edits(tiny_generator: Any, tables: GrammarTables, batch_size: int) -> None:
    _, grammar, samples = drawn(tiny_generator, tables, batch_size=batch_size)
    for row, (index, edits) in enumerate(zip(grammar, samples.edits, strict=True)):
        asked = GRAMMARS[index]
        assert asked.min_defects <= len(edits) <= asked.max_defects
        assert all(species in asked.allowed[asked.host.site_cell(site)[0]] for site, species in edits)
        Configuration(asked.host, edits)
        written = samples.tokens[row][samples.tokens[row] != PAD].tolist()
        assert written == tables.completion_ids(index, edits, tiny_generator.tokenizer)


def test_likelihoods_are_those_of_the_other_ways(tiny_generator: Any, tables: GrammarTables) -> None:
    prompts, grammar, samples = drawn(tiny_generator, tables, batch_size=13)
    model, tokenizer = tiny_generator.model, tiny_generator.tokenizer
    ids = [tokenizer(prompt).input_ids for prompt in prompts]
    forced = log_probabilities(model, tables, grammar, ids, samples.tokens).detach().numpy()
    assert samples.log_likelihood == pytest.approx(forced, abs=1e-4)
    texts = [
        Text(prompt, tokenizer.decode(row[row != PAD].tolist()[:-1]), GRAMMARS[index])
        for prompt, index, row in zip(prompts, grammar, samples.tokens, strict=True)
    ]
    judged = [found.nats for found in log_likelihoods(model, tokenizer, texts)]
    assert samples.log_likelihood == pytest.approx(judged, abs=1e-3)


def test_at_temperature_0_it_writes_what_the_other_engine_writes(tiny_generator: Any, tables: GrammarTables) -> None:
    prompts, grammar, samples = drawn(tiny_generator, tables, rows=8, temperature=0)
    for prompt, index, edits, nats in zip(prompts, grammar, samples.edits, samples.log_likelihood, strict=True):
        [made] = tiny_generator.generate([Request(prompt, GRAMMARS[index], 1, 0)], Sampling(temperature=0))
        assert made.text == "".join(f" {species} {GRAMMARS[index].host.site_name(site)}" for site, species in edits)
        assert nats == pytest.approx(made.log_likelihood, abs=1e-3)


def test_choices_are_as_frequent_as_likely(tiny_generator: Any) -> None:
    grammar = EditsGrammar(MOS2, 1, 1, allowed_for_kinds(MOS2, ("vacancy",)))
    tables = GrammarTables.of([grammar], tiny_generator.tokenizer)
    prompt, rows = DefectTask().prompt(MOS2, VALUES), 4000
    sampler = TensorSampler(tiny_generator.model, tiny_generator.tokenizer, tables)
    samples = sampler.sample([prompt] * rows, [0] * rows, generator=torch.Generator().manual_seed(0))
    found = np.bincount([edits[0][0] for edits in samples.edits], minlength=MOS2.n_sites) / rows
    texts = [Text(prompt, f" VAC {MOS2.site_name(site)}", grammar) for site in range(MOS2.n_sites)]
    chances = np.exp([x.nats for x in log_likelihoods(tiny_generator.model, tiny_generator.tokenizer, texts)])
    assert chances.sum() == pytest.approx(1, abs=1e-3)
    assert np.abs(found - chances).max() < 4 * np.sqrt(0.25 / rows)


def test_log_probabilities_have_gradients(tiny_generator: Any, tables: GrammarTables) -> None:
    prompts, grammar, samples = drawn(tiny_generator, tables, rows=6)
    ids = [tiny_generator.tokenizer(prompt).input_ids for prompt in prompts]
    layer = tiny_generator.model.base_model.layers[0].mlp.up_proj.weight
    layer.grad = None
    log_probabilities(tiny_generator.model, tables, grammar, ids, samples.tokens).sum().backward()
    assert float(layer.grad.abs().sum()) > 0
    tiny_generator.model.zero_grad(set_to_none=True)


def test_completions_that_are_not_allowed_are_refused(tiny_generator: Any, tables: GrammarTables) -> None:
    ids = tables.completion_ids(0, [(0, "VAC")], tiny_generator.tokenizer)  # two are the least
    with pytest.raises(DefectgenError, match="does not allow"):
        tables.along(torch.tensor([0]), torch.tensor([ids]))
    whole = tables.completion_ids(1, [(0, "VAC")], tiny_generator.tokenizer)
    with pytest.raises(DefectgenError, match="does not allow"):
        tables.along(torch.tensor([1]), torch.tensor([whole[:-1]]))
