"""The vacuum level of a layer that pw.x computed: pp.x writes the potential, of which plane averages stay.

The cell's border lies in the vacuum, and a dipole correction jumps in its last twentieth. The vacuum level is the mean
of both sides of the layer, taken right beside that.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.errors import DefectgenError
from defectgen.io.documents import read_object
from defectgen.io.files import write_text

if TYPE_CHECKING:
    from pymatgen.core import Structure

INPUT, RAW, PLANES = "pp.in", "potential", "potential.json"

RYDBERG_EV = 27.211386245988 / 2

JUMP_START, JUMP_SHARE = 0.95, 0.05
"""Where a dipole correction jumps, in heights of the cell."""

BESIDE_JUMP = 0.01

LEAST_DISTANCE_ANGSTROM = 4.0
"""Nearer to an atom there is no vacuum."""

LONGEST_S = 3600.0


def write_input(folder: Path, prefix: str, out: str) -> None:
    """Write the input of pp.x."""
    text = f"&INPUTPP\n   prefix   = '{prefix}'\n   outdir   = './{out}'\n   plot_num = 11\n   filplot  = '{RAW}'\n/\n"
    (folder / INPUT).write_text(text, encoding="utf-8")


def compute_planes(folder: Path, command: Sequence[str], out: str) -> None:
    """Run the pp.x beside a pw.x, and keep the plane averages; without one, or if it fails, there are none.

    Args:
        folder: of a calculation that is done.
        command: words that started pw.x.
        out: folder in it where pw.x leaves its results, and this the averages.
    """
    words = [word.replace("pw.x", "pp.x") if Path(word).name == "pw.x" else word for word in command[:-1]]
    program = next((word for word in words if Path(word).name == "pp.x"), None)
    if program is None or shutil.which(program) is None or not (folder / INPUT).is_file():
        return
    try:
        subprocess.run(
            [*words, INPUT], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=True
        )
        planes = plane_averages(folder / RAW)
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    finally:
        (folder / RAW).unlink(missing_ok=True)
    write_text(folder / out / PLANES, json.dumps({"planes_ev": planes.round(6).tolist()}) + "\n")


def plane_averages(path: Path) -> NDArray[np.float64]:
    """Averages over the planes of a file of pp.x, from the bottom of the cell upwards, in eV, shape (planes,).

    Raises:
        ValueError: the file breaks off, or is none of pp.x.
    """
    with path.open(encoding="ascii") as file:
        next(file, "")
        sizes = [int(word) for word in next(file, "").split()]
        if len(sizes) != 8:
            raise ValueError("no sizes")
        padded_a, padded_b, _, a, b, c, atoms, species = sizes
        lattice = int(next(file, "0").split()[0])
        for _ in islice(file, (0 if lattice else 3) + 1 + species + atoms):
            pass
        values = np.fromstring(file.read(), sep=" ")
    grid = values[: padded_a * padded_b * c].reshape(c, padded_b, padded_a)[:, :b, :a]
    return np.asarray(grid.mean(axis=(1, 2)) * RYDBERG_EV)


def vacuum_level(result: Path, structure: Structure) -> float | None:
    """Potential in the vacuum on both sides of the layer, in eV on the zero of the levels; None if it is not known.

    Args:
        result: XML file of pw.x, beside the averages or in the save folder there.
        structure: in it.
    """
    path = next((place / PLANES for place in list(result.parents)[:2] if (place / PLANES).is_file()), None)
    if path is None:
        return None
    try:
        planes = np.asarray(read_object(path, {"planes_ev": list})["planes_ev"], dtype=np.float64)
    except (DefectgenError, TypeError, ValueError):
        return None
    heights = np.asarray(structure.frac_coords)[:, 2]
    level = []
    for height in (JUMP_START - BESIDE_JUMP, JUMP_START + JUMP_SHARE + BESIDE_JUMP):
        away = np.abs((heights - height + 0.5) % 1.0 - 0.5).min() * structure.lattice.c
        if away < LEAST_DISTANCE_ANGSTROM:
            return None
        near = round(height * len(planes)) + np.arange(-1, 2)
        level.append(np.average(planes[near % len(planes)], weights=(1, 2, 1)))  # without the ripple of the grid
    return float(np.mean(level))
