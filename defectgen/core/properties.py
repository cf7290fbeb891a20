"""The properties that can be asked for and predicted: names, units, zeros."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from defectgen.core.registry import Registry, breaks, require_type
from defectgen.errors import UsageError

UNITS = {"ev": "eV", "mu_b": "μB", "angstrom": "Å"}
"""How a unit is written, by the end of a column's name."""

VBM = "VBM"
"""Zero of the one-electron levels: the valence band maximum of the pristine host."""


@dataclass(frozen=True)
class Property:
    """One scalar property of a decorated supercell.

    Attributes:
        column: name with unit, in every table and file, e.g. ``homo_ev``.
        option: the option of the command line, e.g. ``homo``.
        title: for people, e.g. ``HOMO``.
        prompt: the word that stands for it in compact prompts.
        sentence: the sentence of the instruction prompts, with ``{value}``.
        decimals: digits after the point in prompts, tables and pages; 3 is 1 meV.
        description: what it is, for help and report.
        unit: as people write it, e.g. ``eV``.
        unit_suffix: the end of the column that says the unit, e.g. ``ev``.
        zero: what values count from: `VBM` for a one-electron level, empty for a property without a zero.
        weight_ev: how many electronvolts a difference of one unit counts in distances to a target.
    """

    column: str
    option: str
    title: str
    prompt: str
    sentence: str
    decimals: int
    description: str
    unit: str = "eV"
    unit_suffix: str = "ev"
    zero: str = ""
    weight_ev: float = 1.0

    @property
    def is_level(self) -> bool:
        """Whether it is a one-electron level, so that its zero can be another one."""
        return self.zero == VBM

    @property
    def name(self) -> str:
        """The column without its unit, e.g. ``homo``."""
        return self.column.removesuffix(f"_{self.unit_suffix}")

    @property
    def uncertainty_column(self) -> str:
        """The column of the half-width of its 90 % interval, e.g. ``homo_uncertainty_ev``."""
        return f"{self.name}_uncertainty_{self.unit_suffix}"

    def text(self, value: float) -> str:
        """A value in its unit with the property's decimals; what rounds to zero has no sign."""
        return f"{value:z.{self.decimals}f}"


def _check(name: str, item: Property) -> None:
    require_type("property", name, item, Property)
    if item.column != name:
        raise breaks("property", name, f"its short name must be its column, {item.column}")
    if not item.name or item.name == item.column or not set(name) <= set(string.ascii_lowercase + string.digits + "_"):
        raise breaks("property", name, f"its column must end in its unit, _{item.unit_suffix}, in small letters")
    if "{value}" not in item.sentence or not item.prompt or len(item.prompt.split()) != 1:
        raise breaks("property", name, "its prompt must be one word and its sentence hold {value}")
    if item.decimals < 0 or not item.weight_ev > 0:
        raise breaks("property", name, "decimals must be 0 or more and weight_ev more than 0")


BY_COLUMN: Registry[Property] = Registry("property", "properties", _check)
"""All properties by column, in the order in which prompts and tables state them."""

_ABOVE = "eV above the pristine valence band maximum."

FORMATION = "formation_energy_ev"
MAGNETIZATION = "total_magnetization_mu_b"

BY_COLUMN.built_in(
    {
        item.column: item
        for item in (
            Property(
                "homo_ev", "homo", "HOMO", "HOMO", f"The HOMO is {{value}} {_ABOVE}", 3,
                "highest occupied Kohn-Sham level", zero=VBM,
            ),
            Property(
                "lumo_ev", "lumo", "LUMO", "LUMO", f"The LUMO is {{value}} {_ABOVE}", 3,
                "lowest unoccupied Kohn-Sham level", zero=VBM,
            ),
            Property(
                "band_gap_ev", "band-gap", "gap", "gap", "The band gap is {value} eV.", 3,
                "HOMO-LUMO gap, the smaller one of the two spin channels",
            ),
            Property(
                "formation_energy_ev", "formation-energy", "E_form", "form", "The formation energy is {value} eV.", 3,
                "formation energy of the neutral cell, elemental chemical potentials",
            ),
            Property(
                "fermi_level_ev", "fermi-level", "E_Fermi", "Fermi", f"The Fermi level is {{value}} {_ABOVE}", 3,
                "Fermi level", zero=VBM,
            ),
            Property(
                "energy_per_atom_ev", "energy-per-atom", "E/atom", "atom", "The energy per atom is {value} eV.", 4,
                "total energy of the cell by number of atoms",
            ),
            Property(
                MAGNETIZATION, "magnetization", "moment", "moment",
                "The magnetization of the cell is {value} Bohr magnetons.", 2,
                "modulus of the magnetization of the cell", unit="μB", unit_suffix="mu_b", weight_ev=0.1,
            ),
        )
    }
)  # fmt: skip

USUAL = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev", "energy_per_atom_ev")
"""What records state unless they are told otherwise; a model is asked only for what it was trained on."""


class _Properties(Sequence[Property]):
    """All properties as they are now."""

    @overload
    def __getitem__(self, index: int) -> Property: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Property]: ...
    def __getitem__(self, index: int | slice) -> Property | Sequence[Property]:
        return tuple(BY_COLUMN.values())[index]

    def __len__(self) -> int:
        return len(BY_COLUMN)


class _Columns(Sequence[str]):
    """The columns of all properties as they are now."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return tuple(BY_COLUMN)[index]

    def __iter__(self) -> Iterator[str]:
        return iter(BY_COLUMN)

    def __contains__(self, column: object) -> bool:
        return column in BY_COLUMN

    def __len__(self) -> int:
        return len(BY_COLUMN)


PROPERTIES: Sequence[Property] = _Properties()
COLUMNS: Sequence[str] = _Columns()


def register_property(item: Property) -> Property:
    """Add a property under its column.

    Raises:
        UsageError: its column, option or prompt word is taken, or it breaks the protocol.
    """
    require_type("property", str(getattr(item, "column", item)), item, Property)
    for other in PROPERTIES:
        for field in ("option", "title", "prompt"):
            if getattr(other, field) == getattr(item, field):
                raise UsageError(f"the {field} {getattr(item, field)!r} is that of {other.column} already.")
    return BY_COLUMN.register(item.column, item)


def find_property(name: str) -> Property | None:
    """The property with this column, option or name without unit (``homo_ev``, ``homo``); None if there is none."""
    wanted = name.strip().lower().replace("-", "_")
    return next((p for p in PROPERTIES if wanted in (p.column, p.name, p.option.replace("-", "_"))), None)


def unit_suffix(column: str) -> str:
    """The end of a column that says its unit, e.g. ``ev``; of a property as it says, else by `UNITS`.

    Raises:
        UsageError: a column without a known unit.
    """
    if column in BY_COLUMN:
        return BY_COLUMN[column].unit_suffix
    found = next((suffix for suffix in UNITS if column.endswith(f"_{suffix}")), None)
    if found is None:
        raise UsageError(
            f"the column {column!r} names no known unit.", f"Expected an end such as _{', _'.join(UNITS)}."
        )
    return found
