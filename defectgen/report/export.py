"""A design run as a folder: tables, structure files, report, and a manifest written last."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath, PurePosixPath

import defectgen
from defectgen.design.candidates import DesignRun
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import read_object
from defectgen.io.files import file_hash, require_writable
from defectgen.io.tables import write_csv
from defectgen.io.writers import OutputStructure, comment, format_names, write_structures, writer_of
from defectgen.report.design_page import render_report
from defectgen.report.rows import STRUCTURE_FORMATS, Row, rows_frame, run_rows

MANIFEST = "manifest.json"
TOOL = "defectgen"
FORMATS = ("csv", "parquet", "cif", "poscar", "html")
"""What `write_run` writes beside the manifest unless told otherwise; see `known_formats`."""


def known_formats() -> tuple[str, ...]:
    """Tables and page, and every format of `defectgen.io.writers`."""
    return tuple(dict.fromkeys((*FORMATS, *format_names())))


def check_output_folder(folder: Path, overwrite: bool = False) -> None:
    """Make sure that a run may be written to a folder; meant to be called before the work starts.

    Args:
        folder: where the run is to go.
        overwrite: whether an earlier run there may be replaced.

    Raises:
        UsageError: it is a file, cannot be written, is not empty without `overwrite`, or holds no run of defectgen.
    """
    if not folder.exists() and not folder.is_symlink():
        require_writable(folder)
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name another one.")
    require_writable(folder)
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{folder} is not empty.", "Name another folder, or pass --overwrite to replace a run.")
    if _read_manifest(folder) is None:
        raise UsageError(
            f"{folder} holds no {MANIFEST} of {TOOL}, so nothing in it is replaced.", "Name another folder."
        )


def write_run(
    run: DesignRun, folder: Path, formats: Collection[str] = FORMATS, *, overwrite: bool = False, top: int = 12
) -> Path:
    """Write a run into a folder.

    All files are first written to a temporary folder. A new folder then appears by one rename; in
    a folder that exists already the files are moved in, the manifest last, and moved back if that
    fails. With `overwrite` only the unchanged files of the earlier run are removed: what the user
    put there or edited stays, edited files under a new name if theirs is taken.

    Args:
        run: what to write.
        folder: where to; its parents are made.
        formats: some of `known_formats`.
        overwrite: whether an earlier run in the folder may be replaced.
        top: candidates of a target shown with a picture in the report.

    Returns:
        The manifest's path.

    Raises:
        UsageError: an unknown format, or see `check_output_folder`.
        DefectgenError: the folder cannot be written.
    """
    unknown = sorted(set(formats) - set(known_formats()))
    if unknown:
        raise UsageError(f"unknown format {', '.join(unknown)}.", f"Expected some of {', '.join(known_formats())}.")
    check_output_folder(folder, overwrite)
    exists = folder.is_dir()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{TOOL}-", dir=folder if exists else folder.parent))
    except OSError as error:
        raise DefectgenError(f"{folder} cannot be written: {error.strerror}.", "Name another folder.") from error
    try:
        _write_files(run, stage / "new", formats, top)
        if exists:
            _move_in(stage, folder)
        else:
            (stage / "new").rename(folder)
    except OSError as error:
        raise DefectgenError(f"{folder} cannot be written: {error.strerror}.", "Nothing was changed there.") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return folder / MANIFEST


def _write_files(run: DesignRun, folder: Path, formats: Collection[str], top: int) -> None:
    folder.mkdir()
    rows = run_rows(run, formats)
    for form in STRUCTURE_FORMATS:
        for row in rows:
            if form in formats:
                path = folder / row.files[form]
                path.parent.mkdir(exist_ok=True)
                writer_of(form).write(path, [OutputStructure(row.name, row.configuration)])
    others = [form for form in sorted(formats) if form not in FORMATS]
    if others:
        predicted = [{k: v for k, v in row.candidate.predicted.items() if v is not None} for row in rows]
        items = [OutputStructure(r.name, r.configuration, v) for r, v in zip(rows, predicted, strict=True)]
        write_structures(folder, items, others)
    for row in rows:
        if row.relaxed_file is not None and row.candidate.relaxation is not None:
            result = row.candidate.relaxation
            head = f"# {comment(row.configuration)}; relaxed by {result.potential}, {result.summary}\n"
            _write(folder / row.relaxed_file, head + str(result.structure.to(fmt="cif")))
    _write_tables(rows, folder, formats)
    if "html" in formats:
        _write(folder / "report.html", render_report(run, top, formats))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "tool": TOOL,
        "version": defectgen.__version__,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "complete": run.complete,
        "host": run.host.to_dict(),
        "reference": run.reference,
        "targets": [{"id": target.id, "values": dict(target.values)} for target in run.targets],
        "counts": {
            "targets": len(run.targets),
            "candidates": len(rows),
            "distinct": len({row.configuration.key for row in rows}),
            "novel": sum(row.candidate.novel for row in rows),
        },
        "settings": _plain(run.settings),
        "warnings": list(run.warnings),
        "files": {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
                  for path in files},
    }  # fmt: skip
    partial = folder / f"{MANIFEST}.partial"
    _write(partial, json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(folder / MANIFEST)


def _write_tables(rows: tuple[Row, ...], folder: Path, formats: Collection[str]) -> None:
    if not {"csv", "parquet"} & set(formats):
        return
    frame = rows_frame(rows)
    if "csv" in formats:
        write_csv(frame, folder / "candidates.csv")
    if "parquet" in formats:
        frame.write_parquet(folder / "candidates.parquet")


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


def _read_manifest(folder: Path) -> dict[str, str] | None:
    """Path -> sha256 of the files of the run in a folder, or None if it holds none."""
    try:
        manifest = read_object(folder / MANIFEST)
        if manifest["tool"] != TOOL:
            return None
        return {str(path): str(entry["sha256"]) for path, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _unchanged(folder: Path) -> list[str]:
    """Files that the run in a folder wrote and nobody edited since, its manifest last."""
    listed = _read_manifest(folder)
    if listed is None:
        return []
    kept = []
    for name, sha256 in sorted(listed.items()):
        inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        path = folder / name
        if inside and not path.is_symlink() and path.is_file() and file_hash(path) == sha256:
            kept.append(name)
    return [*kept, MANIFEST]


def _move_in(stage: Path, folder: Path) -> None:
    """Replace the earlier run in `folder` by ``stage/new``, or leave all as it was."""
    new = sorted(path.relative_to(stage / "new") for path in (stage / "new").rglob("*") if path.is_file())
    new.sort(key=lambda path: path == Path(MANIFEST))
    with contextlib.ExitStack() as undo:

        def move(source: Path, target: Path) -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            undo.callback(_move_back, target, source)
            source.rename(target)

        old = _unchanged(folder)
        for name in old:
            move(folder / name, stage / "old" / name)
        for relative in new:
            target = folder / relative
            if target.exists() or target.is_symlink():
                move(target, _free_name(target))
            move(stage / "new" / relative, target)
        undo.pop_all()  # all is in place: nothing is moved back
    for parent in sorted({(folder / name).parent for name in old} - {folder}, reverse=True):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _move_back(target: Path, source: Path) -> None:
    if not source.exists() and target.exists():
        target.rename(source)


def _free_name(path: Path) -> Path:
    """A name beside `path` that nothing has: ``report.html`` -> ``report.html.kept-1``."""
    number = 1
    while os.path.lexists(path.with_name(f"{path.name}.kept-{number}")):
        number += 1
    return path.with_name(f"{path.name}.kept-{number}")
