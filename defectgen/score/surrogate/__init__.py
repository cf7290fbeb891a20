"""The surrogate: predicted levels and energies of a configuration in milliseconds."""

from defectgen.score.surrogate.model import Surrogate

__all__ = ["Surrogate"]
