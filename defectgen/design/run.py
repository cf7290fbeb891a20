"""A design from a request to ranked candidates: what the command line and the library call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen import __version__
from defectgen.core import Configuration, Host, get_host
from defectgen.design.candidates import RAW, DesignRun, Target
from defectgen.design.engine import SHIPPED, USUAL, Drawing, Limits, Models, load_engine, load_surrogate
from defectgen.design.pipeline import DesignSettings, RankBy, RawReference
from defectgen.design.pipeline import design as propose_and_rank
from defectgen.design.proposers import PROPOSERS, Proposer, ProposerOptions, RandomProposer, WithSearch, make_proposer
from defectgen.design.seeds import seed_for
from defectgen.design.targets import coverage_warnings, read_targets, single_target, wanted_values
from defectgen.errors import UsageError
from defectgen.llm.adapter import training_configurations
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_SURROGATE, shipped
from defectgen.one_line import OneLine
from defectgen.score.protocol import Scorer

if TYPE_CHECKING:
    from defectgen.score.potentials.relaxation import Relaxation

PROPOSALS_PER_CANDIDATE = 16
"""Structures that the language model proposes for each candidate wanted."""

VBM = "vbm"


@dataclass(frozen=True)
class Ranking:
    """How many structures compete, what decides between them, and how many come out.

    Attributes:
        n: candidates to return for each target.
        samples: structures that the language model proposes for each target; None for 16 `n`.
        search: random structures that are ranked beside those.
        rank_by: ``expected`` distance to the target, uncertainty counted, or ``distance`` of the predicted values.
        reference: the zero of all levels: ``vbm`` of the pristine host, or ``raw``, of the data's own cells.
        seed: of all draws.
    """

    n: int = 16
    samples: int | None = None
    search: int = 1000
    rank_by: RankBy = "expected"
    reference: str = VBM
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("samples", 1), ("search", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name == "samples":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"got {name}={value!r}, expected a whole number of {least} or more.")
        if self.rank_by not in ("expected", "distance"):
            raise UsageError(f"got rank_by {self.rank_by!r}, expected `expected` or `distance`.")
        if self.reference not in (VBM, RAW):
            raise UsageError(f"got reference {self.reference!r}, expected {VBM} or {RAW}.")

    @property
    def settings(self) -> DesignSettings:
        """For `defectgen.design.pipeline`."""
        return DesignSettings(self.n, self.samples or PROPOSALS_PER_CANDIDATE * self.n, self.seed, self.rank_by)


@dataclass(frozen=True, repr=False)
class DesignRequest(OneLine):
    """Everything that decides the candidates of a design.

    Attributes:
        host: what is decorated.
        targets: wanted values, in eV, on the zero that the ranking's `reference` names.
        ranking: see `Ranking`.
        limits: which defects may be proposed.
        drawing: how the language model draws.
        models: what proposes and predicts.
        proposer: proposes in place of the language model and the search, itself or its name in
            `defectgen.design.proposers.PROPOSERS`; None for these.
        scorer: predicts in place of the surrogate; None for that one.
    """

    host: Host
    targets: tuple[Target, ...]
    ranking: Ranking = field(default_factory=Ranking)
    limits: Limits = field(default_factory=Limits)
    drawing: Drawing = USUAL
    models: Models = SHIPPED
    proposer: Proposer | str | None = None
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.host, Host):
            raise UsageError(
                f"got {type(self.host).__name__} {self.host!r:.40} as host, expected a Host.",
                'Use defectgen.host("MoS2") or read_host("FILE").',
            )
        if not self.targets or not all(isinstance(target, Target) for target in self.targets):
            raise UsageError(f"got targets {self.targets!r:.80}, expected one or more of type Target.")
        if isinstance(self.proposer, str):
            PROPOSERS.find(self.proposer)
        proposer = None if isinstance(self.proposer, str) else self.proposer
        for name, value, method in (("proposer", proposer, "propose"), ("scorer", self.scorer, "score")):
            if value is not None and not callable(getattr(value, method, None)):
                raise UsageError(
                    f"got {type(value).__name__} {value!r:.40} as {name}, expected an object with a method {method}."
                )


@dataclass(frozen=True, repr=False)
class PreparedDesign(OneLine):
    """A request with its models loaded.

    Attributes:
        request: what is wanted.
        proposer: where configurations come from.
        scorer: predicts their properties.
        known: canonical keys of the training structures; all others are novel.
        raw: conversion to the data's own zero, if that is asked for.
        warnings: what a reader has to know before the run, a line each.
        facts: what to report of models and draws.
    """

    request: DesignRequest
    proposer: Proposer
    scorer: Scorer
    known: frozenset[str]
    raw: RawReference | None = None
    warnings: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def n_proposals(self) -> int:
        """Structures that will be proposed in the first round, for a progress bar."""
        ranking = self.request.ranking
        search = ranking.search if isinstance(self.proposer, WithSearch) else 0
        return len(self.request.targets) * (ranking.settings.samples + search)

    def run(self, progress: Callable[[int], None] = lambda _: None) -> DesignRun:
        """Propose, predict and rank; after Ctrl-C what was there by then, with ``complete=False``.

        Args:
            progress: called with the number of new proposals.
        """
        return propose_and_rank(
            self.request.host,
            self.request.targets,
            self.proposer,
            self.scorer,
            self.known,
            self.request.ranking.settings,
            raw=self.raw,
            warnings=self.warnings,
            extra=self.facts,
            progress=progress,
        )


def prepare_design(request: DesignRequest) -> PreparedDesign:
    """Load what a request needs.

    Raises:
        UsageError: models that were not trained for the host, or a number that is out of range.
        DefectgenError: a model that is missing or damaged.
    """
    host, limits, ranking = request.host, request.limits, request.ranking
    if request.proposer is not None:
        return _prepare_own(request, request.proposer)
    engine = load_engine(host, request.models, limits, request.drawing)
    raw = engine.raw_reference() if ranking.reference == RAW else None
    search = RandomProposer(engine.proposer.max_defects, limits.min_defects, limits.kinds)
    proposer = WithSearch(engine.proposer, search, ranking.search, seed_for(ranking.seed, host.name, "search"))
    warnings = (*engine.warnings, *coverage_warnings(host.name, request.targets, engine.coverage(raw)))
    facts = {**engine.facts, "search": ranking.search}
    if request.scorer is not None:
        facts["surrogate"] = type(request.scorer).__name__
    return PreparedDesign(request, proposer, request.scorer or engine.scorer, engine.known, raw, warnings, facts)


def _prepare_own(request: DesignRequest, given: Proposer | str) -> PreparedDesign:
    """With a proposer of the user's in place of the language model, which is not loaded."""
    host, models = request.host, request.models
    if request.ranking.reference == RAW:
        raise UsageError("got reference 'raw' and a proposer of your own, whose cells have no raw zero.")
    options = ProposerOptions(host, request.limits, request.drawing, models)
    proposer = make_proposer(given, options) if isinstance(given, str) else given
    scorer = request.scorer or load_surrogate(models.surrogate or shipped(SHIPPED_SURROGATE))
    known = training_configurations(models.adapter or shipped(SHIPPED_ADAPTER))
    facts: dict[str, object] = {
        "defectgen": __version__,
        "proposer": given if isinstance(given, str) else type(given).__name__,
        "surrogate": type(scorer).__name__,
        "supercell": host.size,
    }
    return PreparedDesign(request, proposer, scorer, known.get(f"{host.name} {host.size}", frozenset()), facts=facts)


