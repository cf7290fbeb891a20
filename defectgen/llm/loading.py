"""Base weights and tokenizer in memory, in the arithmetic that the processor is good at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.base import base_model_path, has_crystal_tokens, plain_name, random_seed
from defectgen.llm.crystal_tokens import add_crystal_tokens, add_rows

QUANTIZATIONS = ("none", "4bit")

PARTS_OF_A_MODEL = {
    "its shape (config.json)": ("config.json",),
    "its tokenizer (e.g. tokenizer.json)": ("tokenizer*", "vocab*", "*.model"),
    "its weights (*.safetensors)": ("*.safetensors", "*.bin"),
}
"""What the folder of a base model must hold, by the names of its files."""


@dataclass(frozen=True)
class Placement:
    """Where and how the weights of a model lie that is only read.

    Attributes:
        quantization: ``none``, or ``4bit`` (NF4, by bitsandbytes; on a processor slow, for trials).
        spread: share the layers out among all GPUs of the machine, and main memory where these are full; of the
            transformers engine.
        gpus: split every matrix among so many GPUs (tensor parallelism); of the vLLM engine.

    Raises:
        UsageError: no such quantization, or fewer than one GPU.
    """

    quantization: str = "none"
    spread: bool = False
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            raise UsageError(
                f"unknown quantization {self.quantization!r}.", f"Expected one of: {', '.join(QUANTIZATIONS)}."
            )
        if self.gpus < 1:
            raise UsageError(f"got {self.gpus} GPUs, expected 1 or more.")

    def check(self, engine: str) -> None:
        """Refuse what an engine does not do.

        Raises:
            UsageError: layers shared out in vLLM, or matrices split in transformers.
        """
        if engine == "vllm" and self.spread:
            raise UsageError("engine vllm does not share out layers.", "Use --gpus N: it splits every matrix.")
        if engine == "transformers" and self.gpus > 1:
            raise UsageError("engine transformers does not split matrices.", "Use --spread, or --engine vllm.")


ONE_PLACE = Placement()


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


def is_sharded() -> bool:
    """Whether the launcher asks for a model that is spread over the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def own_gpu() -> torch.device:
    """The GPU of this process: of several processes on one machine each has its own."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def load_base(
    name: str,
    dtype: str = "auto",
    quantization: str = "none",
    *,
    place: bool = True,
    spread: bool = False,
    download: bool = True,
) -> tuple[Any, Any, torch.dtype]:
    """Model and tokenizer of a base model.

    Args:
        name: registered name, folder, or name on the hub (its token is read from the environment).
        dtype: see `pick_dtype`.
        quantization: ``none`` or ``4bit`` (NF4, by bitsandbytes; on a processor slow, for trials).
        place: put the model on the GPU if there is one; a trainer does that itself.
        spread: share its layers out among all GPUs instead; those that do not fit lie in main memory, which is slow.
        download: get what is not on this machine from the hub.

    Returns:
        Model in evaluation mode, tokenizer, and the arithmetic.

    Raises:
        DefectgenError: weights that are not there or cannot be loaded.
        UsageError: 4-bit weights without bitsandbytes, or a variant for trials that is not to lie in one place.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tokenizer = load_tokenizer(name, download=download)
    chosen, seed = pick_dtype(dtype), random_seed(name)
    if plain_name(name) != name and (quantization != "none" or spread):
        raise UsageError(f"{name} is a base model for trials: it lies in one place and is not quantized.")
    options: dict[str, Any] = {}
    if quantization == "4bit":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=chosen,
            bnb_4bit_quant_storage=chosen if is_sharded() else None,  # FSDP shares out what looks like weights
        )
        options["device_map"] = {"": own_gpu() if torch.cuda.is_available() else "cpu"}
    if spread:
        options["device_map"] = "auto"
    if seed is not None:
        return _random(name, seed, chosen, place, download), tokenizer, chosen
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base_model_path(name), dtype=chosen, trust_remote_code=False, local_files_only=not download, **options
        )
    except ImportError as error:
        raise UsageError(
            f"quantization {quantization} needs bitsandbytes ({str(error).splitlines()[0]}).",
            "Run: pip install 'defectgen[gpu]'",
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(name, error, download) from error
    if has_crystal_tokens(name):
        add_rows(model, load_tokenizer(plain_name(name), download=download), tokenizer)
    if place and torch.cuda.is_available() and not options:
        model = model.to(own_gpu())
    return model.eval(), tokenizer, chosen


def _random(name: str, seed: int, dtype: torch.dtype, place: bool, download: bool) -> Any:
    """A model of the shape of another, with weights drawn from a seed."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(
            load_model_config(name, download=download), trust_remote_code=False, dtype=torch.float32
        )
    model = model.to(dtype)
    return (model.to(own_gpu()) if place and torch.cuda.is_available() else model).eval()


def load_tokenizer(name: str, *, download: bool = True) -> Any:
    """Tokenizer of a base model; see `load_base`."""
    from transformers import AutoTokenizer

    _quiet()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            base_model_path(name), trust_remote_code=False, local_files_only=not download
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error, download) from error
    if has_crystal_tokens(name):
        add_crystal_tokens(tokenizer)
    return tokenizer


def load_model_config(name: str, *, download: bool = True) -> Any:
    """What transformers calls the configuration of a base model: its shape, without weights."""
    from transformers import AutoConfig

    _quiet()
    try:
        return AutoConfig.from_pretrained(base_model_path(name), trust_remote_code=False, local_files_only=not download)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error, download) from error


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says with this error that the memory of GPU or machine is used up."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def context_length(config: Any) -> int | None:
    """Most tokens that a base model was made for; None if it does not say."""
    length = getattr(config, "max_position_embeddings", None)
    return None if length is None else int(length)


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _causes(error: BaseException) -> Iterator[str]:
    """Type names of an error and of what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield type(seen).__name__
        seen = seen.__cause__ or seen.__context__


def _not_loaded(name: str, error: Exception, download: bool) -> DefectgenError:
    """One line for what kept a base model from being loaded."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    folder = Path(base_model_path(name))
    if folder.is_dir():
        for part, patterns in PARTS_OF_A_MODEL.items():
            if not any(next(folder.glob(pattern), None) for pattern in patterns):
                return DefectgenError(
                    f"{name} holds no base model: {part} is missing.",
                    "Expected the folder of an adapter, or of a base model in the format of transformers.",
                )
        return DefectgenError(f"base model {name} cannot be loaded ({reason}).")
    if not download:
        return DefectgenError(
            f"the adapter works on {name} of the model hub, which is not on this machine.",
            "Add --allow-download to get it from there, if you trust it.",
        )
    kinds = set(_causes(error))
    other = "or give a folder that holds the model as base_model."
    if "GatedRepoError" in kinds or "gated repo" in str(error):
        given = "is refused" if os.environ.get("HF_TOKEN") else "is missing"
        return DefectgenError(
            f"base model {name} is gated on the hub, and the access token {given}.",
            f"Accept its licence there and put a token into the variable HF_TOKEN, {other}",
        )
    if kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError"} or os.environ.get("HF_HUB_OFFLINE") == "1":
        return DefectgenError(
            f"base model {name} is not in the hub's local cache, and the hub cannot be reached.",
            f"Leave HF_HUB_OFFLINE unset and check the network, {other}",
        )
    return DefectgenError(
        f"base model {name} cannot be loaded from the hub ({reason}).",
        f"Check the name, and the variable HF_TOKEN if it is private, {other}",
    )
