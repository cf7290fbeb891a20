"""Configurations drawn with a step that is captured once: model, grammar and choice in one replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from composition_tables import CompositionTables
from plain_llama import PlainLlama, captured
from torch import Tensor
from torch.nn import functional

from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.decode.tensor_sampler import Samples


class Sampler:
    """Draws configurations with a step that is captured once: model, grammar and choice in one replay."""

    def __init__(
        self,
        model: PlainLlama,
        tables: GrammarTables | CompositionTables,
        tokenizer: Any,
        rows: int,
        prompt: int,
        pool: Any = None,
    ) -> None:
        """Prepare the room.

        Args:
            model: as it is at each call of `sample`.
            tables: grammars.
            tokenizer: of the prompts.
            rows: drawn together.
            prompt: most tokens of a prompt.
            pool: memory of CUDA graphs, shared.
        """
        self.model, self.tables, self.tokenizer, self.rows, self.prompt, self.pool = (
            model,
            tables,
            tokenizer,
            rows,
            prompt,
            pool,
        )
        device, room = model.device, prompt + tables.longest
        shape = (model.n_layers, rows, model.kv_heads, room, model.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=model.dtype, device=device) for _ in range(2))
        self.weights = {name: torch.empty_like(weight) for name, weight in model.base.items()}
        zero = torch.zeros(rows, dtype=torch.long, device=device)
        begin: Any = tables.start(zero)
        self.names = [field.name for field in fields(begin)]
        self.places: Any = replace(begin, **{name: getattr(begin, name).clone() for name in self.names})
        self.ids, self.position, self.slot = (
            zero.clone()[:, None],
            zero.clone(),
            torch.zeros(1, dtype=torch.long, device=device),
        )
        self.seen = torch.zeros((rows, room), dtype=torch.bool, device=device)
        self.scores = torch.zeros((rows, len(tables.tokens)), device=device)
        self.nats, self.heat = torch.zeros(rows, device=device), torch.ones(1, device=device)
        self.written = torch.full((rows, tables.longest), PAD, dtype=torch.long, device=device)
        self.complete = torch.full((rows, tables.longest), PAD, dtype=torch.long, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self._run: Callable[[], None] | None = None

    def _cached(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values, model = self.keys[layer], self.values[layer], self.model
        keys.index_copy_(2, self.slot, k)
        values.index_copy_(2, self.slot, v)
        groups = model.heads // model.kv_heads
        q = q.reshape(self.rows, model.kv_heads, groups, model.head_dim)
        weights = torch.matmul(q, keys.transpose(2, 3)) * model.head_dim**-0.5
        weights = weights.float().masked_fill(~self.seen[:, None, None], -1e9).softmax(dim=-1).to(q.dtype)
        return torch.matmul(weights, values).reshape(self.rows, model.heads, 1, model.head_dim)

    def _choose(self) -> None:
        """Draw from the scores at hand, and note what was written."""
        tables, places = self.tables, self.places
        columns, allowed = tables.allowed(places)
        scores = self.scores.gather(1, columns).masked_fill(~allowed, -1e9)
        noise = torch.empty_like(scores).exponential_().clamp(min=1e-30).log()
        slots = (scores - self.heat * noise).argmax(dim=1)
        taken = slots[:, None]
        chosen = scores.gather(1, taken)[:, 0] - scores.logsumexp(dim=1)
        self.nats += torch.where(places.ended, 0.0, chosen)
        self.ids.copy_(tables.tokens[columns.gather(1, taken)])
        self.written.index_copy_(1, self.step, torch.where(places.ended, PAD, self.ids[:, 0])[:, None])
        after, edit = tables.advance(places, slots)
        self.complete.index_copy_(1, self.step, edit[:, None])
        for name in self.names:
            getattr(places, name).copy_(getattr(after, name))
        self.step += 1

    def _body(self) -> None:
        self.seen.index_fill_(1, self.slot, True)
        hidden = self.model.hidden(self.ids, self.position[:, None], self.weights, self._cached)
        self.scores.copy_(self.model.scores(hidden[:, -1]))
        self.position += 1
        self.slot += 1
        self._choose()

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], grammar: Sequence[int], temperature: float, seed: int
    ) -> Samples:
        """One completion for each prompt (token ids), in their order."""
        for name, weight in self.model.merged().items():
            self.weights[name].copy_(weight)
        torch.manual_seed(seed)
        self.heat.fill_(temperature)
        parts = [range(first, min(first + self.rows, len(prompts))) for first in range(0, len(prompts), self.rows)]
        made = [self._batch([prompts[k] for k in part], [grammar[k] for k in part]) for part in parts]
        width = max(tokens.shape[1] for tokens, _, _ in made)
        tokens = torch.cat([functional.pad(t, (0, width - t.shape[1]), value=PAD) for t, _, _ in made])
        known = self.tables.edits
        edits = [
            tuple(sorted(known[e] for e in row[row >= 0].tolist()))
            for _, complete, _ in made
            for row in complete.numpy()
        ]
        return Samples(tokens, edits, np.concatenate([nats.numpy() for _, _, nats in made]))

    def _batch(self, prompts: Sequence[Sequence[int]], grammar: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        model, device, n, width = self.model, self.model.device, len(prompts), self.prompt
        full = [*prompts, *[prompts[-1]] * (self.rows - n)]
        kinds = torch.tensor([*grammar, *[grammar[-1]] * (self.rows - n)], device=device)
        if max(map(len, full)) > width:
            raise ValueError(f"got a prompt of {max(map(len, full))} tokens, expected at most {width}")
        ids = torch.tensor([[*[0] * (width - len(p)), *p] for p in full], device=device)
        lengths = torch.tensor([len(p) for p in full], device=device)
        if self._run is None:
            self._start(kinds, lengths)
            self._run = captured(self._body, self.pool) if device.type == "cuda" else self._body
        self._start(kinds, lengths)
        positions = (torch.arange(width, device=device) - (width - lengths)[:, None]).clamp(min=0)
        order = torch.arange(width, device=device)
        for first in range(0, self.rows, 512):  # the prompts, in pieces that fit
            part = slice(first, first + 512)
            mask = (order <= order[:, None]) & self.seen[part, None, :width]
            mask = (mask | torch.eye(width, dtype=torch.bool, device=device))[:, None]

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, part: slice = part, mask: Tensor = mask) -> Tensor:
                self.keys[layer, part, :, :width] = k
                self.values[layer, part, :, :width] = v
                return functional.scaled_dot_product_attention(q, model.repeated(k), model.repeated(v), attn_mask=mask)

            hidden = model.hidden(ids[part], positions[part], self.weights, attend)
            self.scores[part] = model.scores(hidden[:, -1])
        self._choose()
        for step in range(1, self.tables.longest):
            self._run()
            if step % 8 == 0 and bool(self.places.ended.all()):
                break
        used = max(1, int((self.written[:n] != PAD).sum(dim=1).max()))
        return (
            self.written[:n, :used].cpu().clone(),
            self.complete[:n, :used].cpu().clone(),
            self.nats[:n].double().cpu(),
        )

    def _start(self, kinds: Tensor, lengths: Tensor) -> None:
        begin = self.tables.start(kinds)
        for name in self.names:
            getattr(self.places, name).copy_(getattr(begin, name))
        order = torch.arange(self.prompt, device=kinds.device)
        self.seen.zero_()
        self.seen[:, : self.prompt] = order >= (self.prompt - lengths)[:, None]
        self.position.copy_(lengths)
        self.slot.fill_(self.prompt)
        self.step.zero_()
        self.nats.zero_()
        self.written.fill_(PAD)
        self.complete.fill_(-1)
