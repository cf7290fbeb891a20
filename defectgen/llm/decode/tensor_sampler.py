"""Lists of edits drawn as one batch under compiled grammars, and the likelihoods of given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.llm.decode.attention import share_keys
from defectgen.llm.decode.kv_cache import GrowingLayer, growing_cache
from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import prompt_ids

COMPACT_EVERY, COMPACT_SHARE = 16, 0.75
"""After so many steps the ended rows are dropped, where at most this share is left."""


class FewTokens(OutputLayer):
    """The output layer for a fixed set of tokens, in 32 bits."""

    def __init__(self, model: Any, tokens: torch.Tensor) -> None:
        """Copy the rows of these tokens, shape (M,)."""
        super().__init__(model)
        bias = getattr(self._head, "bias", None)
        self._weight = self._head.weight.detach()[tokens].float()
        self._bias = None if bias is None else bias.detach()[tokens].float()

    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002
        """Scores, shape (..., M), of hidden states of shape (..., width)."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits = torch.nn.functional.linear(hidden.float(), self._weight, self._bias) * self._scale
            return torch.tanh(logits / self._cap) * self._cap if self._cap else logits


class RoomyLayer(GrowingLayer):
    """Keys and values of one layer with the room for all tokens made at the first."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `GrowingLayer.update`."""
        if not self._rooms:
            held = cast(tuple[torch.Tensor, ...], (self.keys, self.values) if self.get_seq_length() else ())
            self._rooms = [s.new_empty((*s.shape[:2], self.tokens, s.shape[3])) for s in (key_states, value_states)]
            for room, old in zip(self._rooms, held, strict=False):
                room[:, :, : old.shape[2]] = old
        return super().update(key_states, value_states, *args, **options)


def roomy_cache(config: Any, tokens: int) -> Any:
    """An empty cache with room for so many tokens; layers that forget are the library's."""
    cache = growing_cache(config)
    cache.layers = [RoomyLayer(tokens) if type(layer) is GrowingLayer else layer for layer in cache.layers]
    return cache


@dataclass(frozen=True)
class Samples:
    """Completions that were drawn, in the order of the prompts.

    Attributes:
        tokens: ids with the end, shape (rows, tokens), `PAD` after it, on the CPU.
        edits: of each row (site, species) pairs in the order of the sites.
        log_likelihood: under the constrained model at temperature 1, in nats, shape (rows,).
    """

    tokens: torch.Tensor
    edits: list[tuple[Edit, ...]]
    log_likelihood: NDArray[np.float64]


