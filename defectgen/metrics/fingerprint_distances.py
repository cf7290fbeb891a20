"""Sets of crystals compared by their fingerprints: coverage, diversity, novelty, and distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectgen.metrics.fingerprints import Vector

COVERAGE_STRUCTURE, COVERAGE_COMPOSITION = 0.4, 10.0
"""Cutoffs of CDVAE for MP-20 (``COV_Cutoffs`` in ``scripts/compute_metrics.py``)."""

NOVEL_STRUCTURE, NOVEL_COMPOSITION = 0.1, 2.0
"""Cutoffs of Gruver et al., ICLR 2024, doi 10.48550/arXiv.2402.04379, appendix B.6."""

CHUNK = 256


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of the crystals that have both.

    Attributes:
        structure: shape (n, `fingerprints.STRUCTURE_SIZE`).
        composition: shape (n, `fingerprints.COMPOSITION_SIZE`), scaled.
    """

    structure: Vector
    composition: Vector

    def __len__(self) -> int:
        return len(self.structure)

    def only(self, chosen: NDArray[np.bool_]) -> Fingerprints:
        """Those of some crystals, shape (n,)."""
        return Fingerprints(self.structure[chosen], self.composition[chosen])


@dataclass(frozen=True)
class NearestCrystals:
    """For each crystal of one set what lies nearest in another; infinite if that one is empty.

    Attributes:
        structure: distance of the nearest structural fingerprint, shape (n,).
        composition: distance of the nearest composition fingerprint, of any crystal, shape (n,).
        together: whether some one crystal is within both cutoffs of coverage, shape (n,).
    """

    structure: Vector
    composition: Vector
    together: NDArray[np.bool_]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Whether something is within each cutoff of coverage, not necessarily one crystal within both."""
        return np.asarray((self.structure <= COVERAGE_STRUCTURE) & (self.composition <= COVERAGE_COMPOSITION))


def nearest(crystals: Fingerprints, others: Fingerprints) -> NearestCrystals:
    """What lies nearest to each of `crystals` among `others`."""
    structure, composition = np.full(len(crystals), np.inf), np.full(len(crystals), np.inf)
    together = np.zeros(len(crystals), dtype=bool)
    if len(others):
        for first in range(0, len(crystals), CHUNK):
            part = slice(first, first + CHUNK)
            far = _distances(crystals.structure[part], others.structure)
            strange = _distances(crystals.composition[part], others.composition)
            structure[part], composition[part] = far.min(axis=1), strange.min(axis=1)
            together[part] = ((far <= COVERAGE_STRUCTURE) & (strange <= COVERAGE_COMPOSITION)).any(axis=1)
    return NearestCrystals(structure, composition, together)


def novel(crystals: Fingerprints, training: Fingerprints) -> dict[str, NDArray[np.bool_]]:
    """By name of the metric which crystals are far from all of `training`, shape (n,) each."""
    found = nearest(crystals, training)
    structure, composition = found.structure > NOVEL_STRUCTURE, found.composition > NOVEL_COMPOSITION
    return {"novel_structure": structure, "novel_composition": composition, "novel": structure | composition}


def mean_distance(fingerprints: Vector) -> float | None:
    """Mean distance of two of them, shape (n, size); None for fewer than two."""
    if len(fingerprints) < 2:
        return None
    total = sum(
        float(_distances(fingerprints[first : first + CHUNK], fingerprints).sum())
        for first in range(0, len(fingerprints), CHUNK)
    )
    return total / (len(fingerprints) * (len(fingerprints) - 1))


def wasserstein(values: Vector, others: Vector) -> float | None:
    """First Wasserstein distance of two samples, in their unit; None if one is empty."""
    from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

    if not len(values) or not len(others):
        return None
    return float(wasserstein_distance(values, others))


def _distances(a: Vector, b: Vector) -> Vector:
    from scipy.spatial.distance import cdist  # type: ignore[import-untyped]

    return np.asarray(cdist(a, b))
