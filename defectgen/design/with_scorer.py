"""Scorers by name that a design can rank with."""

from __future__ import annotations

from defectgen.errors import UsageError
from defectgen.score.protocol import Scorer


def level_scorer(name: str) -> Scorer:
    """The scorer of this name, if it predicts levels.

    Raises:
        UsageError: no such scorer, or a potential, which has no levels and takes seconds a structure.
        DefectgenError: its files are missing or damaged.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.score.scorers import SCORERS, ScorerOptions, load_scorer

    if SCORERS.find(name).is_potential:
        raise UsageError(f"got --scorer {name}, a potential, which has no levels.", f"Use --potential {name}.")
    return load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl"))