class TensorSampler:
    """Draws lists of edits, a whole batch a step. The model's weights are read anew at each call."""

    def __init__(self, model: Any, tokenizer: Any, tables: GrammarTables) -> None:
        """Take a causal model of transformers with its adapter merged, and tables on the model's device."""
        self.model = model
        share_keys(model)
        self.tokenizer = tokenizer
        self.tables = tables
        self._prompts: dict[str, list[int]] = {}

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt, remembered."""
        if prompt not in self._prompts:
            self._prompts[prompt] = prompt_ids(self.tokenizer, prompt)
        return self._prompts[prompt]

    def sample(
        self,
        prompts: Sequence[str],
        grammar: Sequence[int],
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        batch_size: int = 2048,
    ) -> Samples:
        """One completion for each prompt.

        Args:
            prompts: texts; repeat one for several completions.
            grammar: for each prompt the index of its grammar in the tables.
            temperature: 0 takes the likeliest token, 1 the model's own distribution.
            generator: of random numbers, on the model's device.
            batch_size: rows that are decoded together.
        """
        chosen = np.asarray(grammar)
        lengths = np.array([len(self.prompt_ids(prompt)) for prompt in prompts])
        order = np.argsort(lengths, kind="stable")  # equal lengths together: no mask is needed then
        parts = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        made = [
            self._batch([self.prompt_ids(prompts[k]) for k in part], chosen[part], temperature, generator)
            for part in parts
        ]
        tokens = torch.full((len(order), max((t.shape[1] for t, _, _ in made), default=0)), PAD)
        nats = np.zeros(len(order))
        edits: list[tuple[Edit, ...]] = [()] * len(order)
        known = self.tables.edits
        for part, (ids, complete, found) in zip(parts, made, strict=True):
            tokens[torch.from_numpy(part), : ids.shape[1]] = ids
            nats[part] = found.numpy()
            written = complete.numpy()
            for k, row, keep in zip(part.tolist(), written, written >= 0, strict=True):
                edits[k] = tuple(known[edit] for edit in row[keep].tolist())
        return Samples(tokens, edits, nats)

    @torch.inference_mode()
    def _batch(
        self,
        prompts: Sequence[Sequence[int]],
        grammar: NDArray[np.int64],
        temperature: float,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens and completed edits, both of shape (rows, steps), and log-likelihoods, shape (rows,)."""
        tables, device, rows = self.tables, self.model.device, len(prompts)
        head = FewTokens(self.model, tables.tokens)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts], device=device)
        padding = None if bool((lengths == width).all()) else (width - lengths)[:, None]
        cache = roomy_cache(self.model.config, width + tables.longest)
        keys = torch.arange(width + tables.longest, device=device)
        places = tables.start(torch.as_tensor(grammar, device=device))
        active = torch.arange(rows, device=device)
        nats = torch.zeros(rows, dtype=torch.float64, device=device)
        written = torch.full((rows, tables.longest), PAD, device=device)
        complete = torch.full((rows, tables.longest), -1, device=device)
        positions = (keys[:width] - (width - lengths)[:, None]).clamp(min=0)
        mask = None
        if padding is not None:
            seen = (keys[:width] <= keys[:width, None]) & (keys[:width] >= padding[:, :, None])
            mask = (seen | torch.eye(width, dtype=torch.bool, device=device))[:, None]
        step = 0
        while True:
            hidden = self._forward(ids, mask, positions, cache)
            columns, allowed = tables.allowed(places)
            scores = head(hidden).gather(1, columns).masked_fill(~allowed, -torch.inf)
            slots = _draw(scores, temperature, generator)
            taken = slots[:, None]
            chosen = scores.gather(1, taken)[:, 0].double() - scores.double().logsumexp(1)
            nats[active] += torch.where(places.ended, 0.0, chosen)
            ids = tables.tokens[columns.gather(1, taken)]
            written[active, step] = torch.where(places.ended, PAD, ids[:, 0])
            places, edit = tables.advance(places, slots)
            complete[active, step] = edit
            step += 1
            if step == tables.longest or (step % 4 == 0 and bool(places.ended.all())):
                break
            if step % COMPACT_EVERY == 0:
                kept = (~places.ended).nonzero()[:, 0]
                if len(kept) <= COMPACT_SHARE * len(active):
                    active, places, ids, lengths = active[kept], places.at(kept), ids[kept], lengths[kept]
                    padding = None if padding is None else padding[kept]
                    cache.batch_select_indices(kept)
            positions = (lengths + step - 1)[:, None]
            mask = None if padding is None else (keys[: width + step] >= padding)[:, None, None]
        used = int((written != PAD).sum(dim=1).max())
        return written[:, :used].cpu(), complete[:, :used].cpu(), nats.cpu()

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Hidden states of the last tokens, shape (rows, width)."""
        output = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state[:, -1]


def _draw(scores: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    """One slot of each row, shape (rows,), by the largest of scores with Gumbel noise."""
    if temperature == 0:
        return scores.argmax(dim=1)
    noise = torch.empty_like(scores).exponential_(generator=generator).clamp(min=1e-30).log()
    return (scores / temperature - noise).argmax(dim=1)


def log_probabilities(
    model: Any,
    tables: GrammarTables,
    grammar: Sequence[int] | torch.Tensor,
    prompts: Sequence[Sequence[int]],
    completions: torch.Tensor,
) -> torch.Tensor:
    """Log-likelihoods of given completions under the constrained model, with gradients, in one pass.

    Args:
        model: a causal model of transformers, or one of peft around it; on the device of the tables.
        tables: compiled grammars.
        grammar: index of each row's grammar.
        prompts: token ids of each row's prompt.
        completions: token ids with the end, shape (rows, tokens), `PAD` after it, as `Samples.tokens`.

    Returns:
        Nats, shape (rows,), in 32 bits.

    Raises:
        DefectgenError: a completion that its grammar does not allow.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = tables.tokens.device
    completions = completions.to(device)
    columns, allowed, slots = tables.along(torch.as_tensor(grammar, device=device), completions)
    before = torch.tensor([len(prompt) for prompt in prompts], device=device)
    sizes = (completions != PAD).sum(dim=1).tolist()
    endings = [row[:size] for row, size in zip(completions.tolist(), sizes, strict=True)]
    texts = [[*prompt, *ending[:-1]] for prompt, ending in zip(prompts, endings, strict=True)]
    width = max(len(text) for text in texts)
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
    choices = (allowed.sum(dim=2) > 1) & (completions != PAD)
    rows, steps = choices.nonzero(as_tuple=True)
    scores = FewTokens(causal, tables.tokens)(hidden[rows, before[rows] - 1 + steps])
    scores = scores.gather(1, columns[rows, steps]).masked_fill(~allowed[rows, steps], -torch.inf)
    nats = scores.log_softmax(dim=1).gather(1, slots[rows, steps][:, None])[:, 0]
    return torch.zeros(len(completions), device=device).index_add(0, rows, nats)
