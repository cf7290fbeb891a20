"""From a structure file back to a configuration: which site of the host does each atom sit on.

A file may name the axes of the layer in another order, turn it over, choose another origin or another cell of the same
lattice, or write the elements on each other's sites of a lattice that is symmetric without them: of all ways to lay
the atoms on the host the one counts that changes the fewest sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY, Host
from defectgen.core.hosts import HOSTS, common_name, common_title
from defectgen.core.placing import (
    EXACT_ANGSTROM,
    SITE_TOLERANCE_ANGSTROM,
    Placing,
    best_placing,
    metric,
    orientations,
    symmetries,
)
from defectgen.core.slab import NotADecorationError, NotALayerError, Slab
from defectgen.core.supercells import CELL_TOLERANCE, determinant, inverse, strained_fit, supercells
from defectgen.errors import UsageError
from defectgen.one_line import typed

if TYPE_CHECKING:
    from pymatgen.core import Structure

SHOWN_STRAIN = 0.005
"""Strain that is worth a word."""


@dataclass(frozen=True)
class Match:
    """A structure laid on a host.

    Attributes:
        configuration: what it shows.
        sites: site of each atom, shape (n_atoms,).
        axes: the host's a, b, c in terms of the structure's, e.g. ``("b", "-a-b", "c")``.
        mirrored: whether it is the mirror image of the host that fits.
        moved_angstrom: how far the origin is moved in the plane.
        strain: relative difference of the lengths of a and b from the host's.
        distance_angstrom: farthest that an atom lies from its site.
    """

    configuration: Configuration
    sites: NDArray[np.int64]
    axes: tuple[str, str, str]
    mirrored: bool
    moved_angstrom: float
    strain: tuple[float, float]
    distance_angstrom: float

    @property
    def transformation(self) -> str:
        """How the structure differs from the host as the host is written; empty if it does not."""
        parts = []
        if self.axes != ("a", "b", "c"):
            parts.append(f"a, b, c of the host are {', '.join(self.axes)} of the file")
        if self.mirrored:
            parts.append("mirrored")
        if self.moved_angstrom > EXACT_ANGSTROM:
            parts.append(f"origin moved by {self.moved_angstrom:.2f} angstrom in the plane")
        if max(map(abs, self.strain)) > SHOWN_STRAIN:
            parts.append(f"strained by {100 * self.strain[0]:+.1f} % along a, {100 * self.strain[1]:+.1f} % along b")
        return "; ".join(parts)


def match_structure(host: Host, structure: Structure, tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM) -> Match:
    """A pymatgen structure laid on a host.

    Raises:
        NotADecorationError: see `match_atoms`; also a site with partial occupancy.
    """
    lattice, species, frac_coords = _atoms(structure)
    return match_atoms(host, lattice, species, frac_coords, tolerance_angstrom)


def match_atoms(
    host: Host,
    lattice: NDArray[np.float64],
    species: Sequence[str],
    frac_coords: NDArray[np.float64],
    tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM,
) -> Match:
    """Atoms laid on a host so that the fewest sites are changed.

    The layer may lie across any axis, anywhere along it and in any vacuum, be turned, turned over and shifted; its
    lattice in the plane must be the host's supercell's.

    Args:
        host: the pristine supercell.
        lattice: rows a, b, c of the structure in angstrom, shape (3, 3).
        species: element of each atom.
        frac_coords: shape (n_atoms, 3).
        tolerance_angstrom: farthest allowed distance of an atom from its site.

    Raises:
        NotADecorationError: another cell, an atom away from all sites, or two atoms on one site.
    """
    return _match(host, Slab.of(lattice, frac_coords), np.array(species), tolerance_angstrom)


def recognize(structure: Structure, hosts: Sequence[Host]) -> Match:
    """A structure laid on that of some hosts of which it changes the fewest sites, in any supercell of it.

    Raises:
        NotADecorationError: it decorates none of them, or is another compound; says why, as the end of "it ".
        NotALayerError: it has no vacuum.
    """
    lattice, species, frac_coords = _atoms(structure)
    symbols = set(species)
    like = [host for host in hosts if symbols.issuperset(host.elements)] if len(hosts) > 1 else list(hosts)
    try:
        slab = Slab.of(lattice, frac_coords)
    except NotALayerError:
        raise
    except NotADecorationError as error:
        first = (like or hosts)[0]
        raise NotADecorationError(f"is no decoration of {common_title(first)}: {error}") from error
    if not like:
        formula, names = structure.composition.reduced_formula, ", ".join(map(common_name, hosts))
        raise NotADecorationError(f"is no decoration of a known host ({names}): {formula} is another compound.")
    elements = np.array(species)
    reasons: dict[Host, str] = {}
    compounds: dict[Host, str] = {}
    found: list[Match] = []
    for host in like:
        for cell in _cells(host, slab):
            try:
                match = _match(cell, slab, elements, SITE_TOLERANCE_ANGSTROM)
            except NotADecorationError as error:
                reasons.setdefault(host, str(error))
                continue
            if problem := _another_compound(structure, match.configuration):
                compounds[host] = problem
                continue
            found.append(match)
            break
    if found:
        return min(found, key=lambda match: match.configuration.n_defects)
    nearest = max(like, key=lambda host: (sum(symbol in host.elements for symbol in species), -like.index(host)))
    if nearest in compounds:
        reason = compounds[nearest]
    elif not symbols.issuperset(nearest.elements):
        reason = f"{structure.composition.reduced_formula} is another compound."
    elif strained := strained_fit(nearest, slab.plane, len(species)):
        reason = (
            f"its cell is one of {strained[0]} unit cells strained by {100 * strained[1]:.1f} %, expected at most "
            f"{100 * CELL_TOLERANCE:.0f} %."
        )
    else:
        reason = reasons.get(nearest) or _cell_problem(nearest, slab)
    raise NotADecorationError(f"is no decoration of {common_title(nearest)}: {reason}")


def known_configuration(structure: Structure, host: Host | None = None) -> Configuration:
    """The configuration of a pymatgen structure, in a given host or any supercell of the known ones.

    Raises:
        NotADecorationError: it decorates none of them; says why of the host with most of its elements.
        UsageError: what is no structure or no host.
    """
    if not all(hasattr(structure, name) for name in ("lattice", "frac_coords", "is_ordered")):
        advice = "Read a file with defectgen.read_structure."
        raise UsageError(f"got {typed(structure)}, expected a pymatgen Structure.", advice)
    if host is not None and not isinstance(host, Host):
        raise UsageError(f"got {typed(host)} as host, expected a Host.", 'Use defectgen.host("MoS2").')
    if host is None:
        try:
            return recognize(structure, list(HOSTS.values())).configuration
        except NotADecorationError as error:
            raise type(error)(f"the structure {error}") from error
    try:
        return match_structure(host, structure).configuration
    except NotALayerError as error:
        raise NotALayerError(f"the structure {error}") from error
    except NotADecorationError as error:
        raise NotADecorationError(
            f"no decoration of {common_title(host)}: {what_it_is(host, structure) or error}"
        ) from error


def what_it_is(host: Host, structure: Structure) -> str:
    """What a structure is that is no decoration of a host in its supercell: one of another supercell, or of another
    compound; empty if it is neither.
    """
    symbols = {site.specie.symbol for site in structure} if structure.is_ordered else set(host.elements)
    if not symbols.issuperset(host.elements):
        return f"{structure.composition.reduced_formula} is another compound."
    try:
        found = recognize(structure, [host]).configuration
    except NotADecorationError:
        return ""
    return f"it is {found.label} in {found.host.title}, expected the supercell {host.size}." if found.edits else ""


def configuration_from_atoms(
    host: Host,
    lattice: NDArray[np.float64],
    species: list[str],
    frac_coords: NDArray[np.float64],
    tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM,
) -> Configuration:
    """The configuration that a cell, its elements and fractional coordinates show.

    Raises:
        NotADecorationError: see `match_atoms`.
    """
    return match_atoms(host, lattice, species, frac_coords, tolerance_angstrom).configuration


def configuration_from_structure(
    host: Host, structure: Structure, tolerance_angstrom: float = SITE_TOLERANCE_ANGSTROM
) -> Configuration:
    """The configuration of a pymatgen structure.

    Raises:
        NotADecorationError: see `match_structure`.
    """
    return match_structure(host, structure, tolerance_angstrom).configuration


def _atoms(structure: Structure) -> tuple[NDArray[np.float64], list[str], NDArray[np.float64]]:
    try:
        species = [site.specie.symbol for site in structure]
    except AttributeError as error:  # of a site with several species
        raise NotADecorationError("the structure has partially occupied sites, expected one element a site.") from error
    return np.asarray(structure.lattice.matrix), species, np.asarray(structure.frac_coords)


def _cells(host: Host, slab: Slab) -> Iterator[Host]:
    """The supercells of a host that the cell of a layer may be, the host's own first."""
    own = next(orientations(host, slab.plane), None) is not None
    if own:
        yield host
    for cell in supercells(host, slab.plane, len(slab.frac)):
        if not (own and cell == host):
            yield cell


