"""ASE's database: a row a structure, its values as key-value pairs that can be searched for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectgen.exports.items import ExportItem

ROW_NAMES = frozenset({"energy_ev"})
"""Values that a row has anyway, as ``energy``."""


def write_db(path: Path, items: Sequence[ExportItem]) -> list[str]:
    """Rows that ``ase db FILE band_gap_ev<1,label=v_S`` finds; energies by DFT as ``energy``."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    database_at: Any = connect  # without types
    with database_at(path, type="db", use_lock_file=False) as database:
        for item in items:
            structure = item.structure
            symbols = [site.specie.symbol for site in structure]
            atoms: Any = Atoms(symbols, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=(1, 1, 0))
            if item.energy_ev is not None:
                computed: Any = SinglePointCalculator
                atoms.calc = computed(atoms, energy=item.energy_ev)
            database.write(
                atoms,
                name=item.name if _is_taken(item.name) else f"_{item.name}",
                host=item.configuration.host.name,
                supercell=f"{item.configuration.host.size} cells",  # ASE takes a bare 8x8 for no text
                defect_charge=item.charge,
                **{name: value for name, value in item.values.items() if name not in ROW_NAMES and _is_taken(value)},
                data={"configuration": item.configuration.key, "values": dict(item.values)},
            )
    return []


def _is_taken(value: float | str) -> bool:
    """Whether ASE takes a value as a key-value pair: it refuses texts that look like numbers or logical values."""
    if not isinstance(value, str):
        return True
    try:
        float(value)
    except ValueError:
        return value.lower() not in ("true", "false") and bool(value)
    return False
