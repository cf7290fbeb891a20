"""From a structure file back to a configuration: which site of the host does each atom sit on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.hosts import get_host, host_names
from defectgen.errors import DefectgenError, UsageError

if TYPE_CHECKING:
    from pymatgen.core import Structure

SITE_TOLERANCE_ANGSTROM = 0.8
"""Farthest that an atom may lie from its site: relaxation moves atoms by up to about 0.5 angstrom."""

EXACT_ANGSTROM = 0.01
"""A match as close as this needs no comparison with others; an unrelaxed structure without a shift has it."""

CELL_TOLERANCE = 0.02
"""Largest relative difference of the in-plane cell, and of the cosine of its angle."""


class NotADecorationError(DefectgenError):
    """A structure that cannot be read as a decoration of the host; the message says why."""


def match_sites(
    host: Host,
    lattice: NDArray[np.float64],
    frac_coords: NDArray[np.float64],
    tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM,
) -> NDArray[np.int64]:
    """The host site of each atom.

    The layer may lie anywhere along the normal and in any vacuum, and the whole layer may be
    shifted; the in-plane cell must be the host's.

    Args:
        host: the pristine supercell.
        lattice: rows a, b, c of the structure in angstrom, shape (3, 3).
        frac_coords: shape (n_atoms, 3).
        tolerance_angstrom: farthest allowed distance of an atom from its site.

    Returns:
        Site of each atom, shape (n_atoms,).

    Raises:
        NotADecorationError: another cell, an atom away from all sites, or two atoms on one site.
    """
    if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        raise NotADecorationError("cell or coordinates are not finite numbers.")
    _check_cell(host, lattice)
    if not len(frac_coords):
        raise NotADecorationError("the structure has no atoms.")
    if len(frac_coords) > host.n_sites:
        raise NotADecorationError(
            f"got {len(frac_coords)} atoms, expected at most {host.n_sites} in {host.name} {host.size}."
        )
    cells = np.array([*host.supercell, 1.0])
    height = float(np.linalg.norm(lattice[2]))
    position = frac_coords * cells
    position[:, 2] = frac_coords[:, 2] * height
    basis = np.asarray(host.frac_coords).copy()
    basis[:, 2] *= host.lattice[2][2]
    metric = np.asarray(host.lattice) * np.array([[1.0], [1.0], [1.0 / host.lattice[2][2]]])
    best: tuple[tuple[float, float], NDArray[np.int64], NDArray[np.float64]] | None = None  # exists after one round
    for origin in (None, *basis):
        if best is not None and max(best[0]) < EXACT_ANGSTROM:
            break
        shift = np.zeros(3) if origin is None else origin - position[0]
        shift[:2] -= np.rint(shift[:2])  # whole cells are no shift: sites keep their numbers
        for _ in range(1 if origin is None else 2):
            sites, offset = _nearest_sites(host, position + shift, basis, metric, height)
            shift = shift - offset.mean(axis=0)
        distance = np.linalg.norm((offset - offset.mean(axis=0)) @ metric, axis=1)
        order = round(float(distance.max()), 2), round(float(np.abs(shift[:2]).max()), 2)
        if best is None or order < best[0]:
            best = order, sites, distance
    assert best is not None
    _, sites, distance = best
    if distance.max() > tolerance_angstrom:
        raise NotADecorationError(
            f"atom {int(distance.argmax())} lies {distance.max():.2f} angstrom from the nearest site of {host.name} "
            f"{host.size}, expected at most {tolerance_angstrom:g}."
        )
    occupied, counts = np.unique(sites, return_counts=True)
    if counts.max() > 1:
        raise NotADecorationError(
            f"two atoms sit on site {host.site_name(int(occupied[counts.argmax()]))} of {host.name}."
        )
    return sites


def _check_cell(host: Host, lattice: NDArray[np.float64]) -> None:
    def plane(rows: NDArray[np.float64]) -> tuple[float, float, float]:
        a, b = np.linalg.norm(rows[0]), np.linalg.norm(rows[1])
        return float(a), float(b), float(rows[0] @ rows[1] / (a * b))

    got, expected = plane(lattice), plane(host.supercell_lattice)
    tilt = max(abs(float(lattice[k] @ lattice[2])) / np.linalg.norm(lattice[k]) for k in (0, 1))
    if (
        abs(got[0] / expected[0] - 1) > CELL_TOLERANCE
        or abs(got[1] / expected[1] - 1) > CELL_TOLERANCE
        or abs(got[2] - expected[2]) > CELL_TOLERANCE
    ):
        raise NotADecorationError(
            f"the in-plane cell is {got[0]:.2f} x {got[1]:.2f} angstrom, {np.degrees(np.arccos(got[2])):.1f} degrees; "
            f"expected {expected[0]:.2f} x {expected[1]:.2f}, {np.degrees(np.arccos(expected[2])):.1f} for "
            f"{host.name} {host.size}."
        )
    if tilt > CELL_TOLERANCE * float(np.linalg.norm(lattice[2])):
        raise NotADecorationError("the third cell vector is not the normal of the layer.")


def _nearest_sites(
    host: Host,
    position: NDArray[np.float64],
    basis: NDArray[np.float64],
    metric: NDArray[np.float64],
    height: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest site of each position (cells along a and b, angstrom along the normal), and the offset to it."""
    difference = position[:, None, :] - basis[None, :, :]
    cell = np.rint(difference[:, :, :2]).astype(np.int64)
    offset = difference.copy()
    offset[:, :, :2] -= cell
    offset[:, :, 2] -= height * np.rint(difference[:, :, 2] / height)
    nearest = np.linalg.norm(offset @ metric, axis=2).argmin(axis=1)
    atoms = np.arange(len(position))
    n_a, n_b = host.supercell
    chosen = cell[atoms, nearest]
    sites = (nearest * n_a + chosen[:, 0] % n_a) * n_b + chosen[:, 1] % n_b
    return sites, offset[atoms, nearest]


