"""The folder that holds sampled crystals, whoever made them: files of the valid ones, a table of all, a manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from defectgen import __version__
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import require_writable

if TYPE_CHECKING:
    from pymatgen.core import Structure

MANIFEST, TABLE, STRUCTURES, FRAMES = "manifest.json", "samples.parquet", "structures", "samples.extxyz"

SCHEMA = {
    "index": pl.Int64,
    "raw_text": pl.String,
    "valid": pl.Boolean,
    "reason": pl.String,
    "formula": pl.String,
    "cif": pl.String,
    "task": pl.String,
    "conditions": pl.String,
    "seed": pl.Int64,
}
"""Columns of the table of samples; ``formula`` and ``cif`` are null where there is no crystal."""


@dataclass(frozen=True)
class SampleRow:
    """One sample as the folder holds it.

    Attributes:
        text: as it was written.
        structure: what it states; None if it is no crystal.
        reason: why it is refused; empty if it is valid.
        conditions: what was asked for.
    """

    text: str
    structure: Structure | None
    reason: str
    conditions: Mapping[str, object]


def refuse_folder(folder: Path) -> None:
    """Make sure that nothing is overwritten and that it can be written; meant to be called before the work starts.

    Raises:
        UsageError: it is a file, not empty, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name another one.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty.", "Name another folder.")
    require_writable(folder)


def write_sample_folder(
    draws: Sequence[SampleRow], folder: Path, task: str, seed: int, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a folder of samples; a new one appears complete or not at all, an empty one gets its manifest last.

    ``structures/*.cif`` and ``samples.extxyz`` hold the valid crystals, ``samples.parquet`` every draw:
    a draw that is a crystal but was refused has a CIF there, with ``valid`` false and the reason.

    Args:
        draws: in their order.
        folder: must be new or empty.
        task: that they answer.
        seed: with which they were drawn.
        manifest: what it is to say beside the version.

    Returns:
        The manifest.

    Raises:
        UsageError: the folder holds something already.
        DefectgenError: it cannot be written.
    """
    folder = folder.resolve()
    refuse_folder(folder)
    rows = [_row(index, draw, task, seed) for index, draw in enumerate(draws)]
    written = {"defectgen": __version__, **manifest}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder if folder.is_dir() else folder.parent))
        try:
            new = stage / "new"
            (new / STRUCTURES).mkdir(parents=True)
            for row in rows:
                if row["valid"]:
                    (new / STRUCTURES / f"{row['index']:05d}.cif").write_text(row["cif"], encoding="utf-8")
            pl.DataFrame(rows, schema=SCHEMA).write_parquet(new / TABLE)
            frames = [_extxyz(k, d.structure) for k, d in enumerate(draws) if d.structure is not None and not d.reason]
            (new / FRAMES).write_text("".join(frames), encoding="utf-8")
            (new / MANIFEST).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
            if folder.is_dir():  # perhaps someone's current one: it stays
                for part in (STRUCTURES, TABLE, FRAMES, MANIFEST):
                    (new / part).rename(folder / part)
            else:
                new.rename(folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise DefectgenError(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from error
    return written


def _row(index: int, draw: SampleRow, task: str, seed: int) -> dict[str, Any]:
    structure = draw.structure
    return {
        "index": index,
        "raw_text": draw.text,
        "valid": not draw.reason,
        "reason": draw.reason,
        "formula": None if structure is None else structure.composition.reduced_formula,
        "cif": None if structure is None else str(structure.to(fmt="cif")),
        "task": task,
        "conditions": json.dumps(dict(draw.conditions)),
        "seed": seed,
    }


def _extxyz(index: int, structure: Structure) -> str:
    """One frame of an extended XYZ file, positions in angstrom."""
    cell = " ".join(f"{x:.8f}" for x in structure.lattice.matrix.ravel())
    lines = [str(len(structure)), f'Lattice="{cell}" Properties=species:S:1:pos:R:3 index={index} pbc="T T T"']
    lines += [f"{site.specie.symbol} " + " ".join(f"{x:.8f}" for x in site.coords) for site in structure]
    return "\n".join(lines) + "\n"
