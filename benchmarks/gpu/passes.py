"""Gradients of log-likelihoods in passes of a few fixed sizes, each captured once as a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from composition_tables import CompositionTables
from pieces import IGNORED, Pieces, TextLoss, compiled, wanted
from plain_llama import PlainLlama, captured
from torch import Tensor

from defectgen.llm.decode.tensor_grammar import END_COLUMN, PAD, GrammarTables

STEP, CHUNK = 8, 4096
"""Widths are multiples of the first; logits over the whole vocabulary are made for so many tokens at most."""


def widths_of(tokens: int, longest: int) -> list[int]:
    """Widths of passes: with so many rows that all have `tokens`, up to one that has room for `longest`."""
    least = max(STEP, tokens // 160)
    fitting = [w for w in range(STEP, tokens + 1, STEP) if tokens % w == 0 and w >= min(least, longest)]
    widths = [w for w in fitting if w < longest] + [w for w in fitting if w >= longest][:1]
    return widths if widths and widths[-1] >= longest else [*widths, longest]


class Passes:
    """Passes with gradients of a fixed number of tokens, captured once for each width.

    The first one is timed as it is and compiled; the faster way stays.
    """

    def __init__(self, model: PlainLlama, longest: int, tokens: int, pool: Any = None) -> None:
        """Prepare.

        Args:
            model: in training.
            longest: most tokens of a prompt with its completion.
            tokens: of one pass.
            pool: memory of CUDA graphs, shared.
        """
        self.model, self.tokens, self.pool = model, tokens, pool
        self.widths = widths_of(tokens, longest)
        self._settled = model.device.type != "cuda" or not wanted()
        for weight in model.trained:
            weight.grad = torch.zeros_like(weight)

    def cut(self, lengths: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Width and rows of each pass: the longest ones first, so that only the last pass has rows to spare."""
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            width = self.widths[int(np.searchsorted(self.widths, lengths[order[0]]))]
            rows = self.rows(width)
            yield width, order[:rows]
            order = order[rows:]

    def rows(self, width: int) -> int:
        """Of a pass."""
        return max(1, self.tokens // width)

    def _hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states of a pass with gradients, shape (rows, width, W)."""
        model = self.model
        return model.hidden(ids, positions, model.merged(), model.causal_attention, model.pieces)

    def _captured(self, body: Callable[[], None], *kept: Tensor) -> Callable[[], None]:
        """A pass as a graph; gradients and what is kept are as before."""
        if self.model.device.type != "cuda":
            return body
        held = [weight.grad for weight in self.model.trained if weight.grad is not None] + list(kept)
        before = [value.clone() for value in held]
        if not self._settled:
            self._settled = True
            self._settle(body)
        run = captured(body, self.pool)
        for value, former in zip(held, before, strict=True):
            value.copy_(former)
        return run

    def _settle(self, body: Callable[[], None]) -> None:
        """Compile the parts of a layer if that makes a pass faster."""
        model = self.model

        def use(pieces: Pieces) -> None:
            model.pieces = pieces
            body()
            torch.cuda.synchronize()

        plain = quick = _seconds(captured(body, None))
        try:
            if compiled(model.plain, use):
                quick = _seconds(captured(body, None))
        except Exception as error:  # what was compiled may fail in a graph; the parts work without it
            print(f"compiled, but not captured: {str(error).splitlines()[:1]}", flush=True)
        if quick > 0.97 * plain:
            model.pieces = model.plain
        print(f"a pass of {self.tokens} tokens: {1e3 * plain:.1f} ms as it is, {1e3 * quick:.1f} ms at best; "
              f"{'compiled' if model.pieces.compiled else 'as it is'} from here on", flush=True)  # fmt: skip


def _seconds(run: Callable[[], None], times: int = 5) -> float:
    run()
    torch.cuda.synchronize()
    start = time.monotonic()
    for _ in range(times):
        run()
    torch.cuda.synchronize()
    return (time.monotonic() - start) / times


Example = tuple[Sequence[int], Sequence[int], float]
"""Tokens of a prompt, tokens of its completion with the end, and the weight of the record."""


class Losses(Passes):
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
        super().__init__(model, longest, tokens, pool)
        self.tables = tables
        self._passes: dict[int, tuple[dict[str, Tensor], Callable[[], None]]] = {}
        self._follower: tuple[dict[str, Tensor], Callable[[], None]] | None = None

    def backward(
        self, prompts: Sequence[Sequence[int]], grammar: Sequence[int], completions: Sequence[Sequence[int]],
        weight: np.ndarray,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of -sum(weight * log-likelihood).

        Args:
            prompts: token ids.
            grammar: of each row.
            completions: token ids with the end.
            weight: of each row, shape (rows,), or of each token of the completions too, shape (rows, longest).

        Returns:
            Log-likelihoods in nats, shape (rows,).
        """
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
        every = np.broadcast_to(weight[:, None], endings.shape) if weight.ndim == 1 else weight
        whole = {
            "ids": torch.as_tensor(ids, device=device),
            "before": torch.as_tensor(before, device=device),
            "weight": torch.as_tensor(np.ascontiguousarray(every), dtype=torch.float32, device=device),
        }
        found = torch.zeros(len(lengths), device=device)
        for width, rows in self.cut(lengths):
            part, steps = torch.as_tensor(rows, device=device), min(width, longest)
            n = len(part)
            if width not in self._passes:
                self._passes[width] = self._prepare(width, self.rows(width), steps, allowed.shape[2])
            buffers, run = self._passes[width]
            buffers["weight"].zero_()
            buffers["weight"][:n] = whole["weight"][part, :steps]
            buffers["ids"][:n] = whole["ids"][part, :width]
            buffers["before"][:n] = whole["before"][part]
            for name, values in (("columns", columns), ("allowed", allowed), ("slots", slots), ("choices", choices)):
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
            "weight": torch.zeros(shape, device=device),
            "nats": torch.zeros(rows, device=device),
        }
        positions = torch.arange(width, device=device).expand(rows, width)
        order = torch.arange(steps, device=device)

        def body() -> None:
            hidden = self._hidden(buffers["ids"], positions)
            places = (buffers["before"][:, None] - 1 + order).clamp(max=width - 1)
            chosen = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
            scores = self.model.scores(chosen).gather(2, buffers["columns"])
            scores = scores.masked_fill(~buffers["allowed"], -1e9)
            nats = scores.log_softmax(dim=2).gather(2, buffers["slots"][..., None])[..., 0]
            nats = nats * buffers["choices"]
            buffers["nats"].copy_(nats.detach().sum(dim=1))
            (-(nats * buffers["weight"]).sum()).backward()

        return buffers, self._captured(body)


