"""Values for configurations and structures: surrogates and potentials. Called, it is `defectgen.library.score`."""

from defectgen.callable_package import make_callable
from defectgen.score.protocol import Sample, Scorer, StructureScorer, uncertainty_column

__all__ = ["Sample", "Scorer", "StructureScorer", "uncertainty_column"]

make_callable(__name__, "defectgen.library", "score")
