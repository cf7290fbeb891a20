"""The output layer of a causal model: hidden states to scores of tokens."""

from __future__ import annotations

from typing import Any

import torch


class OutputLayer:
    """Scores of tokens as the model itself gives them: with bias, scale and soft cap where it has them."""

    def __init__(self, model: Any) -> None:
        """Take the layer of a causal model of transformers."""
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config()
        divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
        self._scale = (1.0 if factor is None else float(factor)) / (1.0 if divisor is None else float(divisor))
        self._cap = getattr(config, "final_logit_softcapping", None)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return int(self._head.weight.shape[0])

    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Scores, shape (..., tokens), of all tokens or of some.

        Args:
            hidden: last hidden states, shape (..., width).
            tokens: ids of some tokens; None for all.
        """
        if self._head.weight.is_meta:  # it lies elsewhere until the layer is called
            logits = self._head(hidden)
            return self._finished(logits if tokens is None else logits[..., tokens.to(logits.device)])
        place = self._head.weight.device  # a model's layers may lie on several GPUs
        hidden, tokens = hidden.to(place), None if tokens is None else tokens.to(place)
        if tokens is None:
            logits = self._head(hidden)
        else:
            bias = getattr(self._head, "bias", None)
            logits = torch.nn.functional.linear(
                hidden, self._head.weight[tokens], None if bias is None else bias[tokens]
            )
        return self._finished(logits)

    def _finished(self, logits: torch.Tensor) -> torch.Tensor:
        """With scale and soft cap."""
        if self._scale != 1:
            logits = logits * self._scale
        if self._cap:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits
