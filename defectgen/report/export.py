"""A design run as a folder: tables, structure files, report, and a manifest written last."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

import defectgen
from defectgen.core.configuration import Configuration
from defectgen.core.vacuum import check_vacuum, host_with_vacuum, structure_with_vacuum
from defectgen.design.candidates import DesignRun
from defectgen.errors import UsageError
from defectgen.io.documents import read_object
from defectgen.io.folders import MANIFEST, claimed, contents, listing, write_folder
from defectgen.io.tables import write_csv, write_parquet
from defectgen.io.writers import OutputStructure, comment, format_names, write_structures, writer_of
from defectgen.report.design_page import render_report
from defectgen.report.rows import STRUCTURE_FORMATS, Row, rows_frame, run_rows

TOOL = "defectgen"
TABLES = ("csv", "parquet", "html")
"""Tables and page, which every run has."""

FORMATS = (*TABLES, "cif", "poscar")
"""What `write_run` writes beside the manifest unless told otherwise; see `known_formats`."""


def known_formats() -> tuple[str, ...]:
    """Tables and page, and every format of `defectgen.io.writers`."""
    return tuple(dict.fromkeys((*FORMATS, *format_names())))


@contextmanager
def claimed_run(folder: Path, overwrite: bool = False) -> Iterator[None]:
    """Keep other runs out of a folder that a run is going to be written to; meant to last as long as the work.

    What a killed run was moving in when it ended is replaced without `overwrite`.

    Args:
        folder: where the run is to go.
        overwrite: whether an earlier run there may be replaced.

    Raises:
        UsageError: it is a file, cannot be written, is not empty without `overwrite`, or holds no run of defectgen.
        DefectgenError: another run has it.
    """
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name another one.")
    with claimed(folder) as claim:
        if contents(folder):
            if not (overwrite or claim.continued):
                raise UsageError(
                    f"{folder} is not empty.", "Name another folder, or pass --overwrite to replace a run."
                )
            if not _holds_run(folder):
                raise UsageError(
                    f"{folder} holds no {MANIFEST} of {TOOL}, so nothing in it is replaced.", "Name another folder."
                )
        yield


def _holds_run(folder: Path) -> bool:
    try:
        manifest = read_object(folder / MANIFEST)
        return bool(manifest["tool"] == TOOL) and isinstance(manifest["files"], dict)
    except (OSError, ValueError, KeyError):
        return False


def write_run(
    run: DesignRun,
    folder: Path,
    formats: Collection[str] = FORMATS,
    *,
    vacuum_angstrom: float | None = None,
    overwrite: bool = False,
    top: int = 12,
    also: Callable[[Path], object] | None = None,
) -> Path:
    """Write a run into a folder.

    With `overwrite` only the unchanged files of the earlier run are removed: what the user put there or edited
    stays, edited files under a new name if theirs is taken. See `defectgen.io.folders.write_folder`.

    Args:
        run: what to write.
        folder: where to; its parents are made.
        formats: some of `known_formats`.
        vacuum_angstrom: empty height of the structures' cells, their layer in the middle; None for the host's own cell.
        overwrite: whether an earlier run in the folder may be replaced.
        top: candidates of a target shown with a picture in the report.
        also: writes more into the folder, which belongs to the run as its other files do.

    Returns:
        The manifest's path.

    Raises:
        UsageError: an unknown format, a vacuum out of range, or see `claimed_run`.
        DefectgenError: the folder cannot be written, or another run has it.
    """
    unknown = sorted(set(formats) - set(known_formats()))
    if unknown:
        raise UsageError(f"unknown format {', '.join(unknown)}.", f"Expected some of {', '.join(known_formats())}.")
    if vacuum_angstrom is not None:
        check_vacuum(vacuum_angstrom)
    chosen = {"poscar" if form == "vasp" else form for form in formats}
    with claimed_run(folder, overwrite):
        write_folder(folder, lambda new: _write_files(run, new, chosen, vacuum_angstrom, top, also), MANIFEST)
    return folder / MANIFEST


def _write_files(
    run: DesignRun,
    folder: Path,
    formats: Collection[str],
    vacuum_angstrom: float | None,
    top: int,
    also: Callable[[Path], object] | None,
) -> None:
    rows = run_rows(run, formats)
    host = None if vacuum_angstrom is None else host_with_vacuum(run.host, vacuum_angstrom)

    def cell(row: Row) -> Configuration:
        return row.configuration if host is None else Configuration(host, row.configuration.edits)

    for form in STRUCTURE_FORMATS:
        for row in rows:
            if form in formats:
                path = folder / row.files[form]
                path.parent.mkdir(exist_ok=True)
                writer_of(form).write(path, [OutputStructure(row.name, cell(row))])
    others = [form for form in sorted(formats) if form not in FORMATS]
    if others:
        predicted = [{k: v for k, v in row.candidate.predicted.items() if v is not None} for row in rows]
        items = [OutputStructure(r.name, cell(r), v) for r, v in zip(rows, predicted, strict=True)]
        write_structures(folder, items, others)
    for row in rows:
        if row.relaxed_file is not None and row.candidate.relaxation is not None:
            result = row.candidate.relaxation
            head = f"# {comment(row.configuration)}; relaxed by {result.potential}, {result.summary}\n"
            relaxed = result.structure
            if vacuum_angstrom is not None:
                relaxed = structure_with_vacuum(relaxed, vacuum_angstrom)
            path = folder / row.relaxed_file
            path.parent.mkdir(exist_ok=True)
            _write(path, head + str(relaxed.to(fmt="cif")))
    _write_tables(rows, folder, formats)
    if "html" in formats:
        _write(folder / "report.html", render_report(run, top))
    if also is not None:
        also(folder)
    manifest = {
        "tool": TOOL,
        "version": defectgen.__version__,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "complete": run.complete,
        "host": run.host.to_dict(),
        "reference": run.reference,
        "vacuum_angstrom": vacuum_angstrom,
        "targets": [
            {"id": target.id, "values": dict(target.values), "wishes": target.text, "notes": dict(target.notes)}
            for target in run.targets
        ],
        "counts": {
            "targets": len(run.targets),
            "candidates": len(rows),
            "distinct": len({row.configuration.key for row in rows}),
            "novel": sum(row.candidate.novel for row in rows),
        },
        "fronts": _plain([front.to_dict(run.labels_by) for front in run.fronts]),
        "settings": _plain(run.settings),
        "warnings": list(run.warnings),
        "files": listing(folder),
    }
    _write(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write_tables(rows: tuple[Row, ...], folder: Path, formats: Collection[str]) -> None:
    if not {"csv", "parquet"} & set(formats):
        return
    frame = rows_frame(rows)
    if "csv" in formats:
        write_csv(frame, folder / "candidates.csv")
    if "parquet" in formats:
        write_parquet(frame, folder / "candidates.parquet")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _plain(value: object) -> object:
    """A value as JSON can hold it; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    return str(value)
