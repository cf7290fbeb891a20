"""Enumerated or sampled decorations as files: one row each in a table, structures in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from defectgen import __version__
from defectgen.core import Configuration, Host
from defectgen.core.selection import Decoration
from defectgen.core.vacuum import host_with_vacuum
from defectgen.errors import UsageError
from defectgen.io.documents import read_json
from defectgen.io.files import write_text, write_whole
from defectgen.io.folders import MANIFEST, contents
from defectgen.io.host_tables import with_host
from defectgen.io.tables import write_csv, write_parquet
from defectgen.io.writers import OutputStructure, cif_text, poscar_text, write_structures, writer_of

_TEXTS = {"cif": cif_text, "poscar": poscar_text, "vasp": poscar_text}
"""Formats of which it is known whether a file is as it would be written."""

SCHEMA: dict[str, pl.DataType] = {
    "configuration": pl.String(),
    "defect_class": pl.String(),
    "label": pl.String(),
    "host": pl.String(),
    "supercell": pl.String(),
    "n_defects": pl.Int32(),
    "concentration": pl.Float64(),
    "formula": pl.String(),
    "multiplicity": pl.Int64(),
}
"""Columns of the table. ``multiplicity`` is the number of images under the host's symmetry."""


def to_frame(rows: list[Decoration]) -> pl.DataFrame:
    """Rows of the columns `SCHEMA`."""
    labels: dict[tuple[Any, ...], tuple[str, str]] = {}  # configurations of one class share both
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for row in rows:
        item = row.configuration
        kind = (row.defect_class, item.n_defects, *sorted(item.kinds.items()))
        if kind not in labels:
            labels[kind] = item.label, item.formula
        label, formula = labels[kind]
        columns["configuration"].append(item.key)
        columns["defect_class"].append(row.defect_class)
        columns["label"].append(label)
        columns["host"].append(item.host.name)
        columns["supercell"].append(item.host.size)
        columns["n_defects"].append(item.n_defects)
        columns["concentration"].append(item.concentration)
        columns["formula"].append(formula)
        columns["multiplicity"].append(row.multiplicity)
    return pl.DataFrame(columns, schema=SCHEMA)


def write_table(frame: pl.DataFrame, path: Path, host: Host) -> None:
    """Write a table of one host by its suffix; see `defectgen.io.files.write_whole`.

    Parquet, where a value that repeats costs nothing, carries the record of the host in the column ``host_record``.
    """
    if path.suffix.lower() == ".csv":
        write_whole(path, lambda part: write_csv(frame, part))
    else:
        write_whole(path, lambda part: write_parquet(with_host(frame, host), part))


class StructureFolder:
    """A folder with one file a configuration, or one of all, which an interrupted run of the same request fills up.

    Claim it first, see `defectgen.io.folders.claimed`.

    Args:
        folder: to write to; new, empty, or of the same request.
        request: what identifies the run: host, classes, seed.
        formats: of `defectgen.io.writers`; files of several structures are written at the end.
        vacuum_angstrom: empty height of the cells, the layer in the middle; None for the host's own.
        overwrite: whether a file that was changed is written anew.

    Raises:
        UsageError: the folder holds something else, an unknown format, or a vacuum out of range.
    """

    def __init__(
        self,
        folder: Path,
        host: Host,
        request: dict[str, Any],
        formats: Sequence[str] = ("cif",),
        vacuum_angstrom: float | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self._host = None if vacuum_angstrom is None else host_with_vacuum(host, vacuum_angstrom)
        self._single = [name for name in formats if not writer_of(name).several]
        self._several = [name for name in formats if writer_of(name).several]
        self._all: list[OutputStructure] = []
        self._overwrite = overwrite
        about = {
            "stage": "enumerate",
            "defectgen": __version__,
            "host": host.name,
            "supercell": host.size,
            "lattice_angstrom": host.lattice,
            "species": host.species,
            "frac_coords": host.frac_coords,
            "rules": [f"{rule.element}:{rule.replacement}" for rule in host.rules],
            **request,
            "formats": list(formats),
            "vacuum_angstrom": vacuum_angstrom,
        }
        self._about = json.loads(json.dumps(about))
        manifest = folder / MANIFEST
        if manifest.is_file():
            try:
                found = read_json(manifest)
            except ValueError:
                found = {}
            if not isinstance(found, dict) or {key: found.get(key) for key in self._about} != self._about:
                raise UsageError(f"{folder} holds structures of another request.", "Choose another folder.")
        elif contents(folder):
            raise UsageError(f"{folder} holds other files.", "Choose another folder.")

    def add(self, number: int, row: Decoration) -> None:
        """Write one structure unless it is there.

        Raises:
            UsageError: the file that is there was changed.
        """
        if number == 1:
            self._finish(None)
        found = row.configuration
        item = found if self._host is None else Configuration(self._host, found.edits)
        name = f"{number:06d}_{found.label}"
        if self._several:
            self._all.append(OutputStructure(name, item))
        for form in self._single:
            self._write(self.folder / f"{name}{writer_of(form).suffix}", form, item)

    def _write(self, path: Path, form: str, item: Configuration) -> None:
        """Write a file of one structure unless it is there."""
        if form not in _TEXTS:
            write_structures(self.folder, {path.stem: item}, [form])
            return
        text = _TEXTS[form](item)
        there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        if there not in (None, text) and not self._overwrite:
            raise UsageError(f"{path} was changed since it was written.", "Add --overwrite, or choose another folder.")
        if there != text:
            write_text(path, text)

    def close(self, number: int) -> None:
        """Write what is written at the end, and note that all are there."""
        if self._all:
            for form in self._several:
                (self.folder / f"structures{writer_of(form).suffix}").unlink(missing_ok=True)
            write_structures(self.folder, self._all, self._several)
        self._finish(number)

    def _finish(self, number: int | None) -> None:
        write_text(self.folder / MANIFEST, json.dumps({**self._about, "structures": number}, indent=1) + "\n")


def numbered(rows: Iterator[Decoration], folder: StructureFolder | None) -> Iterator[Decoration]:
    """The rows, each written to the folder on its way."""
    number = 0
    for number, row in enumerate(rows, 1):
        if folder is not None:
            folder.add(number, row)
        yield row
    if folder is not None:
        folder.close(number)
