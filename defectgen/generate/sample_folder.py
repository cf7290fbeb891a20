"""The folder that holds sampled crystals, whoever made them: files of the valid ones, a table of all, a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from defectgen import __version__
from defectgen.errors import UsageError
from defectgen.io.folders import MANIFEST, claimed, contents, listing, write_folder
from defectgen.io.tables import write_parquet
from defectgen.io.writers import OutputStructure, writer_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

TABLE, STRUCTURES, FRAMES = "samples.parquet", "structures", "samples.extxyz"

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


@contextmanager
def claimed_samples(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder of samples, which must hold nothing; meant to last as long as the work.

    Samples that a killed run was moving in when it ended are replaced.

    Raises:
        UsageError: it is a file, not empty, or cannot be written.
        DefectgenError: another run has it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name another one.")
    with claimed(folder) as claim:
        if contents(folder) and not claim.continued:
            raise UsageError(f"{folder} is not empty.", "Name another folder.")
        yield


def write_sample_folder(
    draws: Sequence[SampleRow], folder: Path, task: str, seed: int, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a folder of samples, the manifest last; see `defectgen.io.folders.write_folder`.

    ``structures/*.cif`` and ``samples.extxyz`` hold the valid crystals, ``samples.parquet`` every draw:
    a draw that is a crystal but was refused has a CIF there, with ``valid`` false and the reason.

    Args:
        draws: in their order.
        folder: must be new or empty.
        task: that they answer.
        seed: with which they were drawn.
        manifest: what it is to say beside version and files.

    Returns:
        The manifest.

    Raises:
        UsageError: the folder holds something already.
        DefectgenError: it cannot be written, or another run has it.
    """
    rows = [_row(index, draw, task, seed) for index, draw in enumerate(draws)]
    written: dict[str, Any] = {"defectgen": __version__, **manifest}

    def fill(new: Path) -> None:
        (new / STRUCTURES).mkdir()
        for row in rows:
            if row["valid"]:
                (new / STRUCTURES / f"{row['index']:05d}.cif").write_text(row["cif"], encoding="utf-8")
        write_parquet(pl.DataFrame(rows, schema=SCHEMA), new / TABLE)
        frames = [
            OutputStructure(f"{index:05d}", draw.structure, {"index": index})
            for index, draw in enumerate(draws)
            if draw.structure is not None and not draw.reason
        ]
        writer_of("extxyz").write(new / FRAMES, frames)
        written["files"] = listing(new)
        (new / MANIFEST).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")

    with claimed_samples(folder):
        write_folder(folder, fill, MANIFEST)
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
