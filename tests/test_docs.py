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


def columns_of(text: str) -> dict[str, set[str]]:
    """Names in the first column of the tables of a page, by the heading above."""
    found: dict[str, set[str]] = {}
    for part in text.split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        firsts = [line.split("|")[1] for line in rest.splitlines() if line.startswith("| `")]
        found[title.replace("`", "")] = {name for cell in firsts for name in re.findall(r"`([a-z0-9_*]+)`", cell)}
    return found


def test_every_column_is_explained_and_every_explained_column_is_written(tmp_path: Path) -> None:
    import polars as pl

    from defectgen.core.properties import BY_COLUMN, COLUMNS
    from defectgen.dft.results import FLAGS, LAST, NUMBERS, TEXTS
    from defectgen_cli.app import main

    explained = columns_of((ROOT / "docs" / "reference" / "columns.md").read_text())
    run, scores, table = tmp_path / "run", tmp_path / "scores.csv", tmp_path / "table.csv"
    assert main(["design", "--host", "MoS2", "--homo", "0.1", "--max-defects", "1", "-n", "2", "-o", str(run)]) == 0
    assert main(["score", str(run / "structures"), "-o", str(scores)]) == 0
    assert main(["enumerate", "--host", "MoS2", "v_S", "-o", str(table)]) == 0
    properties = {*COLUMNS, *(item.uncertainty_column for item in BY_COLUMN.values())}
    assert {name for name in explained["Properties"] if "*" not in name} == set(COLUMNS)
    written = {
        "candidates.csv": set(pl.read_csv(run / "candidates.csv").columns),
        "scores.csv": set(pl.read_csv(scores).columns),
        "Tables of enumerate": set(pl.read_csv(table).columns),
        "Tables of results": {*TEXTS, *FLAGS, *NUMBERS, *LAST},
    }
    missing = {title: sorted(names - properties - explained[title]) for title, names in written.items()}
    assert missing == {title: [] for title in written}
    code = "\n".join(path.read_text() for path in (ROOT / "defectgen").rglob("*.py"))
    quoted = set(re.findall(r"[\"']([a-z0-9_]+)[\"']|^    ([a-z0-9_]+):", code, re.M))
    known = {name for pair in quoted for name in pair} | {f"dft_{name}" for name in COLUMNS}
    stale = {title: sorted(explained[title] - names - known) for title, names in written.items()}
    assert stale == {title: [] for title in written}
    assert len(explained["candidates.csv"]) > 20


def test_columns_of_a_page_are_those_of_its_tables() -> None:
    text = "# P\n\n`no`\n\n## A `b`\n\n| column | what |\n| --- | --- |\n| `x_ev`, `y` | as `z` |\n\n## C\n\n`d`\n"
    assert columns_of(text) == {"A b": {"x_ev", "y"}, "C": set()}
