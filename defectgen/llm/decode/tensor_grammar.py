"""Lists of edits decoded as one batch: their grammars as tables, so that no row costs a step of Python.

`defectgen.llm.generate` walks one cursor a completion, which is general and what a processor needs. Here the
grammars of lists of edits (`EditsGrammar`), of one or several hosts, are compiled to tensors; thousands of
completions take each step together. Both allow the same tokens and report the same likelihoods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.errors import DefectgenError
from defectgen.llm.decode.attention import share_keys
from defectgen.llm.decode.kv_cache import GrowingLayer, growing_cache
from defectgen.llm.output_layer import OutputLayer
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.defect.site_grammar import EditsGrammar

END_COLUMN = 0
"""Column of the token that ends a text, in the tokens that tables use."""

PAD = -1
"""Fills token rows after the end."""

COMPACT_EVERY, COMPACT_SHARE = 16, 0.75
"""After so many steps the ended rows are dropped, where at most this share is left."""


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
