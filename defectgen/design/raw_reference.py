"""Levels on the data's own zero instead of the pristine host's valence band maximum."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defectgen.core.configuration import Configuration
from defectgen.core.level_scale import LevelScale
from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import Target


@dataclass(frozen=True)
class RawReference:
    """Conversion between a data set's own zero and the pristine host's valence band maximum.

    Attributes:
        scale: level scale of the set whose zero is meant.
        mean_shift_ev: mean shift over the training structures, for a target whose structure is not known yet.
    """

    scale: LevelScale
    mean_shift_ev: float

    def target_to_vbm(self, target: Target) -> Target:
        """A target on the scale of the pristine host's VBM."""
        shift = self.scale.e_vbm_ev + self.mean_shift_ev
        wishes = [w.moved(-shift) if BY_COLUMN[w.column].is_level else w for w in target.wishes]
        return replace(target, values=tuple((w.column, w.point) for w in wishes), wishes=tuple(wishes))

    def zero_ev(self, configuration: Configuration) -> float:
        """The pristine host's VBM on the zero of the configuration's own cell, in eV."""
        return self.scale.to_raw(0.0, configuration)

    @property
    def half_width_ev(self) -> float:
        """Half-width of the 90 % interval of the zero: the scatter of its fitted shift."""
        return 1.645 * self.scale.scatter_ev