def configuration_from_atoms(
    host: Host,
    lattice: NDArray[np.float64],
    species: list[str],
    frac_coords: NDArray[np.float64],
    tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM,
) -> Configuration:
    """The configuration that a cell, its elements and fractional coordinates show.

    Raises:
        NotADecorationError: see `match_sites`.
    """
    sites = match_sites(host, lattice, frac_coords, tolerance_angstrom)
    found = dict(zip(sites.tolist(), species, strict=True))
    changed = {site: found.get(site, VACANCY) for site, element in host.sites() if found.get(site) != element}
    return Configuration.of(host, changed)


def configuration_from_structure(
    host: Host, structure: Structure, tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM
) -> Configuration:
    """The configuration of a pymatgen structure.

    Raises:
        NotADecorationError: see `match_sites`; also a site with partial occupancy.
    """
    if not structure.is_ordered:
        raise NotADecorationError("the structure has partially occupied sites, expected one element a site.")
    species = [site.specie.symbol for site in structure]
    lattice = np.asarray(structure.lattice.matrix)
    return configuration_from_atoms(host, lattice, species, np.asarray(structure.frac_coords), tolerance_angstrom)


def known_configuration(structure: Structure, host: Host | None = None) -> Configuration:
    """The configuration of a pymatgen structure, in a given host or the first built-in one that fits.

    Raises:
        NotADecorationError: it decorates none of them; says why of the host with most of its elements.
        UsageError: what is no structure or no host.
    """
    if not all(hasattr(structure, name) for name in ("lattice", "frac_coords", "is_ordered")):
        got = f"{type(structure).__name__} {structure!r:.40}"
        raise UsageError(f"got {got}, expected a pymatgen Structure.", "Read a file with defectgen.read_structure.")
    if host is not None and not isinstance(host, Host):
        got = f"{type(host).__name__} {host!r:.40}"
        raise UsageError(f"got {got} as host, expected a Host.", 'Use defectgen.host("MoS2").')
    hosts = [host] if host is not None else [get_host(name) for name in host_names()]
    reasons: dict[Host, NotADecorationError] = {}
    for candidate in hosts:
        try:
            return configuration_from_structure(candidate, structure)
        except NotADecorationError as error:
            reasons[candidate] = error
    symbols = [str(species) for species in structure.composition.elements]
    nearest = max(hosts, key=lambda each: sum(symbol in each.elements for symbol in symbols))
    raise NotADecorationError(f"no decoration of {nearest.name} {nearest.size}: {reasons[nearest]}")
