"""Values for configurations: fast surrogates behind one protocol."""

from defectgen.score.protocol import Scorer, uncertainty_column

__all__ = ["Scorer", "uncertainty_column"]
