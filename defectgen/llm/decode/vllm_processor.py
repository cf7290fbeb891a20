"""The constraint inside vLLM: loaded by name in the process that runs the model. Needs vLLM to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from defectgen.llm.decode.generator import Sampling
from defectgen.llm.decode.guide import Guide, unpack_grammar
from defectgen.llm.decode.token_grammar import TokenGrammar

ARGUMENT = "defectgen"
"""Where `SamplingParams.extra_args` holds what a request's guide needs; see `guide_arguments`."""


class GrammarProcessor(LogitsProcessor):
    """Draws the token of each row under its grammar, and leaves vLLM no other.

    After `apply` a row is minus infinity but at the token drawn, where it holds that token's
    log-probability in nats among the allowed ones at temperature 1. So vLLM's own sampling must be
    greedy, and with ``logprobs_mode="processed_logits"`` its log-probabilities are those of the
    constrained model. Temperature, top-p and seed act here, with the same numbers as in
    `TransformersGenerator`, whatever else is in the batch.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        model = vllm_config.model_config
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(model.tokenizer, trust_remote_code=False)
        self._piece_tokens: dict[str, tuple[int, ...]] = {}
        self._compiled: dict[str, TokenGrammar] = {}
        self._rows: dict[int, tuple[Guide, Sampling, Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._new_row)

    def _new_row(
        self, params: Any, prompt: Sequence[int] | None, output: Sequence[int]
    ) -> tuple[Guide, Sampling, Sequence[int]] | None:
        """What a request needs; `output` is its running list of tokens, filled by vLLM."""
        del prompt
        given = (params.extra_args or {}).get(ARGUMENT)
        if given is None:
            return None
        text = given["grammar"]
        if text not in self._compiled:
            self._compiled[text] = TokenGrammar(unpack_grammar(text), self._tokenizer, self._piece_tokens)
        sampling = Sampling(
            given["temperature"], given["top_p"], coordinate_temperature=given["coordinate_temperature"]
        )
        return Guide(self._compiled[text], given["seed"]), sampling, output

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Rewrite the rows of `logits`, shape (requests, vocabulary)."""
        if not self._rows:
            return logits
        rows, tokens, values = [], [], []
        asked: list[tuple[int, Guide, Sampling, list[int]]] = []
        for row, (guide, sampling, output) in self._rows.items():
            guide.follow(output)
            if (forced := guide.forced) is None:
                asked.append((row, guide, sampling, guide.allowed))
            else:
                rows.append(row)
                tokens.append(forced)
                values.append(0.0)
        for (row, guide, sampling, allowed), scores in zip(asked, self._gather(logits, asked), strict=True):
            log_probabilities = scores - np.logaddexp.reduce(scores)
            k = guide.draw(log_probabilities, sampling)
            rows.append(row)
            tokens.append(allowed[k])
            values.append(float(log_probabilities[k]))
        at = torch.tensor([rows, tokens], device=self._device)
        logits[at[0]] = -torch.inf
        logits[at[0], at[1]] = torch.tensor(values, dtype=logits.dtype, device=self._device)
        return logits

    def _gather(
        self, logits: torch.Tensor, asked: Sequence[tuple[int, Guide, Sampling, list[int]]]
    ) -> list[np.ndarray[Any, Any]]:
        """The allowed entries of each row, in one transfer from the device."""
        rows = [row for row, _, _, allowed in asked for _ in allowed]
        columns = [token for _, _, _, allowed in asked for token in allowed]
        at = torch.tensor([rows, columns], dtype=torch.long, device=self._device)
        flat = logits[at[0], at[1]].float().cpu().numpy().astype(np.float64)
        ends = np.cumsum([len(allowed) for _, _, _, allowed in asked])
        return np.split(flat, ends[:-1]) if asked else []


def guide_arguments(grammar: str, seed: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """`SamplingParams.extra_args` of one completion, plain values only: they may go to another process.

    Args:
        grammar: from `pack_grammar`.
        seed: of the completion.
        sampling: how its tokens are drawn.
    """
    return {
        ARGUMENT: {
            "grammar": grammar,
            "seed": list(seed),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "coordinate_temperature": sampling.coordinate_temperature,
        }
    }
