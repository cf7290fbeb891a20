"""What a design run hands over: targets, ranked candidates, and the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.names import short_text
from defectgen.core.properties import COLUMNS
from defectgen.design.verdict import Verdict
from defectgen.design.wishes import Wish

if TYPE_CHECKING:
    import polars as pl

    from defectgen.design.fronts import Front
    from defectgen.report.notebook import StructureView
    from defectgen.score.potentials.defects import DefectRelaxation

PRISTINE_VBM = "pristine VBM"
"""`DesignRun.reference` when levels count from the valence band maximum of the pristine host."""

RAW = "raw"
"""`DesignRun.reference` when levels are as the DFT code wrote them."""

TRAINED_ON, TWO_DMD = "trained_on", "2DMD"
"""The setting of a run that says what values its predictions were learnt from, and the values that come along."""


@dataclass(frozen=True, repr=False)
class Target:
    """Property values asked for.

    Attributes:
        id: short name of the target, e.g. ``1`` or a line of the user's table.
        values: (column, value) pairs in the order asked for; columns of `core.properties`, each in its unit, on
            the scale that the run's `reference` names. For a range or a goal the value that stands for it.
        wishes: the same in full, see `Wish`; by default the values.
        notes: (column, text) pairs of the user's table that say nothing to a model.
        own: (column, text) pairs of the table that limit this target alone, see `defectgen.design.own_limits`.
    """

    id: str
    values: tuple[tuple[str, float], ...]
    wishes: tuple[Wish, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    own: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.values, Mapping):
            object.__setattr__(self, "values", tuple(self.values.items()))
        columns = [column for column, _ in self.values]
        if not columns or len(set(columns)) < len(columns) or not set(columns) <= set(COLUMNS):
            raise ValueError(f"got target properties {columns}, expected one or more of {list(COLUMNS)}, each once")
        if not self.wishes:
            for column, value in self.values:
                if not isinstance(value, Real) or not math.isfinite(value):
                    raise ValueError(f"got {column}={value!r}, expected a finite number of eV")
            object.__setattr__(self, "wishes", tuple(Wish.value(column, value) for column, value in self.values))
        if [wish.column for wish in self.wishes] != columns:
            raise ValueError(f"got wishes for {[wish.column for wish in self.wishes]}, expected them for {columns}")

    @classmethod
    def of(
        cls,
        identity: str,
        wishes: Sequence[Wish],
        notes: Sequence[tuple[str, str]] = (),
        own: Sequence[tuple[str, str]] = (),
    ) -> Target:
        """A target from wishes, which are put into the order of the columns; see `Wish.beside`."""
        others = any(not wish.towards for wish in wishes)
        ordered = sorted((wish.beside(others) for wish in wishes), key=lambda wish: list(COLUMNS).index(wish.column))
        values = tuple((wish.column, wish.point) for wish in ordered)
        return cls(identity, values, tuple(ordered), tuple(notes), tuple(own))

    def __repr__(self) -> str:
        return f"Target({self.id!r}, {self.text})"

    @property
    def text(self) -> str:
        """The target in one line, e.g. ``homo_ev=0.050 lumo_ev=1.150``."""
        return " ".join(f"{wish.column}={wish.text}" for wish in self.wishes)

    def distance_ev(self, predicted: Mapping[str, float]) -> float:
        """Sum of absolute deviations over the target's properties, in eV.

        Raises:
            KeyError: `predicted` lacks one of them.
        """
        return sum(float(wish.distance_ev(predicted[wish.column])) for wish in self.wishes)

    def distances_ev(self, values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """`distance_ev` of n structures at once, shape (n,); NaN where a value is NaN.

        Args:
            values: by column, each of shape (n,), in the property's unit.
        """
        return np.asarray(sum(wish.distance_ev(values[wish.column]) for wish in self.wishes), dtype=np.float64)

    def expected_ev(
        self, values: Mapping[str, NDArray[np.float64]], half_widths: Mapping[str, NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Mean distance of n structures with the uncertainty of the predictions counted, shape (n,), in eV.

        Args:
            values: by column, each of shape (n,), in the property's unit.
            half_widths: of the 90 % intervals, likewise; 0 for a value that is known, NaN for one without interval.
        """
        found = [wish.expected_ev(values[wish.column], half_widths[wish.column]) for wish in self.wishes]
        return np.asarray(sum(found), dtype=np.float64)


