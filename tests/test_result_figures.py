"""Figures of the conclusions stand in the tables and texts that they lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import ROOT

RESULTS = ROOT / "docs" / "results.md"
DETAILS = sorted((ROOT / "docs" / "results").glob("*.md"))
LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)")
NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\d_])")
"""A number that is no part of a name, such as MoS2 or 2DMD's sets."""


def numbers_of(text: str) -> list[str]:
    """Numbers of a text without addresses, code and supercells, thousands without commas."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|\b\d+x\d+(?:x\d+)?\b|\b2DMD\b|\b2D\b", "] ", text)
    return [number.replace(",", "") for number in NUMBER.findall(text)]


def stands(number: str, evidence: list[str]) -> bool:
    """Whether it is a number of the evidence, or one of these rounded to its last digit."""
    value, digits = float(number), len(number.partition(".")[2])
    if not digits and number.endswith("0") and 0 < value < 1000:
        digits = -1
    return any(
        float(one) == value or (round(float(one), digits) == value and abs(float(one) - value) < abs(value) / 5)
        for one in evidence
    )


def section(page: Path, anchor: str) -> str:
    """The text under a heading, or all after the page's lead where none is named."""
    parts = re.split(r"^(#{1,4}) (.+)$", page.read_text(), flags=re.M)
    found = ""
    inside = 0
    for level, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        if inside and len(level) <= inside:
            inside = 0
        if slug == anchor:
            inside = len(level)
        if inside or (not anchor and (len(level) > 1 or "/results/" not in str(page))):
            found += text
    return found


def without_evidence(text: str, folder: Path) -> list[str]:
    """Numbers of a text that stand in none of the sections that it links to."""
    targets = [((folder / path).resolve(), anchor or "") for path, anchor in LINK.findall(text)]
    evidence = numbers_of("\n".join(section(page, anchor) for page, anchor in targets if page.suffix == ".md"))
    return [number for number in numbers_of(text) if not stands(number, evidence)]


def points(page: Path, heading: str) -> list[str]:
    """Points of the list under a heading."""
    text = page.read_text().split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    return re.findall(r"^- .+?(?=\n- |\n\n|\Z)", text, re.M | re.S)


CONCLUSIONS = [
    pytest.param(text, page.parent, id=f"{page.stem}-{number}")
    for page, heading in ((ROOT / "README.md", "What it reaches"), (RESULTS, "In short"))
    for number, text in enumerate(points(page, heading), 1)
]


@pytest.mark.parametrize(("text", "folder"), CONCLUSIONS)
def test_figures_of_a_conclusion_stand_where_it_links_to(text: str, folder: Path) -> None:
    assert LINK.findall(text), "a conclusion without a link"
    assert without_evidence(text, folder) == []


def test_conclusions_have_figures() -> None:
    counts = [len(numbers_of(str(one.values[0]))) for one in CONCLUSIONS]
    assert len(counts) >= 8
    assert min(counts) >= 1, counts
    assert sum(counts) > 30


@pytest.mark.parametrize("text", RESULTS.read_text().split("\n## ")[2:], ids=lambda text: text.split("\n")[0])
def test_figures_of_a_topic_stand_on_its_page(text: str) -> None:
    assert "[details](results/" in text
    assert without_evidence(text, RESULTS.parent) == []


@pytest.mark.parametrize("page", DETAILS, ids=lambda page: page.stem)
def test_the_lead_of_a_page_of_details_has_its_figures(page: Path) -> None:
    lead = page.read_text().split("\n## ")[0]
    assert "**" in lead
    numbers = numbers_of(re.sub(r"<!--.*?-->", "", lead))
    evidence = numbers_of(section(page, ""))
    assert numbers
    assert [number for number in numbers if not stands(number, evidence)] == []


def test_a_figure_that_stands_nowhere_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Page\n\nNot 5.\n\n## One\n\n31.4 meV, MoS2_500, 237\n\n### Part\n\n7\n\n## Two\n\n99\n"
    )
    text = "- 31 and 240, 7 of [one](a.md#one), not 99, 32 or 500, in MoS2 8x8, `5`"
    assert without_evidence(text, tmp_path) == ["99", "32", "500"]
    assert [stands(number, ["0.17", "1285"]) for number in ("0.2", "0.3", "1290", "1285", "130")] == [
        True,
        False,
        False,
        True,
        False,
    ]
    conclusion = next(str(one.values[0]) for one in CONCLUSIONS if "32 meV per site" in str(one.values[0]))
    assert "61" in without_evidence(conclusion.replace("32 meV", "61 meV"), RESULTS.parent)
