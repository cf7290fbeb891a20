"""Values for configurations and structures: surrogates and potentials behind one protocol."""

from defectgen.score.protocol import Sample, Scorer, StructureScorer, uncertainty_column

__all__ = ["Sample", "Scorer", "StructureScorer", "uncertainty_column"]