def _another_compound(structure: Structure, configuration: Configuration) -> str:
    """Why a decoration of which little of the host is left is none; empty if most is left."""
    host = configuration.host
    for element in host.elements:
        lost: dict[str, int] = {}
        for site, species in configuration.edits:
            if host.site_element(site) == element:
                lost[species] = lost.get(species, 0) + 1
        n_sites = host.site_elements.count(element)
        if 2 * sum(lost.values()) >= n_sites and host.n_sites > 2 * host.n_basis:
            most = max(sorted(lost), key=lambda species: lost[species])
            held = "are empty" if most == VACANCY else f"hold {most}"
            return (
                f"{structure.composition.reduced_formula} is another compound, "
                f"{lost[most]} of {n_sites} sites of {element} {held}."
            )
    return ""


def _match(host: Host, slab: Slab, species: NDArray[np.str_], tolerance: float) -> Match:
    if len(species) > host.n_sites:
        raise NotADecorationError(f"got {len(species)} atoms, expected at most {host.n_sites} in {host.title}.")
    best = best_placing(host, slab, species, tolerance)
    if best is None:
        raise NotADecorationError(_cell_problem(host, slab))
    if not best.is_valid(tolerance):
        raise NotADecorationError(_placing_problem(host, best, tolerance))
    return _as_match(host, slab, species, best)


