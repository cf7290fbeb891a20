"""Proposers: where candidate configurations come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from defectgen.core.configuration import Configuration, canonicalize
from defectgen.core.host import Host
from defectgen.core.registry import Registry, breaks, require_members, require_type
from defectgen.errors import UsageError
from defectgen.llm.decode.generator import Generator, Request, Sampling
from defectgen.one_line import OneLine
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.site_grammar import allowed_for_kinds

if TYPE_CHECKING:
    from defectgen.design.engine import Drawing, Limits, Models


@dataclass(frozen=True)
class Ask:
    """A wish for configurations.

    Attributes:
        values: wanted properties by column in eV, levels relative to the pristine host's VBM.
        n: number of proposals.
        seed: of these proposals.
        whole: whether the values are all that is wanted, and not one of several.
    """

    values: Mapping[str, float]
    n: int
    seed: int
    whole: bool = True


@dataclass(frozen=True)
class Proposal:
    """One configuration for one ask; `configuration` is None where nothing valid came.

    Attributes:
        ask: index of the ask.
        configuration: canonical form.
        reason: why there is none.
    """

    ask: int
    configuration: Configuration | None
    reason: str = ""


class Proposer(Protocol):
    """Turns asks into configurations of a host."""

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """As many proposals for each ask as it wants, invalid ones included."""
        ...


@dataclass(frozen=True, repr=False)
class ModelProposer(OneLine):
    """The language model under the grammar of valid completions.

    Attributes:
        generator: the engine.
        task: prompts and completions.
        min_defects: fewest defects in a proposal.
        max_defects: most defects in a proposal.
        kinds: kinds of defects to make; empty for any.
        sampling: how tokens are drawn.
    """

    generator: Generator
    task: DefectTask
    min_defects: int
    max_defects: int
    kinds: tuple[str, ...]
    sampling: Sampling

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `Proposer`."""
        grammar = self.task.grammar(host, self.max_defects, min_defects=self.min_defects, kinds=self.kinds)
        plain = self.task.prompt(host, {}, self.kinds)
        requests = [Request(self.task.prompt(host, a.values, self.kinds), grammar, a.n, a.seed, plain) for a in asks]
        for completion in self.generator.generate(requests, self.sampling):
            configuration = self.task.parse(host, completion.text)
            yield Proposal(completion.request, configuration.canonical())


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
        admitted = allowed_for_kinds(host, self.kinds)
        changeable = [site for site in range(host.n_sites) if admitted[host.site_cell(site)[0]]]
        for index, ask in enumerate(asks):
            rng = np.random.default_rng(ask.seed)
            drawn = []
            for _ in range(ask.n):
                count = int(rng.integers(self.min_defects, self.max_defects + 1))
                sites = rng.choice(changeable, size=count, replace=False)
                allowed = [admitted[host.site_cell(int(site))[0]] for site in sites]
                edits = [(int(s), str(rng.choice(options))) for s, options in zip(sites, allowed, strict=True)]
                drawn.append(Configuration.of(host, edits))
            yield from (Proposal(index, configuration) for configuration in canonicalize(drawn))


@dataclass(frozen=True, repr=False)
class WithSearch(OneLine):
    """Another proposer, and random structures beside it for the ranking to choose from.

    Where cells are crowded, a surrogate that picks among many random structures comes nearer than what a model
    trained on a few hundred of them proposes. One pool is drawn for all asks for a whole target.

    Attributes:
        first: the other proposer.
        random: draws the pool.
        count: structures in the pool.
        seed: of the pool.
    """

    first: Proposer
    random: RandomProposer
    count: int
    seed: int

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `Proposer`; the pool comes last."""
        yield from self.first.propose(host, asks)
        if not self.count or not asks:
            return
        pool = list(self.random.propose(host, [Ask({}, self.count, self.seed)]))
        for index, ask in enumerate(asks):
            if ask.whole:
                yield from (Proposal(index, proposal.configuration) for proposal in pool)


@dataclass(frozen=True, repr=False)
class ProposerOptions(OneLine):
    """What a proposer may need to be made.

    Attributes:
        host: what will be decorated.
        limits: which defects may be proposed.
        drawing: how a language model draws.
        models: the models that the user chose.
    """

    host: Host
    limits: Limits
    drawing: Drawing
    models: Models


@dataclass(frozen=True)
class ProposerEntry:
    """One line of the registry: what a proposer is, and how to make it."""

    description: str
    make: Callable[[ProposerOptions], Proposer]


def _model(options: ProposerOptions) -> Proposer:
    from defectgen.design.engine import load_engine

    return load_engine(options.host, options.models, options.limits, options.drawing).proposer


def _random(options: ProposerOptions) -> Proposer:
    host, limits = options.host, options.limits
    changeable = sum(bool(allowed) for allowed in allowed_for_kinds(host, limits.kinds)) * host.n_sites // host.n_basis
    most = limits.max_defects
    if most is None or most > changeable:
        raise UsageError(
            f"got at most {most or 'any number of'} defects for random structures of {host.name} {host.size}, expected "
            f"1 to {changeable}.",
            "Give --max-defects (max_defects=).",
        )
    return RandomProposer(most, limits.min_defects, limits.kinds)


def _check(name: str, entry: ProposerEntry) -> None:
    require_type("proposer", name, entry, ProposerEntry)
    if not callable(entry.make):
        raise breaks("proposer", name, "its make cannot be called")


PROPOSERS: Registry[ProposerEntry] = Registry("proposer", "proposers", _check)
PROPOSERS.built_in(
    {
        "model": ProposerEntry("the language model alone, without random structures beside it", _model),
        "random": ProposerEntry("random decorations under the host's rules", _random),
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
