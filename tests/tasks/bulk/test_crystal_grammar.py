"""The grammar of crystals: what it writes parses, what is written is reachable, and tokenizers cut it alike."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectgen.core.crystal import Crystal, volume_fraction
from defectgen.errors import DefectgenError, UsageError
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_grammar import MIN_VOLUME_FRACTION, MP_ELEMENTS, CrystalGrammar, ElementGrammar
from defectgen.tasks.bulk.crystal_text import parse_crystal, parse_element, parse_formula, write_crystal
from defectgen.tasks.bulk.orbit_grammar import OrbitGrammar
from defectgen.tasks.grammar import END, Grammar

TOKENIZERS = ("smollm2", "llama2", "llama3")


def pieces_of(grammar: Grammar, text: str) -> list[str]:
    """The pieces of a text, by trying at each state the longest that fits.

    Raises:
        ValueError: the grammar cannot write the text.
    """
    state, rest, pieces = grammar.start, text, []
    while True:
        choices = grammar.choices(state)
        fitting = [piece for piece in choices if piece != END and rest.startswith(piece)]
        if not fitting:
            if rest or END not in choices:
                raise ValueError(f"cannot write {rest[:20]!r}")
            return pieces
        piece = max(fitting, key=len)
        pieces.append(piece)
        state, rest = choices[piece], rest[len(piece) :]


def draw(grammar: Grammar, rng: np.random.Generator) -> list[str]:
    """A random walk through the grammar."""
    state, pieces = grammar.start, []
    while True:
        choices = grammar.choices(state)
        piece = list(choices)[int(rng.integers(len(choices)))]
        if piece == END:
            return pieces
        pieces.append(piece)
        state = choices[piece]


def test_every_walk_is_a_crystal() -> None:
    rng = np.random.default_rng(0)
    grammar, sizes = CrystalGrammar(max_atoms=3), set()
    for _ in range(200):
        text = "".join(draw(grammar, rng))
        crystal = parse_crystal(text)
        assert write_crystal(crystal) == text
        assert 1 <= len(crystal.species) <= 3
        assert set(crystal.species) <= set(MP_ELEMENTS)
        assert volume_fraction(crystal.angles) >= MIN_VOLUME_FRACTION
        assert min(crystal.lengths) >= 1
        sizes.add(len(crystal.species))
    assert sizes == {1, 2, 3}


def test_no_choice_of_angles_is_a_dead_end() -> None:
    grammar = CrystalGrammar()
    state: Any = ("angle", (), None)
    first = grammar.choices(state)
    assert len(first) > 10
    for piece, following in first.items():
        second = grammar.choices(following)
        assert second, piece
        for last in list(second.values())[::17]:
            assert grammar.choices(last)


@pytest.mark.parametrize("formula", ["O2", "NaCl", "LiFePO4", "Ca3(PO4)2", "Al2O3"])
def test_with_a_formula_only_that_composition(formula: str) -> None:
    rng, counts = np.random.default_rng(1), parse_formula(formula)
    grammar, units = BulkTask().grammar(20, formula=formula), set()
    for _ in range(25):
        species = parse_crystal("".join(draw(grammar, rng))).species
        number = {species.count(element) / n for element, n in counts.items()}
        assert len(number) == 1
        assert len(species) == number.copy().pop() * sum(counts.values()) <= 20
        units |= number
    assert units <= set(range(1, 21))


def test_a_formula_reaches_every_number_of_units_and_every_order() -> None:
    grammar = BulkTask().grammar(4, formula="NaCl")
    tail = "\n0.00 0.00 0.00"
    for order in ("Na Cl", "Cl Na", "Na Na Cl Cl", "Na Cl Cl Na", "Cl Na Na Cl"):
        text = "4.0 4.0 4.0\n90 90 90" + "".join(f"\n{symbol}{tail}" for symbol in order.split())
        assert "".join(pieces_of(grammar, text)) == text
    for order in ("Na", "Na Cl Na", "Na Na Na Cl", "Na Na Cl Cl Na Cl", "K Cl"):
        text = "4.0 4.0 4.0\n90 90 90" + "".join(f"\n{symbol}{tail}" for symbol in order.split())
        with pytest.raises(ValueError, match="cannot write"):
            pieces_of(grammar, text)


@pytest.mark.parametrize("symbol", ["Ln", "Met8", "Gro", "L0", "Mande", "Po", "si", "D"])
def test_invented_elements_cannot_be_written(symbol: str) -> None:
    text = f"5.0 5.0 5.0\n90 90 90\n{symbol}\n0.00 0.00 0.00"
    with pytest.raises(ValueError, match="cannot write"):
        pieces_of(CrystalGrammar(), text)
    with pytest.raises(ValueError, match="cannot write"):
        pieces_of(ElementGrammar(), f"{symbol}\n")


def test_the_elements_can_be_chosen() -> None:
    rng = np.random.default_rng(2)
    grammar = CrystalGrammar(5, ("Si", "S"))
    assert {s for _ in range(50) for s in parse_crystal("".join(draw(grammar, rng))).species} == {"Si", "S"}
    infill = BulkTask().infill_grammar(("Si", "S"))
    assert {parse_element("".join(draw(infill, rng))) for _ in range(50)} == {"Si", "S"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrystalGrammar(0), "expected 1 or more"),
        (lambda: CrystalGrammar(5, ("Ln",)), "got Ln, expected symbols"),
        (lambda: CrystalGrammar(5, ("",)), "got an empty name, expected symbols"),
        (lambda: CrystalGrammar(5, ()), "at least one"),
        (lambda: CrystalGrammar(5, ("Si",), None, 5.1), "least distance of 5.1 angstrom, expected 0 to 5"),
        (lambda: CrystalGrammar(5, ("Si",), None, float("nan")), "expected 0 to 5"),
        (lambda: CrystalGrammar(5, ("Si",), None, 0.5, 1.2), "got 1.2 of the sum of the radii, expected 0 to 1"),
        (lambda: ElementGrammar(("S", "S")), "each once"),
        (lambda: BulkTask().grammar(20, formula="Y3Al5O12"), "Y3Al5O12 has 20 atoms|^$"),
        (lambda: BulkTask().grammar(10, formula="Ca3(PO4)2"), "has 13 atoms, at most 10"),
        (lambda: BulkTask().grammar(10, ("Na",), "NaCl"), "has Cl, which the allowed elements leave out"),
    ],
)
def test_impossible_grammars_are_refused(make: Any, message: str) -> None:
    if message.endswith("^$"):
        make()  # exactly as many atoms as allowed
        return
    with pytest.raises(UsageError, match=message):
        make()


def test_few_states_so_that_decoding_stays_fast() -> None:
    grammar, seen = CrystalGrammar(20, ("Si", "O")), set()
    waiting: list[Any] = [("first", (0,), None)]
    while waiting:
        state = waiting.pop()
        if state not in seen and state is not None:
            seen.add(state)
            waiting += grammar.choices(state).values()
    assert len(seen) == 20 * 4 + 1


@pytest.mark.parametrize("grammar", [BulkTask().grammar(7, ("Si", "O"), "SiO2"), BulkTask().infill_grammar()])
def test_grammars_travel_to_the_processes_of_an_engine(grammar: Grammar) -> None:
    from defectgen.llm.decode.guide import pack_grammar, unpack_grammar

    assert unpack_grammar(pack_grammar(grammar)) == grammar


def tokenizer(name: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    if name == "smollm2":
        from defectgen.data.assets import asset_path

        try:
            found = sorted(asset_path("smollm2-135m").rglob("tokenizer.json"))
        except DefectgenError as error:
            pytest.skip(f"tokenizer of SmolLM2 left out: {error}")
        if not found:
            pytest.skip("tokenizer of SmolLM2 left out: the base model has not been converted yet")
        return PreTrainedTokenizerFast(tokenizer_file=str(found[0]), eos_token="<|im_end|>")
    folder = os.environ.get("DEFECTGEN_TOKENIZERS", "")
    if not folder:
        pytest.skip(f"DEFECTGEN_TOKENIZERS is not set: tokenizer of {name} left out")
    ends = {"llama2": "</s>", "llama3": "<|end_of_text|>"}
    file = Path(folder) / name / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=ends[name])


def random_texts(n: int) -> list[str]:
    rng = np.random.default_rng(3)
    grammar = CrystalGrammar(6)
    return ["".join(draw(grammar, rng)) for _ in range(n)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_are_cut_where_the_tokenizer_cuts_the_whole(name: str) -> None:
    """What training sees (one text) and what decoding writes (pieces) are the same tokens."""
    cut, grammar = tokenizer(name), CrystalGrammar(6)
    for text in random_texts(20):
        encoded = cut(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = {end for _, end in encoded["offset_mapping"]}
        place = 0
        for piece in pieces_of(grammar, text):
            place += len(piece)
            assert place in ends, (text, piece)
        assert place == len(text)


@pytest.mark.parametrize("name", ["smollm2", "llama2", "llama3"])
def test_the_compiled_grammar_writes_the_tokens_of_training(name: str) -> None:
    from defectgen.llm.decode.token_grammar import TokenGrammar
    from defectgen.llm.tokens import piece_ids, prompt_ids

    cut, task = tokenizer(name), BulkTask()
    rng = np.random.default_rng(4)
    walks = [(task.grammar(6), text) for text in random_texts(20)]
    walks += [(task.infill_grammar(), f"{element}\n") for element in MP_ELEMENTS]
    exact = task.grammar(20, formula="LiFePO4")
    walks += [(exact, "".join(draw(exact, rng))) for _ in range(10)]
    compiled: dict[Grammar, TokenGrammar] = {}
    for grammar, text in walks:
        walker = compiled.setdefault(grammar, TokenGrammar(grammar, cut))
        tokens = [*piece_ids(cut, text), cut.eos_token_id]
        assert len(walker.along(tokens)) == len(tokens)
    prompt, text = "within the lattice:\n", random_texts(1)[0]
    assert prompt_ids(cut, prompt + text) == prompt_ids(cut, prompt) + piece_ids(cut, text)


def test_the_papers_sample_can_be_written_once_its_element_is_real() -> None:
    """Figure 3 of the paper, whose Ln is none, with La: angles 138 138 59 and four atoms."""
    atoms = ("0.88 0.05 0.96", "0.63 0.30 0.46", "0.38 0.55 0.96", "0.13 0.80 0.46")
    text = "6.7 6.7 6.7\n138 138 59\n" + "\n".join(f"La\n{xyz}" for xyz in atoms)
    assert "".join(pieces_of(CrystalGrammar(), text)) == text
    assert isinstance(parse_crystal(text), Crystal)


def end_weights(grammar: CrystalGrammar, text: str) -> list[float]:
    """The weight of the end after each atom of a crystal's text."""
    state, rest, found = grammar.start, text, []
    while rest:
        choices = grammar.choices(state)
        [piece] = [piece for piece in choices if piece != END and f"{rest}\n".startswith(piece)]
        state, rest = choices[piece], rest[len(piece) :]
        if state[0] == "atom":  # type: ignore[index]
            found.append(grammar.end_weight(state))
    return found


