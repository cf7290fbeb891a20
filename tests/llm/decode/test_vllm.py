"""The vLLM engine keeps the contract of the other one: valid under the grammar, the adapter applied, seeds kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_tiny_llama

from defectgen.core import Host, get_host
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import METADATA
from defectgen.llm.decode.generator import Completion, Request, Sampling
from defectgen.llm.decode.guide import Guide, pack_grammar
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.loading import load_base
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.bulk.crystal_grammar import CrystalGrammar
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS

pytestmark = pytest.mark.vllm


def request(host: Host, n: int, *, encoding: str = "edits", most: int = 3, seed: int = 1) -> Request:
    task = DefectTask(encoding)
    return Request(task.prompt(host, {"homo_ev": 0.05, "lumo_ev": 1.15}), task.grammar(host, most), n, seed)


def agree(made: list[Completion], expected: list[Completion]) -> None:
    """Same texts and likelihoods; near ties may fall otherwise, so one completion in twenty may differ."""
    assert [c.request for c in made] == [c.request for c in expected]
    same = [(a, b) for a, b in zip(made, expected, strict=True) if a.text == b.text]
    assert len(same) >= 0.95 * len(made)
    assert max(abs(a.log_likelihood - b.log_likelihood) for a, b in same) < 0.01


@pytest.fixture(scope="module", autouse=True)
def _vllm() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed: .ci/run-vllm runs these tests")


@pytest.fixture(scope="module")
def base(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained Llama of the other tests with heads of a size that vLLM has a kernel for."""
    from transformers import AutoTokenizer

    return save_tiny_llama(
        AutoTokenizer.from_pretrained(tiny_model_dir),
        tmp_path_factory.mktemp("tiny-llama-vllm"),
        hidden_size=128,
        intermediate_size=192,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights of a rank that vLLM has no size for, large enough to change every completion."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny-adapter")
    torch.manual_seed(1)
    wanted = LoraConfig(
        r=12, lora_alpha=24, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), wanted)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / METADATA).write_text("{}")  # a card that names no checksums
    return folder


@pytest.fixture(scope="module")
def llm(base: Path, adapter: Path) -> Any:
    from defectgen.llm.decode.vllm_engine import load_vllm

    return load_vllm(str(base), "float32", adapter)


@pytest.fixture(scope="module")
def plain(llm: Any) -> Any:
    from defectgen.llm.decode.vllm_engine import VllmGenerator

    return VllmGenerator(llm)


@pytest.fixture(scope="module")
def adapted(llm: Any, adapter: Path) -> Any:
    from defectgen.llm.decode.vllm_engine import VllmGenerator

    return VllmGenerator(llm, adapter)


@pytest.fixture(scope="module")
def expected(base: Path) -> TransformersGenerator:
    model, tokenizer, _ = load_base(str(base), "float32")
    return TransformersGenerator(model, tokenizer)


@pytest.fixture(scope="module")
def expected_adapted(base: Path, adapter: Path) -> TransformersGenerator:
    from peft import PeftModel

    model, tokenizer, _ = load_base(str(base), "float32")
    return TransformersGenerator(PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(), tokenizer)


def test_a_thousand_completions_of_an_untrained_model_are_valid(adapted: Any) -> None:
    hosts = [get_host(name) for name in ("MoS2", "WSe2", "BN", "GaSe", "P")]
    requests = [request(host, 200, seed=k) for k, host in enumerate(hosts)]
    counts: Counter[int] = Counter()
    for completion in adapted.generate(requests, Sampling(temperature=2.0)):
        configuration = DefectTask().parse(hosts[completion.request], completion.text)
        assert 1 <= configuration.n_defects <= 3
        assert configuration.follows_rules()
        counts[completion.request] += 1
    assert list(counts.items()) == [(k, 200) for k in range(5)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.2), Sampling(0.9, top_p=0.8)])
def test_completions_are_those_of_transformers(
    plain: Any, expected: TransformersGenerator, encoding: str, sampling: Sampling
) -> None:
    requests = [request(get_host(name, (2, 2)), 10, encoding=encoding, seed=4) for name in ("MoS2", "BN")]
    made = list(plain.generate(requests, sampling))
    agree(made, list(expected.generate(requests, sampling)))
    compiled = TokenGrammar(requests[0].grammar, expected.tokenizer)
    for completion in made[:10]:
        DefectTask(encoding).parse(get_host("MoS2", (2, 2)), completion.text)
        guide, tokens = Guide(compiled, (0,)), piece_ids(expected.tokenizer, completion.text)
        guide.follow([*tokens, compiled.eos])
        assert guide.text == completion.text
        assert completion.decode_steps == len(tokens) + 1  # every token and the end, forced or not


def test_the_adapter_is_applied(plain: Any, adapted: Any, expected_adapted: TransformersGenerator) -> None:
    asked, sampling = [request(get_host("MoS2"), 12)], Sampling(1.0)
    made = list(adapted.generate(asked, sampling))
    agree(made, list(expected_adapted.generate(asked, sampling)))
    without = list(plain.generate(asked, sampling))
    assert sum(a.text == b.text for a, b in zip(made, without, strict=True)) < len(made) / 2


