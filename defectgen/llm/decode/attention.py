"""Attention of models whose heads share keys and values, without a copy of both for every head.

With a mask transformers repeats keys and values until each head has its own, at every decoding step; for
SmolLM2 that is three times the cache. Here the heads that share a key are further queries to it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_grouped"


def share_keys(model: Any) -> None:
    """Let a model attend in this way if it attends by torch's scaled dot product; its results stay the same."""
    if model.config.get_text_config()._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' `sdpa_attention_forward` gives.

    Args:
        module: the layer.
        query: shape (rows, heads, queries, width).
        key: shape (rows, heads that are not shared, keys, width).
        value: as `key`.
        attention_mask: shape (rows, 1, queries, keys), or None.
        options: of the library's function.

    Returns:
        Shape (rows, queries, heads, width), and no weights.
    """
    rows, heads, queries, width = query.shape
    groups = heads // key.shape[1]
    if groups == 1 or attention_mask is None or attention_mask.shape[1] > 1 or options.get("position_bias") is not None:
        return tuple(sdpa_attention_forward(module, query, key, value, attention_mask, **options))  # type: ignore[return-value]
    packed = query.reshape(rows, key.shape[1], groups * queries, width)
    mask = attention_mask[:, :, None].expand(-1, -1, groups, -1, -1).reshape(rows, 1, groups * queries, -1)
    output = torch.nn.functional.scaled_dot_product_attention(
        packed, key, value, attn_mask=mask, dropout_p=options.get("dropout", 0.0), scale=options.get("scaling")
    )
    return output.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None
