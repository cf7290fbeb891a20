"""The examples of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from doc_pages import PAGES, ROOT, name_of
from typer.main import get_command

from defectgen_cli.app import app

MADE = {
    "reference/cli.md",
    "reference/configurations.md",
    "models/adapter.md",
    "models/surrogate.md",
    "models/labels.md",
}
"""Pages that docs/site_pages.py makes; mkdocs checks the links to them."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("https://"):
            target = (page.parent / link).resolve()
            made = target.is_relative_to(ROOT / "docs") and str(target.relative_to(ROOT / "docs")) in MADE
            made |= target.parent == ROOT / "docs/notebooks" and target.with_suffix(".ipynb").exists()
            assert made or target.exists(), link


def test_a_page_that_is_not_there_would_be_found() -> None:
    assert {name_of(page) for page in PAGES} >= {"README", "python", "results", "tutorials/first-design"}
    assert any(not link.startswith("https://") for link in re.findall(r"\]\(([^)#]+)", PAGES[0].read_text()))


def commands_of(text: str) -> set[tuple[str, str]]:
    """Both words after ``defectgen`` in the code of a page, Python left out; the second may be empty."""
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    fenced = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return set(
        re.findall(r"(?:^|(?<!import)[\s/])defectgen ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", "\n".join(fenced + inline))
    )


def unknown_commands(text: str) -> list[str]:
    """Those of `commands_of` that the program does not have."""
    known: Any = get_command(app)
    wrong = []
    for first, second in sorted(commands_of(text)):
        command = known.commands.get(first)
        if command is None or (hasattr(command, "commands") and second and second not in command.commands):
            wrong.append(f"{first} {second}".strip())
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_documentation_exist(page: Path) -> None:
    assert unknown_commands(page.read_text()) == []


def test_a_wrong_command_would_be_found() -> None:
    text = "```bash\ndefectgen designs --host MoS2\n.venv/bin/defectgen data summaries\n```\nand `defectgen score x`"
    assert unknown_commands(text) == ["data summaries", "designs"]
    assert {first for first, _ in commands_of(PAGES[0].read_text())} >= {"design", "fetch"}
