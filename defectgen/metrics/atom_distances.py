"""Whether the atoms of a crystal leave each other room: two rules that the literature calls structural validity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import Crystal
from defectgen.core.elements import atomic_radius

CLOSEST_ANGSTROM = 0.5
SMALLEST_VOLUME_ANGSTROM3 = 0.1


def far_enough(crystal: Crystal) -> bool:
    """The rule of CDVAE: no two atoms closer than 0.5 angstrom, and a volume of at least 0.1 cubic angstrom.

    As its code has it, the distance is that of the nearest images of two different atoms; an atom and its
    own image are not compared, so that a cell can be too short and pass.

    Source: Xie et al., ICLR 2022, doi 10.48550/arXiv.2110.06197; ``structure_validity`` in
    ``scripts/eval_utils.py`` of its repository, after Court et al., J Chem Inf Model 60, 4518 (2020), doi
    10.1021/acs.jcim.0c00464.
    """
    distances = _distances(crystal)
    np.fill_diagonal(distances, np.inf)
    return bool(distances.min() >= CLOSEST_ANGSTROM and crystal.volume >= SMALLEST_VOLUME_ANGSTROM3)


def radii_apart(crystal: Crystal, share: float = 0.5) -> bool:
    """The rule of Gruver et al.: no two atoms within half an atomic radius of each other.

    The paper's words ("both atoms within half a radius of each other") are read as spheres of half the
    atomic radius that overlap: a distance below half the sum of the two radii. Images of an atom count. The
    radii are those of `defectgen.core.elements.atomic_radius`; another `share` of their sum than half is ours.

    Source: Gruver et al., ICLR 2024, doi 10.48550/arXiv.2402.04379, section 5.
    """
    structure = crystal.to_structure()
    radii = np.array([atomic_radius(symbol) for symbol in crystal.species])
    if crystal.volume < SMALLEST_VOLUME_ANGSTROM3:
        return False
    first, second, _, distance = structure.get_neighbor_list(r=float(2 * share * radii.max()), exclude_self=True)
    return bool((distance >= share * (radii[first] + radii[second])).all())


def _distances(crystal: Crystal) -> NDArray[np.float64]:
    return np.array(crystal.to_structure().distance_matrix, dtype=float)
