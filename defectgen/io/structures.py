"""Structures from files: CIF, POSCAR and extended XYZ, and whether what was read can be computed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.matching import NotADecorationError, configuration_from_structure
from defectgen.errors import DefectgenError
from defectgen.extras import import_extra

if TYPE_CHECKING:
    from pymatgen.core import Structure


def read_structure(path: Path) -> Structure:
    """The structure in a CIF or POSCAR file.

    Raises:
        DefectgenError: no such file, or one that cannot be read as a structure.
    """
    from pymatgen.core import Structure

    if not path.is_file():
        raise DefectgenError(f"{path} is not a file.", "Expected a CIF or a POSCAR.")
    try:
        with warnings.catch_warnings():  # about rounding of coordinates, well below any tolerance here
            warnings.simplefilter("ignore")
            return Structure.from_file(path)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DefectgenError(f"{path}: cannot be read as a CIF or POSCAR ({reason:.100}).") from error


def read_configuration(host: Host, path: Path) -> Configuration:
    """The configuration in a CIF or POSCAR file.

    Raises:
        DefectgenError: no such file, or one that cannot be read as a structure.
        NotADecorationError: no decoration of the host.
    """
    try:
        return configuration_from_structure(host, read_structure(path))
    except NotADecorationError as error:
        raise NotADecorationError(f"{path} is no decoration of {host.name} {host.size}: {error}") from error


def parse_cif(text: str) -> Structure:
    """The crystal of one CIF.

    Raises:
        DefectgenError: it cannot be read.
    """
    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rounded coordinates
            return Structure.from_str(text, fmt="cif")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DefectgenError(f"cannot be read as CIF ({reason:.100})") from error


def read_frames(path: Path) -> list[Any]:
    """The frames of an extended XYZ file as ASE's atoms.

    Raises:
        ValueError: it cannot be read.
        DefectgenError: ASE is not installed.
    """
    reader = import_extra("ase.io", "m3gnet", "reading extended XYZ files")
    try:
        return list(reader.read(path, index=":", format="extxyz"))
    except Exception as error:  # the reader raises nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot be read as extended XYZ ({reason:.100})") from error


def atoms_problem(structure: Structure) -> str:
    """Why no potential can compute a structure, as the end of a sentence; empty if one can."""
    from pymatgen.core import DummySpecies

    if len(structure) == 0:
        return "holds no atoms"
    if any(isinstance(species, DummySpecies) for species in structure.composition.elements):
        return "has a species that is no element"
    if not structure.is_ordered:
        return "has partially occupied sites, expected one element a site"
    if not (np.isfinite(structure.cart_coords).all() and np.isfinite(structure.lattice.matrix).all()):
        return "has coordinates that are no finite numbers"
    return ""
