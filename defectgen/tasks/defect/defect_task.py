"""Defect infill: masked host in, symbols out, conditioned on any subset of properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.properties import COLUMNS, USUAL
from defectgen.tasks.defect.encodings import Encoding, get_encoding, kinds_of
from defectgen.tasks.defect.wording import PLAIN, Writing, draw_writing
from defectgen.tasks.grammar import Grammar

VALUES_BY = "values_by"
"""Who computed the values of a structure: a column of the data and a field of its records."""
BY_DFT, BY_SURROGATE = "dft", "surrogate"
LEVEL_PAIR = ("homo_ev", "lumo_ev")


@dataclass(frozen=True)
class DefectTask:
    """The defect task in one encoding.

    Attributes:
        encoding: name of a `defectgen.tasks.defect.encodings.Encoding`.
        pair_share: share of records that ask for HOMO and LUMO and nothing else; the others ask
            for a random subset of one to all properties at hand, small subsets more often.
        kinds_share: share of records that name the kinds of defects to make.
        plain_share: share of records that state no property: what guidance compares with.
        cartesian: coordinates of the long encodings in angstrom instead of fractions of the cell.
        properties: columns of the properties that records may state.
    """

    encoding: str = "edits"
    pair_share: float = 0.6
    kinds_share: float = 0.2
    plain_share: float = 0.05
    cartesian: bool = False
    properties: tuple[str, ...] = USUAL

    @property
    def form(self) -> Encoding:
        """The encoding itself."""
        return get_encoding(self.encoding)

    @property
    def plain(self) -> Writing:
        """How prompts are written where no variety is wanted."""
        return Writing(cartesian=self.cartesian)

    def draw_writing(self, configuration: Configuration, rng: np.random.Generator) -> Writing:
        """A random wording for one record; see `defectgen.tasks.defect.wording`."""
        if not self.form.has_coordinates:
            return PLAIN
        return draw_writing(configuration.host, frozenset(configuration.kinds), self.cartesian, rng)

    def draw_conditions(
        self, available: Mapping[str, float | None], configuration: Configuration, rng: np.random.Generator
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Properties and kinds that one record states, drawn at random from those available."""
        present = [c for c in COLUMNS if c in self.properties and available.get(c) is not None]
        kinds = kinds_of(configuration) if rng.random() < self.kinds_share else ()
        if not present or rng.random() < self.plain_share:
            return {}, kinds
        if rng.random() < self.pair_share and set(LEVEL_PAIR) <= set(present):
            chosen: Sequence[str] = LEVEL_PAIR
        else:
            weights = 1.0 / np.arange(1, len(present) + 1)
            size = int(rng.choice(len(present), p=weights / weights.sum())) + 1
            chosen = [present[k] for k in sorted(rng.choice(len(present), size=size, replace=False))]
        return {column: float(available[column]) for column in chosen}, kinds  # type: ignore[arg-type]

    def prompt(
        self, host: Host, values: Mapping[str, float], kinds: tuple[str, ...] = (), writing: Writing | None = None
    ) -> str:
        return self.form.prompt(host, values, kinds, writing or self.plain)

    def completion(self, configuration: Configuration, writing: Writing | None = None) -> str:
        return self.form.completion(configuration, writing or self.plain)

    def grammar(self, host: Host, max_defects: int, *, min_defects: int = 1, kinds: tuple[str, ...] = ()) -> Grammar:
        return self.form.grammar(host, max_defects, min_defects=min_defects, kinds=kinds, writing=self.plain)

    def parse(self, host: Host, text: str, writing: Writing | None = None) -> Configuration:
        return self.form.parse(host, text, writing or self.plain)
