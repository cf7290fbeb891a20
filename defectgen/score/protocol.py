"""What every scorer does: configurations or structures in, values with units and uncertainty out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from defectgen.core import Configuration
from defectgen.core.properties import BY_COLUMN, unit_suffix
from defectgen.errors import UsageError
from defectgen.one_line import OneLine, typed

if TYPE_CHECKING:
    import polars as pl
    from pymatgen.core import Structure


@dataclass(frozen=True, repr=False)
class Sample(OneLine):
    """Something to score.

    Attributes:
        structure: the atoms as they are, relaxed or not.
        configuration: the decoration of a host that they show; None if they show none.
    """

    structure: Structure
    configuration: Configuration | None = None


MISSING = "missing"
"""A column that a scorer may give: why one of its values is null, as text, null where nothing is missing."""


@runtime_checkable
class Scorer(Protocol):
    """Predicts properties of configurations."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """One row a configuration, in their order.

        Returns:
            A column for each property that the scorer knows (names and units as in
            `defectgen.core.properties.COLUMNS`; null where it has no value) and beside it
            `uncertainty_column`: half the width of the interval that holds the true value in 90 % of
            cases, in the property's unit; null where the scorer has none. ``in_domain`` says whether the scorer was
            made for configurations like this one.

        Raises:
            UsageError: a host, supercell or defect that the scorer does not know.
        """
        ...


@runtime_checkable
class StructureScorer(Scorer, Protocol):
    """A scorer that looks at the atoms themselves, so that they need not decorate a known host."""

    def score_samples(self, samples: Sequence[Sample]) -> pl.DataFrame:
        """As `score`, for atoms as they are.

        Raises:
            UsageError: an element that the scorer does not know.
        """
        ...


@runtime_checkable
class BoundedScorer(Scorer, Protocol):
    """A scorer that has no value for what is too far from all that it knows."""

    def why_not(self, configuration: Configuration) -> str:
        """Why a configuration has no value, as a sentence; empty if it has one."""
        ...


@runtime_checkable
class CautiousScorer(Scorer, Protocol):
    """A scorer whose values are to be read with something in mind."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of its values has to know, a line each; a design shows them as warnings."""
        ...


FACTS = ("host", "supercell", "label", "configuration")
"""Columns that say what a row is of; a scorer has no part in them."""


def checked_scores(scores: object, n: int) -> pl.DataFrame:
    """What a scorer returned, without columns of `FACTS`.

    Raises:
        UsageError: it is no table with a row for each of `n` configurations, or values are no numbers.
    """
    import polars as pl

    if not isinstance(scores, pl.DataFrame):
        raise UsageError(f"the scorer returned {typed(scores)}, expected a DataFrame of polars.")
    if scores.height != n:
        raise UsageError(f"the scorer returned {scores.height} rows for {n} configurations.")
    for name in (name for name in scores.columns if name in BY_COLUMN):
        if not (scores[name].dtype.is_numeric() or scores[name].dtype == pl.Null):
            raise UsageError(f"the scorer returned {name} as {scores[name].dtype}, expected numbers.")
    return scores.drop(FACTS, strict=False)


def uncertainty_column(column: str) -> str:
    """The column that holds the uncertainty of a property: ``homo_ev`` has ``homo_uncertainty_ev``."""
    if column in BY_COLUMN:
        return BY_COLUMN[column].uncertainty_column
    suffix = unit_suffix(column)
    return f"{column.removesuffix('_' + suffix)}_uncertainty_{suffix}"
