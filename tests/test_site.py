"""The site has a page for what is shipped, and its list of pages leaves none out."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
import yaml
from doc_pages import ROOT

NAV = (ROOT / "configs" / "mkdocs.yml").read_text().split("\nnav:\n", 1)[1].split("\nvalidation:", 1)[0]


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The hook that makes pages."""
    specification = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def listed() -> set[str]:
    """Pages of the list on the left."""
    return set(re.findall(r"([\w./-]+\.md)", NAV))


def test_every_shipped_model_has_its_card_on_the_site(made: ModuleType) -> None:
    cards = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "defectgen" / "models").glob("*/README.md"))
    assert len(cards) >= 5
    assert [card for card in cards if made.COPIES.get(card) not in listed()] == []


def test_every_page_is_listed(made: ModuleType) -> None:
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    generated = {*made.PAGES.values(), "models/data.md"}
    assert sorted((written | generated) ^ listed()) == []


def test_a_card_keeps_its_links_and_loses_the_header_of_the_hub(made: ModuleType) -> None:
    source, target = "defectgen/models/slices-catboost/README.md", "models/slices-catboost.md"
    text = made.without_header((ROOT / source).read_text())
    assert text.startswith("# ")
    page = type("Page", (), {"file": type("File", (), {"src_uri": target})})
    assert "(../slices.md#the-published-surrogate)" in made.on_page_markdown(text, page)
    header = yaml.safe_load((ROOT / source).read_text().split("---\n", 2)[1])
    assert "model-index" in header
