"""A grammar compiled for one tokenizer: which tokens may come next, and which are forced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.llm.tokens import piece_ids
from defectgen.tasks.grammar import END, Grammar, LeaningGrammar, PlacingGrammar, State


@dataclass
class Node:
    """A place inside the pieces that one grammar state allows.

    Attributes:
        children: the tokens that may come next.
        piece: the piece that is complete here, if any.
    """

    children: dict[int, Node] = field(default_factory=dict)
    piece: str | None = None


REMEMBERED = 2000
"""Grammar states whose pieces are kept; grammars that note every atom have no end of states."""


class TokenGrammar:
    """Walks a grammar token by token; the trie of each set of pieces is built once."""

    def __init__(self, grammar: Grammar, tokenizer: Any, pieces: dict[str, tuple[int, ...]] | None = None) -> None:
        """Compile lazily.

        Args:
            grammar: what may be written.
            tokenizer: how it is split.
            pieces: tokens of pieces that are known already; shared between grammars of one tokenizer.
        """
        self.grammar = grammar
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)
        self._pieces = {} if pieces is None else pieces
        self._tries: dict[tuple[tuple[str, bool], ...], Node] = {}
        self._states: dict[State, tuple[Node, Mapping[str, State]]] = {}

    def root(self, state: State) -> tuple[Node, Mapping[str, State]]:
        """The trie of the pieces that `state` allows, and the state after each of them.

        Raises:
            DefectgenError: the tokenizer cannot tell two pieces apart.
        """
        if state not in self._states:
            if len(self._states) >= REMEMBERED:
                self._states.clear()
            following = self.grammar.choices(state)
            pieces = tuple((piece, then is None) for piece, then in following.items())
            self._states[state] = self._trie(pieces), following
        return self._states[state]

    def end_weight(self, state: State) -> float:
        """What the grammar adds to the log-probability of the end in a state, in nats."""
        return self.grammar.end_weight(state) if isinstance(self.grammar, LeaningGrammar) else 0.0

    def is_coordinate(self, state: State) -> bool:
        """Whether the grammar writes a coordinate in a state."""
        return isinstance(self.grammar, PlacingGrammar) and self.grammar.is_coordinate(state)

    def _trie(self, pieces: tuple[tuple[str, bool], ...]) -> Node:
        """The trie of pieces, each with whether the completion ends with it."""
        if pieces not in self._tries:
            if len(self._tries) >= REMEMBERED:
                self._tries.clear()
            root = Node()
            for piece, last in pieces:
                node = root
                for token in self.tokens(piece) + ((self.eos,) if last and piece != END else ()):
                    node = node.children.setdefault(token, Node())
                    if node.piece is not None:
                        raise DefectgenError(f"the tokenizer cannot tell {node.piece!r} from {piece!r}.")
                if node.children:
                    raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a longer piece.")
                node.piece = piece
            self._tries[pieces] = root
        return self._tries[pieces]

    def start(self) -> Cursor:
        """The beginning of a completion, with what is forced there."""
        cursor = Cursor(self, self.grammar.start)
        cursor.run_forced()
        return cursor

    def along(self, tokens: Sequence[int]) -> list[list[int]]:
        """The tokens that may stand in place of each token of a completion, the end included.

        Raises:
            DefectgenError: a token that is not allowed, or no end.
        """
        cursor = Cursor(self, self.grammar.start)
        allowed = []
        for token in tokens:
            if cursor.finished or token not in cursor.allowed:
                raise DefectgenError(f"the grammar does not allow {self.tokenizer.decode(list(tokens))!r}.")
            allowed.append(cursor.allowed)
            cursor.step(token)
        if not cursor.finished:
            raise DefectgenError(f"the grammar does not allow {self.tokenizer.decode(list(tokens))!r} to end there.")
        return allowed

    def tokens(self, piece: str) -> tuple[int, ...]:
        """The tokens of a piece."""
        if piece == END:
            return (self.eos,)
        if piece not in self._pieces:
            try:
                self._pieces[piece] = tuple(piece_ids(self.tokenizer, piece))
            except ValueError as error:
                raise DefectgenError(f"this model's tokenizer cannot write the completions: {error}.") from error
        return self._pieces[piece]


class Cursor:
    """One completion on its way.

    Attributes:
        pending: tokens decided since the model last looked: a choice and what it forces.
        text: the pieces that are complete.
        finished: whether the completion has ended.
        at_coordinate: whether a coordinate is being written.
    """

    def __init__(self, grammar: TokenGrammar, state: State) -> None:
        self._grammar = grammar
        self._node, self._following = grammar.root(state)
        self._end_weight, self.at_coordinate = grammar.end_weight(state), grammar.is_coordinate(state)
        self._pieces: list[str] = []
        self.pending: list[int] = []
        self.finished = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def allowed(self) -> list[int]:
        """The tokens that may come next, in a fixed order; at least two while not finished."""
        return list(self._node.children)

    @property
    def weights(self) -> list[float]:
        """What is added to the log-probability of each allowed token before one is drawn, in nats."""
        return [self._end_weight if token == self._grammar.eos else 0.0 for token in self._node.children]

    def choose(self, token: int) -> None:
        """Take one of the allowed tokens, and after it all that is forced."""
        self.step(token)
        self.run_forced()

    def run_forced(self) -> None:
        """Take tokens as long as there is only one that may come."""
        while not self.finished and len(self._node.children) == 1:
            self.step(next(iter(self._node.children)))

    def step(self, token: int) -> None:
        """Take one of the allowed tokens, and nothing after it."""
        node = self._node.children[token]
        if node.piece is not None and self._following[node.piece] is None:
            self._pieces.append(node.piece)
            self.finished = True
            return
        self.pending.append(token)
        if node.piece is None:
            self._node, self._end_weight = node, 0.0
            return
        self._pieces.append(node.piece)
        state = self._following[node.piece]
        self._node, self._following = self._grammar.root(state)
        self._end_weight, self.at_coordinate = self._grammar.end_weight(state), self._grammar.is_coordinate(state)