@dataclass(frozen=True, repr=False)
class Candidate:
    """A configuration proposed for a target.

    Attributes:
        rank: place among the target's candidates, from 1.
        target: what was asked for.
        configuration: the proposed defects.
        predicted: column -> value in the property's unit, for the columns of `core.properties`.
        uncertainty: column -> half-width of the 90 % interval, likewise.
        distance_ev: sum of ``|predicted - target|`` over the target's properties, in eV.
        novel: whether the configuration is not in the model's training data, up to symmetry.
        relaxation: what a potential made of its atoms, if it was asked.
        origin: names of the proposers that it came from.
        dft: labels of the structure by column, where there are any.
        similar: structures like it that are left out: of the same label, with predictions within its intervals.
    """

    rank: int
    target: Target
    configuration: Configuration
    predicted: Mapping[str, float]
    uncertainty: Mapping[str, float]
    distance_ev: float
    novel: bool
    relaxation: DefectRelaxation | None = None
    origin: tuple[str, ...] = ()
    dft: Mapping[str, float] = field(default_factory=dict)
    similar: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"got rank {self.rank}, expected 1 or more")
        unknown = sorted({*self.predicted, *self.uncertainty} - set(COLUMNS))
        missing = sorted({column for column, _ in self.target.values} - set(self.predicted))
        if unknown or missing:
            raise ValueError(f"predicted values: unknown columns {unknown}, missing columns {missing}")

    def __repr__(self) -> str:
        shown = " ".join(f"{column}={self.predicted[column]:z.3f}" for column, _ in self.target.values)
        what, host = short_text(self.configuration.label), self.configuration.host
        return (
            f"Candidate(#{self.rank} {what} in {host.name} {host.size}, {shown}, {1000 * self.distance_ev:.0f} meV off)"
        )

    def _repr_html_(self) -> str:
        from defectgen.report.notebook import candidate_html

        return candidate_html(self)

    def view(self) -> StructureView:
        """The structure in three dimensions, for a notebook; ``.save("view.html")`` makes a page of it."""
        from defectgen.report.notebook import candidate_view

        return candidate_view(self)

    @property
    def expected_ev(self) -> float:
        """Distance to be expected, in eV: see `Target.expected_ev`; infinite where a value has no interval.

        A DFT value counts in place of the predicted one, without uncertainty.
        """
        values, widths = self.best_values, {**self.uncertainty, **dict.fromkeys(self.dft, 0.0)}
        pairs = [(wish, widths.get(wish.column, math.nan)) for wish in self.target.wishes]
        return sum(float(wish.expected_ev(values[wish.column], width)) for wish, width in pairs)

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels of all that was asked for: nothing of its distance is predicted then."""
        return all(column in self.dft for column, _ in self.target.values)

    @property
    def best_values(self) -> dict[str, float]:
        """Each property by DFT where there is a value, else as predicted."""
        return {**self.predicted, **self.dft}

    @property
    def best_distance_ev(self) -> float:
        """Distance to the target by the best values, in eV."""
        return self.target.distance_ev(self.best_values)

    def deviation(self, column: str) -> float | None:
        """How far the best value is above what is wanted, see `Wish.deviation`; None for what was not asked for."""
        wish = next((wish for wish in self.target.wishes if wish.column == column), None)
        return None if wish is None else float(wish.deviation(self.best_values[column]))


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
        verdicts: what is known of each target, in their order; empty for an interrupted run.
        fronts: the structures of each target of which none is nearer to every wish than another, in their order.
    """

    host: Host
    reference: str
    candidates: tuple[Candidate, ...]
    settings: Mapping[str, object]
    warnings: tuple[str, ...] = ()
    complete: bool = True
    targets: tuple[Target, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    fronts: tuple[Front, ...] = ()

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

    @property
    def labels_by(self) -> str:
        """What computed the values that are not predicted: ``DFT``, or a potential by its name."""
        return str(self.settings.get("labels_by", "DFT"))

    def _repr_html_(self) -> str:
        from defectgen.report.notebook import run_html

        return run_html(self)

    def view(self) -> StructureView:
        """All candidates in three dimensions, one at a time, for a notebook; ``.save("view.html")`` makes a page of it.

        Raises:
            ValueError: the run has no candidate.
        """
        from defectgen.report.notebook import run_view

        return run_view(self)

    def to_polars(self) -> pl.DataFrame:
        """A row a candidate, as in candidates.csv but for the names of files: values and 90 % half-widths in eV."""
        from defectgen.report.rows import STRUCTURE_FORMATS, rows_frame, run_rows

        return rows_frame(run_rows(self, ())).drop(STRUCTURE_FORMATS)

    def write(
        self,
        folder: Path | str,
        formats: Sequence[str] = ("cif", "poscar"),
        *,
        vacuum_angstrom: float | None = None,
        overwrite: bool = False,
        also: Callable[[Path], object] | None = None,
    ) -> Path:
        """Write tables, structures, a report and a manifest into a folder.

        Args:
            folder: where to; its parents are made.
            formats: of the structures, some of ``cif``, ``poscar``, ``extxyz``, ``db``, ``zip``; see
                `defectgen.io.writers`.
            vacuum_angstrom: empty height between a layer and its image, the layer in the middle; None for the host's
                own cell.
            overwrite: whether an earlier run in the folder may be replaced.
            also: writes more into the folder, which belongs to the run as its other files do.

        Returns:
            The manifest's path.

        Raises:
            UsageError: an unknown format, a vacuum out of range, or a folder that holds something else, or a run and
                `overwrite` is not set.
            DefectgenError: it cannot be written.
        """
        from defectgen.report.export import TABLES, write_run

        return write_run(
            self,
            Path(folder),
            (*TABLES, *formats),
            vacuum_angstrom=vacuum_angstrom,
            overwrite=overwrite,
            also=also,
        )

    def summary(self) -> dict[str, object]:
        """Counts, the best candidate of each target, settings and warnings, as plain values."""
        best = [group[0] for target in self.targets if (group := self.of(target))]
        return {
            "complete": self.complete,
            "host": self.host.name,
            "reference": self.reference,
            "labels_by": self.labels_by,
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
                    "expected_distance_ev": candidate.expected_ev,
                    "origin": list(candidate.origin),
                    "novel": candidate.novel,
                    **candidate.predicted,
                    **{f"dft_{column}": value for column, value in candidate.dft.items()},
                }
                for candidate in best
            ],
            "relaxations": self._relaxations(),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "fronts": [front.to_dict(self.labels_by) for front in self.fronts],
            "settings": dict(self.settings),
            "warnings": list(self.warnings),
        }

    def _relaxations(self) -> list[dict[str, object]]:
        """What a potential says of each candidate that it relaxed, by the columns of candidates.csv."""
        from defectgen.report.rows import run_rows

        return [
            {"target_id": row.candidate.target.id, "rank": row.candidate.rank, "label": row.configuration.label}
            | row.relaxation_record()
            for row in run_rows(self)
            if row.candidate.relaxation is not None
        ]

    def of(self, target: Target) -> tuple[Candidate, ...]:
        """The candidates of one target, best first."""
        return self._by_target.get(target, ())

    @cached_property
    def _by_target(self) -> dict[Target, tuple[Candidate, ...]]:
        groups: dict[Target, list[Candidate]] = {}
        for candidate in self.candidates:
            groups.setdefault(candidate.target, []).append(candidate)
        return {target: tuple(group) for target, group in groups.items()}
