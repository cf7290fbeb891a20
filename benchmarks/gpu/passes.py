"""Gradients of log-likelihoods in passes of a few fixed sizes, each captured once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from composition_tables import CompositionTables
from plain_llama import PlainLlama, captured
from torch import Tensor
from torch.nn import functional

from defectgen.llm.decode.tensor_grammar import END_COLUMN, PAD, GrammarTables

IGNORED = -100
"""Label of a token that carries no loss."""


class Losses:
    """Gradients of constrained log-likelihoods, pass by pass, at a few fixed sizes."""

    def __init__(
        self,
        model: PlainLlama,
        tables: GrammarTables | CompositionTables,
        longest: int,
        tokens: int,
        pool: Any = None,
    ) -> None:
        """Prepare.

        Args:
            model: in training.
            tables: grammars.
            longest: most tokens of a prompt with its completion.
            tokens: of one pass.
            pool: memory of CUDA graphs, shared.
        """
        self.model, self.tables, self.tokens, self.pool = model, tables, tokens, pool
        self.widths = sorted({min(longest, w) for w in (64, 96, 128, 160, longest)})
        self._passes: dict[int, tuple[dict[str, Tensor], Callable[[], None]]] = {}
        self._follower: tuple[dict[str, Tensor], Callable[[], None]] | None = None
        for weight in model.trained:
            weight.grad = torch.zeros_like(weight)

    def backward(
        self, prompts: Sequence[Sequence[int]], grammar: Sequence[int], completions: Sequence[Sequence[int]],
        weight: np.ndarray,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of -sum(weight * log-likelihood); log-likelihoods in nats, shape (rows,)."""
        device, longest = self.model.device, self.tables.longest
        lengths = np.array([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)])
        before = np.array([len(p) for p in prompts])
        ids = np.zeros((len(lengths), self.widths[-1]), dtype=np.int64)
        endings = np.full((len(lengths), longest), PAD, dtype=np.int64)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            ids[row, : len(prompt)] = prompt
            ids[row, len(prompt) : lengths[row]] = completion
            endings[row, : len(completion)] = completion
        columns, allowed, slots, choices = self._follow(np.asarray(grammar), endings)
        whole = {
            "ids": torch.as_tensor(ids, device=device),
            "before": torch.as_tensor(before, device=device),
            "weight": torch.as_tensor(weight, dtype=torch.float32, device=device),
        }
        found = torch.zeros(len(lengths), device=device)
        at = np.searchsorted(self.widths, lengths)
        for k, width in enumerate(self.widths):
            mine = np.flatnonzero(at == k)
            rows, steps = max(1, self.tokens // width), min(width, longest)
            for first in range(0, len(mine), rows):
                part = torch.as_tensor(mine[first : first + rows], device=device)
                n = len(part)
                if width not in self._passes:
                    self._passes[width] = self._prepare(width, rows, steps, allowed.shape[2])
                buffers, run = self._passes[width]
                buffers["weight"].zero_()
                buffers["weight"][:n] = whole["weight"][part]
                buffers["ids"][:n] = whole["ids"][part, :width]
                buffers["before"][:n] = whole["before"][part]
                for name, values in (
                    ("columns", columns),
                    ("allowed", allowed),
                    ("slots", slots),
                    ("choices", choices),
                ):
                    buffers[name][:n] = values[part, :steps]
                run()
                found[part] = buffers["nats"][:n]
        return found

    def _follow(self, grammar: np.ndarray, endings: np.ndarray, rows: int = 512) -> tuple[Tensor, ...]:
        """`GrammarTables.along` in one replay, and which tokens were real choices."""
        device, tables = self.model.device, self.tables
        if self._follower is None:
            width = tables.columns.shape[1] + 1
            shape = (rows, tables.longest)
            held = {
                "grammar": torch.zeros(rows, dtype=torch.long, device=device),
                "endings": torch.full(shape, PAD, dtype=torch.long, device=device),
                "columns": torch.zeros((*shape, width), dtype=torch.long, device=device),
                "allowed": torch.zeros((*shape, width), dtype=torch.bool, device=device),
                "slots": torch.zeros(shape, dtype=torch.long, device=device),
            }

            def body() -> None:
                written = tables.column_of[held["endings"].clamp(min=0)]
                written = torch.where(held["endings"] == PAD, END_COLUMN, written)
                places: Any = tables.start(held["grammar"])
                for step in range(tables.longest):
                    columns, allowed = tables.allowed(places)
                    taken = (allowed & (columns == written[:, step, None])).int().argmax(dim=1)
                    held["columns"][:, step] = columns
                    held["allowed"][:, step] = allowed
                    held["slots"][:, step] = taken
                    places, _ = tables.advance(places, taken)

            with torch.no_grad():
                self._follower = held, captured(body, self.pool) if device.type == "cuda" else body
        held, run = self._follower
        parts = []
        for first in range(0, len(grammar), rows):
            n = min(rows, len(grammar) - first)
            held["grammar"][:n] = torch.as_tensor(grammar[first : first + n], device=device)
            held["endings"][:n] = torch.as_tensor(endings[first : first + n], device=device)
            with torch.no_grad():
                run()
            choices = (held["allowed"][:n].sum(dim=2) > 1) & (held["endings"][:n] != PAD)
            parts.append((held["columns"][:n].clone(), held["allowed"][:n].clone(), held["slots"][:n].clone(), choices))
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    def _prepare(self, width: int, rows: int, steps: int, slots: int) -> tuple[dict[str, Tensor], Callable[[], None]]:
        device = self.model.device
        shape = (rows, steps)
        buffers = {
            "ids": torch.zeros((rows, width), dtype=torch.long, device=device),
            "before": torch.ones(rows, dtype=torch.long, device=device),
            "columns": torch.zeros((*shape, slots), dtype=torch.long, device=device),
            "allowed": torch.ones((*shape, slots), dtype=torch.bool, device=device),
            "slots": torch.zeros(shape, dtype=torch.long, device=device),
            "choices": torch.zeros(shape, dtype=torch.bool, device=device),
            "weight": torch.zeros(rows, device=device),
            "nats": torch.zeros(rows, device=device),
        }
        positions = torch.arange(width, device=device).expand(rows, width)
        order = torch.arange(steps, device=device)

        def body() -> None:
            hidden = self.model.hidden(buffers["ids"], positions, self.model.merged(), self.model.causal_attention)
            places = (buffers["before"][:, None] - 1 + order).clamp(max=width - 1)
            chosen = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
            scores = self.model.scores(chosen).gather(2, buffers["columns"])
            scores = scores.masked_fill(~buffers["allowed"], -1e9)
            nats = scores.log_softmax(dim=2).gather(2, buffers["slots"][..., None])[..., 0]
            nats = (nats * buffers["choices"]).sum(dim=1)
            buffers["nats"].copy_(nats.detach())
            (-(nats * buffers["weight"]).sum()).backward()

        if device.type != "cuda":
            return buffers, body
        kept = [w.grad.clone() for w in self.model.trained]
        run = captured(body, self.pool)
        for weight, value in zip(self.model.trained, kept, strict=True):
            weight.grad.copy_(value)
        return buffers, run


class TextLosses:
    """Gradients of log-likelihoods of any completions, over the whole vocabulary, at a few fixed sizes."""

    def __init__(self, model: PlainLlama, longest: int, tokens: int, pool: Any = None) -> None:
        """Prepare; the arguments are those of `Losses`."""
        self.model, self.tokens, self.pool = model, tokens, pool
        self.widths = sorted({min(longest, w) for w in (192, 256, 320, 448, longest)})
        self._passes: dict[int, tuple[Tensor, Tensor, Tensor, Callable[[], None]]] = {}
        self.loss = torch.zeros((), device=model.device)
        for weight in model.trained:
            weight.grad = torch.zeros_like(weight)

    def backward(self, examples: Sequence[tuple[Sequence[int], Sequence[int], float]]) -> Tensor:
        """Add the gradient of the mean loss of the tokens of completions; that loss in nats, shape ()."""
        total = sum(len(completion) for _, completion, _ in examples)
        self.loss.zero_()
        lengths = np.array([len(p) + len(c) for p, c, _ in examples])
        at = np.searchsorted(self.widths, lengths)
        for k, width in enumerate(self.widths):
            mine, rows = np.flatnonzero(at == k), max(1, self.tokens // width)
            for first in range(0, len(mine), rows):
                if width not in self._passes:
                    self._passes[width] = self._prepare(width, rows)
                ids, labels, share, run = self._passes[width]
                found = _rows([examples[j] for j in mine[first : first + rows]], rows, width)
                ids.copy_(torch.as_tensor(found[0]))
                labels.copy_(torch.as_tensor(found[1]))
                share.fill_(1 / total)
                run()
        return self.loss.clone()

    @torch.no_grad()
    def evaluate(self, examples: Sequence[tuple[Sequence[int], Sequence[int], float]]) -> float:
        """Mean loss in nats a token of completions."""
        device, weights, loss = self.model.device, self.model.merged(), 0.0
        width = max(len(p) + len(c) for p, c, _ in examples)
        rows = max(1, self.tokens // width)
        for first in range(0, len(examples), rows):
            part = examples[first : first + rows]
            ids, labels = (torch.as_tensor(x, device=device) for x in _rows(part, len(part), width))
            loss += float(self._loss(ids, labels, weights))
        return loss / sum(len(completion) for _, completion, _ in examples)

    def _loss(self, ids: Tensor, labels: Tensor, weights: dict[str, Tensor]) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        hidden = self.model.hidden(ids, positions, weights, self.model.causal_attention)
        logits = functional.linear(hidden, self.model.whole_head).float().flatten(0, 1)
        return functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def _prepare(self, width: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Callable[[], None]]:
        device = self.model.device
        ids = torch.zeros((rows, width), dtype=torch.long, device=device)
        labels = torch.full((rows, width), IGNORED, dtype=torch.long, device=device)
        share = torch.zeros((), device=device)

        def body() -> None:
            loss = self._loss(ids, labels, self.model.merged()) * share
            self.loss.add_(loss.detach())
            loss.backward()

        if device.type != "cuda":
            return ids, labels, share, body
        kept = [w.grad.clone() for w in self.model.trained]
        before = self.loss.clone()
        run = captured(body, self.pool)
        for weight, value in zip(self.model.trained, kept, strict=True):
            weight.grad.copy_(value)
        self.loss.copy_(before)
        return ids, labels, share, run


def _rows(examples: Sequence[Any], rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and the label of each place, which is the token after it, both of shape (rows, width)."""
    ids, labels = np.zeros((rows, width), dtype=np.int64), np.full((rows, width), IGNORED, dtype=np.int64)
    for row, (prompt, completion, _) in enumerate(examples):
        end = len(prompt) + len(completion)
        ids[row, : len(prompt)], ids[row, len(prompt) : end] = prompt, completion
        labels[row, len(prompt) - 1 : end - 1] = completion
    return ids, labels
