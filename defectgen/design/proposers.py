"""The protocol of proposers, where candidate configurations come from, and their registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from defectgen.core.configuration import Configuration, canonicalize
from defectgen.core.host import Host
from defectgen.core.hosts import common_title
from defectgen.core.registry import Registry, breaks, require_members, require_type
from defectgen.design.candidates import Target
from defectgen.design.limits import Space
from defectgen.errors import UsageError
from defectgen.one_line import OneLine
from defectgen.tasks.defect.site_grammar import allowed_for_kinds

if TYPE_CHECKING:
    from defectgen.design.engine import Drawing, Models
    from defectgen.design.limits import Limits
    from defectgen.score.protocol import Scorer


@dataclass(frozen=True)
class Budget:
    """How long a proposer may look for each target; None for as long as it takes it by itself.

    Attributes:
        seconds: of wall time.
        evaluations: structures that are scored.
    """

    seconds: float | None = None
    evaluations: int | None = None

    @property
    def text(self) -> str:
        """As `parse_budget` takes it; empty without limits."""
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return "" if self.evaluations is None else str(self.evaluations)


def parse_budget(text: str) -> Budget:
    """A budget from text such as ``30s``, ``5m``, ``1h`` or ``100000`` (structures).

    Raises:
        UsageError: none of these, or a budget of nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)|(\d+)", text.strip().lower().replace(",", ""))
    if match is None:
        raise UsageError(f"got a budget of {text!r}, expected a time such as 30s or a number such as 100000.")
    budget = Budget(evaluations=int(match[3])) if match[3] else Budget(float(match[1]) * _SECONDS[match[2]])
    if not (budget.seconds or budget.evaluations):
        raise UsageError(f"got a budget of nothing ({text}).", "Expected a time such as 30s or a number of structures.")
    return budget


ENDLESS = Budget()
"""No limit but a proposer's own."""

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


POOL = 1000
"""Random structures that are usually drawn."""


@dataclass(frozen=True)
class Ask:
    """A wish for configurations.

    Attributes:
        values: wanted properties by column in their units, levels relative to the pristine host's VBM.
        n: number of proposals; one that looks by itself (a search) hands over the best so many that it found.
        seed: of these proposals.
        whole: whether the values are all that is wanted, and not one of several.
        target: the objective in full, levels relative to the pristine host's VBM: `Target.distances_ev` and
            `Target.expected_ev` take arrays of predicted values. None where only `values` are known.
        start: what is best so far, nearest first, for one that looks around.
    """

    values: Mapping[str, float]
    n: int
    seed: int
    whole: bool = True
    target: Target | None = None
    start: tuple[Configuration, ...] = ()

    @property
    def objective(self) -> Target:
        """The target, made of the values if there is no other."""
        return self.target or Target("ask", tuple(self.values.items()))


@dataclass(frozen=True)
class Proposal:
    """One configuration; `configuration` is None where nothing valid came.

    Attributes:
        ask: index of the ask; None for a proposal to all whole asks.
        configuration: canonical form.
        reason: why there is none.
    """

    ask: int | None
    configuration: Configuration | None
    reason: str = ""


class Proposer(Protocol):
    """Turns asks into configurations of a host."""

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """Configurations for the asks, invalid ones included; the caller scores, ranks and merges them."""
        ...


