"""Constrained generation with an untrained model: everything is valid, and likelihoods are exact."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from defectgen.core import Host, get_host
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.decode.generator import Request, Sampling, pick
from defectgen.llm.decode.token_grammar import Cursor, TokenGrammar
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.begun_grammar import BegunGrammar
from defectgen.tasks.bulk.crystal_grammar import CrystalGrammar
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS


def request(host: Host, n: int, *, encoding: str = "edits", most: int = 3, seed: int = 1) -> Request:
    task = DefectTask(encoding)
    prompt = task.prompt(host, {"homo_ev": 0.05, "lumo_ev": 1.15})
    return Request(prompt, task.grammar(host, most), n, seed, plain=task.prompt(host, {}))


def test_completions_of_an_untrained_model_are_valid(tiny_generator: TransformersGenerator) -> None:
    hosts = [get_host(name) for name in ("MoS2", "WSe2", "BN", "GaSe", "P")]
    requests = [request(host, 600, seed=k) for k, host in enumerate(hosts)]
    counts: Counter[int] = Counter()
    for completion in tiny_generator.generate(requests, Sampling(temperature=2.0, batch_size=1000)):
        configuration = DefectTask().parse(hosts[completion.request], completion.text)
        assert 1 <= configuration.n_defects <= 3
        assert configuration.follows_rules()
        counts[completion.request] += 1
    assert counts == dict.fromkeys(range(5), 600)


@pytest.mark.parametrize("encoding", ["symbols", "crystal"])
def test_written_out_encodings_are_valid_too(tiny_generator: TransformersGenerator, encoding: str) -> None:
    host, task = get_host("MoS2", (4, 4)), DefectTask(encoding)
    completions = list(tiny_generator.generate([request(host, 6, encoding=encoding)], Sampling(temperature=1.5)))
    assert len(completions) == 6
    for completion in completions:
        assert 1 <= task.parse(host, completion.text).n_defects <= 3
        assert completion.decode_steps <= 2 * host.n_sites


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_log_likelihood_is_that_of_a_plain_forward_pass(tiny_generator: Any, encoding: str) -> None:
    host = get_host("MoS2", (3, 3))
    asked = request(host, 5, encoding=encoding)
    tokenizer, model = tiny_generator.tokenizer, tiny_generator.model
    compiled = TokenGrammar(asked.grammar, tokenizer)
    completions = list(tiny_generator.generate([asked], Sampling(temperature=1.0)))
    assert len(completions) == 5
    for completion in completions:
        prompt = prompt_ids(tokenizer, asked.prompt)
        tokens = [*piece_ids(tokenizer, completion.text), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
        cursor, expected, choices = Cursor(compiled, asked.grammar.start), 0.0, 0
        for k, token in enumerate(tokens):
            allowed = cursor.allowed
            assert token in allowed
            row = logits[len(prompt) + k - 1]
            if len(allowed) > 1:
                expected += float(row[token] - row[allowed].logsumexp(0))
                choices += 1
            cursor.step(token)
        assert completion.log_likelihood == pytest.approx(expected, abs=1e-3)
        assert completion.decode_steps == choices


def test_a_request_gives_the_same_completions_in_any_batch(tiny_generator: TransformersGenerator) -> None:
    first, other = request(get_host("MoS2"), 12, seed=5), request(get_host("WSe2"), 7, seed=6)

    def texts(requests: list[Request], size: int) -> list[str]:
        made = tiny_generator.generate(requests, Sampling(temperature=1.0, batch_size=size))
        return [c.text for c in made if requests[c.request] is first]

    alone = texts([first], 100)
    assert texts([other, first], 5) == alone
    assert len(set(alone)) > 1
    again = request(get_host("MoS2"), 12, seed=7)
    assert [c.text for c in tiny_generator.generate([again], Sampling(temperature=1.0))] != alone


def test_temperature_zero_takes_the_likeliest(tiny_generator: TransformersGenerator) -> None:
    made = list(tiny_generator.generate([request(get_host("MoS2"), 4)], Sampling(temperature=0.0)))
    assert len({c.text for c in made}) == 1


def test_top_p_keeps_the_likeliest_tokens_only() -> None:
    log_probabilities = np.log(np.array([0.1, 0.6, 0.3]))
    sampling = Sampling(temperature=1.0, top_p=0.7)
    drawn = {pick(log_probabilities, u, sampling) for u in np.linspace(0, 0.999, 200)}
    assert drawn == {1, 2}
    everything = [pick(log_probabilities, u, Sampling(temperature=1.0)) for u in np.linspace(0, 0.9999, 10000)]
    shares = np.bincount(everything) / len(everything)
    assert shares == pytest.approx([0.1, 0.6, 0.3], abs=2e-3)


def test_a_tokenizer_that_cannot_tell_pieces_apart_is_refused() -> None:
    class OneLetter:
        eos_token_id = 0

        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:  # noqa: ARG002
            return type("Encoded", (), {"input_ids": [1] * len(text)})()

    compiled = TokenGrammar(DefectTask().grammar(get_host("MoS2"), 2), OneLetter())
    with pytest.raises(DefectgenError, match="cannot tell"):
        compiled.start()


def test_guidance_of_zero_forgets_what_is_asked_for(tiny_generator: TransformersGenerator) -> None:
    asked = request(get_host("MoS2"), 8)
    blind = Request(asked.plain or "", asked.grammar, asked.n, asked.seed)
    made = [c.text for c in tiny_generator.generate([asked], Sampling(temperature=1.0, guidance=0.0))]
    assert made == [c.text for c in tiny_generator.generate([blind], Sampling(temperature=1.0))]
    assert made != [c.text for c in tiny_generator.generate([asked], Sampling(temperature=1.0))]


def test_guidance_draws_from_the_weighted_mean_of_both_prompts(tiny_generator: TransformersGenerator) -> None:
    """Greedy choices under guidance are those of the two prompts' own log-probabilities, mixed by hand."""
    asked, strength = request(get_host("MoS2"), 1), 3.0
    (made,) = tiny_generator.generate([asked], Sampling(temperature=0.0, guidance=strength))
    tokenizer, model = tiny_generator.tokenizer, tiny_generator.model
    tokens = [*piece_ids(tokenizer, made.text), tokenizer.eos_token_id]
    rows = []
    for prompt in (asked.prompt, asked.plain):
        ids = prompt_ids(tokenizer, prompt)
        with torch.no_grad():
            rows.append(model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 :].double())
    likelihood = 0.0
    for k, allowed in enumerate(TokenGrammar(asked.grammar, tokenizer).along(tokens)):
        own, plain = (row[k, allowed].log_softmax(-1) for row in rows)
        assert allowed[int((plain + strength * (own - plain)).argmax())] == tokens[k]
        likelihood += float(own[allowed.index(tokens[k])])
    assert made.log_likelihood == pytest.approx(likelihood, abs=1e-3)


