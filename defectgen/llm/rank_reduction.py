"""A trained adapter in fewer numbers: the best approximation of lower rank of each of its updates."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.folders import claimed, contents
from defectgen.llm.adapter import (
    LORA_CONFIG,
    METADATA,
    TRAINING_CONFIGURATIONS,
    WEIGHTS,
    AdapterCard,
    read_adapter,
    write_adapter,
)
from defectgen.llm.adapter_weights import read_weights
from defectgen.llm.lora_config import Lora, read_lora


@dataclass(frozen=True)
class Shrunk:
    """What is left of an adapter.

    Attributes:
        rank: of each update.
        mean_kept: mean over the weight matrices of the share of the squared norm of the update.
        least_kept: the smallest of these shares.
    """

    rank: int
    mean_kept: float
    least_kept: float


def shrink_adapter(folder: Path, output: Path, rank: int) -> Shrunk:
    """Write an adapter of lower rank: truncated singular value decomposition of each update.

    The decomposition gives the nearest matrix of that rank (Eckart and Young 1936, doi 10.1007/BF02288367).

    Args:
        folder: the adapter; it stays as it is.
        output: folder of the new one.
        rank: of each update, less than that of the adapter.

    Raises:
        DefectgenError: no adapter in `folder`.
        UsageError: `output` holds something, or the rank is not lower.
    """
    with claimed(output) as claim:
        if contents(output) and not claim.continued:
            raise UsageError(f"{output} exists already.", "Choose a new folder.")
        card = read_adapter(folder)
        before = read_lora(folder)
        if not 1 <= rank < before.rank:
            raise UsageError(f"got rank {rank}, expected 1 to {before.rank - 1}: the adapter has rank {before.rank}.")
        return _shrink(folder, output, rank, before, card)


def _shrink(folder: Path, output: Path, rank: int, before: Lora, card: AdapterCard) -> Shrunk:
    weights = read_weights(folder, before)
    config = read_object(folder / LORA_CONFIG)
    smaller = {name: weights[name] for name in weights if ".lora_" not in name}  # rows of tokens, trained in full
    kept = []
    for name in sorted(weights):
        if ".lora_A." not in name:
            continue
        partner = name.replace(".lora_A.", ".lora_B.")
        inner, outer = weights[name], weights[partner]  # the update is outer @ inner
        q_in, r_in = torch.linalg.qr(inner.float().T)
        q_out, r_out = torch.linalg.qr(outer.float())
        left, values, right = torch.linalg.svd(r_out @ r_in.T)
        root = values[:rank].sqrt()
        smaller[name] = (root[:, None] * (right[:rank] @ q_in.T)).to(inner.dtype).contiguous()
        smaller[partner] = ((q_out @ left[:, :rank]) * root).to(outer.dtype).contiguous()
        kept.append(float((values[:rank] ** 2).sum() / (values**2).sum().clamp_min(1e-30)))
    result = Shrunk(rank, sum(kept) / len(kept), min(kept))
    lora = {"rank": rank, "alpha": before.alpha * rank / before.rank}
    note = {"from_rank": before.rank, "rank": rank, "mean_kept": result.mean_kept, "least_kept": result.least_kept}
    changed = config | {"r": rank, "lora_alpha": lora["alpha"]}

    def fill(new: Path) -> None:
        save_file(smaller, new / WEIGHTS, metadata={"format": "pt"})
        (new / LORA_CONFIG).write_text(json.dumps(changed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        shutil.copyfile(folder / TRAINING_CONFIGURATIONS, new / TRAINING_CONFIGURATIONS)
        try:
            replace(card, training=card.training | {"shrunk": note}).write(new)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise DefectgenError(
                f"{folder / METADATA} does not tell how the adapter was trained ({error!r:.80})."
            ) from error

    write_adapter(output, fill)
    return result
