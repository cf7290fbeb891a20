"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]*?) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)
SHELL = ("bash", "sh", "shell", "console")
PAGE_REASON = re.compile(r"^<!-- commands of this page are not run: (.+) -->$", re.M)


@dataclass(frozen=True)
class Block:
    """A code block with the comment above it.

    Attributes:
        page: where it stands.
        language: e.g. ``bash``; empty if it says none.
        code: its lines.
        comment: of the line above, e.g. ``run`` or ``not run: needs VASP``.
    """

    page: Path
    language: str
    code: str
    comment: str

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.language == "python" or (self.language in SHELL and self.comment == "run")


def name_of(page: Path) -> str:
    """The page's path without its suffix, relative to docs or to the repository."""
    base = ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT
    return str(page.relative_to(base).with_suffix(""))


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page in their order."""
    return [
        Block(page, found["language"], found["code"], found["comment"] or "")
        for found in FENCE.finditer(page.read_text())
    ]


def indented_commands(text: str) -> list[str]:
    """Commands in blocks that are indented instead of fenced."""
    return re.findall(r"^ {4}((?:defectgen|python\S*|pip|bash|pytest) .*)$", FENCE.sub("", text), re.M)