def test_guidance_needs_a_plain_prompt(tiny_generator: TransformersGenerator) -> None:
    asked = request(get_host("MoS2"), 1)
    bare = Request(asked.prompt, asked.grammar, 1, 1)
    with pytest.raises(UsageError, match="plain prompt"):
        list(tiny_generator.generate([bare], Sampling(guidance=2.0)))


def test_a_batch_that_does_not_fit_is_halved(
    tiny_generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(get_host("MoS2"), 11)
    whole = [c.text for c in tiny_generator.generate([asked], Sampling(temperature=1.0))]
    real, sizes = tiny_generator._batch, []

    def small(requests: Any, jobs: Any, sampling: Sampling) -> Any:
        sizes.append(len(jobs))
        if len(jobs) > 3:
            raise torch.OutOfMemoryError
        return real(requests, jobs, sampling)

    monkeypatch.setattr(tiny_generator, "_batch", small)
    assert [c.text for c in tiny_generator.generate([asked], Sampling(temperature=1.0, batch_size=16))] == whole
    assert sizes == [11, 8, 4, 2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"coordinate_temperature": -1.0},
        {"coordinate_temperature": float("inf")},
        {"top_p": 0.0},
        {"guidance": -1.0},
    ],
)
def test_bad_sampling_numbers_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Sampling(**values)


def test_a_prompt_or_completion_beyond_the_context_is_named(tiny_generator: Any) -> None:
    host, task = get_host("MoS2"), DefectTask()
    prompt = task.prompt(host, {"homo_ev": 0.1})
    asked = Request(prompt, task.grammar(host, 24, min_defects=24), 2, 0)
    length = len(prompt_ids(tiny_generator.tokenizer, prompt))
    for context in (length, length + 10):
        short = TransformersGenerator(tiny_generator.model, tiny_generator.tokenizer)
        short.context = context
        with pytest.raises(UsageError, match=f"the model's context holds {context}"):
            list(short.generate([asked], Sampling()))


def test_coordinates_have_a_temperature_of_their_own(tiny_generator: TransformersGenerator) -> None:
    """At 0 they are the likeliest, whatever comes before: one place for each element."""
    grammar = BegunGrammar(CrystalGrammar(1), "4.0 4.0 4.0\n90 90 90\n")
    asked = Request("A crystal:", grammar, 40, 5)

    def drawn(temperature: float, coordinates: float | None) -> list[list[str]]:
        """Element and place of every draw."""
        sampling = Sampling(temperature, coordinate_temperature=coordinates)
        return [c.text.split("\n")[2:] for c in tiny_generator.generate([asked], sampling)]

    elements, places = zip(*drawn(2.0, 0.0), strict=True)
    assert 1 < len(set(elements)) == len(set(zip(elements, places, strict=True)))
    assert len({place for _, place in drawn(2.0, None)}) > len(set(places))
    elements, places = zip(*drawn(0.0, 2.0), strict=True)
    assert len(set(elements)) == 1 < len(set(places))


def test_where_coordinates_share_the_temperature_nothing_changes(tiny_generator: TransformersGenerator) -> None:
    asked = Request("A crystal:", CrystalGrammar(2, ("Na", "Cl")), 3, 5)
    texts = [
        [c.text for c in tiny_generator.generate([asked], Sampling(0.7, coordinate_temperature=own))]
        for own in (None, 0.7)
    ]
    assert texts[0] == texts[1]
