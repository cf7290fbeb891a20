"""The best of everything that was offered for a target: scored in batches, compared as arrays, merged by symmetry."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.properties import BY_COLUMN, COLUMNS, FORMATION
from defectgen.design.candidates import Candidate, Target
from defectgen.design.raw_reference import RawReference
from defectgen.errors import UsageError
from defectgen.score.absent_values import instead_of
from defectgen.score.protocol import Scorer, checked_scores, uncertainty_column

RankBy = Literal["expected", "distance"]

DECIMALS = 6
"""Distances that agree to so many decimals of an eV are equal: the more stable structure comes first."""

Values = Mapping[str, NDArray[np.float64]]

Rows = NDArray[np.int64]

Labels = Mapping[str, Mapping[str, float]]
"""Canonical key to DFT values by column, in their units."""

NO_LABELS: Labels = {}


@dataclass(frozen=True, repr=False)
class Scored:
    """Structures with predicted values.

    Attributes:
        configurations: n of them, canonical.
        values: predicted, by column, in the property's unit, NaN where there is none; each of shape (n,).
        half_widths: of the 90 % intervals, likewise; NaN for a structure that the scorer was not made for.
        dft: labels by column, NaN where there is none; empty if no structure has one.
        beyond: whether the scorer says that it was not made for a structure, shape (n,).
    """

    configurations: Sequence[Configuration]
    values: Values
    half_widths: Values
    dft: Values
    beyond: NDArray[np.bool_]

    @cached_property
    def keys(self) -> list[str]:
        """Canonical keys."""
        return [item.key for item in self.configurations]

    @cached_property
    def labels(self) -> list[str]:
        """Defect labels."""
        return [item.label for item in self.configurations]

    def subset(self, rows: Sequence[int]) -> Scored:
        """Some of the structures, without a hold on the others."""
        values, half_widths, dft = (
            {c: found[rows] for c, found in part.items()} for part in (self.values, self.half_widths, self.dft)
        )
        return Scored([self.configurations[row] for row in rows], values, half_widths, dft, self.beyond[rows])

    def best(self, column: str) -> NDArray[np.float64]:
        """Values by DFT where there are labels, else predicted."""
        known = self.dft.get(column)
        return self.values[column] if known is None else np.where(np.isnan(known), self.values[column], known)

    def best_widths(self, column: str) -> NDArray[np.float64]:
        """Half-widths of `best`: 0 for a label."""
        known = self.dft.get(column)
        return self.half_widths[column] if known is None else np.where(np.isnan(known), self.half_widths[column], 0.0)


def score_batch(
    configurations: Sequence[Configuration], scorer: Scorer, labels: Labels = NO_LABELS, raw: RawReference | None = None
) -> Scored:
    """Predicted values of structures, with their labels beside them.

    Args:
        configurations: canonical.
        scorer: predicts.
        labels: of DFT, by canonical key, relative to the pristine host's VBM.
        raw: given if levels are wanted on the data's own zero.

    Raises:
        UsageError: the scorer returned no such table, see `checked_scores`.
    """
    n = len(configurations)
    scores = checked_scores(scorer.score(configurations), n)
    nothing = np.full(n, np.nan)
    inside = scores["in_domain"].to_numpy() if "in_domain" in scores.columns else np.ones(n, dtype=bool)

    def column_of(name: str) -> NDArray[np.float64]:
        return scores[name].cast(float).fill_null(np.nan).to_numpy() if name in scores.columns else nothing

    values = {column: column_of(column) for column in COLUMNS if column in scores.columns}
    widths = {column: np.where(inside, column_of(uncertainty_column(column)), np.nan) for column in values}
    dft = _labelled(configurations, labels) if labels else {}
    if raw is not None:
        shifts = np.array([raw.zero_ev(item) for item in configurations])
        levels = [column for column in values if BY_COLUMN[column].is_level]
        values |= {column: values[column] + shifts for column in levels}
        widths |= {column: np.hypot(widths[column], raw.half_width_ev) for column in levels}
        dft |= {column: dft[column] + shifts for column in levels if column in dft}
    return Scored(configurations, values, widths, dft, ~inside)


def _labelled(configurations: Sequence[Configuration], labels: Labels) -> dict[str, NDArray[np.float64]]:
    rows = [labels.get(item.key) for item in configurations]
    columns = {column for row in rows if row for column in row}
    return {
        column: np.array([np.nan if row is None else row.get(column, np.nan) for row in rows], dtype=np.float64)
        for column in COLUMNS
        if column in columns
    }


@dataclass
class _Entry:
    """One structure on a shortlist: where its values are, and what decides its place."""

    merit: float
    second: float
    batch: Scored
    row: int
    origin: tuple[str, ...]

    @property
    def key(self) -> str:
        """Canonical key."""
        return self.batch.keys[self.row]

    @property
    def order(self) -> tuple[float, float, str]:
        return self.merit, self.second, self.key


@dataclass
class Nearest:
    """The least distance to a target among all structures that have intervals, whether they are kept or not.

    Attributes:
        distance_ev: by DFT where there is a label, else predicted; infinite before there is one.
        half_width_ev: sum of the half-widths of that structure's intervals.
        configuration: that structure; None before there is one.
        may_be_met: whether the intervals of some structure, this one or another, hold the target.
    """

    distance_ev: float = np.inf
    half_width_ev: float = 0.0
    configuration: Configuration | None = None
    may_be_met: bool = False

    @property
    def label(self) -> str:
        """Of the structure."""
        return "" if self.configuration is None else self.configuration.label

    def offer(
        self, distances_ev: NDArray[np.float64], half_widths_ev: NDArray[np.float64], batch: Scored, rows: Rows
    ) -> None:
        """Take n structures, these rows of a batch, into account."""
        some = np.where(np.isfinite(half_widths_ev), distances_ev, np.inf)
        self.may_be_met |= bool((some < half_widths_ev).any())
        if len(some) and np.nanmin(some) < self.distance_ev:
            place = int(np.nanargmin(some))
            self.distance_ev, self.half_width_ev = float(some[place]), float(half_widths_ev[place])
            self.configuration = batch.configurations[int(rows[place])]


class Shortlist:
    """The best structures of one target; what is worse is forgotten."""

    def __init__(self, target: Target, capacity: int | None = None, by: RankBy = "expected") -> None:
        """An empty list.

        Args:
            target: what is wanted, on the scale of what is offered.
            capacity: most structures to keep; None for all.
            by: ``distance`` of the values, or the ``expected`` distance, which counts their uncertainty too: of two
                equally near structures the better known one comes first.
        """
        self.target, self.capacity, self.by = target, capacity, by
        self._entries: dict[str, _Entry] = {}
        self._worst = np.inf
        self._missing: tuple[str, str] | None = None
        self.nearest = Nearest()

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, batch: Scored, origin: str = "", rows: Sequence[int] | None = None) -> None:
        """Take structures into account.

        Args:
            batch: scored structures.
            origin: what proposed them.
            rows: which of the batch; None for all.
        """
        columns = [column for column, _ in self.target.values]
        absent = [column for column in columns if column not in batch.values]
        if absent:
            self._misses(absent[0], batch, 0)
            return
        chosen = np.arange(len(batch.configurations)) if rows is None else np.asarray(rows, dtype=np.int64)
        values = {column: batch.best(column)[chosen] for column in columns}
        distance = self.target.distances_ev(values)
        merit = self.target.expected_ev(values, {column: batch.best_widths(column)[chosen] for column in columns})
        there = ~np.isnan(distance)
        if not there.all():
            absent = [column for column in columns if np.isnan(values[column]).any()]
            self._misses(absent[0], batch, int(chosen[np.argmin(there)]))
        merit = np.where(np.isnan(merit), np.inf, merit).round(DECIMALS)
        ranked = merit if self.by == "expected" else distance.round(DECIMALS)
        widths = [batch.best_widths(wish.column)[chosen] * wish.scale_ev for wish in self.target.wishes]
        self.nearest.offer(distance, np.sum(widths, axis=0), batch, chosen)
        taken = np.flatnonzero(there & ((ranked <= self._worst) | np.isinf(self._worst)))
        energy = batch.best(FORMATION)[chosen] if FORMATION in batch.values else np.full(len(chosen), np.inf)
        second = np.where(np.isfinite(ranked), energy, distance)  # without intervals the distance decides
        second = np.where(np.isfinite(second), second, np.inf)
        if self.capacity is not None and len(taken) > self.capacity:
            first = np.lexsort((distance[taken], second[taken], ranked[taken]))[: self.capacity]
            taken = taken[first]
        some = batch.subset(chosen[taken].tolist())
        for row, place in enumerate(taken.tolist()):
            self._add(_Entry(float(ranked[place]), float(second[place]), some, row, (origin,) if origin else ()))
        self._trim()

    def _misses(self, column: str, batch: Scored, row: int) -> None:
        known = [name for name, found in batch.values.items() if np.isfinite(found[row])]
        label = batch.configurations[row].label
        self._missing = f"the scorer has no {BY_COLUMN[column].title} for {label}.", instead_of(column, known)

    def _add(self, entry: _Entry) -> None:
        known = self._entries.setdefault(entry.batch.keys[entry.row], entry)
        if known is not entry:
            known.origin = tuple(dict.fromkeys((*known.origin, *entry.origin)))

    def _trim(self) -> None:
        if self.capacity is None or len(self._entries) <= self.capacity:
            return
        kept = sorted(self._entries.items(), key=lambda item: item[1].order)[: self.capacity]
        self._entries = dict(kept)
        self._worst = kept[-1][1].merit

    def best(self) -> list[_Entry]:
        """What was kept, best first: by merit, then by stability, then by key.

        Raises:
            UsageError: nothing that was offered has a value of all properties.
        """
        if not self._entries and self._missing is not None:
            raise UsageError(*self._missing)
        return sorted(self._entries.values(), key=lambda entry: entry.order)

    def candidates(self, n: int, known: Container[str], diverse: bool = False) -> list[Candidate]:
        """The first `n` as candidates.

        Args:
            n: how many.
            known: canonical keys that are not novel, besides those with a label.
            diverse: stand for those like them: see `group`.
        """
        entries = self.best()
        places = group(self.target, entries, n) if diverse else [(place, 0) for place in range(len(entries))][:n]
        return [
            replace(self._candidate(entries[place], known), rank=rank, similar=similar)
            for rank, (place, similar) in enumerate(places, 1)
        ]

    def _candidate(self, entry: _Entry, known: Container[str]) -> Candidate:
        batch, row = entry.batch, entry.row

        def there(values: Values) -> dict[str, float]:
            return {column: float(found[row]) for column, found in values.items() if not np.isnan(found[row])}

        predicted, dft = there(batch.values), there(batch.dft)
        for column, _ in self.target.values:
            predicted.setdefault(column, dft.get(column, np.nan))
        distance = self.target.distance_ev(predicted)
        return Candidate(
            1,
            self.target,
            batch.configurations[row],
            predicted,
            there(batch.half_widths),
            distance if np.isfinite(distance) else np.inf,
            batch.keys[row] not in known and not dft,
            origin=entry.origin,
            dft=dft,
        )


def group(target: Target, entries: Sequence[_Entry], n: int) -> list[tuple[int, int]]:
    """Places of the `n` best that differ, and how many more are like each of them.

    A structure is like a better one of the same label if each wanted property differs by no more than the larger
    half-width of their 90 % intervals; without intervals nothing is alike. Where fewer than `n` differ, the best of
    the rest fill the list.
    """
    columns = [column for column, _ in target.values]
    first: dict[str, list[int]] = {}
    similar: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        row, batch = entry.row, entry.batch
        for leader in first.setdefault(batch.labels[row], []):
            other = entries[leader]
            alike = all(
                abs(batch.best(c)[row] - other.batch.best(c)[other.row])
                <= max(batch.half_widths[c][row], other.batch.half_widths[c][other.row])
                for c in columns
            )
            if alike:
                similar[leader].append(place)
                break
        else:
            first[batch.labels[row]].append(place)
            similar[place] = []
    chosen = sorted(similar)[:n]
    rest = sorted(place for leader in similar for place in similar[leader])
    filled = set(rest[: max(n - len(chosen), 0)])
    return [
        (place, sum(like not in filled for like in similar.get(place, [])) if place in similar else 0)
        for place in sorted({*chosen, *filled})
    ]


def rank(
    target: Target,
    configurations: Mapping[str, Configuration],
    scorer: Scorer,
    known: Container[str],
    raw: RawReference | None = None,
    *,
    by: RankBy = "expected",
) -> list[Candidate]:
    """All configurations as candidates of one target, best first.

    Args:
        target: what is wanted.
        configurations: by canonical key.
        scorer: predicts the properties.
        known: canonical keys that are not novel.
        raw: given if the target is on the data's own zero.
        by: see `Shortlist`.

    Raises:
        UsageError: the scorer has no value of a property that is wanted.
    """
    keys = sorted(configurations)
    if not keys:
        return []
    shortlist = Shortlist(target, by=by)
    shortlist.offer(score_batch([configurations[key] for key in keys], scorer, raw=raw))
    return shortlist.candidates(len(keys), known)
