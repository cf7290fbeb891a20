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
from defectgen.io.folders import MANIFEST, claimed, contents, write_folder

STAGE = "build-data"

Record = dict[str, Any]


def write_records(
    output: Path,
    wanted: Mapping[str, Any],
    records: Callable[[str], Iterable[Record]],
    about: Mapping[str, Any],
    group: Callable[[Record], str],
    *,
    overwrite: bool = False,
    begun: bool = False,
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
        overwrite: replace records that were made with other settings, or changed since; those that were changed
            are kept under another name.
        begun: whether the folder is known to be of this run, whatever else it holds.

    Returns:
        The manifest; with ``"skipped": True`` if nothing had to be done.

    Raises:
        UsageError: the folder holds other or changed records, or foreign files.
        DefectgenError: it cannot be written, or another run has it.
    """
    with claimed(output):
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
                    f"{changed[0]}, changed since it was written"
                    if changed
                    else "records made with other settings or data"
                )
                raise UsageError(f"{output} holds {what}.", "Choose another folder or add --overwrite.")
        elif contents(output) and not begun:
            raise UsageError(f"{output} holds other files.", "Choose another folder.")
        manifest: dict[str, Any] = {}

        def fill(new: Path) -> None:
            made: dict[str, dict[str, Any]] = {}
            counts: Counter[str] = Counter()
            for split in PARTS:
                digest = hashlib.sha256()
                with (new / f"{split}.jsonl").open("wb") as stream:
                    n = 0
                    for record in records(split):
                        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                        stream.write(line)
                        digest.update(line)
                        n += 1
                        counts[f"{split}/{group(record)}"] += 1
                made[f"{split}.jsonl"] = {"records": n, "sha256": digest.hexdigest()}
            manifest.update({**wanted, "files": made, "records": dict(sorted(counts.items())), **about})
            (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

        write_folder(output, fill, MANIFEST)
        return manifest


def _state(path: Path, sha256: str) -> str:
    """Whether a file is ``whole``, as it was written, ``changed`` or ``missing``."""
    if not path.is_file():
        return "missing"
    return "whole" if file_hash(path) == sha256 else "changed"
