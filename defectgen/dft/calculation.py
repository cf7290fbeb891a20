"""One calculation: what is computed, in which charge, with or without spin; and the cell as a code wants it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, Host
from defectgen.core.host import VACANCY
from defectgen.dft.elemental_phases import MAGNETIC, element_structure, is_molecule
from defectgen.dft.settings import DftSettings, Mesh, k_mesh
from defectgen.one_line import OneLine

if TYPE_CHECKING:
    from pymatgen.core import Structure

Role = Literal["defect", "host", "element"]

NEIGHBOUR_ANGSTROM = 2.9
"""Atoms as near to a changed site as this start with a moment."""

START_MOMENT_MU_B = 1.0

SYMMETRY_ANGSTROM = 0.05


@dataclass(frozen=True, repr=False)
class Calculation(OneLine):
    """One cell in one charge.

    Attributes:
        name: its folder.
        role: a defect's cell, the pristine host, or an elemental phase.
        structure: what is computed, species grouped, the layer in the middle of the cell; lengths in angstrom.
        configuration: what the cell decorates the host with; None for an elemental phase.
        charge: of the cell, in elementary charges.
        moments: magnetic moment that each atom starts with, in Bohr magnetons; empty without spin.
        mesh: Gamma-centred k points along a, b, c.
        turned_over: whether a symmetry of the cell turns the layer over, so that it has no dipole along the normal.
        about: one clause for people.
    """

    name: str
    role: Role
    structure: Structure
    configuration: Configuration | None
    charge: int
    moments: tuple[float, ...]
    mesh: Mesh
    turned_over: bool
    about: str

    @property
    def spin(self) -> bool:
        """Whether both spin channels are computed."""
        return bool(self.moments)

    @property
    def counts(self) -> Mapping[str, int]:
        """Atoms of each element, in the order of the structure."""
        return Counter(site.specie.symbol for site in self.structure)


def defect_calculation(
    configuration: Configuration, settings: DftSettings, name: str, charge: int = 0, relaxed: Structure | None = None
) -> Calculation:
    """The calculation of a defect's cell.

    Args:
        configuration: the defects.
        settings: see `DftSettings`.
        name: of its folder.
        charge: of the cell.
        relaxed: where the atoms start, if not on the host's sites.
    """
    structure = _layer(relaxed or configuration.to_structure(), configuration.host.elements, settings)
    spin = _needs_spin(structure, charge, settings, bool(_vacancies(configuration)))
    charged = f", charge {charge:+d}" if charge else ""
    return Calculation(
        name=name,
        role="defect",
        structure=structure,
        configuration=configuration,
        charge=charge,
        moments=_moments(structure, configuration) if spin else (),
        mesh=k_mesh(structure.lattice.matrix, settings.kpoint_length_angstrom, (True, True, False)),
        turned_over=_turned_over(structure),
        about=f"{configuration.label or 'pristine'} in {configuration.host.name} {configuration.host.size}{charged}",
    )


def host_calculation(host: Host, settings: DftSettings) -> Calculation:
    """The calculation of the pristine supercell, on the k points of the defects' cells."""
    pristine = Configuration.of(host, {})
    found = defect_calculation(pristine, settings, f"host_{host.name}_{host.size}")
    return replace(found, role="host", about=f"pristine {host.name} {host.size}")


def element_calculation(symbol: str, settings: DftSettings, structure: Structure | None = None) -> Calculation:
    """The calculation of an elemental phase.

    Args:
        symbol: of the element.
        settings: see `DftSettings`.
        structure: its cell, if not that of `element_structure`.

    Raises:
        UsageError: no phase of this element is known.
    """
    cell, about = (structure, "as given") if structure is not None else element_structure(symbol)
    box = structure is None and is_molecule(symbol)
    mesh = (1, 1, 1) if box else k_mesh(cell.lattice.matrix, settings.kpoint_length_bulk_angstrom, (True, True, True))
    spin = settings.spin == "on" or (settings.spin == "auto" and symbol in MAGNETIC)
    return Calculation(
        name=f"element_{symbol}",
        role="element",
        structure=cell.copy(),
        configuration=None,
        charge=0,
        moments=(2.0,) * len(cell) if spin else (),
        mesh=mesh,
        turned_over=True,
        about=f"{symbol}: {about}",
    )


def calculation_names(configurations: Sequence[Configuration], charges: Sequence[int]) -> list[str]:
    """A folder name for each configuration in each charge, configuration by configuration, each once."""
    labels = [re.sub(r"[^A-Za-z0-9_]+", "-", item.label or "pristine") for item in configurations]
    stems = [f"{number:03d}_{label[:40]}" for number, label in enumerate(labels, 1)]
    return [f"{stem}_{charge:+d}" if charge or len(charges) > 1 else stem for stem in stems for charge in charges]


