"""The language model inside a search: its proposals as starts, its next edits as the prior of trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host, canonicalize
from defectgen.core.symmetry import site_permutations
from defectgen.design.edit_moves import Edits
from defectgen.design.engine import load_proposer
from defectgen.design.model_notes import GUIDED_SEARCH, PRIOR_ENCODING
from defectgen.design.model_proposer import ModelProposer
from defectgen.design.proposers import Ask, ProposerOptions
from defectgen.design.search import SearchProposer, search_proposer
from defectgen.design.seeds import seed_for
from defectgen.design.tree_search import Prior
from defectgen.errors import UsageError
from defectgen.llm.alternatives import EditPlaces, piece_log_probabilities
from defectgen.llm.decode.token_grammar import TokenGrammar
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.one_line import OneLine

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

STARTS = 16
"""Proposals for each target that walks begin with."""


@dataclass(frozen=True, repr=False)
class ModelGuide(OneLine):
    """What a language model gives to a search.

    Attributes:
        proposer: the model.
        starts: proposals to begin with for each target; 0 for none.
        has_prior: whether it says which edits are likely.
    """

    proposer: ModelProposer
    starts: int = STARTS
    has_prior: bool = True

    def __post_init__(self) -> None:
        if self.has_prior and not isinstance(self.proposer.generator, TransformersGenerator):
            raise UsageError("this engine does not tell the search how likely edits are.", "Use --engine transformers.")
        if self.has_prior and self.proposer.task.encoding != PRIOR_ENCODING:
            raise UsageError(
                f"the model writes {self.proposer.task.encoding}, and the search reads edits.",
                "Give a model that was trained on records of --encoding edits, or use the proposers llm and search.",
            )

    def drawn(self, host: Host, ask: Ask, left_s: Callable[[], float] | None = None) -> list[Configuration]:
        """Distinct proposals for an ask.

        Args:
            host: what is decorated.
            ask: what is wanted.
            left_s: seconds that are left for it. The first proposal is drawn alone, whatever it takes; the others in
                batches that double, as far as there is time by what the last one took. None: all at once.
        """
        if left_s is None:
            return list(self._proposed(host, Ask(ask.values, self.starts, ask.seed)).values())
        found: dict[str, Configuration] = {}
        left, size, number, time_s = self.starts, 1, 0, left_s()
        while (size := min(size, left)) > 0:
            found |= self._proposed(host, Ask(ask.values, size, seed_for(ask.seed, "drawn", str(number))))
            began_s, time_s = time_s, left_s()
            each_s = max((began_s - time_s) / size, 1e-6)
            left, size, number = left - size, min(2 * size, int(time_s / each_s)), number + 1
        return list(found.values())

    def _proposed(self, host: Host, ask: Ask) -> dict[str, Configuration]:
        """What the model answers, by key; what is no structure is left out."""
        made = (item.configuration for item in self.proposer.propose(host, [ask] if ask.n else []))
        return {item.key: item for item in made if item is not None}

    def prior(self, ask: Ask, edits: Edits) -> Prior | None:
        """How likely edits are to the model when it is asked for the target."""
        generator = self.proposer.generator
        if not self.has_prior or not isinstance(generator, TransformersGenerator):
            return None
        known = self.proposer.properties
        values = {column: value for column, value in ask.values.items() if known is None or column in known}
        return ModelPrior(self.proposer, generator, self.proposer.task.prompt(edits.host, values), edits)


@dataclass(frozen=True, repr=False)
class ModelPrior(OneLine):
    """The log-probability of each next edit.

    A decoration is shown in its canonical form, the only one that the model is trained on. Each edit is judged in its
    place: behind the decoration's own edits of earlier sites.

    Attributes:
        proposer: the model.
        generator: its engine.
        prompt: with the values that are wanted.
        edits: of the host, which number the kinds of defects.
    """

    proposer: ModelProposer
    generator: TransformersGenerator
    prompt: str
    edits: Edits

    @cached_property
    def grammar(self) -> TokenGrammar:
        """Of all that may be written, one edit more than there may be."""
        host, most = self.edits.host, min(self.edits.most + 1, len(set(self.edits.options[0].tolist())))
        return TokenGrammar(self.proposer.task.grammar(host, most, min_defects=0), self.generator.tokenizer)

    def __call__(self, kinds: Sequence[Indices]) -> list[Array]:
        """See `defectgen.design.tree_search.Prior`."""
        canonical = canonicalize([self.edits.configuration(kind_of) for kind_of in kinds])
        images = [image_to(self.edits.host, kind_of, item) for kind_of, item in zip(kinds, canonical, strict=True)]
        asked = [self._places(item) for item in canonical]
        judged = piece_log_probabilities(self.generator.model, self.grammar, [places for places, _ in asked])
        tables = []
        for found, (_, options), image in zip(judged, asked, images, strict=True):
            table = np.full((self.edits.host.n_sites, len(self.edits.lows)), -np.inf)
            for values, pairs in zip(found, options, strict=True):
                for value, (site, kind) in zip(values, pairs, strict=True):
                    table[site, kind] = value
            tables.append(table[image])
        return tables

    def _places(self, item: Configuration) -> tuple[EditPlaces, list[list[tuple[int, int]]]]:
        """The edits as pieces, with all that may stand up to each of them, and which (site, kind) that is."""
        host, own = self.edits.host, [site for site, _ in item.edits]
        options: list[list[tuple[int, int]]] = [[] for _ in range(len(own) + 1)]
        for site, kind in zip(*(values.tolist() for values in self.edits.options), strict=True):
            options[int(np.searchsorted(own, site))].append((site, kind))
        species = [rule.replacement for rule in host.rules]
        wanted = tuple(tuple(f" {species[kind]} {host.site_name(site)}" for site, kind in pairs) for pairs in options)
        pieces = tuple(f" {new} {host.site_name(site)}" for site, new in item.edits)
        return EditPlaces(self.prompt, pieces, wanted), options


def image_to(host: Host, kind_of: Indices, canonical: Configuration) -> Indices:
    """A symmetry operation that takes a decoration to its canonical form: the new site of each site."""
    permutations, own = site_permutations(host), np.flatnonzero(kind_of >= 0)
    number = {(rule.element, rule.replacement): k for k, rule in enumerate(host.rules)}
    n_kinds = len(host.rules)
    wanted = sorted(site * n_kinds + number[host.site_element(site), new] for site, new in canonical.edits)
    codes = np.sort(permutations[:, own].astype(np.int64) * n_kinds + kind_of[own], axis=1)
    (fits,) = np.nonzero((codes == np.array(wanted, dtype=np.int64)).all(axis=1))
    return np.asarray(permutations[int(fits[0])], dtype=np.int64)


def guided_search_proposer(options: ProposerOptions) -> SearchProposer:
    """The search with the language model of the options.

    Raises:
        UsageError: see `defectgen.design.search.search_proposer`, `ModelGuide` and
            `defectgen.design.engine.load_proposer`.
        DefectgenError: a model that is missing or damaged.
    """
    options.required_scorer(GUIDED_SEARCH)
    proposer, _ = load_proposer(options.host, options.models, options.limits, options.drawing)
    return search_proposer(
        options, GUIDED_SEARCH, ModelGuide(proposer, has_prior=proposer.task.encoding == PRIOR_ENCODING)
    )
