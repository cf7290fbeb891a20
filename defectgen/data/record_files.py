"""A folder of instruction records: one JSONL file a part and, written last, a manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from defectgen.data.splits import PARTS
from defectgen.errors import UsageError

MANIFEST = "manifest.json"
STAGE = "build-data"
UNFINISHED = ".unfinished"
OWN_FILES = frozenset((UNFINISHED, *(f"{part}.jsonl" for part in PARTS), *(f".{part}.jsonl.part" for part in PARTS)))
"""What an interrupted run can leave in a folder, `UNFINISHED` always among it."""

Record = dict[str, Any]


def write_records(
    output: Path,
    wanted: Mapping[str, Any],
    records: Callable[[str], Iterable[Record]],
    about: Mapping[str, Any],
    group: Callable[[Record], str],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``train.jsonl``, ``validation.jsonl``, ``test.jsonl`` and, last, ``manifest.json``.

    A folder whose manifest says the same as `wanted` and whose files are whole is left as it is.

    Args:
        output: folder to write.
        wanted: what decides the records: version, settings, checksum of the data. Goes into the manifest.
        records: gives the records of a part.
        about: what else the manifest says.
        group: of a record, for the counts in the manifest.
        overwrite: replace records that were made with other settings.

    Returns:
        The manifest; with ``"skipped": True`` if nothing had to be done.

    Raises:
        UsageError: the folder holds other records or foreign files.
    """
    wanted = {"stage": STAGE, **wanted}
    path = output / MANIFEST
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        if not isinstance(found, dict) or found.get("stage") != STAGE:
            raise UsageError(f"{path} is not of records.", "Choose another folder.")
        same = all(found.get(key) == value for key, value in wanted.items())
        if same and _files_are_whole(output, found["files"]):
            return {**found, "skipped": True}
        if not same and not overwrite:
            raise UsageError(
                f"{output} holds records made with other settings or data.", "Choose another folder or add --overwrite."
            )
    elif output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, expected a folder.")
    elif output.exists() and any(output.iterdir()) and not _is_unfinished(output):
        raise UsageError(f"{output} holds other files.", "Choose another folder.")
    output.mkdir(parents=True, exist_ok=True)
    (output / UNFINISHED).touch()
    path.unlink(missing_ok=True)
    files: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    for split in PARTS:
        digest = hashlib.sha256()
        part = output / f".{split}.jsonl.part"
        with part.open("wb") as stream:
            n = 0
            for record in records(split):
                line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                stream.write(line)
                digest.update(line)
                n += 1
                counts[f"{split}/{group(record)}"] += 1
        part.replace(output / f"{split}.jsonl")
        files[f"{split}.jsonl"] = {"records": n, "sha256": digest.hexdigest()}
    manifest = {**wanted, "files": files, "records": dict(sorted(counts.items())), **about}
    part = output / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    (output / UNFINISHED).unlink()
    return manifest


def _is_unfinished(folder: Path) -> bool:
    """Whether all that is in a folder is what an interrupted run left."""
    names = {entry.name for entry in folder.iterdir()}
    return UNFINISHED in names and names <= OWN_FILES | {f".{MANIFEST}.part"}


def _files_are_whole(folder: Path, files: dict[str, dict[str, Any]]) -> bool:
    """Whether the files that a manifest lists are there as they were written."""
    for name, about in files.items():
        path = folder / name
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != about["sha256"]:
                return False
    return True
