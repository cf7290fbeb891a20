"""Completions that begin with a given text: it is forced, and what follows is what the whole grammar admits there."""

from __future__ import annotations

import numpy as np
import pytest

from defectgen.errors import UsageError
from defectgen.generate.crystal_tree import beginnings
from defectgen.tasks.begun_grammar import BegunGrammar
from defectgen.tasks.bulk.crystal_grammar import CrystalGrammar
from defectgen.tasks.bulk.orbit_grammar import OrbitGrammar
from defectgen.tasks.grammar import END, Grammar, State

SALT = (("Na", 1), ("Cl", 1))


def walk(grammar: Grammar, rng: np.random.Generator) -> tuple[str, dict[int, State]]:
    """A random completion with cells of 4 to 9 angstrom, and the state after each length of its text."""
    state, text, states = grammar.start, "", {0: grammar.start}
    while True:
        following = grammar.choices(state)
        pieces = list(following)
        if len(pieces) > 1 and pieces[-1].endswith("."):
            pieces = [piece for piece in pieces if 4 <= float(piece) <= 9] or pieces
        elif len(pieces) > 1 and pieces[-1].strip().isdigit() and len(pieces) > 20:
            pieces = [piece for piece in pieces if 60 <= float(piece) <= 120] or pieces
        piece = pieces[int(rng.integers(len(pieces)))]
        if piece == END:
            return text, states
        text, state = text + piece, following[piece]
        states[len(text)] = state


@pytest.mark.parametrize(
    "grammar",
    [
        CrystalGrammar(8, composition=SALT, min_distance=0.5, radii=0.75),
        CrystalGrammar(6, balance=3.0),
        OrbitGrammar(8, min_distance=0.5, radii=0.75, spacegroup=225),
    ],
)
def test_what_stands_is_forced_and_the_rest_is_free(grammar: Grammar) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        text, states = walk(grammar, rng)
        assert beginnings(text)[-1] == text
        assert len(beginnings(text)) == 1 + (text.count("\n") - 1) // 2
        for begin in beginnings(text):
            begun = BegunGrammar(grammar, begin)
            state, written = begun.start, ""
            while len(written) < len(begin):
                assert begun.end_weight(state) == 0
                assert not begun.is_coordinate(state)
                [(piece, state)] = begun.choices(state).items()
                written += piece
            assert written == begin
            assert dict(begun.choices(state)) == dict(grammar.choices(states[len(begin)]))
            if isinstance(grammar, CrystalGrammar):
                assert begun.end_weight(state) == grammar.end_weight(states[len(begin)])
                for after in filter(None, begun.choices(state).values()):
                    assert begun.is_coordinate(after) == grammar.is_coordinate(after)
            assert walk(begun, rng)[0].startswith(begin)


def test_what_the_grammar_does_not_write_is_no_beginning() -> None:
    grammar = CrystalGrammar(8, composition=SALT)
    for begin in ("0.3 4.0", "4.0 4.0 4.0\n90 90 90\nK\n", "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0."):
        with pytest.raises(UsageError, match="no completion of the grammar begins with"):
            BegunGrammar(grammar, begin)
    assert BegunGrammar(grammar, "").start == grammar.start
