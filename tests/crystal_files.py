"""Small files of bulk crystals with made-up labels, as MP-20 and the Materials Project write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from defectgen.core.crystal import Crystal

ELEMENTS = ("Li", "Na", "K", "Mg", "Al", "Si", "S", "Se", "O", "F", "Cl", "Fe", "Cu", "Sn", "N", "Ni", "C", "Co")
PUBLISHED = (
    "material_id", "formation_energy_per_atom", "band_gap", "pretty_formula", "e_above_hull", "cif",
    "spacegroup.number",
)  # fmt: skip


def made_up_crystals(n: int, seed: int = 0) -> list[Crystal]:
    """Crystals of one to four elements and up to eight atoms, all of different formulas."""
    rng = np.random.default_rng(seed)
    found: dict[str, Crystal] = {}
    while len(found) < n:
        chosen = rng.choice(ELEMENTS, size=int(rng.integers(1, 5)), replace=False)
        species = [str(symbol) for symbol in chosen for _ in range(int(rng.integers(1, 3)))]
        crystal = Crystal(
            lengths=tuple(rng.uniform(3, 9, size=3).tolist()),
            angles=tuple(rng.uniform(70, 110, size=3).tolist()),
            species=tuple(species),
            fractional=tuple(tuple(xyz) for xyz in rng.uniform(size=(len(species), 3)).tolist()),
        )
        found.setdefault(crystal.formula, crystal)
    return list(found.values())


def cif_text(crystal: Crystal, digits: int = 8) -> str:
    """A CIF in P1 in the form of pymatgen's writer."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = zip(names, (*crystal.lengths, *crystal.angles), strict=True)
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    atoms = [
        f"  {symbol}  {symbol}{k}  1  " + "  ".join(f"{x:.{digits}f}" for x in xyz) + "  1"
        for k, (symbol, xyz) in enumerate(zip(crystal.species, crystal.fractional, strict=True))
    ]
    lines = [
        "# generated using pymatgen",
        f"data_{crystal.formula}",
        "_symmetry_space_group_name_H-M   'P 1'",
        *(f"_cell_{name}   {value:.8f}" for name, value in cell),
        "_symmetry_Int_Tables_number   1",
        "loop_",
        " _symmetry_equiv_pos_site_id",
        " _symmetry_equiv_pos_as_xyz",
        "  1  'x, y, z'",
        "loop_",
        *(f" _atom_site_{name}" for name in columns),
        *atoms,
    ]
    return "\n".join(lines) + "\n"


def published_rows(crystals: Sequence[Crystal], first: int = 1) -> list[dict[str, object]]:
    """Rows with the columns of MP-20."""
    return [
        {
            "material_id": f"mp-{k}",
            "formation_energy_per_atom": -0.25 * (k % 7),
            "band_gap": 0.5 * (k % 3),
            "pretty_formula": crystal.formula,
            "e_above_hull": 0.01 * (k % 9),
            "cif": cif_text(crystal),
            "spacegroup.number": 1 + k % 230,
        }
        for k, crystal in enumerate(crystals, first)
    ]


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """A CSV file with the columns of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
