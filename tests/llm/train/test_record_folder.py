"""Records are compared with their manifest before anything learns from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from stamped import stamp_records
from training_runs import config

from defectgen.errors import DefectgenError
from defectgen.llm.train.dry_run import dry_run
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.record_folder import read_manifest, read_parts

Change = Callable[[Path], object]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def truncate(folder: Path) -> None:
    path = folder / "train.jsonl"
    path.write_text("".join(lines(path)[:-3]))


def leak(folder: Path) -> None:
    path = folder / "train.jsonl"
    path.write_text("".join(lines(path)[:-1] + lines(folder / "test.jsonl")[:1]))


def change_a_digit(folder: Path) -> None:
    path = folder / "validation.jsonl"
    path.write_text(path.read_text().replace('"copies": 1', '"copies": 2').replace("HOMO 0", "HOMO 1", 1) + " ")


def manifest_with(change: Callable[[dict[str, object]], object]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return apply


CHANGES: list[tuple[Change, str]] = [
    (truncate, r"train\.jsonl is not the file that manifest\.json names"),
    (leak, r"train\.jsonl is not the file"),
    (change_a_digit, r"validation\.jsonl is not the file"),
    (lambda folder: (folder / "test.jsonl").unlink(), r"test\.jsonl is missing"),
    (lambda folder: (leak(folder), stamp_records(folder)), r"line \d+: a record of the part 'test', expected 'train'"),
    (manifest_with(lambda m: m.pop("files")), "the key 'files' is missing"),
    (manifest_with(lambda m: m.pop("hosts")), "does not say the hosts of its records"),
    (manifest_with(lambda m: m.update(files={})), r"files, train\.jsonl: got None"),
    (manifest_with(lambda m: m["files"]["train.jsonl"].update(records=1)), r"holds 112 records, manifest\.json says 1"),  # type: ignore[index]
    (manifest_with(lambda m: m.update(settings=[1])), r"settings is \[1\], expected an object"),
    (manifest_with(lambda m: m.update(settings={"encoding": ["edits"]})), r"encoding is \['edits'\], expected a text"),
    (manifest_with(lambda m: m.update(covered_ev=[1])), r"covered_ev: got \[1\]"),
    (lambda folder: (folder / "manifest.json").write_text("[" * 9999), "nested deeper"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), r"got \[\], expected keys"),
    (lambda folder: (folder / "manifest.json").write_bytes(b'{"a": "\xe9"}'), "not UTF-8"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=range(len(CHANGES)))
def test_changed_records_are_refused_with_the_reason(
    change: Change, reason: str, tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    shutil.copytree(records, tmp_path / "data")
    change(tmp_path / "data")
    run = config(tiny_model_dir, max_steps=1)
    for train in (lambda: finetune(run, tmp_path / "data", tmp_path / "out"), lambda: dry_run(run, tmp_path / "data")):
        with pytest.raises(DefectgenError, match=reason) as error:
            train()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_parts_of_whole_records_are_read(records: Path) -> None:
    manifest = read_manifest(records)
    parts = read_parts(records, manifest)
    assert {part: len(rows) for part, rows in parts.items()} == {
        part: manifest["files"][f"{part}.jsonl"]["records"] for part in ("train", "validation", "test")
    }
    assert len(parts["train"]) == 112