class TextLosses(Passes):
    """Gradients of log-likelihoods of any completions, over the whole vocabulary, at a few fixed sizes."""

    def __init__(self, model: PlainLlama, longest: int, tokens: int, pool: Any = None) -> None:
        """Prepare; the arguments are those of `Passes`."""
        super().__init__(model, longest, tokens, pool)
        self._chunk = max(n for n in range(1, CHUNK + 1) if tokens % n == 0)
        self._passes: dict[int, tuple[Tensor, Tensor, Tensor, Callable[[], None]]] = {}
        self.loss = torch.zeros((), device=model.device)

    def prepare(self, widths: Sequence[int]) -> None:
        """Make passes that are not there yet: on a GPU that takes seconds."""
        for width in widths:
            if width not in self._passes:
                self._passes[width] = self._prepare(width, self.rows(width))

    def backward(self, examples: Sequence[Example], tokens: float | None = None) -> Tensor:
        """Add the gradient of the mean loss of the tokens of completions; that loss in nats, shape ().

        Args:
            examples: records.
            tokens: what the sum of the gradients is divided by in place of the tokens at hand, for steps with
                unequal numbers of tokens.
        """
        total = sum(len(completion) for _, completion, _ in examples)
        self.loss.zero_()
        for width, mine in self.cut(np.array([len(p) + len(c) for p, c, _ in examples])):
            self.prepare([width])
            ids, labels, share, run = self._passes[width]
            found = _rows([examples[j] for j in mine], self.rows(width), width)
            ids.copy_(torch.as_tensor(found[0]))
            labels.copy_(torch.as_tensor(found[1]))
            share.fill_(1 / (tokens or total))
            run()
        return self.loss * ((tokens or total) / total)

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Example]) -> float:
        """Mean loss in nats a token of completions."""
        model, loss = self.model, torch.zeros((), device=self.model.device)
        weights = model.merged()
        for width, mine in self.cut(np.array([len(p) + len(c) for p, c, _ in examples])):
            found = _rows([examples[j] for j in mine], len(mine), width)
            ids, labels = (torch.as_tensor(x, device=model.device) for x in found)
            positions = torch.arange(width, device=model.device).expand(ids.shape)
            hidden = model.hidden(ids, positions, weights, model.causal_attention).flatten(0, 1)
            loss += TextLoss.apply(hidden, labels.flatten(), model.whole_head, model.plain.nats, self._chunk)
        return float(loss) / sum(len(completion) for _, completion, _ in examples)

    def _prepare(self, width: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Callable[[], None]]:
        model, device = self.model, self.model.device
        ids = torch.zeros((rows, width), dtype=torch.long, device=device)
        labels = torch.full((rows, width), IGNORED, dtype=torch.long, device=device)
        share = torch.zeros((), device=device)
        positions = torch.arange(width, device=device).expand(rows, width)

        def body() -> None:
            hidden = self._hidden(ids, positions).flatten(0, 1)
            loss = TextLoss.apply(hidden, labels.flatten(), model.whole_head, model.pieces.nats, self._chunk) * share
            self.loss.add_(loss.detach())
            loss.backward()

        return ids, labels, share, self._captured(body, self.loss)


def _rows(examples: Sequence[Any], rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and the label of each place, which is the token after it, both of shape (rows, width)."""
    ids, labels = np.zeros((rows, width), dtype=np.int64), np.full((rows, width), IGNORED, dtype=np.int64)
    for row, (prompt, completion, _) in enumerate(examples):
        end = len(prompt) + len(completion)
        ids[row, : len(prompt)], ids[row, len(prompt) : end] = prompt, completion
        labels[row, len(prompt) - 1 : end - 1] = completion
    return ids, labels
