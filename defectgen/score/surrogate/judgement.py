"""How good a surrogate is on structures that it has not seen: on those left to it, or fold by fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from defectgen.errors import DefectgenError
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.cross_validation import cross_validate
from defectgen.score.surrogate.evaluation import Metrics, means, metrics, predict_labelled
from defectgen.score.surrogate.host_models import learnt_columns
from defectgen.watch import Watch, unwatched

N_FOLDS = 5


@dataclass(frozen=True)
class Judgement:
    """Predictions beside labels.

    Attributes:
        predictions: see `predict_labelled`.
        facts: which model, and how many structures were judged or left out.
        title: the same for people.
    """

    predictions: pl.DataFrame
    facts: Mapping[str, Any]
    title: str

    @cached_property
    def sets(self) -> Metrics:
        """Errors by set and property, see `metrics`."""
        return metrics(self.predictions)

    @cached_property
    def means(self) -> dict[str, dict[str, Any]]:
        """Errors by property, see `defectgen.score.surrogate.evaluation.means`."""
        return means(self.sets)

    def to_dict(self) -> dict[str, Any]:
        """Facts, ``sets`` and ``means``."""
        return {**self.facts, "sets": self.sets, "means": self.means}


def judge_unseen(scorer: Surrogate, frame: pl.DataFrame, name: str = "shipped") -> Judgement:
    """A surrogate on the rows that were in neither its training nor its validation part.

    Args:
        scorer: the surrogate.
        frame: the columns of the data reader.
        name: of the model.

    Raises:
        DefectgenError: it has seen all rows of its hosts.
    """
    known = frame.filter(pl.col("host").is_in(scorer.hosts))
    unseen = [not scorer.has_seen(host, key) for host, key in known.select("host", "configuration").iter_rows()]
    rows = known.filter(pl.Series(unseen, dtype=pl.Boolean))
    if rows.is_empty():
        raise DefectgenError(
            "the surrogate has seen every structure of its hosts in this data.",
            "Evaluate on data with other structures.",
        )
    facts = {
        "model": name,
        "n_rows": len(frame),
        "n_unknown_host": len(frame) - len(known),
        "n_seen": len(known) - len(rows),
        "n_evaluated": len(rows),
    }
    title = f"{len(rows)} structures that the surrogate has not seen ({facts['n_seen']} seen ones left out)"
    return Judgement(predict_labelled(scorer, rows), facts, title)


def judge_by_folds(
    frame: pl.DataFrame,
    seed: int = 42,
    threads: int = 1,
    n_folds: int = N_FOLDS,
    watch: Watch = unwatched,
    level_scales: Mapping[str, Mapping[str, Any]] | None = None,
) -> Judgement:
    """Surrogates that are each trained without one fold of the symmetry classes, on that fold.

    Args:
        frame: the columns of the data reader.
        seed: of the folds and the trees.
        threads: of CatBoost.
        n_folds: number of folds.
        watch: told of each finished model.
        level_scales: of each set, as plain values.
    """
    with watch("cross-validation", n_folds * frame["set"].n_unique() * len(learnt_columns()), "models") as advance:
        predictions = cross_validate(frame, n_folds, seed, threads, advance, level_scales)
    facts = {
        "model": f"cross-validation: {n_folds} folds by symmetry class, seed {seed}",
        "n_rows": len(frame),
        "n_evaluated": len(frame),
    }
    title = f"{len(frame)} structures, each by a surrogate trained on {n_folds - 1} other folds"
    return Judgement(predictions, facts, title)
