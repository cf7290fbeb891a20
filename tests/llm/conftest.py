"""A tiny untrained Llama with a byte-pair tokenizer, saved like a real base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = [
    "MoS2 8x8 HOMO 0.052 LUMO 1.150: VAC A00 Se B14 W A33",
    "WSe2 8x8 gap 1.098 Fermi 0.201 form -1.178 atom -7.2845 vacancy substitution: S C07 Mo A11 VAC B62",
] * 20


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records(tiny_2dmd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instruction records of the small data set: 112 for training, 14 for validation."""
    from defectgen.data.records import RecordSettings, build_data
    from defectgen.data.splits import split_by_class
    from defectgen.data.twodmd import read_dataset

    folder = tmp_path_factory.mktemp("records")
    build_data(split_by_class(read_dataset(tiny_2dmd), seed=1), folder, RecordSettings(seed=3))
    return folder


@pytest.fixture(scope="session")
def tiny_generator(tiny_model_dir: Path) -> Any:
    from defectgen.llm.generate import TransformersGenerator
    from defectgen.llm.loading import load_base

    model, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    return TransformersGenerator(model, tokenizer)
