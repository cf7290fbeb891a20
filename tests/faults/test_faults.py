"""Commands that are killed, fail or meet each other in a folder: nothing is lost, and the rerun gives the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from defectgen.io.files import claimed_files
from defectgen.io.folders import claimed
from defectgen.llm.adapter import installed_prompt_version
from defectgen_cli.app import main

JOB = Path(__file__).with_name("job.py")
COMMANDS = {
    "design", "build-data", "enumerate", "fetch", "score", "surrogate train", "finetune", "feedback", "generate",
    "stability", "inputs", "compute",
}  # fmt: skip


def report(*words: str) -> dict[str, Any]:
    """What the job of kills found, by command."""
    done = subprocess.run([sys.executable, str(JOB), *words], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert done.returncode == int(any(item["bad"] for item in found.values()))
    return dict(found)


def test_a_sample_of_kills() -> None:
    found = report("--only", "build-data,enumerate,fetch,score", "--kills", "5", "--signals", "1", "--full", "1")
    assert sum(item["kills"] for item in found.values()) >= 18
    assert sum(item["half_way"] for item in found.values()) >= 4
    assert all(item["signals"] and item["full"] for item in found.values())
    assert set(found) == {"build-data", "enumerate", "fetch", "score"}
    assert [item["bad"] for item in found.values() if item["bad"]] == []


@pytest.mark.slow
@pytest.mark.job
def test_three_hundred_kills() -> None:
    found = report("--kills", "40", "--signals", "3", "--full", "2")
    assert set(found) == COMMANDS
    assert [item["bad"] for item in found.values() if item["bad"]] == []
    assert sum(item["kills"] for item in found.values()) >= 300


CALLS: dict[str, list[str]] = {
    "design": ["design", "--host", "MoS2", "--homo", "0.1", "--lumo", "1.1", "-o"],
    "build-data": ["build-data", "--data", "2dmd", "-o"],
    "enumerate": ["enumerate", "v_S", "--cif-dir"],
    "enumerate -o": ["enumerate", "v_S", "-o"],
    "score": ["score", "files", "-o"],
    "surrogate train": ["surrogate", "train", "--data", "2dmd", "-o"],
    "generate": ["generate", "--model", "model", "-o"],
    "stability": ["stability", "crystals", "--hull", "hull.csv", "-o"],
    "template": ["template", "crystals", "-o"],
    "surrogate evaluate": ["surrogate", "evaluate", "--data", "2dmd", "-o"],
    "inputs": ["inputs", "files", "-o"],
    "results": ["results", "files", "-o"],
    "slices": ["slices", "--decode", "strings", "-o"],
    "shrink": ["shrink", "adapter", "--rank", "2", "-o"],
    "finetune": ["finetune", "smollm2-cpu", "--data", "records", "-o"],
    "feedback": ["feedback", "--data", "records", "-o"],
    "evaluate defect": ["evaluate", "defect", "--data", "2dmd", "-o"],
    "evaluate bulk": ["evaluate", "bulk", "crystals", "-o"],
    "data summary": ["data", "summary", "--data", "2dmd", "-o"],
    "data export": ["data", "export", "--data", "2dmd", "-o"],
}
FILES = (
    "enumerate -o",
    "score",
    "surrogate evaluate",
    "results",
    "evaluate defect",
    "evaluate bulk",
    "data summary",
    "data export",
)
"""Those that write a file."""


def call_of(name: str, folder: Path, data: Path) -> list[str]:
    """The words of a call: of what it reads there is the data set, and a manifest of records."""
    manifest = {
        "settings": {"encoding": "edits"}, "data_sha256": "", "prompt_version": installed_prompt_version("edits"),
        "files": {f"{part}.jsonl": {"sha256": "", "records": 1} for part in ("train", "validation", "test")},
        "records": {}, "structures": {}, "hosts": {"MoS2 8x8": {}},
    }  # fmt: skip
    (folder / "records").mkdir()
    (folder / "records" / "manifest.json").write_text(json.dumps(manifest))
    there = {"2dmd": str(data), "records": str(folder / "records")}
    return [there.get(word, word) for word in CALLS[name]]


def suffix_of(name: str) -> str:
    """Of what a call writes."""
    endings = {"evaluate defect": ".json", "evaluate bulk": ".json", "data summary": ".html"}
    return endings.get(name, ".csv" if name in FILES else "")


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line of a call that is refused."""
    assert main(words) in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.parametrize("name", CALLS)
def test_the_second_of_two_runs_is_refused(
    name: str, tmp_path: Path, tiny_2dmd: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before its work: no other input of these calls is there."""
    output = tmp_path / f"out{suffix_of(name)}"
    claim: Callable[[Path], AbstractContextManager[Any]] = claimed_files if name in FILES else claimed
    words = call_of(name, tmp_path, tiny_2dmd)
    running = subprocess.Popen(
        [tools / "python", "-c", CHILD.format(name=claim.__name__, path=str(output))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "held\n"
        assert "another run is writing" in refused(capsys, [*words, str(output)])
    finally:
        running.communicate("")
    assert not output.exists()


CHILD = """
import sys
from pathlib import Path
from defectgen.io.files import claimed_files
from defectgen.io.folders import claimed
from defectgen.llm.adapter import installed_prompt_version
with {name}(Path({path!r})):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", CALLS)
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    name: str, tmp_path: Path, tiny_2dmd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix = suffix_of(name)
    words = call_of(name, tmp_path, tiny_2dmd)
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for place in (tmp_path / "new" / f"{'x' * 300}{suffix}", tmp_path / "file" / f"out{suffix}"):
        assert "cannot be written" in refused(capsys, [*words, str(place)])
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "kept").mkdir(mode=0o500)
        assert "cannot be written" in refused(capsys, [*words, str(tmp_path / "kept" / f"out{suffix}")])
        (tmp_path / "kept").rmdir()
    assert sorted(tmp_path.rglob("*")) == before
