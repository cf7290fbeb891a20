"""Base weights and tokenizer in memory, in the arithmetic that the processor is good at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.base import base_model_path


def pick_dtype(wanted: str) -> torch.dtype:
    """The arithmetic for ``auto``, ``bfloat16`` or ``float32``.

    ``auto`` is bfloat16 on a GPU and on processors with bfloat16 instructions, else float32:
    without them bfloat16 is several times slower.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16
    flags = torch.cpu.get_capabilities()
    fast = any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32


def load_base(name: str, dtype: str = "auto", quantization: str = "none") -> tuple[Any, Any, torch.dtype]:
    """Model and tokenizer of a base model.

    Args:
        name: registered name, folder, or name on the hub (its token is read from the environment).
        dtype: see `pick_dtype`.
        quantization: ``none`` or ``4bit`` (NF4, NVIDIA GPU with bitsandbytes).

    Returns:
        Model in evaluation mode on the GPU if there is one, tokenizer, and the arithmetic.

    Raises:
        DefectgenError: weights that are not there or cannot be loaded.
        UsageError: 4-bit weights without a GPU.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = base_model_path(name)
    chosen = pick_dtype(dtype)
    options: dict[str, Any] = {}
    if quantization == "4bit":
        if not torch.cuda.is_available():
            raise UsageError("quantization 4bit needs an NVIDIA GPU.", "Use `quantization: none`.")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=chosen
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=chosen, **options)
    except (OSError, ValueError) as error:
        where = "" if Path(path).is_dir() else " It is read from the hub: check name, network and access token."
        raise DefectgenError(f"base model {name} cannot be loaded ({str(error).splitlines()[0]}).{where}") from error
    if torch.cuda.is_available() and quantization == "none":
        model = model.to(torch.device("cuda"))
    return model.eval(), tokenizer, chosen
