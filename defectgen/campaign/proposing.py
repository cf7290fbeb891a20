"""The next round of a campaign: structures for computation, into its database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectgen.campaign.acquisition import explore, improve, shared_out, space_filling
from defectgen.campaign.folder import Campaign
from defectgen.campaign.learning import load_model, outdated
from defectgen.campaign.pool import pool_of
from defectgen.campaign.store import DONE, FAILED, StructureRow, covered_by, table_of
from defectgen.campaign.structure_features import describe
from defectgen.core import Configuration
from defectgen.core.whole import whole
from defectgen.design.candidates import Target
from defectgen.design.targets import Wanted, counted_from, targets_of
from defectgen.errors import DefectgenError, UsageError
from defectgen.one_line import OneLine
from defectgen.score.protocol import uncertainty_column

Array = NDArray[np.float64]

FILLING, EXPLORING = "space-filling", "exploration"


@dataclass(frozen=True, repr=False)
class Round(OneLine):
    """A new round.

    Attributes:
        number: from 1.
        rows: what was proposed.
        left: structures that were looked at and neither proposed nor computed.
        total: how many symmetry-distinct structures the rules allow; None if that is not known.
        notes: what the user has to know, a line each.
    """

    number: int
    rows: tuple[StructureRow, ...]
    left: int
    total: int | None
    notes: tuple[str, ...]


def propose(
    campaign: Campaign,
    n: int,
    targets: Sequence[Target] | Sequence[Mapping[str, Wanted]] | Path | str = (),
    *,
    exploring: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Round:
    """Choose structures to compute next.

    Before anything is learnt they fill the space of features. Then they are those of largest expected improvement of
    the distance to the wishes, which share a round evenly, or those that the model knows least of.

    Args:
        campaign: whose database takes them.
        n: how many.
        targets: wishes as `defectgen.design` takes many; none for exploration.
        exploring: whether the round is for the model alone.
        say: is told where another run is waited for.

    Raises:
        UsageError: wishes before anything is learnt, or wishes and exploration.
        DefectgenError: nothing is left to propose.
    """
    n = whole(n, "n", 1)
    wishes = targets_of(targets, {}) if targets else ()
    if wishes and exploring:
        raise UsageError("got wishes and --explore.", "Give one or the other.")
    with campaign.store.changed(say):
        rows = campaign.store.rows()
        number = max((row.round for row in rows), default=0) + 1
        pool = pool_of(campaign.host, campaign.config.max_defects, campaign.config.seed)
        left = pool.without({row.key for row in rows})
        if not left:
            raise DefectgenError(f"all {len(pool.configurations)} structures are proposed already.", "Nothing is left.")
        model = load_model(campaign)
        rng = np.random.default_rng([campaign.config.seed, number])
        notes = []
        if model is None:
            if wishes or exploring:
                raise UsageError(
                    f"{campaign.folder} has learnt nothing yet, so nothing can be expected of a structure.",
                    "Leave the wishes out for a first round, run or add it, then: defectgen campaign learn.",
                )
            known = describe(campaign.host, [row.configuration for row in rows])
            chosen = [(row, FILLING) for row in space_filling(describe(campaign.host, left), known, n, rng)]
            predicted: Mapping[str, Array] = {}
            widths: Mapping[str, Array] = {}
        else:
            new = outdated(model, rows)
            if new:
                notes.append(f"{new} results came after the model: defectgen campaign learn {campaign.folder}")
            scores = model.score(left)
            predicted = {column: scores[column].to_numpy() for column in model.models}
            widths = {column: scores[uncertainty_column(column)].to_numpy() for column in model.models}
            chosen = _chosen(campaign, left, rows, wishes, predicted, widths, n, rng)
        told = [] if model is None else [column for column, judged in model.judged.items() if judged.calibrated]
        made = [
            StructureRow(
                0,
                left[row],
                round=number,
                origin=why,
                predicted={column: float(values[row]) for column, values in predicted.items()},
                widths={column: float(widths[column][row]) for column in told},
            )
            for row, why in chosen
        ]
        added = campaign.store.add(made)
    waiting = sum(row.state not in (DONE, FAILED) for row in rows)
    if waiting:
        notes.append(f"{waiting} structures of earlier rounds are not computed yet")
    notes += [] if model is None else model.without_intervals
    return Round(number, tuple(added), len(left) - len(added), pool.total, tuple(notes))


def _chosen(
    campaign: Campaign,
    left: Sequence[Configuration],
    rows: Sequence[StructureRow],
    targets: Sequence[Target],
    predicted: Mapping[str, Array],
    widths: Mapping[str, Array],
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, str]]:
    """Rows of what is left, each with why it is chosen."""
    done = [row for row in rows if row.state == DONE]
    new = describe(campaign.host, left)
    if not targets:
        values = table_of(done)
        scales = {column: float(np.nanstd(values[column])) for column in predicted}
        return [(row, EXPLORING) for row in explore(widths, scales, new, n)]
    chosen: list[tuple[int, str]] = []
    free = np.arange(len(left))
    for target, share in zip(counted_from(targets, covered_by(done)), shared_out(n, len(targets)), strict=True):
        for wish in target.wishes:
            if wish.column not in predicted:
                raise UsageError(
                    f"{wish.column} is not learnt, so it cannot be wished.", f"Learnt: {', '.join(predicted)}."
                )
        picked = improve(
            target,
            {column: found[free] for column, found in predicted.items()},
            {column: found[free] for column, found in widths.items()},
            best_distance_ev(target, done),
            new.some(free),
            share,
            rng,
        )
        chosen += [(int(free[row]), target.text) for row in picked]
        free = np.delete(free, picked)
    return chosen


def best_distance_ev(target: Target, rows: Sequence[StructureRow]) -> float:
    """Least distance of computed structures to a wish, in eV; infinity where none has the values."""
    columns = [wish.column for wish in target.wishes]
    found = [target.distance_ev(row.computed) for row in rows if all(column in row.computed for column in columns)]
    return min(found, default=np.inf)
