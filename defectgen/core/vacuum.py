"""The empty height between a layer and its image: cells for DFT, with the layer in the middle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import Host
from defectgen.errors import UsageError

if TYPE_CHECKING:
    from pymatgen.core import Structure

LEAST_ANGSTROM, MOST_ANGSTROM = 5.0, 100.0
"""Empty heights that make sense: below, the images touch; above, only plane waves are added."""

DECIMALS = 12
"""Digits of heights: of the same layer the same coordinates, wherever it lay in its cell."""

Array = NDArray[np.float64]


def check_vacuum(vacuum_angstrom: float) -> float:
    """The empty height, if it is one.

    Raises:
        UsageError: outside `LEAST_ANGSTROM` to `MOST_ANGSTROM`.
    """
    if not LEAST_ANGSTROM <= vacuum_angstrom <= MOST_ANGSTROM:  # not a number fails too
        raise UsageError(
            f"got a vacuum of {vacuum_angstrom:g} angstrom, expected {LEAST_ANGSTROM:g} to {MOST_ANGSTROM:g}, the "
            "empty height between a layer and its image."
        )
    return vacuum_angstrom


def host_with_vacuum(host: Host, vacuum_angstrom: float) -> Host:
    """The host with its layer in the middle of a cell with so much empty height; axes and sites in the plane stay.

    Raises:
        UsageError: see `check_vacuum`.
    """
    z, height = _centred(np.array([position[2] for position in host.frac_coords]), host.lattice[2][2], vacuum_angstrom)
    moved = tuple((x, y, float(new)) for (x, y, _), new in zip(host.frac_coords, z, strict=True))
    return replace(host, lattice=(*host.lattice[:2], (0.0, 0.0, height)), frac_coords=moved)


def structure_with_vacuum(structure: Structure, vacuum_angstrom: float) -> Structure:
    """The same for a cell of a layer whose third axis is its normal.

    Raises:
        UsageError: see `check_vacuum`.
    """
    from pymatgen.core import Lattice, Structure

    matrix, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    frac[:, 2], height = _centred(frac[:, 2], float(np.linalg.norm(matrix[2])), vacuum_angstrom)
    matrix[2] *= height / np.linalg.norm(matrix[2])
    return Structure(Lattice(matrix), [site.specie for site in structure], frac)


def _centred(frac_z: Array, height: float, vacuum_angstrom: float) -> tuple[Array, float]:
    """New fractional heights, and the height of the new cell in angstrom."""
    check_vacuum(vacuum_angstrom)
    sorted_z = np.sort(frac_z % 1.0)
    gaps = np.diff(sorted_z, append=sorted_z[0] + 1.0)
    lowest = sorted_z[(int(gaps.argmax()) + 1) % len(sorted_z)]
    z = ((frac_z - lowest + 1e-9) % 1.0 - 1e-9) * height
    thickness = float(z.max() - z.min())
    new = round(thickness + vacuum_angstrom, DECIMALS)
    return np.asarray(((z - thickness / 2) / new + 0.5).round(DECIMALS)), new
