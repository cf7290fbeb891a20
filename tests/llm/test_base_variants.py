"""Base models for trials: weights drawn anew, and a vocabulary with tokens of crystals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from crystal_files import made_up_crystals, published_rows, write_csv
from safetensors.torch import load_file
from training_runs import config

from defectgen.data.bulk_records import BulkRecordSettings, build_bulk_data
from defectgen.data.mp20 import read_crystals
from defectgen.errors import DefectgenError, UsageError
from defectgen.generate.crystal_request import CrystalRequest, bulk_card, draw_from
from defectgen.llm.adapter import LORA_CONFIG, WEIGHTS
from defectgen.llm.base import has_crystal_tokens, plain_name, random_seed
from defectgen.llm.decode.generator import Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.decode.vllm_engine import load_vllm
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.loading import load_base
from defectgen.llm.lora_config import read_lora
from defectgen.llm.train.finetune import finetune


def test_names_of_variants() -> None:
    assert (plain_name("a/b@random-12"), random_seed("a/b@random-12")) == ("a/b", 12)
    assert (plain_name("x@crystal-tokens"), has_crystal_tokens("x@crystal-tokens")) == ("x", True)
    for name in ("x", "x@random-", "x@tokens", "@random-1"):
        assert (plain_name(name), random_seed(name), has_crystal_tokens(name)) == (name, None, False)


def test_weights_are_drawn_from_the_seed(tiny_model_dir: Path) -> None:
    state = torch.get_rng_state()
    models = [load_base(f"{tiny_model_dir}@random-{seed}", "float32")[0] for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = (model.model.layers[0].mlp.up_proj.weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    with pytest.raises(UsageError, match="for trials: it lies in one place and is not quantized"):
        load_base(f"{tiny_model_dir}@random-0", spread=True)
    with pytest.raises(DefectgenError, match="vLLM does not serve"):
        load_vllm(f"{tiny_model_dir}@random-0")


def test_an_adapter_brings_the_rows_of_its_tokens(tiny_model_dir: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "some.csv", published_rows(made_up_crystals(20, seed=12)))
    settings = BulkRecordSettings(max_atoms=8, absolute=True, permute=True)
    build_bulk_data(read_crystals(table, cache=False), tmp_path / "records", settings)
    adapter, name = tmp_path / "adapter", f"{tiny_model_dir}@crystal-tokens"
    run = config(Path(name), max_steps=2, batch_size=4, max_length=1000, eval_steps=2, learning_rate=0.02)
    trained = finetune(run, tmp_path / "records", adapter)
    lora, weights = read_lora(adapter), load_file(adapter / WEIGHTS)
    rows = [weights[name].float() for name in weights if "trainable_tokens_delta" in name]
    assert set(lora.rows) == {"embed_tokens", "lm_head"}  # not tied in the tiny model
    assert [len(row) for row in rows] == [189, 189]
    assert sum(weight.numel() for weight in weights.values()) < 60_000, "no whole embedding"
    generator, card = TransformersGenerator.from_adapter(adapter, "float32")
    kept = generator.model.get_input_embeddings().weight[list(lora.rows["embed_tokens"])]
    assert min(float((kept - row).abs().max()) for row in rows) < 1e-6
    base, _, _ = load_base(name, "float32")
    assert float((base.get_input_embeddings().weight[list(lora.rows["embed_tokens"])] - kept).abs().max()) > 1e-3
    held = [json.loads(line) for line in (tmp_path / "records" / "validation.jsonl").read_text().splitlines()]
    texts = [Text(record["prompt"], record["completion"]) for record in held]
    found = list(log_likelihoods(generator.model, generator.tokenizer, texts))
    loss = -sum(one.nats for one in found) / sum(one.tokens for one in found)
    assert loss == pytest.approx(trained.validation_losses[-1][1], abs=0.02)  # the adapter is kept in bfloat16
    request = CrystalRequest({}, max_atoms=2, free=True)
    draw = draw_from(generator, request, request.job(card), Sampling(1.0))
    assert len(list(draw(2, 0))) == 2
    with pytest.raises(
        UsageError, match=r"does not know positions in angstrom.*Draw freely: defectgen generate --free"
    ):
        CrystalRequest({}).job(bulk_card(str(adapter)))

    values = json.loads((adapter / LORA_CONFIG).read_text())
    for wrong in ({"embed_tokens": [2, 1]}, {"embed_tokens": [-1]}, {"../x": [1]}, [1], {"embed_tokens": ["1"]}):
        (adapter / LORA_CONFIG).write_text(json.dumps(values | {"trainable_token_indices": wrong}))
        with pytest.raises(DefectgenError, match="expected ascending tokens by the name of a layer"):
            read_lora(adapter)
