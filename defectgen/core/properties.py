"""The properties that can be asked for and predicted: names, units, zeros."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Property:
    """One scalar property of a decorated supercell.

    Attributes:
        column: name with unit, in every table and file, e.g. ``homo_ev``.
        option: the option of the command line, e.g. ``homo``.
        title: for people, e.g. ``HOMO``.
        prompt: the word that stands for it in compact prompts.
        sentence: the sentence of the instruction prompts, with ``{value}``.
        decimals: digits after the point in prompts; 3 is 1 meV.
        is_level: whether it is a one-electron level and so needs a zero.
        description: what it is, for help and report.
    """

    column: str
    option: str
    title: str
    prompt: str
    sentence: str
    decimals: int
    is_level: bool
    description: str


PROPERTIES: tuple[Property, ...] = (
    Property(
        "homo_ev", "homo", "HOMO", "HOMO", "The HOMO is {value} eV above the pristine valence band maximum.", 3, True,
        "highest occupied Kohn-Sham level",
    ),
    Property(
        "lumo_ev", "lumo", "LUMO", "LUMO", "The LUMO is {value} eV above the pristine valence band maximum.", 3, True,
        "lowest unoccupied Kohn-Sham level",
    ),
    Property(
        "band_gap_ev", "band-gap", "gap", "gap", "The band gap is {value} eV.", 3, False,
        "HOMO-LUMO gap, the smaller one of the two spin channels",
    ),
    Property(
        "formation_energy_ev", "formation-energy", "E_form", "form", "The formation energy is {value} eV.", 3, False,
        "formation energy of the neutral cell, elemental chemical potentials",
    ),
    Property(
        "fermi_level_ev", "fermi-level", "E_Fermi", "Fermi",
        "The Fermi level is {value} eV above the pristine valence band maximum.", 3, True, "Fermi level",
    ),
    Property(
        "energy_per_atom_ev", "energy-per-atom", "E/atom", "atom", "The energy per atom is {value} eV.", 4, False,
        "total energy of the cell by number of atoms",
    ),
)  # fmt: skip

BY_COLUMN = {p.column: p for p in PROPERTIES}
COLUMNS = tuple(BY_COLUMN)
