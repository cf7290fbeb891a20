"""The weights of an adapter: checked before a model gets them, and put into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from defectgen.errors import DefectgenError
from defectgen.llm.adapter import AGAIN, WEIGHTS, check_adapter_files
from defectgen.llm.lora_config import Lora, read_lora
from defectgen.one_line import shown

Weights = dict[str, torch.Tensor]

FACTOR = re.compile(r"(base_model\.model\.[\w.]+\.lora_(?:embedding_)?)([AB])((?:\.weight)?)")
"""Name of one of the two matrices whose product is an update."""

TRAINED_ROWS = re.compile(r"base_model\.model\.[\w.]+\.token_adapter\.trainable_tokens_delta")
"""Name of rows that stand for those of an embedding, see `Lora.rows`."""


def read_weights(folder: Path, lora: Lora, *, has_card: bool = True) -> Weights:
    """The matrices of an adapter by name, as they were written.

    Args:
        folder: of the adapter.
        lora: of `read_lora`.
        has_card: whether a card lies beside them, whose checksums must hold.

    Raises:
        DefectgenError: a file that is missing, damaged or not the one of the card, or matrices that are no pairs,
            have another rank or hold numbers that are not finite.
    """
    if has_card:
        check_adapter_files(folder)
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        reason = shown(str(error).strip() or type(error).__name__, 120)
        raise DefectgenError(f"{path} cannot be read ({reason}).", AGAIN) from error
    if not weights:
        raise DefectgenError(f"{path} holds no weights.", AGAIN)
    for name in sorted(weights):
        found, weight = FACTOR.fullmatch(name), weights[name]
        if lora.rows and TRAINED_ROWS.fullmatch(name) and weight.ndim == 2 and weight.is_floating_point():
            if not bool(torch.isfinite(weight.float()).all()):
                raise DefectgenError(f"{path}: {shown(name, 100)} holds numbers that are not finite.", AGAIN)
            continue
        if found is None:
            raise DefectgenError(f"{path}: {shown(name)} is no matrix of an update.", AGAIN)
        first = found[2] == "A"
        if f"{found[1]}{'B' if first else 'A'}{found[3]}" not in weights:
            raise DefectgenError(f"{path}: {shown(name, 100)} has no partner.", AGAIN)
        if weight.ndim != 2 or weight.shape[0 if first else 1] != lora.rank:
            shape = " x ".join(map(str, weight.shape))
            raise DefectgenError(f"{path}: {shown(name, 100)} is {shape}, expected rank {lora.rank}.", AGAIN)
        if not weight.is_floating_point() or not bool(torch.isfinite(weight.float()).all()):
            raise DefectgenError(f"{path}: {shown(name, 100)} holds numbers that are not finite.", AGAIN)
    return weights


def put_weights(model: Any, weights: Mapping[str, torch.Tensor], folder: Path, base: str) -> None:
    """Put the matrices of an adapter into a model with LoRA updates, each into its place.

    Args:
        model: of peft.
        weights: of `read_weights`.
        folder: they come from, for messages.
        base: name of the base model, for messages.

    Raises:
        DefectgenError: matrices that are missing, too many, or of another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    for names, what in ((wanted.keys() - weights.keys(), "lacks"), (weights.keys() - wanted.keys(), "changes")):
        if names:
            raise DefectgenError(
                f"the adapter in {folder} does not fit {base}: it {what} {len(names)} matrices"
                f"{' that the model has not' if what == 'changes' else ''}, the first is {min(names):.100}.",
                AGAIN,
            )
    for name in sorted(wanted):
        if weights[name].shape != wanted[name].shape:
            got, expected = (" x ".join(map(str, tensor.shape)) for tensor in (weights[name], wanted[name]))
            raise DefectgenError(
                f"the adapter in {folder} does not fit {base}: {name:.100} is {got}, expected {expected}."
            )
    set_peft_model_state_dict(model, dict(weights))


def with_updates(model: Any, lora: Lora, base: str) -> Any:
    """A model with LoRA updates that change nothing yet.

    Args:
        model: the base model.
        lora: of the adapter.
        base: name of the base model, for messages.

    Raises:
        DefectgenError: the model has none of the matrices.
    """
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=targets,
        task_type="CAUSAL_LM",
        trainable_token_indices={name: list(ids) for name, ids in lora.rows.items()} or None,
    )
    try:
        return get_peft_model(model, config)
    except (ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DefectgenError(f"the adapter does not fit {base} ({reason:.200}).") from error


def merged(model: Any, folder: Path, base: str, *, has_card: bool = True) -> Any:
    """A base model with the updates of an adapter added to its weights, beside them where these are quantized.

    See `read_weights` for `has_card`.

    Raises:
        DefectgenError: layers that memory does not hold; see `read_lora`, `read_weights` and `put_weights`.
    """
    lora = read_lora(folder)
    weights = read_weights(folder, lora, has_card=has_card)
    if any(weight.is_meta for weight in model.parameters()):  # peft would leave those layers as they are, in silence
        raise DefectgenError(
            f"the GPUs do not hold {base}, and an adapter cannot be added to layers that lie elsewhere.",
            "Use --quantization 4bit, or more GPUs.",
        )
    adapted = with_updates(model, lora, base)
    put_weights(adapted, weights, folder, base)
    if getattr(model, "is_quantized", False):  # merging would round the updates to four bits as well
        return adapted.get_base_model()
    return adapted.merge_and_unload()


def check_fit(folder: Path, shape: Any, base: str) -> Lora:
    """Check an adapter against the shape of its base model, whose weights are not loaded.

    Args:
        folder: of the adapter.
        shape: what transformers calls the configuration of the base model.
        base: its name, for messages.

    Raises:
        DefectgenError: as of `merged`.
    """
    from transformers import AutoModelForCausalLM

    lora = read_lora(folder)
    weights = read_weights(folder, lora)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
        adapted = with_updates(model, lora, base)
    put_weights(adapted, {name: weight.to("meta") for name, weight in weights.items()}, folder, base)
    return lora
