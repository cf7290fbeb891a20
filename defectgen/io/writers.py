"""Structure files ready for DFT: CIF and POSCAR of a configuration.

Written here and not by pymatgen, whose writers take 15 to 35 ms a structure; these take less than
one. Both hold every coordinate with 16 digits, so that it is read back as the number it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY

Atom = tuple[str, int]
"""Element and site."""


def cif_text(configuration: Configuration) -> str:
    """The unrelaxed supercell as a CIF in P1, atoms grouped by element; lengths in angstrom."""
    lattice = configuration.host.supercell_lattice
    lengths = np.linalg.norm(lattice, axis=1)
    angles = [
        float(np.degrees(np.arccos(np.clip(lattice[i] @ lattice[j] / (lengths[i] * lengths[j]), -1.0, 1.0))))
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    cell = [f"_cell_length_{axis} {length:.12f}" for axis, length in zip("abc", lengths, strict=True)]
    cell += [f"_cell_angle_{name} {angle:.10f}" for name, angle in zip(("alpha", "beta", "gamma"), angles, strict=True)]
    frac = configuration.host.site_frac_coords
    atoms = []
    numbers: Counter[str] = Counter()
    for element, site in _grouped_atoms(configuration):
        numbers[element] += 1
        atoms.append(f"{element} {element}{numbers[element]} {_numbers(frac[site])} 1")
    return "\n".join(
        [
            f"# {comment(configuration)}",
            f"data_{configuration.formula}",
            f"_chemical_formula_sum '{' '.join(f'{element}{count}' for element, count in numbers.items())}'",
            *cell,
            "_space_group_name_H-M_alt 'P 1'",
            "_space_group_IT_number 1",
            "loop_",
            "_space_group_symop_id",
            "_space_group_symop_operation_xyz",
            "1 'x, y, z'",
            "loop_",
            "_atom_site_type_symbol",
            "_atom_site_label",
            "_atom_site_fract_x",
            "_atom_site_fract_y",
            "_atom_site_fract_z",
            "_atom_site_occupancy",
            *atoms,
            "",
        ]
    )


def poscar_text(configuration: Configuration) -> str:
    """The unrelaxed supercell as a POSCAR (VASP 5, direct coordinates), atoms grouped by element."""
    frac = configuration.host.site_frac_coords
    atoms = _grouped_atoms(configuration)
    counts = Counter(element for element, _ in atoms)
    return "\n".join(
        [
            comment(configuration),
            "1.0",
            *(_numbers(row) for row in configuration.host.supercell_lattice),
            " ".join(counts),
            " ".join(str(count) for count in counts.values()),
            "Direct",
            *(_numbers(frac[site]) for _, site in atoms),
            "",
        ]
    )


def comment(configuration: Configuration) -> str:
    """One line that names the structure: host, supercell, label and key."""
    host = configuration.host
    return f"{host.name} {host.size} {configuration.label} {configuration.key}".rstrip()


STRUCTURE_WRITERS: dict[str, Callable[[Configuration], str]] = {"cif": cif_text, "poscar": poscar_text}


def _grouped_atoms(configuration: Configuration) -> list[Atom]:
    """All atoms: the host's elements first, each element in one block, sites in order within."""
    elements = configuration.host.elements
    atoms = [(species, site) for site, species in enumerate(configuration.species) if species != VACANCY]
    return sorted(atoms, key=lambda atom: (elements.index(atom[0]) if atom[0] in elements else len(elements), atom))


def _numbers(values: np.typing.NDArray[np.float64]) -> str:
    return " ".join(f"{float(value):.16f}" for value in values)
