"""What a design run hands over: targets, ranked candidates, and the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.names import short_text
from defectgen.core.properties import BY_COLUMN, COLUMNS
from defectgen.tasks.numbers import format_number

if TYPE_CHECKING:
    import polars as pl

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


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"Target({self.id!r}, {self.text})"

    @property
    def text(self) -> str:
        """The target in one line, e.g. ``homo_ev=0.050 lumo_ev=1.150``."""
        return " ".join(f"{column}={format_number(value, BY_COLUMN[column].decimals)}" for column, value in self.values)

    def distance_ev(self, predicted: Mapping[str, float]) -> float:
        """Sum of absolute deviations over the target's properties, in eV.

        Raises:
            KeyError: `predicted` lacks one of them.
        """
        return sum(abs(predicted[c] - value) * BY_COLUMN[c].weight_ev for c, value in self.values)


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        shown = " ".join(f"{column}={self.predicted[column]:.3f}" for column, _ in self.target.values)
        what, host = short_text(self.configuration.label), self.configuration.host
        return (
            f"Candidate(#{self.rank} {what} in {host.name} {host.size}, {shown}, {1000 * self.distance_ev:.0f} meV off)"
        )

    def _repr_html_(self) -> str:
        from defectgen.report.notebook import candidate_html

        return candidate_html(self)

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
            total += _mean_distance(away, spread) * BY_COLUMN[column].weight_ev
        return total

    def deviation(self, column: str) -> float | None:
        """Predicted minus target in the unit of the property, or None for a property that was not asked for."""
        asked = dict(self.target.values)
        return self.predicted[column] - asked[column] if column in asked else None


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        n, asked = len(self.candidates), len(self.targets)
        best = f", best {self.candidates[0]!r}" if n and asked == 1 else ""
        partial = "" if self.complete else ", interrupted"
        targets = self.targets[0].text if asked == 1 else f"{asked} targets"
        return f"DesignRun({self.host.name} {self.host.size}, {targets}: {n} candidates{best}{partial})"

    def _repr_html_(self) -> str:
        from defectgen.report.notebook import run_html

        return run_html(self)

    def to_polars(self) -> pl.DataFrame:
        """A row a candidate, as in candidates.csv but for the names of files: values and 90 % half-widths in eV."""
        from defectgen.report.rows import STRUCTURE_FORMATS, rows_frame, run_rows

        return rows_frame(run_rows(self, ())).drop(STRUCTURE_FORMATS)

    def write(self, folder: Path | str, formats: Sequence[str] = (), *, overwrite: bool = False) -> Path:
        """Write tables, structures as CIF and POSCAR, a report and a manifest into a folder.

        Args:
            folder: where to; its parents are made.
            formats: more files of the structures, e.g. ``extxyz``, ``db`` or ``zip``; see `defectgen.io.writers`.
            overwrite: whether an earlier run in the folder may be replaced.

        Returns:
            The manifest's path.

        Raises:
            UsageError: the folder holds something else, or a run and `overwrite` is not set.
            DefectgenError: it cannot be written.
        """
        from defectgen.report.export import FORMATS, write_run

        return write_run(self, Path(folder), (*FORMATS, *formats), overwrite=overwrite)

    @property
    def has_vbm_levels(self) -> bool:
        """Whether levels were wanted relative to the pristine host's valence band maximum."""
        asked = {column for target in self.targets for column, _ in target.values}
        return self.reference == PRISTINE_VBM and any(BY_COLUMN[column].is_level for column in asked)

    def summary(self) -> dict[str, object]:
        """Counts, the best candidate of each target, settings and warnings, as plain values."""
        best = [group[0] for target in self.targets if (group := self.of(target))]
        return {
            "complete": self.complete,
            "host": self.host.name,
            "reference": self.reference,
            "targets": len(self.targets),
            "candidates": len(self.candidates),
            "novel": sum(candidate.novel for candidate in self.candidates),
            "relaxed": sum(candidate.relaxation is not None for candidate in self.candidates),
            "best": [
                {
                    "target_id": candidate.target.id,
                    "target": candidate.target.text,
                    "label": candidate.configuration.label,
                    "configuration": candidate.configuration.key,
                    "distance_ev": candidate.distance_ev,
                    "novel": candidate.novel,
                    **candidate.predicted,
                }
                for candidate in best
            ],
            "settings": dict(self.settings),
            "warnings": list(self.warnings),
        }

    def of(self, target: Target) -> tuple[Candidate, ...]:
        """The candidates of one target, best first."""
        return self._by_target.get(target, ())

    @cached_property
    def _by_target(self) -> dict[Target, tuple[Candidate, ...]]:
        groups: dict[Target, list[Candidate]] = {}
        for candidate in self.candidates:
            groups.setdefault(candidate.target, []).append(candidate)
        return {target: tuple(group) for target, group in groups.items()}
