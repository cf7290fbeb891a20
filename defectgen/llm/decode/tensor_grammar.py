"""Lists of edits decoded as one batch: their grammars as tables, so that no row costs a step of Python.

`defectgen.llm.generate` walks one cursor a completion, which is general and what a processor needs. Here the
grammars of lists of edits (`EditsGrammar`), of one or several hosts, are compiled to tensors; thousands of
completions take each step together. Both allow the same tokens and report the same likelihoods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.errors import DefectgenError
from defectgen.llm.tokens import piece_ids
from defectgen.tasks.defect.site_grammar import EditsGrammar

END_COLUMN = 0
"""Column of the token that ends a text, in the tokens that tables use."""

PAD = -1
"""Fills token rows after the end."""


@dataclass(frozen=True)
class Places:
    """Where each row of a batch is in its completion; all of shape (rows,).

    Attributes:
        grammar: index of the grammar.
        node: node of the trie.
        last: the last site that was changed, -1 for none.
        count: edits so far.
        ended: whether the end was written.
    """

    grammar: torch.Tensor
    node: torch.Tensor
    last: torch.Tensor
    count: torch.Tensor
    ended: torch.Tensor

    def at(self, rows: torch.Tensor) -> Places:
        """Some of the rows."""
        return Places(self.grammar[rows], self.node[rows], self.last[rows], self.count[rows], self.ended[rows])


@dataclass(frozen=True)
class GrammarTables:
    """Grammars of one tokenizer as tensors. The nodes of all their tries are numbered together.

    A node has up to K child slots; slot K is the end. With S the most sites of a host, C the most edits:

    Attributes:
        grammars: what was compiled; a row names its grammar by the index in here.
        edits: of all grammars one after the other, as (site, species).
        tokens: ids that occur, shape (M,), the end first.
        columns: column in `tokens` of each child, shape (nodes, K); 0 where there is none.
        following: node after the child, shape (nodes, K); the root where an edit is complete.
        complete: index in `edits` of what is complete after the child, shape (nodes, K); -1 for nothing.
        nearest: smallest site above `last` that can still be reached through a child, shape (nodes, K, S + 1)
            with `last` + 1 in the last place; S where there is none.
        edit_sites: site of each edit, shape (edits,).
        roots: root of each grammar, shape (G,).
        latest: last site that leaves room for what is still needed, by edits so far, shape (G, C + 1); -1 for none.
        least: smallest number of edits, shape (G,).
        column_of: column of each token id, shape (largest id + 1,); -1 where it does not occur.
        longest: most tokens of a completion, the end included.
    """

    grammars: tuple[EditsGrammar, ...]
    edits: tuple[Edit, ...]
    tokens: torch.Tensor
    columns: torch.Tensor
    following: torch.Tensor
    complete: torch.Tensor
    nearest: torch.Tensor
    edit_sites: torch.Tensor
    roots: torch.Tensor
    latest: torch.Tensor
    least: torch.Tensor
    column_of: torch.Tensor
    longest: int

    @classmethod
    def of(cls, grammars: Sequence[EditsGrammar], tokenizer: Any, device: str | torch.device = "cpu") -> GrammarTables:
        """Compile grammars.

        Raises:
            DefectgenError: the tokenizer cannot tell two pieces apart, or has no tokens of its own for one.
        """
        builder = _Builder(tokenizer, max(grammar.host.n_sites for grammar in grammars))
        for grammar in grammars:
            builder.add(grammar)
        return builder.tables(tuple(grammars), torch.device(device))

    def start(self, grammar: torch.Tensor) -> Places:
        """The beginning of completions of these grammars, shape (rows,)."""
        zero = torch.zeros_like(grammar)
        return Places(grammar, self.roots[grammar], zero - 1, zero, torch.zeros_like(grammar, dtype=torch.bool))

    def allowed(self, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """What may come next.

        Returns:
            Columns in `tokens`, and whether each is allowed, both of shape (rows, K + 1). An ended row may only end.
        """
        nearest = self.nearest[places.node, :, places.last + 1]
        open_ = (nearest <= self.latest[places.grammar, places.count][:, None]) & ~places.ended[:, None]
        at_root = places.node == self.roots[places.grammar]
        end = (at_root & (places.count >= self.least[places.grammar])) | places.ended
        columns = torch.nn.functional.pad(self.columns[places.node], (0, 1), value=END_COLUMN)
        return columns, torch.cat([open_, end[:, None]], dim=1)

    def advance(self, places: Places, slots: torch.Tensor) -> tuple[Places, torch.Tensor]:
        """Take the token in one slot of each row.

        Args:
            places: where the rows are.
            slots: shape (rows,), each allowed.

        Returns:
            Where they are then, and the index in `edits` of what is complete, -1 for nothing, shape (rows,).
        """
        end = slots == self.columns.shape[1]
        inner = slots.clamp(max=self.columns.shape[1] - 1)
        complete = torch.where(end, -1, self.complete[places.node, inner])
        done = complete >= 0
        return (
            Places(
                places.grammar,
                torch.where(end, places.node, self.following[places.node, inner]),
                torch.where(done, self.edit_sites[complete.clamp(min=0)], places.last),
                places.count + done,
                places.ended | end,
            ),
            complete,
        )

    def along(self, grammar: torch.Tensor, completions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Follow given completions.

        Args:
            grammar: index of each row's grammar, shape (rows,).
            completions: token ids with the end, shape (rows, tokens), `PAD` after it.

        Returns:
            For each token columns and whether each is allowed, shape (rows, tokens, K + 1), and the slot taken,
            shape (rows, tokens). After the end there is the end alone.

        Raises:
            DefectgenError: a token that is not allowed, or no end.
        """
        known = completions.clamp(0, len(self.column_of) - 1)
        written = torch.where((known == completions), self.column_of[known], -1)
        written = torch.where(completions == PAD, END_COLUMN, written)
        places, found = self.start(grammar), []
        wrong = torch.zeros_like(places.ended)
        for step in range(completions.shape[1]):
            columns, allowed = self.allowed(places)
            fits = allowed & (columns == written[:, step, None])
            slots = fits.int().argmax(dim=1)
            wrong |= ~fits.any(dim=1) | ((completions[:, step] == PAD) & ~places.ended)
            found.append((columns, allowed, slots))
            places, _ = self.advance(places, slots)
        wrong |= ~places.ended
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            raise DefectgenError(f"the grammar does not allow the tokens {completions[row].tolist()}.")
        columns, allowed, slots = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
        return columns, allowed, slots

    def completion_ids(self, grammar: int, edits: Sequence[Edit], tokenizer: Any) -> list[int]:
        """Tokens of a list of edits, the end included."""
        host = self.grammars[grammar].host
        text = "".join(f" {species} {host.site_name(site)}" for site, species in edits)
        return [*(piece_ids(tokenizer, text) if text else []), int(self.tokens[END_COLUMN])]


