"""What every scorer does: configurations in, values with units and uncertainty out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import polars as pl

from defectgen.core import Configuration


@runtime_checkable
class Scorer(Protocol):
    """Predicts properties of configurations."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        """One row a configuration, in their order.

        Returns:
            A column for each property that the scorer knows (names and units as in
            `defectgen.core.properties.COLUMNS`; null where it has no value) and beside it
            `uncertainty_column`: half the width of the interval that holds the true value in 90 % of
            cases, in eV. ``in_domain`` says whether the scorer was made for configurations like this one.

        Raises:
            UsageError: a host, supercell or defect that the scorer does not know.
        """
        ...


def uncertainty_column(column: str) -> str:
    """The column that holds the uncertainty of a property: ``homo_ev`` has ``homo_uncertainty_ev``."""
    return f"{column.removesuffix('_ev')}_uncertainty_ev"
