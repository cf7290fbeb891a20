"""Levels of a defect's cell on the valence band maximum of the host, by the electrostatic potential.

A level counts from the zero of its own calculation. Two cells share a zero where the potential far from the defect, or
in the vacuum, is that of the pristine host: level - V(defect's cell) - (E_VBM - V(host)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defectgen.core import Configuration
from defectgen.core.matching import match_structure
from defectgen.dft.result import DftResult

VACUUM, FAR_SITES, SAME_CELL = "vacuum level", "potential at far sites", "its own zero"

FAR_SHARE = 0.25
"""Sites of a sublattice, farthest from all defects, whose potential is averaged."""


@dataclass(frozen=True)
class Alignment:
    """How far the zero of a cell lies above the host's valence band maximum.

    Attributes:
        zero_ev: what is subtracted from the cell's levels.
        method: `VACUUM`, `FAR_SITES` or, for the host itself, `SAME_CELL`.
    """

    zero_ev: float
    method: str


def align(
    defect: DftResult, configuration: Configuration, host: DftResult, host_configuration: Configuration
) -> Alignment | None:
    """The zero of a defect's cell against the host's valence band maximum; None if no potential says it.

    Args:
        defect: result of the defect's cell.
        configuration: its defects.
        host: result of the pristine host, of any supercell.
        host_configuration: the pristine configuration of that supercell.
    """
    if host.homo_ev is None:
        return None
    if defect is host:
        return Alignment(host.homo_ev, SAME_CELL)
    if defect.vacuum_level_ev is not None and host.vacuum_level_ev is not None:
        return Alignment(host.homo_ev + defect.vacuum_level_ev - host.vacuum_level_ev, VACUUM)
    if defect.site_potentials_ev and host.site_potentials_ev:
        shift = _far_shift(defect, configuration, host, host_configuration)
        return None if shift is None else Alignment(host.homo_ev + shift, FAR_SITES)
    return None


def _far_shift(
    defect: DftResult, configuration: Configuration, host: DftResult, host_configuration: Configuration
) -> float | None:
    """Potential at the sites farthest from all defects minus that of the host, on the host's first sublattice."""
    layer = configuration.host
    match = match_structure(layer, defect.structure)
    edited = dict(match.configuration.edits)
    changed = list(edited)
    sites = match.sites.tolist()
    rows = [row for row, site in enumerate(sites) if layer.site_cell(site)[0] == 0 and site not in edited]
    if not rows or not changed:
        return None
    frac = layer.site_frac_coords
    gap = frac[[sites[row] for row in rows]][:, None, :] - frac[changed][None, :, :]
    gap[..., :2] -= np.rint(gap[..., :2])
    distance = np.linalg.norm(gap @ layer.supercell_lattice, axis=2).min(axis=1)
    far = np.argsort(-distance, kind="stable")[: max(1, round(FAR_SHARE * len(rows)))]
    pristine = host_configuration.host
    host_sites = match_structure(pristine, host.structure).sites.tolist()
    first = [row for row, site in enumerate(host_sites) if pristine.site_cell(site)[0] == 0]
    mine = float(np.mean([defect.site_potentials_ev[rows[k]] for k in far]))
    return mine - float(np.mean([host.site_potentials_ev[row] for row in first]))