def design(
    host: Host | str,
    *,
    targets: Target | Sequence[Target] | Path | str | None = None,
    n: int = 16,
    min_defects: int = 1,
    max_defects: int | None = None,
    kinds: Sequence[str] | str = (),
    seed: int = 0,
    ranking: Ranking | None = None,
    drawing: Drawing = USUAL,
    models: Models = SHIPPED,
    proposer: Proposer | str | None = None,
    scorer: Scorer | None = None,
    progress: Callable[[int], None] = lambda _: None,
    **wanted: float,
) -> DesignRun:
    """Defect structures with wanted properties, best first, as ``defectgen design`` makes them.

    The language model proposes, random structures are added, duplicates by symmetry are removed, the surrogate predicts
    every property, and the candidates of each target come out sorted by the distance to it that is to be expected.

    Args:
        host: what is decorated, or the name of a built-in host.
        targets: many targets, or a CSV file with one a line; in place of `wanted`.
        n: candidates to return for each target.
        min_defects: fewest defects in a cell.
        max_defects: most; None for as many as the model saw in the host.
        kinds: kinds of defects, some of ``vacancy`` and ``substitution``; empty for any.
        seed: of all draws; the same seed gives the same candidates.
        ranking: the zero of levels, how many compete, what decides; its `n` and `seed` take the place of those here.
        drawing: how the language model draws.
        models: other models than the shipped ones.
        proposer: proposes in place of the language model and the random structures: an object, or the name of a
            registered one (``model``, ``random``).
        scorer: predicts in place of the surrogate.
        progress: called with the number of new proposals.
        wanted: values in eV by property: ``homo``, ``lumo``, ``band_gap``, ``formation_energy``, ``fermi_level``,
            ``energy_per_atom``. Levels count from the valence band maximum of the pristine host.

    Returns:
        The run. Its `candidates` hold configurations with predicted values, `to_polars` gives a table, and `write`
        a folder with structures and report.

    Raises:
        UsageError: no target, a value or type that does not fit, or a host that the models were not trained for.
        DefectgenError: a model or table that is missing or damaged.
    """
    request = DesignRequest(
        host=get_host(host) if isinstance(host, str) else host,
        targets=_targets(targets, wanted),
        ranking=ranking or Ranking(n=n, seed=seed),
        limits=Limits(min_defects, max_defects, (kinds,) if isinstance(kinds, str) else tuple(kinds)),
        drawing=drawing,
        models=models,
        proposer=proposer,
        scorer=scorer,
    )
    return prepare_design(request).run(progress)


