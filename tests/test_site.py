"""The site has a page for what is shipped, and its list of pages leaves none out."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
import yaml
from doc_pages import ROOT

NAV = (ROOT / "configs" / "mkdocs.yml").read_text().split("\nnav:\n", 1)[1].split("\nvalidation:", 1)[0]


def load(name: str) -> ModuleType:
    """A hook of the site."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The hook that makes pages."""
    return load("site_pages")


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


@pytest.fixture(scope="module")
def html() -> ModuleType:
    """The hook for narrow screens and screen readers."""
    return load("site_html")


def shown(table: str) -> str:
    import markdown

    return markdown.markdown(table, extensions=["tables"])


def test_cells_know_their_columns_and_numbers_keep_their_units(html: ModuleType) -> None:
    page = html.on_page_content(
        shown("before\n\n| | a & b | `c` |\n| --- | ---: | --- |\n| x | 99.5 % | 2 seconds |\n\nafter")
    )
    assert 'data-label="a &amp; b" style="text-align: right;">99.5&nbsp;%</td>' in page
    assert 'data-label="c">2 seconds</td>' in page
    assert 'data-label="">x</td>' in page
    assert page.count("<th") - page.count("<thead") == 2
    assert "data-stacked" not in page
    assert page.startswith("<p>before</p>")
    assert page.endswith("<p>after</p>")


def test_a_table_that_a_phone_cannot_show_is_told_from_one_that_it_can(html: ModuleType) -> None:
    for n, expected in ((4, False), (9, True)):
        line = "| " + " | ".join(["MoS2_500"] * n) + " |"
        page = html.on_page_content(shown(f"{line}\n{'| --- ' * n}|\n{line}"))
        assert ("<table data-stacked>" in page) == expected
    long = "| a | b |\n| --- | --- |\n| x | " + "y" * 60 + " |"
    assert "data-stacked" in html.on_page_content(shown(long))
    assert "data-stacked" not in html.on_page_content(shown(long.replace("yyy", "yy ")))


def test_parts_of_the_theme_have_names(html: ModuleType) -> None:
    page = '<nav class="md-nav" data-md-level="1" aria-labelledby="__nav_2_label" aria-expanded="false">\n'
    page += '<label class="md-nav__title" for="__nav_2">\n<span></span> How to\n</label></nav>'
    page += '<div class="md-search" data-md-component="search" role="dialog">'
    named = html.on_post_page(page)
    assert '<nav class="md-nav" data-md-level="1" aria-label="How to" aria-expanded="false">' in named
    assert 'role="dialog" aria-label="Search the site">' in named
