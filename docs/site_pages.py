"""Pages of the site that are made from the code, the configurations, the cards and the notebooks (hook of mkdocs)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File
from typer.main import get_command

ROOT = Path(__file__).parent.parent
COPIES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "datasets/2dmd-labels.md": "models/labels.md",
    "defectgen/models/defect-smollm2/README.md": "models/adapter.md",
    "defectgen/models/crowded-smollm2/README.md": "models/crowded.md",
    "defectgen/models/bulk-smollm2/README.md": "models/bulk-adapter.md",
    "defectgen/models/surrogate/README.md": "models/surrogate.md",
    "defectgen/models/slices-catboost/README.md": "models/slices-catboost.md",
}
"""Files of the repository that are pages, too."""
PAGES = {
    **COPIES,
    "configs": "reference/configurations.md",
    "docs/reference/command_line.txt": "reference/cli.md",
    **{
        f"docs/notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in (ROOT / "docs/notebooks").glob("*.ipynb")
    },
}
"""Where the site shows what a link of the repository leads to."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    made = {
        "reference/cli.md": command_page(),
        "reference/configurations.md": configuration_page(),
        "models/data.md": data_page(),
        **{page: without_header((ROOT / source).read_text()) for source, page in COPIES.items()},
        **{
            f"notebooks/{path.stem}.md": notebook_page(json.loads(path.read_text()), path.name)
            for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
        },
    }
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files that are pages, too, lead to these pages; other files of the repository become names."""
    here = Path(page.file.src_uri).parent
    source = next((Path(source) for source, made in COPIES.items() if made == page.file.src_uri), None)
    folder = (ROOT / source).parent if source else ROOT / "docs" / here
    up = "../" * len(here.parts)

    def lead(found: re.Match[str]) -> str:
        text, link, anchor = found[1], found[2], found[3] or ""
        target = (folder / link).resolve()
        name = str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else ""
        if name in PAGES:
            return f"[{text}]({up}{PAGES[name]}{anchor})"
        if not name or (not source and name.startswith("docs/")):
            return found[0]
        if name.startswith("docs/"):
            return f"[{text}]({up}{name.removeprefix('docs/')}{anchor})"
        return f"{text} (`{name}`)" if text != name else f"`{name}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)", lead, markdown)


def commands() -> Iterator[tuple[str, Any]]:
    """Full name and command of everything that the program can do, in the order of its help."""
    from defectgen_cli.app import app

    program: Any = get_command(app)
    for name, command in program.commands.items():
        if inner := getattr(command, "commands", None):
            yield from ((f"{name} {second}", one) for second, one in inner.items())
        else:
            yield name, command


def command_page() -> str:
    """The commands with all their arguments and options, as their help has them."""
    lines = ["# Commands", "", (ROOT / "docs/reference/command_line.txt").read_text()]
    for name, command in commands():
        context = click.Context(command, info_name=f"defectgen {name}")
        lines += [f"## {name}", "", plain(command.help or ""), "", "| option | meaning |", "| --- | --- |"]
        for param in command.get_params(context):
            if record := param.get_help_record(context):
                lines.append(f"| {code(record[0])} | {cell(record[1])} |")
        lines.append("")
    return "\n".join(lines)


def configuration_page() -> str:
    """Keys of the configurations with types, defaults and meaning, and the shipped files."""
    from defectgen.config import config_keys
    from defectgen.dft.settings import DftSettings
    from defectgen.execution.clusters import ClusterConfig
    from defectgen.llm.train.finetune_config import FinetuneConfig

    parts = [
        ("Training: `finetune`", FinetuneConfig, ("defect", "bulk")),
        ("DFT: `inputs --settings`", DftSettings, ("dft",)),
        ("Clusters: `campaign run --executor`", ClusterConfig, ("executors",)),
    ]
    lines = [
        "# Configurations",
        "",
        "`defectgen init NAME` writes one to begin with. Unknown keys are refused. `--set key=value` changes one,",
        "with a dot for a nested key.",
        "",
    ]
    for title, model, groups in parts:
        lines += [f"## {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{key.name}` | {cell(key.kind)} | {code(key.default or 'required')} | {cell(key.meaning)} |"
            for key in config_keys(model)
        ]
        for group in groups:
            for path in sorted((ROOT / "configs" / group).glob("*.yaml")):
                lines += ["", f'??? "{group}/{path.stem}"', "", "    ```yaml"]
                lines += [f"    {line}" for line in path.read_text().splitlines()] + ["    ```"]
        lines.append("")
    return "\n".join(lines)


def data_page() -> str:
    """The cards of data sets and base models."""
    from defectgen.data.asset_cards import load_cards

    lines = ["# Data and base models", "", "What `defectgen fetch` gets, with licence, units and traps.", ""]
    for card in load_cards().values():
        lines += [f"## {card.title}", "", card.source, "", f"- Name: `{card.name}`; licence: {card.licence}"]
        lines += [
            f"- Cite: {plain(item.text)}, doi [{item.doi}](https://doi.org/{item.doi})" for item in card.citations
        ]
        if units := getattr(card, "units", None):
            lines.append("- Units: " + ", ".join(f"`{name}` {unit}" for name, unit in units.items()))
        lines += ["", "What to know:", "", *(f"- {plain(trap)}" for trap in card.traps), ""] if card.traps else [""]
    return "\n".join(lines)


def notebook_page(notebook: Any, name: str) -> str:
    """The cells of a notebook as text and code; outputs are made where it is run."""
    lines = []
    for one in notebook["cells"]:
        text = "".join(one["source"])
        lines += [text if one["cell_type"] == "markdown" else f"```python\n{text}\n```", ""]
    lines += [f"The notebook itself: `docs/notebooks/{name}`."]
    return "\n".join(lines)


def without_header(card: str) -> str:
    """A card without the YAML that model hubs read."""
    return card.split("\n---\n", 1)[1].lstrip() if card.startswith("---\n") else card


def plain(text: str) -> str:
    """A help text as paragraphs; what looks like markup stays what it is."""
    return re.sub(r"([<>*_|\[\]])", r"\\\1", "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")))


def cell(text: str) -> str:
    """A text in a table."""
    return plain(text.replace("\n", " "))


def code(text: str) -> str:
    """Code in a table; a bar inside does not end the cell."""
    return f"`{text}`" if text else ""
