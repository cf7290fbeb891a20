"""The examples of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from doc_pages import PAGES, ROOT, SHELL, blocks_of, indented_commands, name_of
from typer.main import get_command

from defectgen_cli.app import app


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("https://"):
            assert (page.parent / link).resolve().exists(), link


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


def unknown_options(page: Path) -> list[str]:
    """Options in the commands of a page that the commands do not have."""
    program: Any = get_command(app)
    lines = (
        "\n".join(block.code for block in blocks_of(page) if block.language in SHELL).replace("\\\n", " ").splitlines()
    )
    wrong = []
    for line in [*lines, *indented_commands(page.read_text())]:
        for part in re.split(r"&&|\||;", line.split(" #")[0]):
            words = part.split()
            if "defectgen" not in {Path(word).name for word in words[:1]}:
                continue
            command, names = program, []
            while len(names) + 1 < len(words) and words[len(names) + 1] in getattr(command, "commands", {}):
                names.append(words[len(names) + 1])
                command = command.commands[names[-1]]
            known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
            known |= {"--help", "--install-completion", "--show-completion", "--debug", "--version"}
            given = [re.split("=", word)[0] for word in words if re.match(r"--[a-z]", word)]
            wrong += [f"{' '.join(names)} {option}" for option in given if option not in known]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_the_documentation_exist(page: Path) -> None:
    assert unknown_options(page) == []


def test_a_wrong_option_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\ndefectgen hosts --jason && .venv/bin/defectgen surrogate train --hosts X\n```\n")
    assert unknown_options(page) == ["hosts --jason", "surrogate train --hosts"]


def test_every_column_is_explained(tmp_path: Path) -> None:
    import polars as pl

    from defectgen.dft.results import FLAGS, LAST, NUMBERS, TEXTS
    from defectgen_cli.app import main

    text = (ROOT / "docs" / "reference" / "columns.md").read_text()
    explained = set(re.findall(r"`([a-z0-9_*]+)`", text))
    run, scores, table = tmp_path / "run", tmp_path / "scores.csv", tmp_path / "table.csv"
    assert main(["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "-n", "2", "-o", str(run)]) == 0
    assert main(["score", str(run / "structures"), "-o", str(scores)]) == 0
    assert main(["enumerate", "--host", "MoS2", "v_S", "-o", str(table)]) == 0
    found = {name for path in (run / "candidates.csv", scores, table) for name in pl.read_csv(path).columns}
    found |= {*TEXTS, *FLAGS, *NUMBERS, *LAST}
    assert "multiplicity" in found
    assert sorted(name for name in found if name not in explained and "_uncertainty_" not in name) == []
