"""Completions of a grammar that begin with a given text: what stands there is forced, the rest is free as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from defectgen.errors import UsageError
from defectgen.tasks.grammar import END, Grammar, LeaningGrammar, PlacingGrammar, State


@dataclass(frozen=True)
class BegunGrammar:
    """Those completions of a grammar that begin with some of its pieces.

    Attributes:
        grammar: of the whole completions.
        begin: text of its first pieces.

    Raises:
        UsageError: the text is no sequence of pieces of the grammar.
    """

    grammar: Grammar
    begin: str

    def __post_init__(self) -> None:
        _ = self._steps

    @cached_property
    def _steps(self) -> tuple[tuple[str, State], ...]:
        """The pieces of the beginning, each with the state after it."""
        found: list[tuple[str, State]] = []
        state, at = self.grammar.start, 0
        while at < len(self.begin):
            following = {} if state is None else self.grammar.choices(state)
            pieces = [piece for piece in following if piece != END and self.begin.startswith(piece, at)]
            if not pieces:
                raise UsageError(f"no completion of the grammar begins with {self.begin[: at + 12]!r}.")
            piece = max(pieces, key=len)
            state, at = following[piece], at + len(piece)
            found.append((piece, state))
        return tuple(found)

    @property
    def start(self) -> State:
        return ("begun", 0) if self._steps else self.grammar.start

    def choices(self, state: State) -> Mapping[str, State]:
        number = self._number(state)
        if number is None:
            return self.grammar.choices(state)
        piece, after = self._steps[number]
        return {piece: ("begun", number + 1) if number + 1 < len(self._steps) else after}

    def end_weight(self, state: State) -> float:
        """What the grammar itself adds there; see `LeaningGrammar`."""
        if self._number(state) is not None or not isinstance(self.grammar, LeaningGrammar):
            return 0.0
        return self.grammar.end_weight(state)

    def is_coordinate(self, state: State) -> bool:
        """What the grammar itself says; see `PlacingGrammar`. The beginning is no choice."""
        if self._number(state) is not None or not isinstance(self.grammar, PlacingGrammar):
            return False
        return self.grammar.is_coordinate(state)

    @staticmethod
    def _number(state: State) -> int | None:
        """How many pieces of the beginning are written; None behind it."""
        return state[1] if isinstance(state, tuple) and len(state) == 2 and state[0] == "begun" else None
