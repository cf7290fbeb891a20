"""Prompts, completions and grammars of the encodings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.core import Configuration, Host, get_host, host_names
from defectgen.tasks.defect.encodings import (
    ENCODINGS,
    get_encoding,
)
from defectgen.tasks.grammar import END, Grammar
from defectgen.tasks.numbers import format_number
from defectgen.tasks.parsing import ParseError

GOLDEN = Path(__file__).parent / "golden_prompts.json"


def random_walk(grammar: Grammar, rng: np.random.Generator) -> str:
    state, text = grammar.start, ""
    while True:
        choices = grammar.choices(state)
        piece = list(choices)[rng.integers(len(choices))]
        if piece == END:
            return text
        text, state = text + piece, choices[piece]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", host_names())
def test_all_that_a_grammar_admits_is_a_valid_configuration(encoding: str, name: str) -> None:
    host, rng = get_host(name), np.random.default_rng(1)
    grammar = get_encoding(encoding).grammar(host, 5, min_defects=2)
    for _ in range(25):
        text = random_walk(grammar, rng)
        configuration = get_encoding(encoding).parse(host, text)
        assert 2 <= configuration.n_defects <= 5
        assert configuration.follows_rules()
        assert get_encoding(encoding).completion(configuration) == text


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(ENCODINGS)), st.sampled_from(host_names()), st.integers(0, 10**6))
def test_grammars_admit_every_configuration_in_their_range(encoding: str, name: str, seed: int) -> None:
    host, rng = get_host(name), np.random.default_rng(seed)
    sites = rng.choice(host.n_sites, size=int(rng.integers(1, 7)), replace=False)
    options = [host.allowed[host.site_cell(int(site))[0]] for site in sites]
    wanted = Configuration.of(host, [(int(s), str(rng.choice(o))) for s, o in zip(sites, options, strict=True)])
    text = rest = get_encoding(encoding).completion(wanted)
    assert get_encoding(encoding).parse(host, text) == wanted
    grammar = get_encoding(encoding).grammar(host, 6)
    state = grammar.start
    while rest:
        choices = grammar.choices(state)
        piece = max((piece for piece in choices if rest.startswith(piece)), key=len)
        rest, state = rest[len(piece) :], choices[piece]
    assert END in grammar.choices(state)


def test_kinds_restrict_what_a_grammar_admits() -> None:
    host, rng = get_host("MoS2"), np.random.default_rng(3)
    grammar = get_encoding("edits").grammar(host, 3, kinds=("substitution",))
    for _ in range(50):
        assert "VAC" not in random_walk(grammar, rng)


def test_a_composition_never_ends_nowhere_in_large_cells() -> None:
    host, rng = get_host("MoS2", (16, 16)), np.random.default_rng(5)
    encoding = get_encoding("composition")
    for least, most, kinds in ((150, 190, ("vacancy",)), (300, 390, ()), (1, 400, ())):
        grammar = encoding.grammar(host, most, min_defects=least, kinds=kinds)
        found = encoding.parse(host, random_walk(grammar, rng))
        assert least <= found.n_defects <= most
        assert not kinds or {species for _, species in found.edits} == {"VAC"}
    for least, kinds, room in ((400, (), 396), (199, ("vacancy",), 198)):
        with pytest.raises(ValueError, match=f"got {least} defects, expected at most {room} with 99 of each rule"):
            encoding.grammar(host, 500, min_defects=least, kinds=kinds)


def test_number_of_defects_may_be_fixed() -> None:
    host, rng = get_host("WSe2"), np.random.default_rng(4)
    for encoding in ENCODINGS:
        grammar = get_encoding(encoding).grammar(host, 2, min_defects=2)
        assert all(get_encoding(encoding).parse(host, random_walk(grammar, rng)).n_defects == 2 for _ in range(10))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(list(ENCODINGS)), st.text(alphabet=" \nABCVSeWMo0123456789.", max_size=60))
def test_broken_completions_are_parse_errors_and_nothing_else(encoding: str, text: str) -> None:
    host = get_host("MoS2")
    try:
        configuration = get_encoding(encoding).parse(host, text)
    except ParseError:
        return
    assert get_encoding(encoding).parse(host, get_encoding(encoding).completion(configuration)) == configuration


def test_changed_coordinates_are_not_accepted() -> None:
    host = get_host("MoS2")
    text = get_encoding("crystal").completion(Configuration.of(host, {3: "W"}))
    assert "0.042 0.083 0.250" in text
    with pytest.raises(ParseError, match="coordinates differ"):
        get_encoding("crystal").parse(host, text.replace("0.042 0.083 0.250", "0.043 0.083 0.250"))


def _examples(host: Host) -> dict[str, str]:
    values = {"lumo_ev": 1.15, "homo_ev": 0.05}
    configuration = Configuration.of(host, {0: "VAC", 70: "Se"})
    texts = {f"{e} prompt": get_encoding(e).prompt(host, values, ("vacancy", "substitution")) for e in ENCODINGS}
    return texts | {f"{e} completion": get_encoding(e).completion(configuration) for e in ENCODINGS}


def test_prompts_are_those_that_adapters_were_trained_on() -> None:
    """A difference here means: raise its version, train the shipped adapter again, renew the file."""
    assert _examples(get_host("MoS2")) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.050"), (-0.0001, "0.000"), (-7.28451, "-7.285"), (1.2, "1.200")])
def test_numbers_have_fixed_decimals_and_no_negative_zero(value: float, text: str) -> None:
    assert format_number(value, 3) == text
