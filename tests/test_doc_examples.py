"""Every Python example of README and docs runs as it stands, and every command, or the page says why not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
from doc_pages import PAGE_REASON, PAGES, ROOT, SHELL, Block, blocks_of, indented_commands, name_of

from defectgen.data.assets import asset_path
from defectgen.errors import DefectgenError

ALL = {page: blocks_of(page) for page in PAGES}
STORIES = [page for page, blocks in ALL.items() if any(item.comment == "run" for item in blocks)]
"""Pages whose blocks follow from one another: they run in one folder, in their order."""

EXAMPLES = [
    pytest.param(item, id=f"{name_of(page)}-{number}")
    for page, blocks in ALL.items()
    if page not in STORIES
    for number, item in enumerate((item for item in blocks if item.language == "python"), 1)
]
WHOLE = (
    "main command",
    "test command",
    "dft example",
    "campaign example",
)  # run by .ci/run-wheel, .ci/run and .ci/run-dft


def missing(need: str) -> str:
    """Why something that an example needs is not there; empty if it is."""
    if need == "vllm":
        return "" if importlib.util.find_spec("vllm") else "vllm is not installed"
    try:
        asset_path(need)
    except DefectgenError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def commands(tools: Path) -> dict[str, str]:
    """An environment in which ``defectgen`` and ``python`` are those of this Python."""
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}


def run_block(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Run a block to its end; any failure of any line fails."""
    words = ["python", "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    call = ["env", *words, block.code]  # found on the path of the environment
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_runs(block: Block, tmp_path: Path, commands: dict[str, str]) -> None:
    for need in block.comment.removeprefix("needs: ").split() if block.comment.startswith("needs: ") else []:
        if reason := missing(need):
            pytest.skip(f"example left out: {reason}")
    run_block(block, tmp_path, commands)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) == "tutorials/own-host"))
        for page in STORIES
    ],
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, commands: dict[str, str]) -> None:
    folder = tmp_path / "clone"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "examples").symlink_to(ROOT / "docs" / "examples")
    for block in ALL[page]:
        if block.runs:
            run_block(block, folder, commands)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_that_is_not_run_says_why(page: Path) -> None:
    text = page.read_text()
    if PAGE_REASON.search(text):
        assert page not in STORIES, "the page says that its commands are not run"
        return
    silent = [
        block.code
        for block in ALL[page]
        if block.language in SHELL
        and not block.runs
        and block.comment not in WHOLE
        and not block.comment.startswith("not run: ")
    ]
    assert silent == []
    assert indented_commands(text) == [], "fence them, or say on the page why its commands are not run"


def test_all_examples_are_found() -> None:
    fences = sum(page.read_text().count("```python\n") for page in PAGES)
    assert fences == sum(item.language == "python" for blocks in ALL.values() for item in blocks)
    assert {"README-1", "python-1"} <= {example.id for example in EXAMPLES}
    assert {"index", "tutorials/first-design", "tutorials/own-table"} <= {name_of(page) for page in STORIES}


def test_a_command_without_a_reason_would_be_found(tmp_path: Path, commands: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\n```bash\ntrue\n```\n\n```bash\nfalse\n```\n\n    defectgen hosts\n")
    assert [(block.comment, block.runs) for block in blocks_of(page)] == [("run", True), ("", False)]
    assert indented_commands(page.read_text()) == ["defectgen hosts"]
    with pytest.raises(AssertionError, match="false"):
        run_block(Block(page, "bash", "false\n", "run"), tmp_path, commands)
