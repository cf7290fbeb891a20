"""Attention with shared keys and the growing cache are the library's, without the copies; widths that pay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicLayer
from transformers.integrations import sdpa_attention

from defectgen.llm.decode.attention import NAME, grouped_attention
from defectgen.llm.decode.kv_cache import GrowingLayer
from defectgen.llm.decode.transformers_engine import best_width


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


def test_the_cache_holds_what_the_library_holds() -> None:
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    for step, tokens in enumerate((5, 1, 1, 4, 20, 1, 1)):
        rows = 3 if step < 4 else 2
        new = torch.randn(2, rows, 2, tokens, 8)
        for found, expected in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        if step == 3:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([2, 0]))
    room = ours._rooms[0].data_ptr()
    ours.update(*torch.randn(2, 2, 2, 1, 8))
    assert ours._rooms[0].data_ptr() == room, "one token more is written in place"


@pytest.mark.parametrize(
    ("lengths", "cost", "width"),
    [
        ([3, 3, 3], 24, 3),
        ([1] * 99 + [17], 24, 1),
        ([1] * 99 + [17], 10**6, 17),
        ([20] * 60 + [21] * 4, 24, 20),
        ([2], 0, 2),
    ],
)
def test_a_pass_takes_the_width_that_gets_most_done(lengths: list[int], cost: int, width: int) -> None:
    assert best_width(lengths, cost) == width