def test_a_request_gives_the_same_completions_in_any_batch(plain: Any) -> None:
    first, other = request(get_host("MoS2"), 12, seed=5), request(get_host("WSe2"), 30, seed=6)

    def made(requests: list[Request], size: int) -> list[Completion]:
        done = plain.generate(requests, Sampling(temperature=1.0, batch_size=size))
        return [Completion(0, c.text, c.log_likelihood, c.decode_steps) for c in done if requests[c.request] is first]

    alone = made([first], 100)
    assert len({c.text for c in alone}) > 1
    agree(made([other, first], 7), alone)
    again = request(get_host("MoS2"), 12, seed=7)
    assert [c.text for c in plain.generate([again], Sampling(temperature=1.0))] != [c.text for c in alone]


def test_an_interrupted_run_leaves_nothing_behind(plain: Any) -> None:
    run = plain.generate([request(get_host("MoS2"), 40)], Sampling(batch_size=8))
    next(run)
    run.close()
    assert not plain.llm.llm_engine.has_unfinished_requests()
    assert len(list(plain.generate([request(get_host("MoS2"), 3)], Sampling()))) == 3


def test_a_prompt_without_room_is_named(plain: Any) -> None:
    asked = request(get_host("MoS2"), 1)
    long = Request(asked.prompt * 200, asked.grammar, 1, 1)
    with pytest.raises(UsageError, match="tokens long, the model reads 2048"):
        list(plain.generate([long], Sampling()))
    tokens = len(prompt_ids(plain.tokenizer, asked.prompt))
    written_out = request(get_host("MoS2", (7, 7)), 1, encoding="symbols", most=147)
    short = Request(asked.prompt * ((2048 - 60) // tokens), written_out.grammar, 1, 1)
    with pytest.raises(UsageError, match="did not end within the 2048 tokens"):
        list(plain.generate([short], Sampling()))


def test_guidance_is_refused(plain: Any) -> None:
    with pytest.raises(UsageError, match="no guidance"):
        list(plain.generate([request(get_host("MoS2"), 1)], Sampling(guidance=2.0)))


def test_an_adapter_that_is_no_plain_lora_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from defectgen.llm.decode.vllm_engine import load_vllm

    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(DefectgenError, match="only plain LoRA can be used"):
        load_vllm(str(base), "float32", tmp_path)


def test_rows_keep_their_walk_when_the_batch_changes(base: Path) -> None:
    """The processor alone: rows come, go, move and are asked twice, and other requests are let be."""
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    from defectgen.llm.decode.vllm_processor import GrammarProcessor, guide_arguments

    model = type("Model", (), {"tokenizer": str(base)})()
    processor = GrammarProcessor(type("Config", (), {"model_config": model})(), torch.device("cpu"), False)
    grammar = DefectTask().grammar(get_host("MoS2"), 2)
    packed, sampling = pack_grammar(grammar), Sampling(1.0)
    _, tokenizer, _ = load_base(str(base), "float32")
    compiled = TokenGrammar(grammar, tokenizer)

    def parameters(seed: int) -> Any:
        return SamplingParams(extra_args=guide_arguments(packed, (seed, 0), sampling))

    outputs: list[list[int]] = [[], [], []]
    added = [(0, parameters(1), [1], outputs[0]), (1, SamplingParams(), [1], outputs[1]), (2, parameters(3), [1], [])]
    added[2] = (2, parameters(3), [1], outputs[2])
    processor.update_state(BatchUpdate(3, [], added, []))
    torch.manual_seed(0)
    logits = torch.randn(3, len(tokenizer))
    first = processor.apply(logits.clone())
    assert torch.equal(first[1], logits[1])
    for row in (0, 2):
        (token,) = torch.isfinite(first[row]).nonzero()[0].tolist()
        allowed = compiled.root(grammar.start)[0].children
        assert token in allowed
        assert first[row, token] == pytest.approx(float(logits[row, list(allowed)].log_softmax(0).max()), abs=8)
        assert first[row, token] == pytest.approx(
            float(logits[row, token] - logits[row, list(allowed)].logsumexp(0)), abs=1e-4
        )
        outputs[row].append(token)
    # Row 0 leaves and row 2 takes its place.
    processor.update_state(BatchUpdate(2, [0], [], [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    again = torch.randn(2, len(tokenizer))
    thrown_away = processor.apply(torch.randn(2, len(tokenizer)))
    kept = processor.apply(again.clone())
    guide = Guide(compiled, (3, 0))
    guide.draw(torch.zeros(len(guide.allowed)).numpy(), sampling)
    guide.follow(outputs[2])
    for made in (thrown_away, kept):
        (token,) = torch.isfinite(made[0]).nonzero()[0].tolist()
        assert token in ([guide.forced] if guide.forced is not None else guide.allowed)
    if guide.forced is None:
        scores = again[0, guide.allowed].double().log_softmax(0).numpy()
        (token,) = torch.isfinite(kept[0]).nonzero()[0].tolist()
        assert token == guide.allowed[guide.draw(scores, sampling)]


def test_colder_coordinates_are_those_of_the_other_engine(plain: Any, expected: TransformersGenerator) -> None:
    asked = Request("A crystal:", CrystalGrammar(2, ("Na", "Cl"), min_distance=0.5), 6, 3)
    drawn = {}
    for colder in (None, 0.0):
        sampling = Sampling(1.0, coordinate_temperature=colder)
        drawn[colder] = [one.text for one in plain.generate([asked], sampling)]
        assert drawn[colder] == [one.text for one in expected.generate([asked], sampling)]
    assert drawn[None] != drawn[0.0]
