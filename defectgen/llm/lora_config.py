"""The file that says what shape the updates of an adapter have; it may be a stranger's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, read_object
from defectgen.llm.adapter import AGAIN, LORA_CONFIG
from defectgen.one_line import shown

ALL_LINEAR = "all-linear"
"""In place of names: every matrix but the output layer."""

MOST_RANK = 4096
MOST_TOKENS = 10_000_000
ROWS = "trainable_token_indices"


@dataclass(frozen=True)
class Lora:
    """The shape of an adapter.

    Attributes:
        rank: of each update.
        alpha: updates are multiplied by alpha / rank.
        targets: last words of the names of the matrices that get an update, or ``all-linear``.
        rows: by the name of an embedding the tokens whose rows are trained themselves, ascending; none but for
            `defectgen.llm.crystal_tokens`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] | str
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)


_NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100}){0,20}")
_ALLOWED = frozenset(
    {
        "r", "lora_alpha", "lora_dropout", "target_modules", "peft_type", "task_type", "peft_version",
        "base_model_name_or_path", "revision", "inference_mode", "init_lora_weights", "megatron_core",
        "qalora_group_size", "fan_in_fan_out",
    }
)  # fmt: skip
"""Settings of an adapter that may be set: they do not change what the matrices mean, or are checked."""


def read_lora(folder: Path) -> Lora:
    """The shape of an adapter, as its ``adapter_config.json`` says.

    Only plain LoRA is read: what gives other ranks to some layers, repeats layers, names matrices by a regular
    expression, or saves more than the updates is refused.

    Raises:
        DefectgenError: the file is missing, damaged, or asks for more than that.
    """
    path = folder / LORA_CONFIG
    try:
        config = read_object(path, {"r": int, "lora_alpha": (int, float), "target_modules": (list, str)})
    except OSError as error:
        raise DefectgenError(f"{folder} is no trained adapter.", f"Expected {LORA_CONFIG} in it.") from error
    except DocumentError as error:
        raise DefectgenError(f"{path} is damaged ({error.reason}).", AGAIN) from error
    rank, alpha, targets = config["r"], float(config["lora_alpha"]), config["target_modules"]
    if not 1 <= rank <= MOST_RANK:
        raise DefectgenError(f"{path}: r is {rank}, expected 1 to {MOST_RANK}.", AGAIN)
    if not 0 < alpha <= 1e6:
        raise DefectgenError(f"{path}: lora_alpha is {alpha:g}, expected a number above 0, at most 1e6.", AGAIN)
    if isinstance(targets, str) and targets != ALL_LINEAR:
        raise DefectgenError(
            f"{path}: target_modules is {shown(targets)}, expected a list of names or {ALL_LINEAR!r}.",
            "Regular expressions of others are not run: write the names out.",
        )
    if not isinstance(targets, str) and (
        not 0 < len(targets) <= 1000 or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in targets)
    ):
        raise DefectgenError(f"{path}: target_modules is {shown(targets)}, expected names of matrices.", AGAIN)
    for key, kind in (("peft_type", "LORA"), ("task_type", "CAUSAL_LM")):
        if config.get(key, kind) != kind:
            raise DefectgenError(f"{path}: {key} is {shown(config[key])}, expected {kind!r}.")
    rows = _rows(config.get(ROWS), path)
    for key, value in sorted(config.items()):
        if key not in (*_ALLOWED, ROWS) and value not in (None, False, "none", [], {}):
            raise DefectgenError(
                f"{path}: {key:.40} is {shown(value)}; only plain LoRA can be used.",
                "Train an adapter with `defectgen finetune`.",
            )
    return Lora(rank, alpha, targets if isinstance(targets, str) else tuple(targets), rows)


def _rows(value: object, path: Path) -> dict[str, tuple[int, ...]]:
    """Rows of embeddings that an adapter brings."""
    if value is None:
        return {}
    if (
        isinstance(value, dict)
        and len(value) <= 2
        and all(isinstance(name, str) and _NAME.fullmatch(name) for name in value)
        and all(
            isinstance(ids, list)
            and 0 < len(ids) <= MOST_RANK
            and all(type(k) is int and 0 <= k < MOST_TOKENS for k in ids)
            and sorted(set(ids)) == ids
            for ids in value.values()
        )
    ):
        return {name: tuple(ids) for name, ids in value.items()}
    raise DefectgenError(f"{path}: {ROWS} is {shown(value)}, expected ascending tokens by the name of a layer.", AGAIN)
