"""Scorers by name that a design can rank with."""

from __future__ import annotations

from pathlib import Path

from defectgen.errors import UsageError
from defectgen.score.protocol import Scorer


def other_scorer(name: str, surrogate: Path | None = None) -> Scorer | None:
    """The scorer of this name, which predicts in place of the surrogate; None for that one.

    Args:
        name: of the scorer.
        surrogate: folder of a surrogate, if one was given.

    Raises:
        UsageError: no such scorer, a potential, which has no levels and takes seconds a structure, or a surrogate's
            folder beside another scorer.
        DefectgenError: its files are missing or damaged.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.score.scorers import SCORERS, ScorerOptions, load_scorer

    if name == "surrogate":
        return None
    if surrogate is not None:
        raise UsageError(f"got --surrogate and --scorer {name}.", "Give one or the other.")
    if SCORERS.find(name).is_potential:
        raise UsageError(f"got --scorer {name}, a potential, which has no levels.", f"Use --potential {name}.")
    return load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl"))