def _as_match(host: Host, slab: Slab, species: NDArray[np.str_], placing: Placing) -> Match:
    found = dict(zip(placing.sites.tolist(), species.tolist(), strict=True))
    changed = {site: found.get(site, VACANCY) for site, element in host.sites() if found.get(site) != element}
    back = inverse(placing.matrix)
    names = ["abc"[axis] for axis in slab.axes]
    up = placing.sign * (1 if slab.upright else -1)
    ours = np.linalg.norm(np.array(back) @ slab.plane, axis=1)
    theirs = np.linalg.norm(np.array(host.supercell_lattice)[:2], axis=1)
    strain = (ours / theirs - 1).tolist()
    return Match(
        configuration=Configuration.of(host, changed),
        sites=placing.sites,
        axes=(_sum(back[0], names), _sum(back[1], names), f"{'-' if up < 0 else ''}{names[2]}"),
        mirrored=determinant(placing.matrix) * placing.sign < 0
        and all(determinant(turn) * over > 0 for turn, over in symmetries(host)),
        moved_angstrom=float(np.linalg.norm(placing.shift[:2] @ metric(host)[:2, :2])),
        strain=(strain[0], strain[1]),
        distance_angstrom=float(placing.distance.max()),
    )


def _sum(row: tuple[int, int], names: Sequence[str]) -> str:
    """A sum of two vectors as text, e.g. ``a+2b``."""
    text = ""
    for number, name in zip(row, names, strict=False):
        if number:
            text += f"{'-' if number < 0 else '+'}{abs(number) if abs(number) > 1 else ''}{name}"
    return text.removeprefix("+")


def _cell_problem(host: Host, slab: Slab) -> str:
    def plane(rows: NDArray[np.float64]) -> str:
        a, b = np.linalg.norm(rows, axis=1)
        return f"{a:.2f} x {b:.2f} angstrom, {np.degrees(np.arccos(rows[0] @ rows[1] / (a * b))):.1f} degrees"

    expected = plane(np.array(host.supercell_lattice)[:2])
    return f"the in-plane cell is {plane(slab.plane)}; expected {expected} for {host.title}."


def _placing_problem(host: Host, placing: Placing, tolerance: float) -> str:
    distance = placing.distance
    if distance.max() > tolerance:
        return (
            f"atom {int(distance.argmax())} lies {distance.max():.2f} angstrom from the nearest site of {host.name} "
            f"{host.size}, expected at most {tolerance:g}."
        )
    occupied, counts = np.unique(placing.sites, return_counts=True)
    return f"two atoms sit on site {host.site_name(int(occupied[counts.argmax()]))} of {host.name}."
