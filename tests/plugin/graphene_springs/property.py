"""A property with a unit of its own, and what predicts it."""

from collections.abc import Sequence

import polars as pl

import defectgen as dg
from defectgen.core.properties import Property
from defectgen.score.scorers import ScorerEntry, ScorerOptions

STIFFNESS = Property(
    column="stiffness_gpa",
    option="stiffness",
    title="stiffness",
    prompt="stiff",
    sentence="The stiffness is {value} GPa.",
    decimals=1,
    description="in-plane stiffness",
    unit="GPa",
    unit_suffix="gpa",
    weight_ev=0.01,
)


def stiffness_gpa(configuration: dg.Configuration) -> float:
    """1000 GPa, 50 less for each vacancy and 10 less for each other defect."""
    empty = sum(species == "VAC" for _, species in configuration.edits)
    return 1000.0 - 50.0 * empty - 10.0 * (configuration.n_defects - empty)


class Counting:
    """Knows the stiffness and nothing else."""

    def score(self, configurations: Sequence[dg.Configuration]) -> pl.DataFrame:
        return pl.DataFrame({STIFFNESS.column: [stiffness_gpa(item) for item in configurations]})


def load(_: ScorerOptions) -> Counting:
    return Counting()


COUNTING = ScorerEntry("stiffness by counting", load)
