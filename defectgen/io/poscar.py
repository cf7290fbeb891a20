"""POSCAR files of VASP 5 and 6, those among them that pymatgen does not read as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from defectgen.errors import DefectgenError
from defectgen.one_line import reason_of

if TYPE_CHECKING:
    from pymatgen.core import Structure


UNLIKE_ROWS = "its rows of atoms differ in their columns; with selective dynamics each ends with three of T and F"
"""What numpy calls an inhomogeneous shape."""


def parse_poscar(text: str) -> Structure:
    """The crystal of one POSCAR, one with three scale factors or with names of potentials among them.

    Raises:
        DefectgenError: it cannot be read, or names no elements.
    """
    from pymatgen.io.vasp import Poscar

    try:
        found = Poscar.from_str(_plain_poscar(text))
    except IndexError as error:
        raise DefectgenError("cannot be read as POSCAR (it has fewer rows than atoms)") from error
    except ValueError as error:
        reason = UNLIKE_ROWS if "inhomogeneous" in str(error) else reason_of(error)
        raise DefectgenError(f"cannot be read as POSCAR ({reason})") from error
    except Exception as error:  # a damaged file raises nearly anything there
        raise DefectgenError(f"cannot be read as POSCAR ({reason_of(error)})") from error
    if not found.true_names:
        raise DefectgenError(
            "cannot be read as POSCAR (it names no elements, as VASP 4 wrote it; expected a line with their symbols "
            "before the numbers of atoms)"
        )
    return found.structure


def _plain_poscar(text: str) -> str:
    """A POSCAR with one scale factor and bare symbols, from one with three or with names of potentials."""
    lines = text.splitlines()
    if len(lines) < 8:
        return text
    scales = lines[1].split()
    if len(scales) >= 3 and all(_is_number(scale) for scale in scales[:3]):
        factors = np.array(scales[:3], dtype=np.float64)
        lines[1] = "1.0"
        for row in (2, 3, 4):
            values = np.array(lines[row].split()[:3], dtype=np.float64) * factors
            lines[row] = " ".join(f"{value:.16g}" for value in values)
        start = next((n for n in range(5, 9) if n < len(lines) and lines[n].strip()[:1] in ("C", "c", "K", "k")), None)
        if start is not None:
            for row in range(start + 1, len(lines)):
                words = lines[row].split()
                if len(words) < 3 or not all(_is_number(word) for word in words[:3]):
                    break
                scaled = np.array(words[:3], dtype=np.float64) * factors
                lines[row] = " ".join([*(f"{value:.16g}" for value in scaled), *words[3:]])
    words = lines[5].split()
    if words and not _is_number(words[0]):
        lines[5] = " ".join(re.split(r"[_/]", word)[0] for word in words)
    return "\n".join(lines) + "\n"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
