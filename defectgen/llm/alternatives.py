"""How likely a model finds other pieces in each place of a completion, in one pass for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defectgen.errors import DefectgenError
from defectgen.llm.decode.token_grammar import Node, TokenGrammar
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import prompt_ids


@dataclass(frozen=True)
class EditPlaces:
    """A completion, and what may stand in its places.

    Attributes:
        prompt: text before it.
        pieces: the pieces that it consists of, as its grammar has them.
        wanted: pieces whose probability is asked for, of each place: one list before each piece, and one at the end.
    """

    prompt: str
    pieces: tuple[str, ...]
    wanted: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.wanted) != len(self.pieces) + 1:
            raise ValueError(f"got {len(self.wanted)} lists of pieces, expected {len(self.pieces) + 1}.")


@dataclass
class _Row:
    """The tokens of one completion with the beginnings of all pieces asked for as branches.

    Attributes:
        tokens: of the completion, then of the branches.
        positions: of each token, as if its branch were alone.
        parents: index of the token before each, -1 for the first.
        steps: of each place and piece the (index, token, allowed tokens) of its choices.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    steps: list[list[list[tuple[int, int, tuple[int, ...]]]]] = field(default_factory=list)

    def add(self, token: int, parent: int) -> int:
        """Append a token behind another; its index."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.positions.append(0 if parent < 0 else self.positions[parent] + 1)
        return len(self.tokens) - 1

    def sees(self, width: int) -> NDArray[np.bool_]:
        """What each token attends to: itself and all before it on its branch, shape (width, width)."""
        found = np.eye(width, dtype=bool)
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                found[index] |= found[parent]
        return found


def piece_log_probabilities(
    model: Any, grammar: TokenGrammar, asked: Sequence[EditPlaces], batch_size: int = 16
) -> Iterator[list[NDArray[np.float64]]]:
    """Log-probability of pieces in each place of completions, given what stands before the place.

    Tokens that the grammar rules out have no probability. The branches of all places share one pass: each token sees
    the completion up to its place and its own branch.

    Args:
        model: a causal model of transformers that takes a mask of any shape.
        grammar: of the completions, for its tokenizer.
        asked: completions and pieces.
        batch_size: completions in one pass.

    Yields:
        For each completion and place the natural logarithms, in the order of the pieces; -inf where the grammar
        does not allow a piece there.

    Raises:
        DefectgenError: a completion that the grammar does not allow.
    """
    for first in range(0, len(asked), batch_size):
        rows = [_row(grammar, places) for places in asked[first : first + batch_size]]
        yield from _judged(model, rows)


def _row(grammar: TokenGrammar, places: EditPlaces) -> _Row:
    row, last, state = _Row(), -1, grammar.grammar.start
    for token in prompt_ids(grammar.tokenizer, places.prompt):
        last = row.add(token, last)
    before = []
    for piece in places.pieces:
        before.append((last, state))
        _, following = grammar.root(state)
        if piece not in following:
            raise DefectgenError(f"the grammar does not allow {piece!r} after {''.join(places.pieces)[:60]!r}.")
        for token in grammar.tokens(piece):
            last = row.add(token, last)
        state = following[piece]
    before.append((last, state))
    for (index, begin), wanted in zip(before, places.wanted, strict=True):
        root, _ = grammar.root(begin)
        known: dict[tuple[int, int], int] = {}
        row.steps.append([_steps(row, root, grammar.tokens(piece), index, known) for piece in wanted])
    return row


def _steps(
    row: _Row, root: Node, tokens: Sequence[int], index: int, known: dict[tuple[int, int], int]
) -> list[tuple[int, int, tuple[int, ...]]]:
    """The choices that lead to a piece; one without an index where the grammar does not allow it."""
    node, found = root, []
    for place, token in enumerate(tokens):
        if token not in node.children:
            return [(-1, token, ())]
        found.append((index, token, tuple(node.children)))
        node = node.children[token]
        if place + 1 < len(tokens):
            if (index, token) not in known:
                known[index, token] = row.add(token, index)
            index = known[index, token]
    return found


@torch.inference_mode()
def _judged(model: Any, rows: Sequence[_Row]) -> Iterator[list[NDArray[np.float64]]]:
    device, width = model.device, max(len(row.tokens) for row in rows)
    blank = [0] * width
    ids = torch.tensor([(row.tokens + blank)[:width] for row in rows], device=device)
    positions = torch.tensor([(row.positions + blank)[:width] for row in rows], device=device)
    mask = torch.tensor(np.stack([row.sees(width) for row in rows]), device=device)[:, None]
    hidden = model.base_model(
        input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    head = OutputLayer(model)
    for row, states in zip(rows, hidden, strict=True):
        choices = {(at, allowed) for place in row.steps for steps in place for at, _, allowed in steps if at >= 0}
        tokens = sorted({token for _, allowed in choices for token in allowed})
        column = {token: k for k, token in enumerate(tokens)}
        scores = head(states, torch.tensor(tokens, device=device)).float().cpu().numpy().astype(np.float64)
        log_p: dict[tuple[int, int], float] = {}
        for at, allowed in choices:
            logits = scores[at, [column[token] for token in allowed]]
            normalized = logits - np.logaddexp.reduce(logits)
            log_p.update({(at, token): float(value) for token, value in zip(allowed, normalized, strict=True)})
        yield [
            np.array([sum(log_p.get((at, token), -np.inf) for at, token, _ in steps) for steps in place])
            for place in row.steps
        ]