class _Builder:
    """Collects the nodes of the tries of several grammars."""

    def __init__(self, tokenizer: Any, n_sites: int) -> None:
        self.tokenizer, self.n_sites = tokenizer, n_sites
        self.column: dict[int, int] = {int(tokenizer.eos_token_id): END_COLUMN}
        self.children: list[dict[int, int]] = []  # by node: token to node
        self.sites: list[list[int]] = []  # by node: sites of the edits through it
        self.complete: list[int] = []  # by node: the edit that it completes, or -1
        self.root_of: list[int] = []  # by node: its root
        self.edits: list[Edit] = []
        self.roots: list[int] = []
        self._pieces: dict[str, list[int]] = {}

    def _node(self, root: int | None = None) -> int:
        self.children.append({})
        self.sites.append([])
        self.complete.append(-1)
        self.root_of.append(len(self.children) - 1 if root is None else root)
        return len(self.children) - 1

    def _tokens(self, piece: str) -> list[int]:
        if piece not in self._pieces:
            try:
                self._pieces[piece] = piece_ids(self.tokenizer, piece)
            except ValueError as error:
                raise DefectgenError(f"this model's tokenizer cannot write the completions: {error}.") from error
        return self._pieces[piece]

    def add(self, grammar: EditsGrammar) -> None:
        """One more trie."""
        root = self._node()
        self.roots.append(root)
        for site, piece in grammar._edits:
            node = root
            for token in self._tokens(piece):
                self.column.setdefault(token, len(self.column))
                if token not in self.children[node]:
                    self.children[node][token] = self._node(root)
                node = self.children[node][token]
                self.sites[node].append(site)
                if self.complete[node] >= 0:
                    raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a shorter piece.")
            if self.children[node]:
                raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a longer piece.")
            self.complete[node] = len(self.edits)
            self.edits.append((site, piece.split()[0]))

    def tables(self, grammars: tuple[EditsGrammar, ...], device: torch.device) -> GrammarTables:
        """The tensors."""
        nodes, width = len(self.children), max(len(children) for children in self.children)
        columns, following = np.zeros((2, nodes, width), dtype=np.int64)
        complete = np.full((nodes, width), -1, dtype=np.int64)
        nearest = np.full((nodes, width, self.n_sites + 1), self.n_sites, dtype=np.int32)
        for node, children in enumerate(self.children):
            for slot, (token, child) in enumerate(children.items()):
                columns[node, slot] = self.column[token]
                complete[node, slot] = self.complete[child]
                following[node, slot] = child if self.complete[child] < 0 else self.root_of[child]
                nearest[node, slot] = _nearest(self.sites[child], self.n_sites)
        latest = np.full((len(grammars), max(g.max_defects for g in grammars) + 1), -1, dtype=np.int64)
        for k, grammar in enumerate(grammars):
            for count in range(grammar.max_defects):
                latest[k, count] = grammar._latest_site(grammar.min_defects - count - 1)
        column_of = np.full(max(self.column) + 1, -1, dtype=np.int64)
        column_of[list(self.column)] = list(self.column.values())

        def tensor(values: Any) -> torch.Tensor:
            return torch.as_tensor(np.asarray(values), device=device)

        return GrammarTables(
            grammars=grammars,
            edits=tuple(self.edits),
            tokens=tensor(list(self.column)),
            columns=tensor(columns),
            following=tensor(following),
            complete=tensor(complete),
            nearest=tensor(nearest),
            edit_sites=tensor([site for site, _ in self.edits]),
            roots=tensor(self.roots),
            latest=tensor(latest),
            least=tensor([grammar.min_defects for grammar in grammars]),
            column_of=tensor(column_of),
            longest=1 + max(g.max_defects for g in grammars) * max(len(ids) for ids in self._pieces.values()),
        )


def _nearest(sites: Sequence[int], n_sites: int) -> NDArray[np.int32]:
    """Smallest of the sites that is k or more, for k from 0 to `n_sites`; `n_sites` where there is none."""
    known = np.array([*sorted(set(sites)), n_sites], dtype=np.int32)
    return known[np.searchsorted(known, np.arange(n_sites + 1))]
