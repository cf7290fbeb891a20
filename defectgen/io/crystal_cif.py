"""Crystals from CIF text: a fast way for plain P1 files, pymatgen for all others."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from defectgen.core.crystal import ELEMENTS, Crystal, wrap
from defectgen.errors import DefectgenError

MERGE_FRACTION = 1e-4
"""Two atoms whose fractional coordinates all differ by less are one atom written twice."""

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_NUMBERS = ("_symmetry_Int_Tables_number", "_space_group_IT_number")
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:\d*[+-])?")


class CifError(DefectgenError):
    """Text that is no CIF of one ordered crystal; the message is the reason alone."""


def crystal_from_cif(text: str) -> Crystal:
    """The crystal in the text of a CIF, all atoms of the cell, in the order of the file if it is in P1.

    A file in P1, as Materials Project and MP-20 write it, is read directly; one with symmetry operations
    goes through pymatgen, which costs a hundred times as much. Fractional coordinates come back within
    [0, 1). Atoms of a file in P1 may lie on one place, see `check_apart`.

    Raises:
        CifError: no or several crystals, an unknown element, partial occupancy, or a cell without volume.
    """
    import gemmi

    try:
        block = gemmi.cif.read_string(text).sole_block()
    except (ValueError, RuntimeError, IndexError) as error:
        raise CifError(f"not a CIF of one crystal ({' '.join(str(error).split()):.100})") from error
    if not len(block.find_values("_atom_site_fract_x")):
        raise CifError("no atoms with fractional coordinates")
    return _read_p1(block) if _is_p1(block) else _read_symmetric(text)


def _is_p1(block: Any) -> bool:
    """Whether the only operation of the file is the identity."""
    import gemmi

    for tag in _OPERATIONS:
        operations = list(block.find_loop(tag)) or [found for found in [block.find_value(tag)] if found]
        if operations:
            try:
                return {gemmi.Op(gemmi.cif.as_string(item)) for item in operations} == {gemmi.Op("x,y,z")}
            except (ValueError, RuntimeError) as error:
                raise CifError(f"unreadable symmetry operation {operations[0]}") from error
    return any(block.find_value(tag) == "1" for tag in _NUMBERS)


def _read_p1(block: Any) -> Crystal:
    import gemmi

    cell = [gemmi.cif.as_number(block.find_value(f"_cell_{name}") or "?") for name in _CELL]
    if not all(map(math.isfinite, cell)):
        raise CifError("no cell")
    table = block.find("_atom_site_", ["type_symbol", "fract_x", "fract_y", "fract_z", "?occupancy"])
    if not len(table):
        table = block.find("_atom_site_", ["label", "fract_x", "fract_y", "fract_z", "?occupancy"])
    if not len(table):
        raise CifError("no atoms")
    species, positions = [], []
    for row in table:
        species.append(_element(gemmi.cif.as_string(row[0])))
        position = [gemmi.cif.as_number(row[k]) for k in (1, 2, 3)]
        if not all(map(math.isfinite, position)):
            raise CifError(f"no finite position for atom {len(species)} ({species[-1]})")
        if row.has(4) and gemmi.cif.as_number(row[4]) != 1:
            raise CifError(f"occupancy {row[4]} of atom {len(species)} ({species[-1]}), expected 1")
        positions.append(tuple(wrap(x) for x in position))
    lengths, angles = tuple(cell[:3]), tuple(cell[3:])
    try:
        return Crystal(lengths, angles, tuple(species), tuple(positions))  # type: ignore[arg-type]
    except ValueError as error:
        raise CifError(str(error)) from error


def _element(text: str) -> str:
    """The symbol of an atom type such as ``Fe``, ``Fe3+`` or the label ``Fe12``."""
    found = _SYMBOL.fullmatch(text) or _SYMBOL.fullmatch(text.rstrip("0123456789"))
    if found is None or found[1] not in ELEMENTS:
        raise CifError(f"{text!r} is no element")
    return found[1]


def _read_symmetric(text: str) -> Crystal:
    import warnings

    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coordinates rounded to ideal ones are no news
            structure = Structure.from_str(text, fmt="cif")
    except Exception as error:  # a damaged file raises nearly anything there
        raise CifError(f"unreadable ({type(error).__name__}: {' '.join(str(error).split()):.100})") from error
    try:
        return Crystal.from_structure(structure)
    except DefectgenError as error:
        raise CifError(str(error).rstrip(".")) from error


def check_apart(crystal: Crystal) -> None:
    """Make sure that no two atoms of a crystal are on one place: data are refused then, generated crystals are not.

    Raises:
        CifError: two are.
    """
    fractional = np.array(crystal.fractional)
    difference = fractional[:, None] - fractional[None]
    near = (np.abs(difference - np.round(difference)) < MERGE_FRACTION).all(axis=2)
    first, second = np.nonzero(np.triu(near, 1))
    if len(first):
        raise CifError(f"atoms {first[0] + 1} and {second[0] + 1} are on one place")
