"""What is asked of a design: targets, limits, how many candidates, and what makes and ranks them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from defectgen.core import Configuration, Host
from defectgen.core.whole import whole
from defectgen.design.candidates import RAW, Target
from defectgen.design.engine import SHIPPED, USUAL, Drawing, Models
from defectgen.design.limits import Limits
from defectgen.design.pipeline import DesignSettings
from defectgen.design.proposers import ENDLESS, PROPOSERS, Budget, Proposer, parse_budget
from defectgen.design.ranking import Labels, RankBy
from defectgen.design.with_potential import PotentialUse
from defectgen.errors import UsageError
from defectgen.one_line import OneLine, shown, typed
from defectgen.score.protocol import Scorer

PROPOSALS_PER_CANDIDATE = 16
"""Structures that the language model proposes for each candidate wanted."""

VBM = "vbm"


@dataclass(frozen=True)
class Ranking:
    """How many structures compete, what decides between them, and how many come out.

    Attributes:
        n: candidates to return for each target.
        samples: structures that the language model proposes for each target; None for 16 `n`.
        random: random structures that compete where not every structure can be listed; None for 1,000, or 400 beside
            a listing.
        rank_by: ``expected`` distance to the target, uncertainty counted, or ``distance`` of the predicted values.
        reference: the zero of all levels: ``vbm`` of the pristine host, or ``raw``, of the data's own cells.
        seed: of all draws.
        diverse: whether a candidate stands for those like it, so that `n` candidates are `n` choices.
        novel: whether only structures without a label, and outside the training data, are wanted.
        budget: how long proposers may look for each target; also as text such as ``30s``.
    """

    n: int = 16
    samples: int | None = None
    random: int | None = None
    rank_by: RankBy = "expected"
    reference: str = VBM
    seed: int = 0
    diverse: bool = True
    novel: bool = False
    budget: Budget = ENDLESS

    def __post_init__(self) -> None:
        if isinstance(self.budget, str):
            object.__setattr__(self, "budget", parse_budget(self.budget))
        if not isinstance(self.budget, Budget):
            raise UsageError(f"got budget {shown(self.budget)}, expected a Budget, or text such as '30s'.")
        for name, least in (("n", 1), ("samples", 1), ("random", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None or name not in ("samples", "random"):
                object.__setattr__(self, name, whole(value, name, least))
        if self.rank_by not in ("expected", "distance"):
            raise UsageError(f"got rank_by {self.rank_by!r}, expected `expected` or `distance`.")
        if self.reference not in (VBM, RAW):
            raise UsageError(f"got reference {self.reference!r}, expected {VBM} or {RAW}.")

    @property
    def settings(self) -> DesignSettings:
        """For `defectgen.design.pipeline`."""
        samples = self.samples or PROPOSALS_PER_CANDIDATE * self.n
        return DesignSettings(self.n, samples, self.seed, self.rank_by, self.diverse, self.novel)


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
        proposer: proposes in place of the usual mix: itself, or names in `defectgen.design.proposers.PROPOSERS` with
            commas between them; None for the mix.
        scorer: predicts in place of the surrogate; None for that one.
        labels: DFT values by canonical key, then by column, in place of the known ones; None for these.
        labels_by: what computed the labels: ``DFT``, or a potential by its name.
        conditions: growth conditions of formation energies, e.g. ``S-rich``; empty for the elements.
        mu: chemical potentials relative to the elements instead, e.g. ``S=-0.6``.
        start: structures that a search begins with.
        potential: relaxes the best; None for no relaxation.
    """

    host: Host
    targets: tuple[Target, ...]
    ranking: Ranking = field(default_factory=Ranking)
    limits: Limits = field(default_factory=Limits)
    drawing: Drawing = USUAL
    models: Models = SHIPPED
    proposer: Proposer | str | None = None
    scorer: Scorer | None = None
    labels: Labels | None = None
    labels_by: str = "DFT"
    conditions: str = ""
    mu: tuple[str, ...] = ()
    start: tuple[Configuration, ...] = ()
    potential: PotentialUse | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.host, Host):
            raise UsageError(
                f"got {typed(self.host)} as host, expected a Host.",
                'Use defectgen.host("MoS2") or read_host("FILE").',
            )
        if not self.targets or not all(isinstance(target, Target) for target in self.targets):
            raise UsageError(f"got targets {shown(self.targets)}, expected one or more of type Target.")
        times = Counter(target.id for target in self.targets)
        if twice := sorted(name for name, number in times.items() if number > 1):
            raise UsageError(f"target id {shown(twice[0])} occurs more than once.", "Give each target its own id.")
        if isinstance(self.proposer, str) and not self.names:
            raise UsageError(f"got proposer {self.proposer!r}, expected names with commas between them.")
        for name in self.names:
            PROPOSERS.find(name)
        if self.ranking.novel and "known" in self.names:
            raise UsageError(
                "got --novel and --proposer known, which contradict each other: known structures are not novel.",
                "Leave out one of them.",
            )
        proposer = None if isinstance(self.proposer, str) else self.proposer
        for name, value, method in (("proposer", proposer, "propose"), ("scorer", self.scorer, "score")):
            if value is not None and not callable(getattr(value, method, None)):
                raise UsageError(f"got {typed(value)} as {name}, expected an object with a method {method}.")

    @property
    def settings(self) -> DesignSettings:
        """For `defectgen.design.pipeline`."""
        spare = 0 if self.potential is None else self.potential.spare
        return replace(self.ranking.settings, spare=spare)

    @property
    def names(self) -> tuple[str, ...]:
        """The proposers that were named."""
        given = self.proposer if isinstance(self.proposer, str) else ""
        return tuple(name.strip() for name in given.split(",") if name.strip())

    @property
    def asks_for_llm(self) -> bool:
        """Whether options were given that say something to the language model only."""
        models = self.models
        return (
            models.adapter is not None
            or models.engine != SHIPPED.engine
            or self.drawing != USUAL
            or self.ranking.samples is not None
        )
