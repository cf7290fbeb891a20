"""The template method: known crystals with one element swapped for a similar ion, the baseline of generation.

Source: Gruver et al., ICLR 2024, appendix C, listing 2 (arXiv 2402.04379).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core.elements import RADIUS_TOLERANCE_ANGSTROM, swap_table
from defectgen.errors import UsageError
from defectgen.generate.sample_folder import SampleRow, write_sample_folder

if TYPE_CHECKING:
    from pymatgen.core import Structure

TASK = "template"


@dataclass(frozen=True)
class Swap:
    """A known crystal in which all atoms of one element became another element.

    Attributes:
        template: name of the known crystal.
        old: the element that was there.
        new: the element that is there now.
        structure: the crystal after it, in the cell of the template.
    """

    template: str
    old: str
    new: str
    structure: Structure


def swap_one(name: str, structure: Structure, rng: np.random.Generator) -> Swap | None:
    """Swap one element of a crystal at random; None if the table has nothing for any of its elements.

    As in the listing: an atom with a partner in the table is drawn uniformly, so that an element with more
    atoms is drawn more often, and then one of its partners, one that fits in several oxidation states more often.

    Args:
        name: of the crystal.
        structure: not changed.
        rng: draws.
    """
    table = swap_table()
    atoms = [site.specie.symbol for site in structure if table.get(site.specie.symbol)]
    if not atoms:
        return None
    old = atoms[int(rng.integers(len(atoms)))]
    partners = [other for _, others in sorted(table[old].items()) for other in others]
    new = partners[int(rng.integers(len(partners)))]
    swapped = structure.copy()
    swapped.replace_species({old: new})
    return Swap(name, old, new, swapped)


def template_swaps(
    crystals: Sequence[tuple[str, Structure]], n: int, rng: np.random.Generator
) -> tuple[list[Swap], int]:
    """Crystals by the template method, each from another known crystal as long as there are more.

    Args:
        crystals: name and structure of the known ones.
        n: how many to make.
        rng: draws crystals and swaps.

    Returns:
        The swaps, and how many draws met a crystal in which nothing can be swapped.

    Raises:
        UsageError: in none of the crystals can anything be swapped.
    """
    table = swap_table()
    possible = [
        index
        for index, (_, structure) in enumerate(crystals)
        if any(table.get(element.symbol) for element in structure.composition.elements)
    ]
    if not possible:
        raise UsageError(
            f"none of {len(crystals)} crystals holds an element with a similar ion.",
            f"The table swaps ions of one charge whose radii differ by less than {RADIUS_TOLERANCE_ANGSTROM} angstrom.",
        )
    found: list[Swap] = []
    useless = 0
    while len(found) < n:
        for index in rng.permutation(len(crystals)):
            swap = swap_one(*crystals[int(index)], rng)
            if swap is None:
                useless += 1
            else:
                found.append(swap)
            if len(found) == n:
                break
    return found, useless


def write_swaps(swaps: Sequence[Swap], folder: Path, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write swaps as a folder, see `defectgen.generate.sample_folder.write_sample_folder`, and return its manifest.

    Args:
        swaps: the samples.
        folder: must be new or empty.
        seed: with which they were drawn.
        settings: for the manifest, with counts.
    """
    draws = [
        SampleRow(
            f"{swap.template}: {swap.old} -> {swap.new}",
            swap.structure,
            "",
            {"template": swap.template, "old": swap.old, "new": swap.new},
        )
        for swap in swaps
    ]
    manifest = {
        "stage": TASK,
        "counts": {"samples": len(swaps), "valid": len(swaps)},
        "settings": {"seed": seed, "tolerance_angstrom": RADIUS_TOLERANCE_ANGSTROM, **settings},
    }
    return write_sample_folder(draws, folder, TASK, seed, manifest)
