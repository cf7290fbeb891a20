"""Compositions with their sites decoded as one batch: the grammar as tables, so that no row costs a step of Python.

What `GrammarTables` is for lists of edits, for `CompositionGrammar`: both allow the same tokens as its cursors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defectgen.core.configuration import Edit
from defectgen.errors import DefectgenError
from defectgen.llm.decode.tensor_grammar import END_COLUMN
from defectgen.llm.tokens import piece_ids
from defectgen.tasks.defect.composition_grammar import MOST_OF_A_RULE, CompositionGrammar, count_piece


@dataclass(frozen=True)
class Places:
    """Where each row of a batch is in its completion.

    Attributes:
        grammar: index of the grammar, shape (rows,).
        node: node of the tries, shape (rows,).
        left: defects that are still to be placed, by rule, shape (rows, R).
        total: sum of the counts so far, shape (rows,).
        last: the last site of the rule at hand, -1 for none, shape (rows,).
        used: whether a site is changed, shape (rows, S).
        ended: whether the end was written, shape (rows,).
    """

    grammar: Tensor
    node: Tensor
    left: Tensor
    total: Tensor
    last: Tensor
    used: Tensor
    ended: Tensor


@dataclass(frozen=True)
class CompositionTables:
    """Grammars of one tokenizer as tensors. The nodes of all their tries are numbered together.

    A node has up to K child slots; slot K is the end. With S the most sites of a host and R the most rules:

    Attributes:
        grammars: what was compiled; a row names its grammar by the index in here.
        edits: of all grammars, as (site, species).
        tokens: ids that occur, shape (M,), the end first.
        columns: column in `tokens` of each child, shape (nodes, K); 0 where there is none.
        following: node after the child, shape (nodes, K).
        counting: the rule that a node counts, -1 where sites are written, shape (nodes,).
        low, high: least and largest count that can be reached through a child, shape (nodes, K); low is large where
            there is no child.
        value: count or site that is complete after the child, shape (nodes, K); -1 for nothing.
        reached: sites that can be reached through a child, shape (nodes, K, S).
        rule_sites: sites of each rule, shape (G, R, S).
        edit_of: index in `edits` of a rule at a site, shape (G, R, S); -1 for none.
        closes: whether the last rule that may be applied at all is this one, shape (G, R).
        least, most: numbers of defects, shape (G,).
        roots: first node of each grammar, shape (G,).
        column_of: column of each token id, shape (largest id + 1,); -1 where it does not occur.
        longest: most tokens of a completion, the end included.
    """

    grammars: tuple[CompositionGrammar, ...]
    edits: tuple[Edit, ...]
    tokens: Tensor
    columns: Tensor
    following: Tensor
    counting: Tensor
    low: Tensor
    high: Tensor
    value: Tensor
    reached: Tensor
    rule_sites: Tensor
    edit_of: Tensor
    closes: Tensor
    least: Tensor
    most: Tensor
    roots: Tensor
    column_of: Tensor
    longest: int

    @classmethod
    def of(
        cls, grammars: Sequence[CompositionGrammar], tokenizer: Any, device: str | torch.device = "cpu"
    ) -> CompositionTables:
        """Compile grammars.

        Raises:
            DefectgenError: the tokenizer has no tokens of its own for a piece, or a host has so few sites of an
                element that a composition may not find room.
        """
        builder = _Builder(grammars, tokenizer)
        return builder.tables(torch.device(device))

    def start(self, grammar: Tensor) -> Places:
        """The beginning of completions of these grammars, shape (rows,)."""
        zero = torch.zeros_like(grammar)
        rules, sites = self.rule_sites.shape[1:]
        return Places(
            grammar, self.roots[grammar], zero[:, None].repeat(1, rules), zero, zero - 1,
            torch.zeros((len(grammar), sites), dtype=torch.bool, device=grammar.device), zero.bool(),
        )  # fmt: skip

    def allowed(self, places: Places) -> tuple[Tensor, Tensor]:
        """What may come next.

        Returns:
            Columns in `tokens`, and whether each is allowed, both of shape (rows, K + 1). An ended row may only end.
        """
        grammar, node, counting = places.grammar, places.node, self.counting[places.node]
        least = (places.total[:, None] + self.high[node]) >= self.least[grammar][:, None]
        counts = (places.total[:, None] + self.low[node] <= self.most[grammar][:, None]) & (
            least | ~self.closes[grammar, counting.clamp(min=0)][:, None]
        )
        rule = (places.left > 0).int().argmax(dim=1)
        sites = torch.arange(self.rule_sites.shape[2], device=node.device)
        free = self.rule_sites[grammar, rule] & ~places.used & (sites > places.last[:, None])
        behind = free.int().flip(1).cumsum(1).flip(1)  # free sites from each one on
        left = places.left.gather(1, rule[:, None])
        free = free & (behind >= left) & (left > 0)
        placed = (self.reached[node] & free[:, None, :]).any(dim=2)
        open_ = torch.where((counting >= 0)[:, None], counts, placed) & ~places.ended[:, None]
        end = ((counting < 0) & (places.left.sum(dim=1) == 0)) | places.ended
        columns = torch.nn.functional.pad(self.columns[node], (0, 1), value=END_COLUMN)
        return columns, torch.cat([open_, end[:, None]], dim=1)

    def advance(self, places: Places, slots: Tensor) -> tuple[Places, Tensor]:
        """Take the token in one slot of each row.

        Args:
            places: where the rows are.
            slots: shape (rows,), each allowed.

        Returns:
            Where they are then, and the index in `edits` of what is complete, -1 for nothing, shape (rows,).
        """
        grammar, node, counting = places.grammar, places.node, self.counting[places.node]
        end = slots == self.columns.shape[1]
        inner = slots.clamp(max=self.columns.shape[1] - 1)
        value = torch.where(end, -1, self.value[node, inner])
        counted, placed = (value >= 0) & (counting >= 0), (value >= 0) & (counting < 0)
        number = value.clamp(min=0)
        rule = (places.left > 0).int().argmax(dim=1)
        rules = torch.arange(places.left.shape[1], device=node.device)
        left = torch.where(
            counted[:, None] & (rules == counting[:, None]), number[:, None], places.left
        ) - (placed[:, None] & (rules == rule[:, None])).long()  # fmt: skip
        at = number.clamp(max=self.rule_sites.shape[2] - 1)
        goes_on = left.gather(1, rule[:, None])[:, 0] > 0
        last = torch.where(placed, torch.where(goes_on, at, -1), places.last)
        sites = torch.arange(self.rule_sites.shape[2], device=node.device)
        used = places.used | (placed[:, None] & (sites == at[:, None]))
        edit = torch.where(placed, self.edit_of[grammar, rule, at], -1)
        following = torch.where(end, node, self.following[node, inner])
        total = places.total + torch.where(counted, number, 0)
        return Places(grammar, following, left, total, last, used, places.ended | end), edit


class _Builder:
    """Collects the nodes of the tries of several grammars."""

    def __init__(self, grammars: Sequence[CompositionGrammar], tokenizer: Any) -> None:
        self.grammars, self.tokenizer = tuple(grammars), tokenizer
        self.n_sites = max(grammar.host.n_sites for grammar in grammars)
        self.column: dict[int, int] = {int(tokenizer.eos_token_id): END_COLUMN}
        self.children: list[dict[int, int]] = []  # by node: token to node
        self.values: list[set[int]] = []  # by node: counts or sites through it
        self.leaf: list[int] = []  # by node: the count or site that it completes, or -1
        self.counting: list[int] = []  # by node: the rule that is counted, or -1
        self.after: list[int] = []  # by node: the root that follows what it completes
        self.longest_piece = 0

    def _node(self, counting: int, after: int) -> int:
        for values, new in ((self.children, {}), (self.values, set()), (self.leaf, -1)):
            values.append(new)  # type: ignore[attr-defined]
        self.counting.append(counting)
        self.after.append(after)
        return len(self.children) - 1

    def _write(self, root: int, piece: str, value: int) -> None:
        try:
            ids = piece_ids(self.tokenizer, piece)
        except ValueError as error:
            raise DefectgenError(f"this model's tokenizer cannot write the completions: {error}.") from error
        self.longest_piece = max(self.longest_piece, len(ids))
        node = root
        for token in ids:
            self.column.setdefault(token, len(self.column))
            if token not in self.children[node]:
                self.children[node][token] = self._node(self.counting[root], self.after[root])
            node = self.children[node][token]
            self.values[node].add(value)
            if self.leaf[node] >= 0:
                raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a shorter piece.")
        if self.children[node]:
            raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a longer piece.")
        self.leaf[node] = value

    def _grammar(self, grammar: CompositionGrammar) -> int:
        """The first node."""
        rooms = [len(sites) for sites in grammar.sites if sites]
        room = min(*rooms, MOST_OF_A_RULE) if rooms else 0
        if grammar.max_defects > room:
            raise DefectgenError(f"got {grammar.max_defects} defects, expected at most {room} in one batch.")
        after = self._node(-1, 0)
        self.after[after] = after
        for site in sorted({site for sites in grammar.sites for site in sites}):
            self._write(after, f" {grammar.host.site_name(site)}", site)
        for number in reversed(range(len(grammar.rules))):
            root = self._node(number, after)
            for count in range((grammar.max_defects if grammar.sites[number] else 0) + 1):
                self._write(root, count_piece(count), count)
            after = root
        return after

    def tables(self, device: torch.device) -> CompositionTables:
        """The tensors."""
        roots = [self._grammar(grammar) for grammar in self.grammars]
        nodes, width = len(self.children), max(len(children) for children in self.children)
        columns, following, low, high = np.zeros((4, nodes, width), dtype=np.int64)
        low[:] = 10**6
        value = np.full((nodes, width), -1, dtype=np.int64)
        reached = np.zeros((nodes, width, self.n_sites), dtype=bool)
        for node, children in enumerate(self.children):
            for slot, (token, child) in enumerate(children.items()):
                columns[node, slot], value[node, slot] = self.column[token], self.leaf[child]
                following[node, slot] = child if self.leaf[child] < 0 else self.after[child]
                low[node, slot], high[node, slot] = min(self.values[child]), max(self.values[child])
                if self.counting[node] < 0:
                    reached[node, slot, list(self.values[child])] = True
        shape = len(self.grammars), max(len(grammar.rules) for grammar in self.grammars)
        rule_sites = np.zeros((*shape, self.n_sites), dtype=bool)
        edit_of, closes = np.full((*shape, self.n_sites), -1, dtype=np.int64), np.zeros(shape, dtype=bool)
        edits: list[Edit] = []
        for k, grammar in enumerate(self.grammars):
            closes[k, max(number for number, sites in enumerate(grammar.sites) if sites)] = True
            for number, (rule, sites) in enumerate(zip(grammar.rules, grammar.sites, strict=True)):
                rule_sites[k, number, list(sites)] = True
                edit_of[k, number, list(sites)] = len(edits) + np.arange(len(sites))
                edits += [(site, rule.replacement) for site in sites]
        column_of = np.full(max(self.column) + 1, -1, dtype=np.int64)
        column_of[list(self.column)] = list(self.column.values())

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values), device=device)

        pieces = max(len(grammar.rules) + grammar.max_defects for grammar in self.grammars)
        return CompositionTables(
            grammars=self.grammars, edits=tuple(edits), tokens=tensor(list(self.column)), columns=tensor(columns),
            following=tensor(following), counting=tensor(self.counting), low=tensor(low), high=tensor(high),
            value=tensor(value), reached=tensor(reached), rule_sites=tensor(rule_sites), edit_of=tensor(edit_of),
            closes=tensor(closes), least=tensor([grammar.min_defects for grammar in self.grammars]),
            most=tensor([grammar.max_defects for grammar in self.grammars]), roots=tensor(roots),
            column_of=tensor(column_of), longest=1 + pieces * self.longest_piece,
        )  # fmt: skip
