"""The space group that a CIF names, and whether its atoms have that symmetry."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core.crystal import ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_NUMBERS = ("_symmetry_Int_Tables_number", "_space_group_IT_number", "_space_group.IT_number")
_SYMBOLS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt", "_space_group.name_H-M_alt")
_HALL = ("_symmetry_space_group_name_Hall", "_space_group_name_Hall", "_space_group.name_Hall")
_UNKNOWN = ("", "?", ".")

TOLERANCE_ANGSTROM = 0.1
"""Atoms this near to symmetric places count as symmetric: of rounded and of slightly relaxed coordinates."""


def named_groups(block: Any) -> tuple[str, ...]:
    """Numbers and symbols of space groups other than P 1, as a block of a CIF has them, without spaces."""
    numbers = [text for text in _values(block, _NUMBERS) if text != "1"]
    symbols = [text for text in _values(block, (*_SYMBOLS, *_HALL)) if text not in ("P1", "p1")]
    return tuple(dict.fromkeys([*numbers, *symbols]))


def contradicted_group(
    named: Sequence[str], lattice: NDArray[np.float64], species: Sequence[str], fractional: NDArray[np.float64]
) -> str:
    """Says which named group has more kinds of rotations and reflections than the atoms; empty if none has.

    Compared are the numbers of operations of each kind (identity, 2- to 6-fold axes, inversion, mirrors, ...) of the
    two point groups: no group has more of one than a group that it is a part of. Symbols that are not known are passed.

    Args:
        named: see `named_groups`.
        lattice: rows a, b, c in angstrom, shape (3, 3).
        species: element symbols, shape (n,).
        fractional: coordinates of all atoms of the cell, shape (n, 3).
    """
    import gemmi
    import spglib

    groups = [group for text in named if (group := _group(text)) is not None]
    if not groups:
        return ""
    numbers = [ELEMENTS.index(symbol) + 1 for symbol in species]
    cell = lattice.tolist(), fractional.tolist(), numbers
    found = spglib.get_symmetry_dataset(cell, symprec=TOLERANCE_ANGSTROM)
    if found is None:
        return ""
    own = gemmi.find_spacegroup_by_number(int(found.number))
    for group in groups:
        if _kinds(group) - _kinds(own):
            return f"names the space group {group.hm} ({group.number}), but its atoms have {own.hm} ({own.number})"
    return ""


def _values(block: Any, tags: tuple[str, ...]) -> Iterator[str]:
    import gemmi

    for tag in tags:
        text = gemmi.cif.as_string(block.find_value(tag) or "").replace(" ", "")
        if text not in _UNKNOWN:
            yield text


def _group(text: str) -> Any:
    import gemmi

    if text.isdecimal():
        return gemmi.find_spacegroup_by_number(int(text)) if len(text) < 4 and 1 <= int(text) <= 230 else None
    return gemmi.find_spacegroup_by_name(text)


def _kinds(group: Any) -> Counter[tuple[int, int]]:
    """How often each kind of rotation, by its trace and determinant, is in the point group."""
    rotations = {tuple(map(tuple, operation.rot)) for operation in group.operations().sym_ops}
    matrices = [np.array(rotation) / 24 for rotation in rotations]
    return Counter((round(float(np.trace(m))), round(float(np.linalg.det(m)))) for m in matrices)
