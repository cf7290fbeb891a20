"""Folders that a test changed, with the checksums of what is in them now."""

from __future__ import annotations

import json
from pathlib import Path

from defectgen.io.files import file_hash
from defectgen.io.stamps import stamps
from defectgen.llm.adapter import CHECKED, METADATA


def stamp_records(folder: Path) -> Path:
    """Write counts and checksums of the parts into the manifest of a folder of records."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {
        name: {"records": len((folder / name).read_text().splitlines()), "sha256": file_hash(folder / name)}
        for name in ("train.jsonl", "validation.jsonl", "test.jsonl")
    }
    path.write_text(json.dumps(manifest))
    return folder


def stamp_adapter(folder: Path) -> Path:
    """Write the checksums of its files into the card of an adapter."""
    path = folder / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": stamps(folder, CHECKED)}))
    return folder
