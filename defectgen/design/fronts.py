"""The Pareto front of a target: structures of which none is nearer to every wish than another."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.design.candidates import Target
from defectgen.design.ranking import Scored

STEP_EV = 1e-3
"""Distances that differ by less are equal: finer ones would make a front of what is the same to a reader."""

MOST = 256
"""Structures of a front that are kept, those of least summed distance; for many wishes there may be thousands."""

Steps = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class FrontMember:
    """One structure of a front.

    Attributes:
        configuration: canonical.
        values: of the wished properties by column, in their units, by DFT where there is a label.
        distances_ev: to each wish by column, in eV, times its weight, see `Wish.distance_ev`.
        half_widths: of the 90 % intervals of the values, 0 for a label.
        novel: whether the structure has no label and is not in the training data.
    """

    configuration: Configuration
    values: dict[str, float]
    distances_ev: dict[str, float]
    half_widths: dict[str, float]
    novel: bool

    def __repr__(self) -> str:
        away = ", ".join(f"{column} counts {1e3 * away:.0f} meV" for column, away in self.distances_ev.items())
        return f"FrontMember({self.configuration.label}, {away})"

    @property
    def is_dft(self) -> bool:
        """Whether all values are labels."""
        return not any(self.half_widths.values())

    def off_ev(self, target: Target) -> dict[str, float]:
        """How far the values are from each wish by column, in eV, whatever it weighs: what a reader can check."""
        return {wish.column: self.distances_ev[wish.column] / wish.weight for wish in target.wishes}

    def to_dict(self, labels_by: str = "DFT") -> dict[str, object]:
        """As plain values, for JSON; `labels_by` as of `DesignRun`."""
        return {
            "label": self.configuration.label,
            "configuration": self.configuration.key,
            "novel": self.novel,
            "values_by": labels_by.lower() if self.is_dft else "prediction",
            "values": {column: round(value, 6) for column, value in self.values.items()},
            "half_widths": {column: round(value, 6) for column, value in self.half_widths.items()},
            "distances_ev": {column: round(value, 6) for column, value in self.distances_ev.items()},
        }


@dataclass(frozen=True)
class Front:
    """All structures that a run looked at of which none is nearer to every wish of a target than another.

    Attributes:
        target_id: of the target.
        members: by the distance to the first wish, then the second, and so on; one where there is one wish.
        is_whole: whether all are there; else those of least summed distance.
    """

    target_id: str
    members: tuple[FrontMember, ...]
    is_whole: bool = True

    def to_dict(self, labels_by: str = "DFT") -> dict[str, object]:
        """As plain values, for JSON."""
        members = [member.to_dict(labels_by) for member in self.members]
        return {"target_id": self.target_id, "is_whole": self.is_whole, "structures": members}


class FrontFinder:
    """The front of one target while structures are offered in batches."""

    def __init__(self, target: Target, most: int = MOST) -> None:
        """Nothing so far; see `MOST`."""
        self.target, self.most, self.is_whole = target, most, True
        self._steps: Steps = np.zeros((0, len(target.wishes)), dtype=np.int64)
        self._entries: list[tuple[Scored, int]] = []

    def offer(self, batch: Scored, rows: Sequence[int] | None = None) -> None:
        """Take structures into account; those without a value or an interval of a wished property are left out.

        Args:
            batch: scored structures.
            rows: which of the batch; None for all.
        """
        columns = [wish.column for wish in self.target.wishes]
        if any(column not in batch.values for column in columns):
            return
        chosen = np.arange(len(batch.configurations)) if rows is None else np.asarray(rows, dtype=np.int64)
        away = np.stack([wish.distance_ev(batch.best(wish.column)[chosen]) for wish in self.target.wishes], axis=1)
        known = np.isfinite(away).all(axis=1)
        for column in columns:
            known &= np.isfinite(batch.best_widths(column)[chosen])
        places, steps = np.flatnonzero(known), np.round(away[known] / STEP_EV).astype(np.int64)
        for member in self._steps:
            left = (steps < member).any(axis=1)
            places, steps = places[left], steps[left]
        fresh = _nondominated(steps)
        if not len(fresh):
            return
        places, steps = places[fresh], steps[fresh]
        stay = [k for k, member in enumerate(self._steps) if not (steps <= member).all(axis=1).any()]
        taken = batch.subset(chosen[places].tolist())
        self._entries = [*(self._entries[k] for k in stay), *((taken, row) for row in range(len(places)))]
        self._steps = np.concatenate([self._steps[stay], steps])
        if len(self._entries) > self.most:
            self.is_whole = False
            kept = np.argsort(self._steps.sum(axis=1), kind="stable")[: self.most]
            self._entries, self._steps = [self._entries[k] for k in kept], self._steps[kept]

    def front(self, known: Container[str]) -> Front:
        """What was found.

        Args:
            known: canonical keys that are not novel, besides those with a label.
        """
        keys = [batch.keys[row] for batch, row in self._entries]
        order = sorted(range(len(keys)), key=lambda k: (*self._steps[k].tolist(), keys[k]))
        members = [self._member(*self._entries[k], known) for k in order]
        return Front(self.target.id, tuple(members), self.is_whole)

    def _member(self, batch: Scored, row: int, known: Container[str]) -> FrontMember:
        wishes = self.target.wishes
        values = {wish.column: float(batch.best(wish.column)[row]) for wish in wishes}
        labelled = any(not np.isnan(found[row]) for found in batch.dft.values())
        return FrontMember(
            batch.configurations[row],
            values,
            {wish.column: float(wish.distance_ev(values[wish.column])) for wish in wishes},
            {wish.column: float(batch.best_widths(wish.column)[row]) for wish in wishes},
            not labelled and batch.keys[row] not in known,
        )


def _nondominated(steps: Steps) -> Steps:
    """Rows of which no other is as small in all columns; of equal ones the first."""
    left = np.lexsort((np.arange(len(steps)), steps.sum(axis=1)))
    found = []
    while len(left):
        best = left[0]  # of the least sum: nothing is smaller in all columns
        found.append(int(best))
        left = left[(steps[left] < steps[best]).any(axis=1)]
    return np.array(found, dtype=np.int64)
