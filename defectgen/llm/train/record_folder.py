"""The folder of records that a run learns from, compared with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError, UsageError
from defectgen.io.documents import DocumentError, json_lines, read_object, require_object
from defectgen.io.files import file_hash
from defectgen.llm.adapter import BULK, installed_prompt_version
from defectgen.one_line import shown

MANIFEST = "manifest.json"
PARTS = ("train", "validation", "test")
KEYS: dict[str, type | tuple[type, ...]] = {
    "settings": dict,
    "data_sha256": str,
    "prompt_version": int,
    "files": dict,
    "records": dict,
    "structures": dict,
}
"""What the manifest must have."""

AGAIN = "Make the records again with `defectgen build-data` or `defectgen feedback`."


def read_manifest(data: Path) -> dict[str, Any]:
    """The manifest of a folder of records.

    Raises:
        DefectgenError: no records there, a damaged manifest, or one without the hosts of its records.
        UsageError: records with prompts of another version.
    """
    path = data / MANIFEST
    if not path.is_file():
        raise DefectgenError(f"{data} holds no records.", "Make them with `defectgen build-data`.")
    try:
        manifest = read_object(path, KEYS)
        require_object(manifest["settings"], f"{path}, settings", {"encoding": str})
        for part in PARTS:
            about = require_object(manifest["files"].get(f"{part}.jsonl"), f"{path}, files, {part}.jsonl")
            require_object(about, f"{path}, files, {part}.jsonl", {"sha256": str, "records": int})
        for name in ("max_defects", "covered_ev", "hosts"):
            require_object(manifest.get(name, {}), f"{path}, {name}")
    except DocumentError as error:
        raise DefectgenError(str(error), AGAIN) from error
    installed, version = installed_prompt_version(manifest["settings"]["encoding"]), manifest["prompt_version"]
    if version != installed:
        raise UsageError(
            f"{data} holds records of prompt version {version}, this is {installed}.",
            "Make them again with `defectgen build-data`.",
        )
    if manifest["settings"]["encoding"] != BULK and not manifest.get("hosts"):
        raise DefectgenError(f"{data} does not say the hosts of its records.", AGAIN)
    return manifest


def read_parts(data: Path, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The records of each part.

    Args:
        data: folder of the records.
        manifest: of `read_manifest`.

    Raises:
        DefectgenError: a file that is missing or not the one of the manifest, or a record of another part.
    """
    parts = {}
    for part in PARTS:
        path, about = data / f"{part}.jsonl", manifest["files"][f"{part}.jsonl"]
        if not path.is_file():
            raise DefectgenError(f"{path} is missing.", AGAIN)
        if file_hash(path) != about["sha256"]:
            raise DefectgenError(f"{path} is not the file that {MANIFEST} names: its sha256 differs.", AGAIN)
        parts[part] = read_records(path)
        if len(parts[part]) != about["records"]:
            raise DefectgenError(f"{path} holds {len(parts[part])} records, {MANIFEST} says {about['records']}.", AGAIN)
        for number, record in enumerate(parts[part], 1):
            if record.get("split") != part:
                raise DefectgenError(
                    f"{path}, line {number}: a record of the part {shown(record.get('split'))}, expected {part!r}.",
                    AGAIN,
                )
    return parts


def read_records(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Records of one JSONL file.

    Raises:
        DefectgenError: missing file or broken line.
    """
    if not path.is_file():
        raise DefectgenError(f"{path} is missing.", "Expected records made by `defectgen build-data`.")
    records: list[dict[str, Any]] = []
    for number, record in json_lines(path):
        if limit is not None and len(records) == limit:
            break
        records.append(require_object(record, f"{path}, line {number}", {"prompt": str, "completion": str}))
    return records
