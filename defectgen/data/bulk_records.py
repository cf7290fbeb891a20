"""Instruction records of bulk crystals, as Gruver et al. 2024 (arXiv:2402.04379, appendix A.2) draw them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen import __version__
from defectgen.data.mp20 import LABELS, CrystalData, crystal_of, shared_formulas, split_by_formula
from defectgen.data.record_files import write_records
from defectgen.data.splits import PARTS
from defectgen.errors import DefectgenError, UsageError
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_text import BULK_PROMPT_VERSION
from defectgen.tasks.bulk.prompts import OURS, prompt_style

CONDITIONS = {
    "formula": "formula",
    "spacegroup": "spacegroup",
    "e_above_hull": "e_above_hull_ev",
    "band_gap": "band_gap_ev",
    "formation_energy": "formation_energy_per_atom_ev",
}
"""What a prompt can state, and the column it comes from."""

SPLITS = ("published", "formula")

NAMED_PROBLEMS = 20
"""So many of the rows left out are named in the manifest; all are counted."""


@dataclass(frozen=True)
class BulkRecordSettings:
    """What decides the records besides the data.

    Attributes:
        copies: records a crystal in the training part, each with its own task, conditions, mask and
            translation; the other parts hold one.
        max_atoms: crystals with more atoms in the cell are left out. The paper's bound is 30.
        split: ``published``, the files' own parts, or ``formula``, 80/10/10 with no formula in two parts.
        seed: of every random draw.
        prompts: name of the prompts, see `defectgen.tasks.bulk.prompts`.
        permute: atoms in random order, drawn anew for each record.
        absolute: positions in angstrom instead of shares of the lattice vectors.
    """

    copies: int = 1
    max_atoms: int = 30
    split: str = "formula"
    seed: int = 42
    prompts: str = OURS.name
    permute: bool = False
    absolute: bool = False

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise UsageError(f"got {self.copies} copies, expected at least 1.")
        if self.max_atoms < 1:
            raise UsageError(f"got at most {self.max_atoms} atoms, expected at least 1.")
        if self.split not in SPLITS:
            raise UsageError(
                f"unknown split {self.split!r} of bulk crystals.", f"Expected one of: {', '.join(SPLITS)}."
            )
        prompt_style(self.prompts)


def make_bulk_records(frame: pl.DataFrame, split: str, settings: BulkRecordSettings) -> Iterator[dict[str, Any]]:
    """The records of one part of the split, in the order of the ids.

    What each draws: see `defectgen.tasks.bulk.bulk_task.BulkTask`.

    Args:
        frame: columns of `CrystalData.frame`, with ``split``.
        split: ``train``, ``validation`` or ``test``.
        settings: see `BulkRecordSettings`.

    Yields:
        ``id``, ``task`` (``generation`` or ``infill``), ``split``, ``formula``, ``n_atoms``, ``conditions``
        (of a generation; energies in eV or eV/atom), ``prompt`` and ``completion``.
    """
    rows = frame.filter(pl.col("split") == split).sort("id")
    task = BulkTask(prompt_style(settings.prompts, absolute=settings.absolute), permute=settings.permute)
    for copy in range(settings.copies if split == PARTS[0] else 1):
        for row in rows.iter_rows(named=True):
            seed = hashlib.sha256(f"{settings.seed}/{split}/{copy}/bulk/{row['id']}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
            available = {name: row[column] for name, column in CONDITIONS.items()}
            record = task.record(crystal_of(row), available, rng)
            yield {
                "id": row["id"],
                "task": record.task,
                "split": split,
                "formula": row["formula"],
                "n_atoms": row["n_atoms"],
                "conditions": record.conditions,
                "prompt": record.prompt,
                "completion": record.completion,
            }


def build_bulk_data(
    data: CrystalData, output: Path, settings: BulkRecordSettings, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the records of all parts and, last, the manifest; see `defectgen.data.record_files.write_records`.

    Args:
        data: see `defectgen.data.mp20.read_crystals`.
        output: folder to write.
        settings: its ``split`` must be ``formula`` if the data states no parts.
        overwrite: replace records that were made with other settings.

    Returns:
        The manifest; with ``"skipped": True`` if nothing had to be done.

    Raises:
        UsageError: the folder holds other records or foreign files, or no parts are stated.
        DefectgenError: no crystal is small enough.
    """
    if settings.split == "published" and not data.own_split:
        raise UsageError("the data states no parts.", "Expected train.csv, val.csv and test.csv, or the split formula.")
    used = data.frame.filter(pl.col("n_atoms") <= settings.max_atoms)
    if used.is_empty():
        least = min(data.frame["n_atoms"].to_list())
        raise DefectgenError(f"all crystals have more than {settings.max_atoms} atoms, the smallest has {least}.")
    frame = used if settings.split == "published" else split_by_formula(used, seed=settings.seed)
    train = frame.filter(pl.col("split") == PARTS[0])
    wanted = {
        "defectgen": __version__,
        "prompt_version": BULK_PROMPT_VERSION,
        "settings": {"encoding": "bulk"} | asdict(settings),
        "data_sha256": _frame_hash(frame),
    }
    about = {
        "structures": {split: frame.filter(pl.col("split") == split).height for split in PARTS},
        "unusable": {"count": len(data.skipped), "first": [str(item) for item in data.skipped[:NAMED_PROBLEMS]]},
        "repeated": len(data.repeated),
        "too_large": len(data.frame) - len(used),
        "formulas_of_train": shared_formulas(frame),
        "max_atoms": train["n_atoms"].max(),
        "elements": sorted(set(train["species"].explode().to_list())),
        "covered": covered_values(train),
    }
    return write_records(
        output,
        wanted,
        lambda split: make_bulk_records(frame, split, settings),
        about,
        lambda record: str(record["task"]),
        overwrite=overwrite,
    )


def covered_values(frame: pl.DataFrame) -> dict[str, list[float]]:
    """Least and largest value of each label (eV or eV/atom) that any crystal has."""
    return {
        column: [round(float(frame[column].min()), 4), round(float(frame[column].max()), 4)]  # type: ignore[arg-type]
        for column in LABELS
        if frame[column].drop_nulls().len()
    }


def _frame_hash(frame: pl.DataFrame) -> str:
    text = frame.select("id", "split", "spacegroup", *LABELS, "cif").sort("id").write_csv(float_precision=6)
    return hashlib.sha256(text.encode()).hexdigest()
