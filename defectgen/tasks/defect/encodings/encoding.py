"""What every encoding of the defect task does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.properties import PROPERTIES, Property
from defectgen.core.registry import breaks, require_members
from defectgen.errors import DefectgenError
from defectgen.tasks.defect.wording import PLAIN, Writing
from defectgen.tasks.grammar import END, Grammar
from defectgen.tasks.numbers import format_number
from defectgen.tasks.parsing import ParseError

KINDS = ("vacancy", "substitution")

MAX_PIECES = 100_000
"""Pieces after which a completion that does not end is given up in `check_encoding`."""


def kinds_of(configuration: Configuration) -> tuple[str, ...]:
    """Which of ``vacancy`` and ``substitution`` occur."""
    found = {"vacancy" if species == VACANCY else "substitution" for _, species in configuration.edits}
    return tuple(kind for kind in KINDS if kind in found)


class Encoding(Protocol):
    """Prompts, completions and grammars of one way to write the defect task.

    Attributes:
        version: raised whenever a prompt or a completion would read differently; adapters carry it.
        has_coordinates: whether prompts are long ones with the position of each site: then they have several
            wordings, positions can be in angstrom, and training shows random symmetry images by default.
    """

    version: int
    has_coordinates: bool

    def prompt(
        self, host: Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing = PLAIN
    ) -> str:
        """The prompt for one request.

        Args:
            host: the supercell.
            values: wanted properties by column in their units, levels relative to the pristine host's VBM;
                properties are written in their fixed order.
            kinds: kinds of defects to make; none leaves the choice open.
            writing: sentences, rules and coordinates of a long prompt.
        """
        ...

    def completion(self, configuration: Configuration, writing: Writing = PLAIN) -> str:
        """What fills the masks."""
        ...

    def parse(self, host: Host, text: str, writing: Writing = PLAIN) -> Configuration:
        """The configuration that a completion states; the exact inverse of `completion`.

        Raises:
            ParseError: wrong number of sites, changed coordinates, an unknown site or species.
        """
        ...

    def grammar(
        self,
        host: Host,
        max_defects: int,
        *,
        min_defects: int = 1,
        kinds: tuple[str, ...] = (),
        writing: Writing = PLAIN,
    ) -> Grammar:
        """The grammar of all valid completions with `min_defects` to `max_defects` defects of these kinds."""
        ...


def wanted_properties(values: Mapping[str, float]) -> list[tuple[Property, str]]:
    """The properties that are asked for, each with its value as text, in the order of `PROPERTIES`."""
    return [(p, format_number(values[p.column], p.decimals)) for p in PROPERTIES if p.column in values]


def following_rules(configuration: Configuration, text: str) -> Configuration:
    """A parsed configuration whose defects the rules of its host allow.

    Raises:
        ParseError: they do not.
    """
    if not configuration.follows_rules():
        name = configuration.host.name
        raise ParseError(f"completion {text[:60]!r}: a species that the rules of {name} do not allow.")
    return configuration


def check_encoding(name: str, encoding: Encoding, host: Host, n: int = 3) -> None:
    """Hold an encoding to its contract in a host: completions parse back, and the grammar admits what parses.

    Args:
        name: of the encoding.
        encoding: the encoding.
        host: with a rule at least.
        n: random walks through the grammar.

    Raises:
        UsageError: the first thing that it does not keep.
    """
    require_members("encoding", name, encoding, Encoding)
    if not isinstance(encoding.version, int) or encoding.version < 1:
        raise breaks("encoding", name, f"its version is {encoding.version!r}, expected a number from 1")
    rng = np.random.default_rng(0)
    try:
        prompts = {encoding.prompt(host, values) for values in ({}, {"homo_ev": 0.5}, {"homo_ev": 1.5})}
        grammar = encoding.grammar(host, 2)
        walks = [_walk(grammar, rng) for _ in range(n)]
        found = [encoding.parse(host, text) for text in walks]
        again = [encoding.completion(configuration) for configuration in found]
    except (DefectgenError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise breaks("encoding", name, f"{type(error).__name__}: {str(error).rstrip('.')}") from error
    if len(prompts) < 3:
        raise breaks("encoding", name, "its prompts do not tell wanted values apart")
    for text, written, configuration in zip(walks, again, found, strict=True):
        if written != text or not 1 <= configuration.n_defects <= 2:
            raise breaks("encoding", name, f"its grammar admits {text[:40]!r}, which its completion writes otherwise")


def _walk(grammar: Grammar, rng: np.random.Generator) -> str:
    """A random completion."""
    state, text = grammar.start, ""
    for _ in range(MAX_PIECES):
        choices = grammar.choices(state)
        if choices.get(END) is not None:
            raise ValueError("the end of a completion leads to a state, expected None")  # decoding would never end
        piece = sorted(choices)[int(rng.integers(len(choices)))]
        state, text = choices[piece], text + piece
        if state is None:
            return text
    raise ValueError("a completion does not end")