@dataclass(frozen=True)
class RandomProposer:
    """Random decorations under the host's rules, whatever is asked for: the baseline.

    The number of defects is uniform from `min_defects` to `max_defects`, the sites are uniform without
    replacement, and the species on each are uniform among those allowed (of the `kinds` given, if any).
    """

    max_defects: int
    min_defects: int = 1
    kinds: tuple[str, ...] = ()

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `Proposer`."""
        for index, ask in enumerate(asks):
            yield from (Proposal(index, item) for item in self.draw(host, ask.n, ask.seed))

    def draw(self, host: Host, n: int, seed: int) -> list[Configuration]:
        """So many decorations, canonical; some may be the same."""
        admitted = allowed_for_kinds(host, self.kinds)
        changeable = [site for site in range(host.n_sites) if admitted[host.site_cell(site)[0]]]
        rng = np.random.default_rng(seed)
        drawn = []
        for _ in range(n):
            count = int(rng.integers(self.min_defects, self.max_defects + 1))
            sites = rng.choice(changeable, size=count, replace=False)
            allowed = [admitted[host.site_cell(int(site))[0]] for site in sites]
            edits = [(int(s), str(rng.choice(options))) for s, options in zip(sites, allowed, strict=True)]
            drawn.append(Configuration.of(host, edits))
        return canonicalize(drawn)


@dataclass(frozen=True, repr=False)
class ProposerOptions(OneLine):
    """What a proposer may need to be made.

    Attributes:
        host: what will be decorated.
        limits: which defects may be proposed, as the user said it; `space` says what that leaves.
        drawing: how a language model draws.
        models: the models that the user chose.
        most: most defects where the limits name no number: what the models saw; None if that is not known.
        scorer: predicts the properties; None where the caller has none.
        budget: how long to look for each target.
        pool: random structures to draw; None for as many as usual.
        labels: DFT values by canonical key, then by column, as far as they are known.
        start: configurations to begin with, e.g. of a file or what another proposer found.
        seed: of what is drawn once for all asks.
    """

    host: Host
    limits: Limits
    drawing: Drawing
    models: Models
    most: int | None = None
    scorer: Scorer | None = None
    budget: Budget = ENDLESS
    pool: int | None = None
    labels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    start: tuple[Configuration, ...] = ()
    seed: int = 0

    @cached_property
    def space(self) -> Space:
        """The decorations that the limits leave: rules, numbers, side and distances in one object.

        Raises:
            UsageError: limits that leave nothing, or no largest number of defects.
        """
        most = self.limits.max_defects or self.most
        if most is None:
            raise UsageError(
                f"got no largest number of defects in {common_title(self.host)}.",
                "Give --max-defects (max_defects=).",
            )
        return Space.of(self.host, self.limits, most)

    def required_scorer(self, name: str) -> Scorer:
        """The scorer, for a proposer that cannot do without.

        Raises:
            UsageError: there is none.
        """
        if self.scorer is None:
            raise UsageError(f"the proposer {name!r} needs a scorer.", "Give scorer=.")
        return self.scorer


@dataclass(frozen=True)
class ProposerEntry:
    """One line of the registry: what a proposer is, and how to make it.

    Attributes:
        description: one line.
        make: makes the proposer.
        repeats: whether asking again with another seed gives other proposals.
    """

    description: str
    make: Callable[[ProposerOptions], Proposer]
    repeats: bool = True


def _llm(options: ProposerOptions) -> Proposer:
    from defectgen.design.engine import load_proposer

    return load_proposer(options.host, options.models, options.limits, options.drawing)[0]


def _random(options: ProposerOptions) -> Proposer:
    from defectgen.design.random_pool import random_proposer

    return random_proposer(options)


def _known(options: ProposerOptions) -> Proposer:
    from defectgen.design.known import known_proposer

    return known_proposer(options)


def _exhaustive(options: ProposerOptions) -> Proposer:
    from defectgen.design.exhaustive import exhaustive_proposer

    return exhaustive_proposer(options)


def _search(options: ProposerOptions) -> Proposer:
    from defectgen.design.search import search_proposer

    return search_proposer(options)


def _guided_search(options: ProposerOptions) -> Proposer:
    from defectgen.design.model_guide import guided_search_proposer

    return guided_search_proposer(options)


def _check(name: str, entry: ProposerEntry) -> None:
    require_type("proposer", name, entry, ProposerEntry)
    if not callable(entry.make):
        raise breaks("proposer", name, "its make cannot be called")


PROPOSERS: Registry[ProposerEntry] = Registry("proposer", "proposers", _check)
PROPOSERS.built_in(
    {
        "known": ProposerEntry("labelled structures, with their DFT values", _known, False),
        "exhaustive": ProposerEntry("every symmetry-distinct structure, where they can be listed", _exhaustive, False),
        "random": ProposerEntry("random decorations under the host's rules", _random, False),
        "search": ProposerEntry("annealing, crossings and trees of edits under the scorer", _search, False),
        "llm-search": ProposerEntry(
            "the search, with starts and likely edits of the language model", _guided_search, False
        ),
        "llm": ProposerEntry("the language model, under the grammar of valid completions", _llm),
    }
)


def register_proposer(name: str, description: str, make: Callable[[ProposerOptions], Proposer]) -> ProposerEntry:
    """Add a proposer.

    Args:
        name: short name, for `defectgen.design`.
        description: one line.
        make: makes the proposer; what it needs is imported there.

    Raises:
        UsageError: the name is taken, or `make` cannot be called.
    """
    return PROPOSERS.register(name, ProposerEntry(description, make))


def make_proposer(name: str, options: ProposerOptions) -> Proposer:
    """The proposer of this name.

    Raises:
        UsageError: none of that name, options that do not suit it, or one that breaks its protocol.
        DefectgenError: a model that it needs is missing or damaged.
    """
    proposer = PROPOSERS.find(name).make(options)
    require_members("proposer", name, proposer, Proposer)
    return proposer
