"""Attention with shared keys is the library's, without the copies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from defectgen.llm.attention import NAME, grouped_attention


@pytest.mark.parametrize(("heads", "queries"), [(9, 1), (9, 4), (3, 4)])
def test_it_gives_what_the_library_gives(heads: int, queries: int) -> None:
    torch.manual_seed(0)
    rows, keys = 5, 11
    query, key, value = (
        torch.randn(rows, heads, queries, 8),
        torch.randn(rows, 3, keys, 8),
        torch.randn(rows, 3, keys, 8),
    )
    mask = torch.rand(rows, 1, queries, keys) > 0.4
    mask[..., 0] = True
    module: Any = SimpleNamespace(num_key_value_groups=heads // 3)
    for given in (mask, None):
        expected, _ = sdpa_attention.sdpa_attention_forward(module, query, key, value, given, scaling=0.3)
        found, _ = grouped_attention(module, query, key, value, given, scaling=0.3)
        assert found.shape == (rows, queries, heads, 8)
        assert torch.allclose(found, expected, atol=1e-6)


def test_generation_copies_no_keys(tiny_generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_generator.model.config._attn_implementation == NAME

    def refuse(*_: Any) -> Any:
        raise AssertionError("keys are copied")

    monkeypatch.setattr(sdpa_attention, "repeat_kv", refuse)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    tiny_generator.model(torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]]), attention_mask=mask)
