"""What a design run hands over: targets, ranked candidates, and the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.tasks.numbers import format_number

if TYPE_CHECKING:
    from defectgen.score.potentials.relaxation import Relaxation

PRISTINE_VBM = "pristine VBM"
"""`DesignRun.reference` when levels count from the valence band maximum of the pristine host."""

RAW = "raw"
"""`DesignRun.reference` when levels are as the DFT code wrote them."""


Z_90 = 1.6449
"""Half-width of the interval that holds nine tenths of a normal distribution, in standard deviations."""


def _mean_distance(away: float, spread: float) -> float:
    """Mean of ``|x|`` for x normal around `away` (folded normal, doi 10.1080/00401706.1961.10489974)."""
    if spread <= 0:
        return away
    ratio = away / (spread * math.sqrt(2))
    return spread * math.sqrt(2 / math.pi) * math.exp(-(ratio**2)) + away * math.erf(ratio)


@dataclass(frozen=True)
class Target:
    """Property values asked for.

    Attributes:
        id: short name of the target, e.g. ``1`` or a line of the user's table.
        values: (column, value) pairs in the order asked for; columns of `core.properties`, eV, on
            the scale that the run's `reference` names.
    """

    id: str
    values: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        columns = [column for column, _ in self.values]
        if not columns or len(set(columns)) < len(columns) or not set(columns) <= set(COLUMNS):
            raise ValueError(f"got target properties {columns}, expected one or more of {list(COLUMNS)}, each once")
        for column, value in self.values:
            if not math.isfinite(value):
                raise ValueError(f"got {column}={value}, expected a finite number of eV")

    @property
    def text(self) -> str:
        """The target in one line, e.g. ``homo_ev=0.050 lumo_ev=1.150``."""
        return " ".join(f"{column}={format_number(value, BY_COLUMN[column].decimals)}" for column, value in self.values)

    def distance_ev(self, predicted: Mapping[str, float]) -> float:
        """Sum of absolute deviations over the target's properties, in eV.

        Raises:
            KeyError: `predicted` lacks one of them.
        """
        return sum(abs(predicted[column] - value) for column, value in self.values)


@dataclass(frozen=True)
class Candidate:
    """A configuration proposed for a target.

    Attributes:
        rank: place among the target's candidates, from 1.
        target: what was asked for.
        configuration: the proposed defects.
        predicted: column -> value in eV, for the columns of `core.properties`.
        uncertainty: column -> half-width of the 90 % interval in eV.
        distance_ev: sum of ``|predicted - target|`` over the target's properties, in eV.
        novel: whether the configuration is not in the model's training data, up to symmetry.
        relaxation: what a potential made of its atoms, if it was asked.
    """

    rank: int
    target: Target
    configuration: Configuration
    predicted: Mapping[str, float]
    uncertainty: Mapping[str, float]
    distance_ev: float
    novel: bool
    relaxation: Relaxation | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"got rank {self.rank}, expected 1 or more")
        unknown = sorted({*self.predicted, *self.uncertainty} - set(COLUMNS))
        missing = sorted({column for column, _ in self.target.values} - set(self.predicted))
        if unknown or missing:
            raise ValueError(f"predicted values: unknown columns {unknown}, missing columns {missing}")

    @property
    def expected_ev(self) -> float:
        """Distance to be expected, in eV: the mean of ``|value - target|``, summed over the target's properties.

        Values are taken as normal around the predicted ones, with nine tenths inside the interval; infinite
        where one has no interval.
        """
        total = 0.0
        for column, wanted in self.target.values:
            if column not in self.uncertainty:
                return math.inf
            spread, away = self.uncertainty[column] / Z_90, abs(self.predicted[column] - wanted)
            total += _mean_distance(away, spread)
        return total

    def deviation_ev(self, column: str) -> float | None:
        """Predicted minus target in eV, or None for a property that was not asked for."""
        asked = dict(self.target.values)
        return self.predicted[column] - asked[column] if column in asked else None


@dataclass(frozen=True)
class DesignRun:
    """The outcome of one design run.

    Attributes:
        host: the pristine supercell.
        reference: the zero of all levels, `PRISTINE_VBM` or `RAW`.
        candidates: ranked for each target; the targets in the order asked for.
        settings: resolved options, model, surrogate, seed, versions, seconds, counts.
        warnings: what the reader has to know before using the candidates, one line each.
        complete: False if the run was interrupted.
        targets: all targets asked for, also those without a candidate; those of the candidates if empty.
    """

    host: Host
    reference: str
    candidates: tuple[Candidate, ...]
    settings: Mapping[str, object]
    warnings: tuple[str, ...] = ()
    complete: bool = True
    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        if self.reference not in (PRISTINE_VBM, RAW):
            raise ValueError(f"got reference {self.reference!r}, expected {PRISTINE_VBM!r} or {RAW!r}")
        used = tuple(self._by_target)
        if not self.targets:
            object.__setattr__(self, "targets", used)
        if not set(used) <= set(self.targets):
            raise ValueError("candidates name a target that is not one of the run's targets")
        if len({target.id for target in self.targets}) < len(self.targets):
            raise ValueError(f"got target ids {[target.id for target in self.targets]}, expected each once")
        for candidate in self.candidates:
            if candidate.configuration.host != self.host:
                raise ValueError(f"candidate {candidate.rank} decorates another host than {self.host.name}")
        for target, group in self._by_target.items():
            ranks = [candidate.rank for candidate in group]
            if any(a >= b for a, b in pairwise(ranks)):
                raise ValueError(f"target {target.id}: got ranks {ranks}, expected them to increase")

    def of(self, target: Target) -> tuple[Candidate, ...]:
        """The candidates of one target, best first."""
        return self._by_target.get(target, ())

    @cached_property
    def _by_target(self) -> dict[Target, tuple[Candidate, ...]]:
        groups: dict[Target, list[Candidate]] = {}
        for candidate in self.candidates:
            groups.setdefault(candidate.target, []).append(candidate)
        return {target: tuple(group) for target, group in groups.items()}
