"""What a model may write next, as plain text: engines compile it to masks over their tokens."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol, runtime_checkable

END = ""
"""The piece that ends a completion."""

State = Hashable


class Grammar(Protocol):
    """A completion is a sequence of pieces; each state lists the pieces that may come next.

    A grammar is exact: every sequence of pieces from `start` to `END` is a completion that parses,
    and every completion that should be reachable is such a sequence.
    """

    @property
    def start(self) -> State: ...

    def choices(self, state: State) -> Mapping[str, State]:
        """Pieces that may follow, each with the state after it; None where the completion ends with the piece.

        `END` leads nowhere. Another piece that does is written with the end after it, so that it may be the
        beginning of a longer piece.
        """
        ...


@runtime_checkable
class LeaningGrammar(Grammar, Protocol):
    """A grammar that would rather have a completion end in some states than in others."""

    def end_weight(self, state: State) -> float:
        """What is added to the logarithm of the probability of `END` in a state, in nats; 0 where it has no view."""
        ...


@runtime_checkable
class PlacingGrammar(Grammar, Protocol):
    """A grammar of things that have places, which may be drawn at a temperature of their own."""

    def is_coordinate(self, state: State) -> bool:
        """Whether what follows in a state is a coordinate."""
        ...
