"""What a study leaves in its folder: the table, relaxed crystals, inputs for VASP, and a manifest of them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from defectgen.errors import DefectgenError
from defectgen.io.crystal_files import RELAXED, file_label
from defectgen.io.folders import MANIFEST, is_unchanged, listing, own_files, write_folder
from defectgen.io.structures import parse_cif
from defectgen.io.tables import write_csv

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLE, VASP = "stability.csv", "vasp"
"""The table of results, and the subfolder of inputs."""


def write_results(
    rows: Sequence[Mapping[str, Any]], table: pl.DataFrame, folder: Path, about: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Write ``stability.csv``, ``relaxed/*.cif`` of all relaxed crystals, ``vasp/*/`` of the metastable ones.

    Those of an earlier call are taken away, see `defectgen.io.folders.write_folder`. A folder below ``vasp`` that
    holds anything but the files of an input as they were written stays as it is.

    Args:
        rows: of `defectgen.stability.assessment.relax_all`.
        table: of `defectgen.stability.assessment.judge`.
        folder: to write to.
        about: what the manifest is to say beside its files; ``counts`` gets the number of inputs.

    Returns:
        The manifest; of which crystals no input could be made, and which folders were left.

    Raises:
        DefectgenError: the folder cannot be written, or another run has it.
    """
    left = _used_inputs(folder)
    told = [f"{folder / VASP / name} holds more than an input, or was edited, and is left as it is." for name in left]
    manifest = dict(about)

    def fill(new: Path) -> None:
        (new / RELAXED).mkdir()
        n_inputs = 0
        for index, (row, metastable) in enumerate(zip(rows, table["metastable"], strict=True)):
            if not row.get("cif"):
                continue
            label = file_label(index, row["name"])
            (new / RELAXED / f"{label}.cif").write_text(row["cif"], encoding="utf-8")
            if metastable and label not in left:
                try:
                    write_vasp_input(parse_cif(row["cif"]), new / VASP / label)
                    n_inputs += 1
                except DefectgenError as error:
                    told.append(f"{row['name']}: {error}")
        write_csv(table, new / TABLE, float_precision=5)
        manifest["counts"] = {**about.get("counts", {}), "vasp_inputs": n_inputs}
        manifest["files"] = listing(new)
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    kept = [name for name in own_files(folder) if name.startswith(tuple(f"{VASP}/{label}/" for label in left))]
    write_folder(folder, fill, keep=kept)
    return manifest, told


def _used_inputs(folder: Path) -> list[str]:
    """Names of folders of inputs that hold anything else than what the manifest says was written."""
    own = own_files(folder)
    made = sorted(path for path in (folder / VASP).glob("*") if path.is_dir() and _is_label(path.name))
    return [
        path.name
        for path in made
        if path.is_symlink()
        or any(not is_unchanged(f, own.get(f"{VASP}/{path.name}/{f.name}")) for f in path.iterdir())
    ]


def _is_label(name: str) -> bool:
    """Whether a name is one of `file_label`."""
    return re.fullmatch(r"\d{5,}-[A-Za-z0-9_-]*", name) is not None


def write_vasp_input(structure: Structure, folder: Path) -> None:
    """Write POSCAR, INCAR and KPOINTS of a relaxation with the Materials Project's settings (MPRelaxSet).

    POTCAR files are licensed: ``POTCAR.spec`` names them, one a line in the order of the POSCAR.

    Raises:
        DefectgenError: an element for which these settings name no POTCAR.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MPRelaxSet(structure.get_sorted_structure()).write_input(str(folder), potcar_spec=True)
    except (KeyError, ValueError) as error:
        raise DefectgenError(f"no VASP input for {structure.composition.formula} ({error}).") from error