def test_a_crystal_leans_towards_an_end_where_charges_balance() -> None:
    text = "8.0 8.0 8.0\n90 90 90\nNa\n0.00 0.00 0.00\nNa\n0.50 0.50 0.00\nCl\n0.50 0.00 0.00\nCl\n0.00 0.50 0.00"
    grammar = CrystalGrammar(elements=("Na", "Cl"), min_distance=0.5, balance=2.5)
    assert end_weights(grammar, text) == [0.0, 0.0, -2.5, 2.5], "sodium alone is a metal, Na2Cl is unbalanced"
    assert end_weights(CrystalGrammar(elements=("Na", "Cl"), balance=2.5), text) == [0.0, 0.0, -2.5, 2.5]
    assert end_weights(CrystalGrammar(elements=("Na", "Cl"), min_distance=0.5), text) == [0.0] * 4
    asked = CrystalGrammar(elements=("Na", "Cl"), composition=(("Na", 1), ("Cl", 1)), min_distance=0.5, balance=2.5)
    assert end_weights(asked, text) == [0.0] * 4, "the formula decides"
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"expected 0 or more\.$"):
            CrystalGrammar(balance=weight)


def test_a_cell_that_would_be_denser_than_any_solid_ends() -> None:
    """2 cubic angstrom an atom."""

    def may_go_on(grammar: CrystalGrammar, text: str) -> set[str]:
        state, rest = grammar.start, text
        while rest:
            choices = grammar.choices(state)
            [piece] = [piece for piece in choices if piece != END and f"{rest}\n".startswith(piece)]
            state, rest = choices[piece], rest[len(piece) :]
        return {piece.strip() for piece in grammar.choices(state) if piece != END}

    dense = CrystalGrammar(elements=("H", "Li"), min_distance=0.5)
    assert may_go_on(dense, "1.5 1.5 1.7\n90 90 90\nH\n0.00 0.00 0.00") == set()
    assert may_go_on(dense, "1.5 1.5 1.8\n90 90 90\nH\n0.00 0.00 0.00") == {"H", "Li"}


@pytest.mark.parametrize(
    "grammar",
    [
        CrystalGrammar(min_distance=0.5),
        CrystalGrammar(composition=(("Na", 1), ("Cl", 1))),
        OrbitGrammar(spacegroup=221),
    ],
)
def test_coordinates_are_what_follows_an_element(grammar: CrystalGrammar) -> None:
    text = "4.0 4.0 4.0\n90 90 90\nCl\n0.00 0.00 0.00\nNa\n0.50 0.50 0.50"
    state, rest, found = grammar.start, text, ""
    while rest:
        choices = grammar.choices(state)
        [piece] = [piece for piece in choices if piece != END and rest.startswith(piece)]
        found += "x" if grammar.is_coordinate(state) else "-"
        state, rest = choices[piece], rest[len(piece) :]
    assert found[-8:] == "-xxx-xxx"
    assert "x" not in found[:-8]
