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
from defectgen.io.documents import read_json
from defectgen.io.files import file_hash

MANIFEST = "manifest.json"
STAGE = "build-data"
UNFINISHED = ".unfinished"
PROPOSALS = "proposals.jsonl"
"""Beside pairs: all proposals that they were chosen from."""
_TABLES = (PROPOSALS, *(f"{part}.jsonl" for part in PARTS))
OWN_FILES = frozenset((UNFINISHED, *_TABLES, *(f".{name}.part" for name in _TABLES)))
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

    A folder whose manifest says the same as `wanted` and whose files are whole is left as it is; where one is
    missing, all are made again.

    Args:
        output: folder to write.
        wanted: what decides the records: version, settings, checksum of the data. Goes into the manifest.
        records: gives the records of a part.
        about: what else the manifest says.
        group: of a record, for the counts in the manifest.
        overwrite: replace records that were made with other settings, or changed since.

    Returns:
        The manifest; with ``"skipped": True`` if nothing had to be done.

    Raises:
        UsageError: the folder holds other or changed records, or foreign files.
    """
    wanted = {"stage": STAGE, **wanted}
    path = output / MANIFEST
    if path.is_file():
        try:
            found = read_json(path)
        except ValueError:
            found = {}
        if not isinstance(found, dict) or found.get("stage") != STAGE:
            raise UsageError(f"{path} is not of records.", "Choose another folder.")
        same = all(found.get(key) == value for key, value in wanted.items())
        states = (
            {name: _state(output / name, about["sha256"]) for name, about in found["files"].items()} if same else {}
        )
        if same and set(states.values()) == {"whole"}:
            return {**found, "skipped": True}
        changed = [name for name, state in states.items() if state == "changed"]
        if (changed or not same) and not overwrite:
            what = (
                f"{changed[0]}, changed since it was written" if changed else "records made with other settings or data"
            )
            raise UsageError(f"{output} holds {what}.", "Choose another folder or add --overwrite.")
    elif output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, expected a folder.")
    elif output.exists() and any(output.iterdir()) and not _is_unfinished(output):
        raise UsageError(f"{output} holds other files.", "Choose another folder.")
    output.mkdir(parents=True, exist_ok=True)
    (output / UNFINISHED).touch()
    path.unlink(missing_ok=True)
    made: dict[str, dict[str, Any]] = {}
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
        made[f"{split}.jsonl"] = {"records": n, "sha256": digest.hexdigest()}
    manifest = {**wanted, "files": made, "records": dict(sorted(counts.items())), **about}
    part = output / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    (output / UNFINISHED).unlink()
    return manifest


def _is_unfinished(folder: Path) -> bool:
    """Whether all that is in a folder is what an interrupted run left."""
    names = {entry.name for entry in folder.iterdir()}
    return UNFINISHED in names and names <= OWN_FILES | {f".{MANIFEST}.part"}


def _state(path: Path, sha256: str) -> str:
    """Whether a file is ``whole``, as it was written, ``changed`` or ``missing``."""
    if not path.is_file():
        return "missing"
    return "whole" if file_hash(path) == sha256 else "changed"
