"""Base models: where their weights lie, and the one-time conversion from GGUF."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from defectgen.data.asset_cards import load_cards
from defectgen.data.assets import asset_path
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.folders import write_folder

CRYSTAL_TOKENS = "crystal-tokens"
_VARIANT = re.compile(rf"(.+)@({CRYSTAL_TOKENS}|random-(\d{{1,9}}))")


def plain_name(name: str) -> str:
    """A base model's name without its variant.

    ``NAME@random-SEED`` is the base model of that name with weights drawn anew, ``NAME@crystal-tokens`` one that has
    a token for every element and every share of a lattice vector (the switches of appendix A of Gruver et al. 2024,
    arXiv:2402.04379).
    """
    found = _VARIANT.fullmatch(name)
    return found[1] if found else name


def random_seed(name: str) -> int | None:
    """The seed of weights that are drawn anew; None where those of the model are meant."""
    found = _VARIANT.fullmatch(name)
    return int(found[3]) if found and found[3] else None


def has_crystal_tokens(name: str) -> bool:
    """Whether the variant with tokens of crystals is meant."""
    return plain_name(name) + f"@{CRYSTAL_TOKENS}" == name


def base_model_path(name: str) -> str:
    """What to load a base model from: a folder, or an id of the model hub; of a variant that of the plain model.

    Args:
        name: a model that has a card (its folder in the cache is meant), an existing folder, or the
            id of a model on the hub, e.g. ``meta-llama/Meta-Llama-3-8B``, which is returned as it is.

    Raises:
        DefectgenError: the model has a card and is not in the cache; names the command that fetches it.
        UsageError: the name is a data set, or can only be a folder and there is none.
    """
    name = plain_name(name)
    card = load_cards().get(name)
    if card is not None:
        if card.kind != "model":
            raise UsageError(f"{name} is a data set, expected a base model.", "Run: defectgen fetch")
        return str(asset_path(name))
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return str(folder)
    if not name or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"got base model {name!r}, expected an existing folder, a hub id or a name that is listed.")
    return name


def hub_note(name: str) -> str:
    """What to tell of the base model that an adapter names, if it is one of the model hub; else nothing."""
    name = plain_name(name)
    if name in load_cards() or Path(name).expanduser().is_dir():
        return ""
    return f"the adapter names the base model {name} of the model hub"


def convert_gguf(gguf: Path, target: Path) -> None:
    """Unpack a GGUF model to bfloat16 safetensors with its tokenizer.

    The folder appears complete or not at all.

    Args:
        gguf: the quantized model.
        target: folder to make; must not exist.

    Raises:
        DefectgenError: the file is not a model that transformers can unpack.
        FileExistsError: `target` exists.
    """
    import torch
    import transformers

    if target.exists():
        raise FileExistsError(f"{target} exists already")
    folder, file = str(gguf.parent), gguf.name
    # Newer releases of transformers keep the weights packed where a kernel for them is installed.
    packed = getattr(transformers, "GgufConfig", None)
    options = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, gguf_file=file, local_files_only=True, trust_remote_code=False
        )
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, local_files_only=True, trust_remote_code=False, dtype=torch.bfloat16, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(f"{file} cannot be unpacked: {reason:.200}.", "Fetch it again.") from error
    _own_special_tokens(gguf, tokenizer)
    # What says "quantized" goes: the saved model is a plain one.
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
    wrong = sorted({str(weight.dtype) for weight in model.parameters()} - {"torch.bfloat16"})
    if wrong:
        raise DefectgenError(f"{file} was unpacked to {', '.join(wrong)}, expected torch.bfloat16.")

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)

    write_folder(target, fill, "config.json")


def _own_special_tokens(gguf: Path, tokenizer: Any) -> None:
    """Begin, end and padding as the file names them: what transformers takes for them depends on its release.

    A model that is trained with one end and asked for another never ends.
    """
    from gguf import GGUFReader

    fields = GGUFReader(str(gguf)).fields
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        field = fields.get(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(int(field.contents())))
