"""A grammar one token at a time, for engines whose loop takes no more; and grammars as text, for their processes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from defectgen.llm.decode.generator import Sampling, pick
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.tasks.grammar import Grammar


class Guide:
    """One completion, led through its grammar by an engine that asks before every token.

    The numbers that decide the choices depend on the seed and on nothing else: asked twice for the
    same choice, a guide uses the same number.
    """

    def __init__(self, compiled: TokenGrammar, seed: Sequence[int]) -> None:
        """Start at the beginning.

        Args:
            compiled: the grammar.
            seed: of this completion; the same one gives the numbers that `TransformersGenerator` uses.
        """
        self._eos = compiled.eos
        self._cursor = compiled.start()
        self._rng = np.random.default_rng(tuple(seed))
        self._uniforms: list[float] = []
        self._decided: list[int] = []
        self._length = 0
        self._choices = 0
        self._take_pending()

    @property
    def finished(self) -> bool:
        """Whether the tokens followed so far decide all of the completion."""
        return self._cursor.finished

    @property
    def text(self) -> str:
        return self._cursor.text

    @property
    def allowed(self) -> list[int]:
        """The tokens that may come next, at least two; only where nothing is forced."""
        return self._cursor.allowed

    @property
    def forced(self) -> int | None:
        """The one token that may come next, or None where there is a choice."""
        if self._length < len(self._decided):
            return self._decided[self._length]
        return self._eos if self._cursor.finished else None

    def follow(self, tokens: Sequence[int]) -> None:
        """Catch up with the tokens written so far.

        Raises:
            KeyError: one of them is not allowed.
        """
        self._length = len(tokens)
        while len(self._decided) < self._length and not self._cursor.finished:
            self._cursor.choose(tokens[len(self._decided)])
            self._choices += 1
            self._take_pending()

    def draw(self, log_probabilities: np.ndarray[Any, Any], sampling: Sampling) -> int:
        """Index of the allowed token to take, given the log-probabilities of all of them in nats."""
        if len(self._uniforms) == self._choices:
            self._uniforms.append(float(self._rng.random()))
        weighed = log_probabilities + np.array(self._cursor.weights)
        return pick(weighed, self._uniforms[self._choices], sampling, self._cursor.at_coordinate)

    def _take_pending(self) -> None:
        self._decided += self._cursor.pending
        self._cursor.pending.clear()


def pack_grammar(grammar: Grammar) -> str:
    """A grammar, any frozen dataclass of plain values, as text."""
    return json.dumps(_plain(grammar), separators=(",", ":"))


def unpack_grammar(text: str) -> Grammar:
    """The grammar that `pack_grammar` wrote.

    Raises:
        ValueError: it names something that is no dataclass of this package.
    """
    grammar: Grammar = _value(json.loads(text))
    return grammar


_CLASS = "class"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        return {_CLASS: name} | {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"got {type(value).__name__} in a grammar, expected dataclasses, tuples, text and numbers")


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    module, _, name = plain[_CLASS].partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.startswith("defectgen.") else None
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise ValueError(f"got {plain[_CLASS]!r} in a grammar, expected a dataclass of defectgen")
    return kind(**{key: _value(item) for key, item in plain.items() if key != _CLASS})
