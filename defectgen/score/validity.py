"""Whether a structure can be a material at all: distances, one layer, allowed species, balanced charges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.slab import empty_slabs
from defectgen.errors import UsageError
from defectgen.io.places import atoms_problem
from defectgen.score.protocol import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

CLOSEST_SHARE = 0.6
"""Two atoms closer than this share of the sum of their covalent radii overlap."""

BOND_SHARE = 1.3
"""Two atoms closer than this multiple of the sum of their covalent radii hold together."""

VACUUM_ANGSTROM = 6.0
"""An empty slab this high across a cell vector makes a cell a layer."""

MAX_CHARGE_ATOMS = 40
"""Largest reduced formula whose charges are balanced: the search grows quickly with the number of atoms."""


@dataclass(frozen=True)
class Validity:
    """The verdict on one structure; it is valid if no reason speaks against it."""

    reasons: tuple[str, ...]

    @property
    def valid(self) -> bool:
        return not self.reasons


def check(sample: Sample) -> Validity:
    """What speaks against a structure.

    - no atoms, partial occupancy, coordinates that are no numbers;
    - two atoms that overlap (see `CLOSEST_SHARE`);
    - a decoration, or any cell with vacuum: atoms that do not hang together as one layer
      (see `BOND_SHARE`), or no vacuum left (`VACUUM_ANGSTROM`);
    - a decoration: species that the host's rules do not allow;
    - anything else: no oxidation states that add up to zero, unless all elements are metals or it is
      an element. A defect changes the number of electrons and the host takes it up, so that this says
      nothing of a decoration.
    """
    problem = atoms_problem(sample.structure)
    if problem:
        return Validity((problem,))
    reasons = []
    try:
        crowded = closest_pair(sample.structure)
    except UsageError as error:  # an element without a radius: nothing can be said of its distances
        return Validity((str(error).rstrip("."),))
    if crowded:
        reasons.append(crowded)
    gap = vacuum_angstrom(sample.structure)
    if sample.configuration is not None:
        if gap < VACUUM_ANGSTROM:
            reasons.append(f"only {gap:.1f} angstrom of vacuum")
        reasons += _foreign_species(sample)
    if sample.configuration is not None or gap >= VACUUM_ANGSTROM:
        pieces = n_pieces(sample.structure)
        if pieces > 1:
            reasons.append(f"{pieces} separate pieces instead of one layer")
    if sample.configuration is None and not charges_balance(sample.structure):
        reasons.append("no oxidation states add up to zero")
    return Validity(tuple(reasons))


def closest_pair(structure: Structure) -> str:
    """The pair of atoms that overlap most, with their distance; empty if none do."""
    species, first, second, distance, share = _pairs(structure, CLOSEST_SHARE)
    if not len(share):
        return ""
    worst = int(share.argmin())
    return f"{species[first[worst]]} and {species[second[worst]]} {distance[worst]:.2f} angstrom apart"


def n_pieces(structure: Structure) -> int:
    """Number of groups of atoms that hang together within the group, periodic images included."""
    species, first, second, _, _ = _pairs(structure, BOND_SHARE)
    group = np.arange(len(species))
    while True:  # each atom takes the smallest number among its neighbours until nothing changes
        before = group.copy()
        np.minimum.at(group, first, before[second])
        group = group[group]
        if (group == before).all():
            return len(np.unique(group))


def vacuum_angstrom(structure: Structure) -> float:
    """Height of the largest slab without atoms across any of the cell vectors, in angstrom."""
    return float(empty_slabs(np.asarray(structure.lattice.matrix), np.asarray(structure.frac_coords)).max())


def charges_balance(structure: Structure) -> bool:
    """Whether oxidation states of the elements (pymatgen's `oxi_state_guesses`: the ICSD's) can add up to zero.

    True also for an element, an alloy, and a formula too large to search (`MAX_CHARGE_ATOMS`).
    """
    formula = structure.composition.element_composition.reduced_composition
    elements = list(formula.elements)
    if len(elements) == 1 or all(element.is_metal for element in elements) or formula.num_atoms > MAX_CHARGE_ATOMS:
        return True
    return bool(formula.oxi_state_guesses())


def _foreign_species(sample: Sample) -> list[str]:
    configuration = sample.configuration
    if configuration is None or configuration.follows_rules():
        return []
    host = configuration.host
    foreign = {
        f"{species} on a site of {host.site_element(site)}"
        for site, species in configuration.edits
        if species not in host.allowed[host.site_cell(site)[0]]
    }
    return [f"{text}, which {host.name} does not allow" for text in sorted(foreign)]


def _pairs(
    structure: Structure, largest_share: float
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of atoms, images included, whose distance is below a share of the sum of their covalent radii.

    Returns:
        The species of all atoms; for each pair in both orders the two atoms, their distance in angstrom,
        and that distance as a share of the sum of radii.
    """
    species = [site.specie.symbol for site in structure]
    radii = np.array([_radius(symbol) for symbol in species])
    first, second, _, distance = structure.get_neighbor_list(r=2 * largest_share * float(radii.max()))
    share = distance / (radii[first] + radii[second])
    near = share < largest_share
    return species, first[near], second[near], distance[near], share[near]


def _radius(symbol: str) -> float:
    """Covalent radius in angstrom (Cordero et al., Dalton Trans 2008, 2832, doi 10.1039/b801115j).

    Raises:
        UsageError: an element without one, those beyond curium.
    """
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius

    if symbol not in CovalentRadius.radius:
        raise UsageError(f"no covalent radius of {symbol} is known.")
    return float(CovalentRadius.radius[symbol])
