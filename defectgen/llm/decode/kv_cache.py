"""A cache of keys and values with room to grow: a decoding step writes its own and copies nothing else."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

GROWTH = 1.5
"""Room that is made when there is no more, over what is needed."""


def growing_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this configuration; layers that forget (sliding windows) are the library's."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):
    """The library's `DynamicLayer` without its copy of all keys and values in every step."""

    def __init__(self) -> None:
        super().__init__()
        self._rooms: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, shape (rows, heads, tokens, width); returns all of them."""
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        if not self._rooms or after > self._rooms[0].shape[2]:
            held = cast(tuple[torch.Tensor, ...], (self.keys, self.values) if before else ())
            self._rooms = [
                states.new_empty((*states.shape[:2], int(after * GROWTH), states.shape[3]))
                for states in (key_states, value_states)
            ]
            for room, old in zip(self._rooms, held, strict=False):
                room[:, :, :before] = old
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, before:after] = states
        self.is_initialized = True
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (room[:, :, :after] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices.to(self.device))  # layers may lie on several GPUs
        self._rooms = []
