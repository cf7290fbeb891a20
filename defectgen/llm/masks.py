"""A grammar compiled for one tokenizer: which tokens may come next, and which are forced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.llm.tokens import piece_ids
from defectgen.text.grammar import END, Grammar, State


@dataclass
class Node:
    """A place inside the pieces that one grammar state allows.

    Attributes:
        children: the tokens that may come next.
        piece: the piece that is complete here, if any.
        state: the grammar's state after that piece.
    """

    children: dict[int, Node] = field(default_factory=dict)
    piece: str | None = None
    state: State = None


class TokenGrammar:
    """Walks a grammar token by token; the trie of each grammar state is built once."""

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
        self._roots: dict[State, Node] = {}

    def root(self, state: State) -> Node:
        """The trie of the pieces that `state` allows.

        Raises:
            DefectgenError: the tokenizer cannot tell two pieces apart.
        """
        if state not in self._roots:
            root = Node()
            for piece, following in self.grammar.choices(state).items():
                node = root
                for token in self._tokens(piece):
                    node = node.children.setdefault(token, Node())
                    if node.piece is not None:
                        raise DefectgenError(f"the tokenizer cannot tell {node.piece!r} from {piece!r}.")
                if node.children:
                    raise DefectgenError(f"the tokenizer cannot tell {piece!r} from a longer piece.")
                node.piece, node.state = piece, following
            self._roots[state] = root
        return self._roots[state]

    def start(self) -> Cursor:
        """The beginning of a completion, with what is forced there."""
        cursor = Cursor(self, self.root(self.grammar.start))
        cursor.run_forced()
        return cursor

    def along(self, tokens: Sequence[int]) -> list[list[int]]:
        """The tokens that may stand in place of each token of a completion, the end included.

        Raises:
            DefectgenError: a token that is not allowed, or no end.
        """
        node: Node | None = self.root(self.grammar.start)
        allowed = []
        for token in tokens:
            following = None if node is None else node.children.get(token)
            if node is None or following is None:
                raise DefectgenError(f"the grammar does not allow {self.tokenizer.decode(list(tokens))!r}.")
            allowed.append(list(node.children))
            ended = following.piece == END
            node = None if ended else following if following.piece is None else self.root(following.state)
        if node is not None:
            raise DefectgenError(f"the grammar does not allow {self.tokenizer.decode(list(tokens))!r} to end there.")
        return allowed

    def _tokens(self, piece: str) -> tuple[int, ...]:
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
    """

    def __init__(self, grammar: TokenGrammar, node: Node) -> None:
        self._grammar = grammar
        self._node = node
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

    def choose(self, token: int) -> None:
        """Take one of the allowed tokens, and after it all that is forced."""
        self._step(token)
        self.run_forced()

    def run_forced(self) -> None:
        """Take tokens as long as there is only one that may come."""
        while not self.finished and len(self._node.children) == 1:
            self._step(next(iter(self._node.children)))

    def _step(self, token: int) -> None:
        node = self._node.children[token]
        if node.piece == END:
            self.finished = True
            return
        self.pending.append(token)
        if node.piece is not None:
            self._pieces.append(node.piece)
            node = self._grammar.root(node.state)
        self._node = node
