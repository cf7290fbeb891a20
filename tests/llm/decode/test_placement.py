"""Where the weights of a model lie: shared out, split, or in four bits, as far as a processor can tell."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_model import save_tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM

from defectgen.core import get_host
from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter_weights import merged
from defectgen.llm.decode import vllm_engine
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.loading import Placement, load_base
from defectgen.tasks.defect.defect_task import DefectTask


def test_shared_out_layers_write_the_same(tiny_model_dir: Path, tiny_generator: TransformersGenerator) -> None:
    host, task = get_host("MoS2", (3, 3)), DefectTask("edits")
    request = Request(task.prompt(host, {"homo_ev": 0.05}), task.grammar(host, 3), 4, 5)
    model, tokenizer, _ = load_base(str(tiny_model_dir), "float32", spread=True)
    spread = TransformersGenerator(model, tokenizer)
    texts = [[c.text for c in engine.generate([request], Sampling(1.0))] for engine in (spread, tiny_generator)]
    assert texts[0] == texts[1]


def test_a_model_that_memory_does_not_hold_writes_the_same(
    tiny_model_dir: Path, tiny_generator: TransformersGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for embedding and first layer; the second and the output layer lie on the disk."""
    load = AutoModelForCausalLM.from_pretrained

    def small(*args: Any, **options: Any) -> Any:
        assert options["device_map"] == "auto"
        return load(*args, max_memory={"cpu": 170_000}, offload_folder=tmp_path, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", small)
    model, tokenizer, _ = load_base(str(tiny_model_dir), "float32", spread=True)
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    assert model.get_output_embeddings().weight.is_meta
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(load(tiny_model_dir), lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(DefectgenError, match=r"the GPUs do not hold tiny, .* Use --quantization 4bit, or more GPUs"):
        merged(model, tmp_path / "adapter", "tiny", has_card=False)
    host, task = get_host("MoS2", (3, 3)), DefectTask("edits")
    request = Request(task.prompt(host, {"homo_ev": 0.05}), task.grammar(host, 3), 4, 5)
    shared = TransformersGenerator(model, tokenizer)
    texts = [[c.text for c in engine.generate([request], Sampling(1.0))] for engine in (shared, tiny_generator)]
    assert texts[0] == texts[1]


def test_vllm_is_told_to_split_and_to_quantize(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    vllm, platforms = types.ModuleType("vllm"), types.ModuleType("vllm.platforms")
    vllm.LLM = lambda **options: told.update(options)  # type: ignore[attr-defined]
    platforms.current_platform = types.SimpleNamespace(is_cpu=lambda: False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for name in vllm_engine.ENVIRONMENT:
        monkeypatch.setenv(name, vllm_engine.ENVIRONMENT[name])
    vllm_engine.load_vllm(str(tiny_model_dir), placement=Placement("4bit", gpus=4))
    assert (told["tensor_parallel_size"], told["quantization"]) == (4, "bitsandbytes")
    told.clear()
    vllm_engine.load_vllm(str(tiny_model_dir))
    assert not {"tensor_parallel_size", "quantization"} & set(told)


def test_what_an_engine_does_not_do_is_refused() -> None:
    Placement("none", spread=True).check("transformers")
    Placement("4bit", gpus=2).check("vllm")
    with pytest.raises(UsageError, match=r"engine vllm does not share out layers. Use --gpus N"):
        Placement(spread=True).check("vllm")
    with pytest.raises(UsageError, match=r"engine transformers does not split matrices. Use --spread"):
        Placement(gpus=2).check("transformers")
    with pytest.raises(UsageError, match=r"unknown quantization '8bit'. Expected one of: none, 4bit"):
        Placement("8bit")
    with pytest.raises(UsageError, match="got 0 GPUs, expected 1 or more"):
        Placement(gpus=0)


def test_four_bits_write_under_the_grammar_too(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}
    folder = save_tiny_llama(tiny_tokenizer(), tmp_path / "base", **shape)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(UsageError, match=r"needs bitsandbytes .* Run: pip install 'defectgen\[gpu\]'"):
            load_base(str(folder), quantization="4bit")
        return
    host, task = get_host("MoS2", (3, 3)), DefectTask("edits")
    model, tokenizer, _ = load_base(str(folder), "float32", "4bit")
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.uint8
    assert weight.numel() == 64 * 128 // 2
    request = Request(task.prompt(host, {"homo_ev": 0.05}), task.grammar(host, 3), 4, 5)
    written = list(TransformersGenerator(model, tokenizer).generate([request], Sampling(1.0)))
    assert all(task.parse(host, completion.text) for completion in written)
