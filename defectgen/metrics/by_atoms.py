"""Shares by the number of atoms in the cell: validity, asked conditions, metastability (Gruver et al., figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from defectgen.metrics.met_conditions import METASTABLE_EV, checkable, meets

if TYPE_CHECKING:
    from defectgen.metrics.crystal_metrics import JudgedCrystal, Metric
    from defectgen.metrics.generated_entries import Crystals

STEP, LAST = 5, 20
"""Cells of 1 to 5 atoms, 6 to 10 and so on, and those with more than `LAST`."""


def atoms_class(n_atoms: int) -> str:
    """The class of a cell, e.g. ``6-10``, or ``>20``."""
    if n_atoms > LAST:
        return f">{LAST}"
    first = (n_atoms - 1) // STEP * STEP + 1
    return f"{first}-{first + STEP - 1}"


def shares_by_atoms(judged: Sequence[JudgedCrystal], crystals: Crystals) -> dict[str, dict[str, Metric]]:
    """Shares within each class of cells that occurs, small cells first.

    Crystals that cannot be read have no number of atoms and are in none.

    Args:
        judged: the accepted ones.
        crystals: the set that they are of.

    Returns:
        Class -> name of the metric -> share: ``valid``; ``hit_formula``, ``hit_spacegroup``, ``hit_e_above_hull`` and
        ``hit_band_gap`` where asked, and with ``_metastable`` where energies are there; ``metastable``.
    """
    from defectgen.metrics.crystal_metrics import share

    classes: dict[str, list[JudgedCrystal]] = {}
    for item in sorted((i for i in judged if i.entry.crystal), key=lambda i: _size(i)):
        classes.setdefault(atoms_class(_size(item)), []).append(item)
    found: dict[str, dict[str, Metric]] = {}
    for name, items in classes.items():
        shares = {"valid": share([item.valid for item in items])}
        for condition in checkable(crystals):
            hits = [(item, hit) for item in items if (hit := meets(item.entry, condition)) is not None]
            if hits:
                shares[f"hit_{condition}"] = share([hit for _, hit in hits])
                if crystals.stability_column and condition != "e_above_hull":
                    both = [hit and item.is_below(METASTABLE_EV) for item, hit in hits]
                    shares[f"hit_{condition}_metastable"] = share(both)
        if crystals.stability_column:
            shares["metastable"] = share([item.is_below(METASTABLE_EV) for item in items])
        found[name] = shares
    return found


def _size(item: JudgedCrystal) -> int:
    return len(item.entry.crystal.species) if item.entry.crystal else 0
