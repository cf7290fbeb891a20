"""Networks of all rows, and of all but a fold of them: what they say of that fold tells how far to trust them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from defectgen.score.network.ensemble import Network
from defectgen.score.network.labelled_cells import labelled_cells
from defectgen.score.network.network_cells import Rows, combine
from defectgen.score.network.network_file import NetworkFile
from defectgen.score.network.network_training import (
    DEFAULT_SETTINGS,
    Geometries,
    TrainSettings,
    predict,
    train_ensemble,
)
from defectgen.score.network.tight_binding import LEARNT, is_modelled, model_cells


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """An ensemble of all rows, and what others say of rows that they have not seen.

    Attributes:
        network: of all rows.
        left_out: values of every row by column in its unit, each of shape (n,).
        sets: the set of each row.
    """

    network: NetworkFile
    left_out: dict[str, NDArray[np.float64]]
    sets: tuple[str, ...]

    def left_out_of(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Those of the rows of a set, in the order of the table."""
        chosen = np.array(self.sets) == name
        return {column: values[chosen] for column, values in self.left_out.items()}


def train_folded(
    frame: pl.DataFrame,
    members: int,
    members_of_a_fold: int,
    n_folds: int,
    settings: TrainSettings = DEFAULT_SETTINGS,
    advance: Callable[[int], None] = lambda _: None,
) -> FoldedNetwork:
    """Train an ensemble, and one without each fold: the k-th row of a set is in the fold k modulo their number.

    Args:
        frame: rows that are learnt from, the columns of the data reader.
        members: networks of the ensemble.
        members_of_a_fold: networks of each fold.
        n_folds: number of folds.
        settings: of the training.
        advance: is told of each finished network.

    Raises:
        UsageError: an element that the network cannot describe.
    """
    rows, geometries = labelled_cells(frame)
    folds = _folds(rows.groups, n_folds)
    start = first_weights(rows, geometries, max(members, members_of_a_fold), settings)

    def trained(seen: NDArray[np.bool_], count: int, seed: int) -> Network:
        use = np.repeat(seen[None], count, axis=0)
        model, linear = train_ensemble(rows, geometries, use, replace(settings, seed=seed), start=start)
        advance(count)
        return Network(model, geometries, linear)

    left_out: dict[str, NDArray[np.float64]] = {}
    for fold in range(n_folds):
        apart = np.flatnonzero(folds == fold)
        found = trained(folds != fold, members_of_a_fold, settings.seed + 1 + fold)
        values = combine(predict(found.model, geometries, rows.some(apart), found.linear).mean(axis=0))
        for column, some in values.items():
            left_out.setdefault(column, np.full(len(rows), np.nan))[apart] = some
    whole = trained(np.ones(len(rows), dtype=bool), members, settings.seed)
    return FoldedNetwork(whole.arrays({"rows": len(rows)}).as_saved(), left_out, tuple(frame["set"]))


def first_weights(
    rows: Rows, geometries: Geometries, members: int, settings: TrainSettings = DEFAULT_SETTINGS
) -> dict[str, Tensor] | None:
    """Weights that know a tight-binding model of the hosts, of no label; None where one of them is not modelled.

    Args:
        rows: labelled cells; only their numbers of defects are used.
        geometries: of the hosts.
        members: number of networks.
        settings: of the training.
    """
    if not settings.model_cells or not all(is_modelled(geometry.host) for geometry in geometries.hosts):
        return None
    cells = model_cells(rows, geometries.hosts, settings.model_cells // len(geometries.hosts), settings.seed)
    use = np.ones((members, len(cells)), dtype=bool)
    schedule = replace(settings, passes=settings.model_passes, dropout=settings.model_dropout, few=0)
    model, _ = train_ensemble(cells, geometries, use, schedule, weights=LEARNT)
    return {name: weight.detach() for name, weight in model.named_parameters()}


def _folds(groups: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """The fold of each row: rows of a group take turns."""
    found = np.zeros(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        found[mine] = np.arange(len(mine)) % n_folds
    return found