def exchanged(configuration: Configuration) -> dict[str, int]:
    """Atoms of each element that the defects add (positive) or remove (negative)."""
    counts: dict[str, int] = {}
    for (old, new), number in configuration.kinds.items():
        for element, sign in ((old, -1), (new, 1)):
            if element != VACANCY:
                counts[element] = counts.get(element, 0) + sign * number
    return {element: number for element, number in sorted(counts.items()) if number}


def _vacancies(configuration: Configuration) -> list[int]:
    return [site for site, new in configuration.edits if new == VACANCY]


def may_have_moment(configuration: Configuration) -> bool:
    """Whether a neutral cell is computed with spin where settings leave it open."""
    return _needs_spin(configuration.to_structure(), 0, DftSettings(), bool(_vacancies(configuration)))


def _needs_spin(structure: Structure, charge: int, settings: DftSettings, vacancy: bool) -> bool:
    if settings.spin != "auto":
        return settings.spin == "on"
    electrons = sum(site.specie.Z for site in structure) - charge
    magnetic = any(site.specie.symbol in MAGNETIC - {"O"} for site in structure)
    return bool(electrons % 2) or vacancy or magnetic


def _moments(structure: Structure, configuration: Configuration) -> tuple[float, ...]:
    """Moments on the atoms around and on changed sites; small ones elsewhere."""
    host = configuration.host
    changed = [host.site_cart_coords[site] for site, _ in configuration.edits]
    if not changed:
        return (0.0,) * len(structure)
    middle = host.site_cart_coords[:, 2].mean()
    height = structure.cart_coords[:, 2].mean()
    near: set[int] = set()
    for position in changed:
        place = np.array([position[0], position[1], position[2] - middle + height])
        near |= {
            int(found.index) for found in structure.get_sites_in_sphere(place, NEIGHBOUR_ANGSTROM, include_index=True)
        }
    return tuple(START_MOMENT_MU_B if number in near else 0.0 for number in range(len(structure)))


def _layer(structure: Structure, elements: Sequence[str], settings: DftSettings) -> Structure:
    """The structure with the host's elements first, each in one block, and the layer in the middle of its cell."""
    from pymatgen.core import Lattice, Structure

    frac = np.asarray(structure.frac_coords)
    matrix = np.asarray(structure.lattice.matrix).copy()
    height = float(np.linalg.norm(matrix[2]))
    z = _unwrapped(frac[:, 2]) * height
    thickness = float(z.max() - z.min())
    wanted = height if settings.vacuum_angstrom is None else max(height, thickness + settings.vacuum_angstrom)
    matrix[2] *= wanted / height
    new = frac.copy()
    new[:, 2] = (z - (z.max() + z.min()) / 2) / wanted + 0.5
    symbols = [site.specie.symbol for site in structure]
    order = sorted(range(len(symbols)), key=lambda k: (_place(symbols[k], elements), symbols[k], k))
    return Structure(Lattice(matrix), [symbols[k] for k in order], new[order])


def _place(symbol: str, elements: Sequence[str]) -> int:
    return elements.index(symbol) if symbol in elements else len(elements)


def _unwrapped(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional heights of a layer without the jump at the cell's border."""
    values = np.sort(z % 1.0)
    gaps = np.diff(values, append=values[0] + 1.0)
    start = values[(int(gaps.argmax()) + 1) % len(values)]
    return np.asarray((z - start + 1e-9) % 1.0)


def _turned_over(structure: Structure) -> bool:
    """Whether a symmetry operation of the cell turns the normal round."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    operations = SpacegroupAnalyzer(structure, symprec=SYMMETRY_ANGSTROM).get_symmetry_operations()
    return any(operation.rotation_matrix[2][2] < 0 for operation in operations)


BACKGROUND_EV_ANGSTROM = 22.6186
"""e^2 / (8 eps0)."""

LEAVES_EV = 4.0
"""With a vacuum so far below the layer an electron more is found there: h-BN with C_N, C_B or v_N, pw.x."""


def vacuum_drop_ev(calculation: Calculation) -> float:
    """How far below the layer the middle of the vacuum is for electrons, in eV, in a cell with electrons added.

    Codes with periodic cells put a uniform background against the charge: the potential is a parabola across the
    vacuum, |q| e^2 c / (8 eps0 A) deep for a thin layer, c the height of the cell and A its area.
    """
    a, b, c = calculation.structure.lattice.matrix
    area = float(np.linalg.norm(np.cross(a, b)))
    return max(-calculation.charge, 0) * BACKGROUND_EV_ANGSTROM * float(np.linalg.norm(c)) / area


def note_on_charges(calculations: Sequence[Calculation]) -> tuple[str, ...]:
    """What to say where cells are too small to hold the electrons added."""
    drops = {item.charge: vacuum_drop_ev(item) for item in calculations}
    bad = [f"{drop:.1f} eV for charge {charge}" for charge, drop in sorted(drops.items()) if drop > LEAVES_EV]
    if not bad:
        return ()
    return (
        f"the uniform background pulls the vacuum far below the layer ({', '.join(bad)}): electrons added may go there "
        f"and the cycle not converge; take a larger supercell until it is below {LEAVES_EV:g} eV",
    )
