"""A tiny untrained Llama with a byte-pair tokenizer, saved like a real base model, and fixtures with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEXTS = [
    "MoS2 8x8 HOMO 0.052 LUMO 1.150: VAC A00 Se B14 W A33",
    "WSe2 8x8 gap 1.098 Fermi 0.201 form -1.178 atom -7.2845 vacancy substitution: S C07 Mo A11 VAC B62",
] * 20


def tiny_tokenizer() -> Any:
    """Digits singly, 340 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def save_tiny_llama(tokenizer: Any, folder: Path, family: str = "llama", **shape: Any) -> Path:
    """Save an untrained Llama, or a relative of it, that reads a tokenizer's tokens, and the tokenizer.

    Args:
        tokenizer: with an end of text.
        folder: where.
        family: ``llama``, ``gemma`` or ``mistral``.
        shape: of the model where it is not the usual tiny one, as transformers' configuration has it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer.save_pretrained(folder)
    usual = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "initializer_range": 0.3,
    }
    end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **(usual | end | shape))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tiny_tokenizer(), tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_generator(tiny_model_dir: Path) -> Any:
    from defectgen.llm.decode.transformers_engine import TransformersGenerator
    from defectgen.llm.loading import load_base

    model, tokenizer, _ = load_base(str(tiny_model_dir), "float32")
    return TransformersGenerator(model, tokenizer)
