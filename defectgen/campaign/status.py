"""Where a campaign stands: its rounds, how good its predictions were, how near its best are to the wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.campaign.campaign_model import Judged
from defectgen.campaign.folder import Campaign
from defectgen.campaign.learning import load_model, outdated, read_history
from defectgen.campaign.pool import pool_of
from defectgen.campaign.proposing import best_distance_ev
from defectgen.campaign.store import DONE, STATES, StructureRow, covered_by
from defectgen.campaign.transfer import Offset, offsets
from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import Target
from defectgen.design.targets import counted_from, single_target, wanted_values
from defectgen.one_line import OneLine

Array = NDArray[np.float64]

SHOWN = ("band_gap_ev", "homo_ev", "lumo_ev", "formation_energy_ev")
"""Properties that people are shown of each structure."""


@dataclass(frozen=True)
class Foretold:
    """How good predictions were that were made before the computing.

    Attributes:
        n: structures with both.
        mae: mean absolute error, in the property's unit.
        inside: how many were inside their 90 % intervals; None where there were too few rows for intervals.
    """

    n: int
    mae: float
    inside: int | None


@dataclass(frozen=True)
class RoundStatus:
    """One round.

    Attributes:
        number: from 1; 0 for what was added before any.
        origins: why structures were proposed, with how many.
        states: how many are in which state.
        cpu_s: CPU time of its calculations, 0 if not known.
        foretold: by column.
    """

    number: int
    origins: Mapping[str, int]
    states: Mapping[str, int]
    cpu_s: float
    foretold: Mapping[str, Foretold]


@dataclass(frozen=True)
class WishStatus:
    """How near the campaign is to a wish.

    Attributes:
        text: of the wish.
        path: (calculations, least distance in eV) after each round.
        chance: least distance in eV that as many random structures would have in the mean; unknown ones as predicted.
        best: the nearest structure's id.
        found: the nearest structure's label and computed values, e.g. ``v_S: gap 0.921 eV``; empty before any.
    """

    text: str
    path: tuple[tuple[int, float], ...]
    chance: tuple[float, ...]
    best: int
    found: str = ""


@dataclass(frozen=True, repr=False)
class Status(OneLine):
    """Where a campaign stands.

    Attributes:
        campaign: which one.
        rows: all structures.
        states: how many are in which state.
        rounds: see `RoundStatus`.
        judged: errors of the model by column; empty before anything is learnt.
        history: what was learnt when, see `read_history`.
        wishes: see `WishStatus`.
        offsets: of computed values from 2DMD's.
        total: symmetry-distinct structures; None if not known.
        unlearnt: results that the model has not seen.
    """

    campaign: Campaign
    rows: tuple[StructureRow, ...]
    states: Mapping[str, int]
    rounds: tuple[RoundStatus, ...]
    judged: Mapping[str, Judged]
    history: tuple[Mapping[str, Any], ...]
    wishes: tuple[WishStatus, ...]
    offsets: tuple[Offset, ...]
    total: int | None
    unlearnt: int

    @property
    def cpu_hours(self) -> float:
        """CPU time of all calculations that the campaign did, hours."""
        return sum(row.cpu_s for row in self.rows) / 3600


def status_of(campaign: Campaign) -> Status:
    """Look at a campaign.

    Raises:
        DefectgenError: a damaged database or model.
    """
    rows = campaign.store.rows()
    model = load_model(campaign)
    pool = pool_of(campaign.host, campaign.config.max_defects, campaign.config.seed)
    done = [row for row in rows if row.state == DONE]
    predicted: dict[str, Array] = {}
    if model is not None and _wishes_of(rows):
        scores = model.score(pool.configurations)
        predicted = {column: scores[column].to_numpy().copy() for column in model.models}
        places = {item.key: number for number, item in enumerate(pool.configurations)}
        for row in done:
            for column, value in row.computed.items():
                if column in predicted and row.key in places:
                    predicted[column][places[row.key]] = value
    return Status(
        campaign,
        tuple(rows),
        {state: sum(row.state == state for row in rows) for state in STATES},
        tuple(_round(number, rows) for number in sorted({row.round for row in rows})),
        {} if model is None else model.judged,
        tuple(read_history(campaign)),
        tuple(_wish(text, done, predicted) for text in _wishes_of(rows)),
        tuple(offsets(done)) if campaign.config.start else (),
        pool.total,
        outdated(model, rows),
    )


def wish_title(text: str) -> str:
    """A wish or values as people write them, e.g. ``gap 0.900 eV``, ``E_form min``."""
    parts = [part.split("=", 1) for part in text.split()]
    units = {BY_COLUMN[column].unit for column, value in parts if value not in ("min", "max")}
    return ", ".join(f"{BY_COLUMN[c].title} {v}" for c, v in parts) + (f" {units.pop()}" if len(units) == 1 else "")


def expected_least(distances: Array, n: int) -> float:
    """Mean of the least of n different ones of some distances, drawn at random; exact."""
    ordered, total = np.sort(distances), len(distances)
    n = min(n, total)
    weight, found = n / total, 0.0
    for place, distance in enumerate(ordered):
        found += weight * float(distance)
        if total - place <= n:
            break
        weight *= (total - place - n) / (total - 1 - place)
    return found


def _round(number: int, rows: Sequence[StructureRow]) -> RoundStatus:
    mine = [row for row in rows if row.round == number]
    origins: dict[str, int] = {}
    for row in mine:
        origins[row.origin] = origins.get(row.origin, 0) + 1
    foretold = {}
    for column in dict.fromkeys(column for row in mine for column in row.predicted):
        both = [row for row in mine if column in row.predicted and column in row.computed]
        if both:
            off = [abs(row.predicted[column] - row.computed[column]) for row in both]
            inside = [o <= row.widths[column] for o, row in zip(off, both, strict=True) if column in row.widths]
            foretold[column] = Foretold(len(both), float(np.mean(off)), sum(inside) if inside else None)
    states = {state: sum(row.state == state for row in mine) for state in STATES}
    return RoundStatus(number, origins, states, sum(row.cpu_s for row in mine), foretold)


def _wishes_of(rows: Sequence[StructureRow]) -> list[str]:
    return list(dict.fromkeys(row.origin for row in rows if "=" in row.origin))


def target_of(text: str, done: Sequence[StructureRow]) -> Target:
    """The wish that an origin names, e.g. ``homo_ev=0.050 lumo_ev=1.150``."""
    target = single_target(wanted_values(dict(part.split("=", 1) for part in text.split())))
    return counted_from([target], covered_by(done))[0]


def _wish(text: str, done: Sequence[StructureRow], predicted: Mapping[str, Array]) -> WishStatus:
    target = target_of(text, done)
    path, chance = [], []
    distances = target.distances_ev(predicted) if all(w.column in predicted for w in target.wishes) else np.zeros(0)
    for number in sorted({row.round for row in done}):
        known = [row for row in done if row.round <= number]
        path.append((len(known), best_distance_ev(target, known)))
        if len(distances):
            chance.append(expected_least(distances, len(known)))
    nearest = min(done, key=lambda row: best_distance_ev(target, [row]), default=None)
    found = "" if nearest is None else _reached(target, nearest)
    return WishStatus(text, tuple(path), tuple(chance), 0 if nearest is None else nearest.id, found)


def _reached(target: Target, row: StructureRow) -> str:
    values = {w.column: f"{row.computed[w.column]:.3f}" for w in target.wishes if w.column in row.computed}
    return f"{row.configuration.label}: {wish_title(' '.join(f'{c}={v}' for c, v in values.items()))}"