def _targets(given: object, wanted: Mapping[str, float]) -> tuple[Target, ...]:
    if given is None:
        return (single_target(wanted_values(wanted)),)
    if wanted:
        raise UsageError(f"got targets and {', '.join(sorted(wanted))}.", "Give one or the other.")
    if isinstance(given, str | Path):
        return read_targets(Path(given))
    if isinstance(given, Target):
        return (given,)
    if isinstance(given, Iterable):
        return tuple(given)
    raise UsageError(f"got {type(given).__name__} {given!r:.60} as targets, expected Target objects or a CSV file.")


def load_relaxer(name: str, m3gnet: str | Path | None = None) -> Callable[[Configuration], Relaxation]:
    """The function that relaxes a configuration with the potential of this name, e.g. ``m3gnet`` or ``chgnet``.

    Args:
        name: of the potential.
        m3gnet: folder of M3GNet, or its name on the hub.

    Raises:
        UsageError: no potential of that name, or one that needs a folder.
        DefectgenError: its extra is not installed, or its files are missing.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.score.potentials.potential import PotentialScorer
    from defectgen.score.potentials.relaxation import relax
    from defectgen.score.registry import SCORERS, ScorerOptions, load_scorer

    if name not in SCORERS:
        raise UsageError(f"got --relax {name!r}, expected a potential, e.g. m3gnet or chgnet.")
    scorer = load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet))
    if not isinstance(scorer, PotentialScorer):
        raise UsageError(f"{name} gives no forces to relax with.", "Expected a potential, e.g. m3gnet or chgnet.")
    potential = scorer.potential
    return lambda configuration: relax(configuration.to_structure(), potential)
