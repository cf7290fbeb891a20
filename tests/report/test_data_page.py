"""The page about the data: complete, self-contained, and its pictures show the rows."""

from __future__ import annotations

import html
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from defectgen.core import host_names
from defectgen.data.asset_cards import get_card
from defectgen.data.checks import formation_energy_errors
from defectgen.data.summary import LABELS, PAIRED, summarize
from defectgen.data.twodmd import read_2dmd
from defectgen.report.data_page import number, render_data_page, small, span, subscripts
from defectgen.report.data_plots import CELL_PX, colour_class, gap_svg, host_colours, pair_svg, sample_rows

VOID = {"meta", "br", "input", "path", "circle", "rect", "polygon"}
CARD = get_card("2dmd")


class Page(HTMLParser):
    """Tags, attributes and words of a page; checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return read_2dmd(tiny_2dmd, cache=False)


@pytest.fixture(scope="module")
def page(frame: pl.DataFrame, tiny_2dmd: Path) -> str:
    return render_data_page(frame, summarize(frame, formation_energy_errors(tiny_2dmd)), CARD)


def dots(svg: str) -> set[tuple[int, int]]:
    """Places of the dots in a piece of SVG."""
    places = set()
    for path in re.findall(r'<path class="dots[^"]*" d="([^"]*)"', svg):
        moves = [(int(x), int(y)) for x, y in re.findall(r"m(-?\d+) (-?\d+)h0", path)]
        found = list(itertools.accumulate(moves, lambda a, b: (a[0] + b[0], a[1] + b[1])))
        assert len(set(found)) == len(found)
        assert not places & set(found), "a place is drawn in one depth only"
        places |= set(found)
    return places


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.tags["script"] == 0
    assert not {"src", "srcset", "data", "poster"} & {name for _, name, _ in parsed.attributes}
    assert not re.search(r"@import|url\(", page)
    ids = parsed.values("id")
    assert len(set(ids)) == len(ids)
    links = [value for tag, name, value in parsed.attributes if name == "href" and tag == "a"]
    assert all(link.startswith(("#", "https://doi.org/10.", "https://spdx.org/licenses/")) for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert set(parsed.values("for")) <= set(ids)
    assert "Undefined" not in page
    assert "None" not in parsed.text


def test_whose_the_data_is_and_what_to_mind(page: str) -> None:
    text = Page(page).text
    assert CARD.licence in text
    assert CARD.title in text
    for citation in CARD.citations:
        assert citation.text in text
        assert f"https://doi.org/{citation.doi}" in page
    assert all(trap in text for trap in CARD.traps)


def test_tables_give_the_counts(frame: pl.DataFrame, page: str) -> None:
    text = Page(page).text
    assert "140 labelled structures of the 11,866 published in these sets" in text
    gap = frame.filter(set="WSe2")["band_gap_ev"]
    assert f"{gap.min():.2f} to {gap.max():.2f}".replace("-", "\u2212") in text
    foreign = int(frame["label"].str.contains("Mo_W").sum())
    row = re.search(r"WSe2</th><td>(\d+)</td><td>(\d+)</td>", page)
    assert row is not None
    assert (int(row[1]), int(row[2])) == (80 - foreign, foreign)
    for bar in re.findall(r'<span class="bar">(.*?)</span>', page):
        assert sum(float(width) for width in re.findall(r"width:([\d.]+)%", bar)) == pytest.approx(100, abs=0.02)
    assert "agrees with the published values of all sets within 10\u221212 eV" in text


def test_what_is_missing_is_said(frame: pl.DataFrame) -> None:
    holes = frame.with_columns(
        pl.when(pl.col("set") == "MoS2").then(None).otherwise(pl.col(name)).alias(name)
        for name in ("homo_ev", "lumo_ev", "level_method", "level_error_ev")
    )
    page = render_data_page(holes, summarize(holes), CARD)
    text = Page(page).text
    assert page.count('<td class="lacks">60</td>') + page.count('class="lacks">60<') >= 3
    assert "count as missing where the cell could not be aligned" in text
    assert "was not recomputed" in text
    assert "nan" not in text


def test_all_labels_may_be_missing(frame: pl.DataFrame) -> None:
    empty = frame.filter(set="MoS2").with_columns(pl.lit(None, pl.Float64).alias(name) for name in LABELS)
    page = Page(render_data_page(empty, summarize(empty), get_card("2dmd-pilot")))
    assert page.open == []
    assert "Gap against" not in page.text
    assert page.tags["svg"] == 2


def test_dots_are_the_structures(frame: pl.DataFrame) -> None:
    summary = summarize(frame)
    rows = frame.filter(set="MoS2")
    svg = pair_svg(rows, [summary.sets[0]], rows)
    cells = re.findall(r'<g transform="translate\(\d+ \d+\)">(.*?)</g>', svg)
    assert len(cells) == 16
    for (i, y), (j, x) in itertools.product(enumerate(PAIRED), repeat=2):
        found = dots(cells[4 * i + j])
        if j >= i:
            assert not found
            continue
        assert max(max(place) for place in found) <= CELL_PX
        assert min(min(place) for place in found) >= 0
        xs, ys = rows[x].to_numpy(), rows[y].to_numpy()
        left, right = min(px for px, _ in found), max(px for px, _ in found)
        low, high = max(py for _, py in found), min(py for _, py in found)
        places = np.column_stack(
            [left + (xs - xs.min()) / np.ptp(xs) * (right - left), low + (ys - ys.min()) / np.ptp(ys) * (high - low)]
        )
        distance = np.abs(places[:, None, :] - np.array(sorted(found))[None]).max(axis=2)
        assert distance.min(axis=1).max() < 1.2, "every structure has a dot"
        assert distance.min(axis=0).max() < 1.2, "every dot is a structure"


def test_gaps_are_drawn_at_their_concentration(frame: pl.DataFrame) -> None:
    summary = summarize(frame)
    rows = frame.filter(set="WSe2")
    svg = gap_svg(rows, [summary.sets[1]], 2.0, 2.0)
    found = np.array(sorted(dots(svg)))
    boxes = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    sizes = [n for n, count in summary.sets[1].by_defects.items() if count >= 10]
    assert len(boxes) == len(sizes)
    width, height = 288, 188
    for n, (x, y) in zip(sizes, boxes, strict=True):
        median = rows.filter(n_defects=n)["band_gap_ev"].median()
        assert float(x) == pytest.approx(100 * n / 192 / 2.0 * width, abs=0.1)
        assert float(y) == pytest.approx(height - median / 2.0 * height, abs=0.1)
    near = [np.abs(found[:, 0] - 100 * n / 192 / 2.0 * width) <= 24 for n in summary.sets[1].by_defects]
    assert np.any(near, axis=0).all()


def test_a_sample_is_equal_for_equal_seeds_and_fair_to_sets(frame: pl.DataFrame) -> None:
    drawn = sample_rows(frame, 30, seed=1)
    assert drawn.equals(sample_rows(frame, 30, seed=1))
    assert not drawn.equals(sample_rows(frame, 30, seed=2))
    assert drawn["set"].value_counts()["count"].to_list() == [30, 30]
    assert drawn["id"].n_unique() == 60
    assert sample_rows(frame, 1000, seed=1).equals(frame)


def test_each_host_has_one_colour_of_its_own(page: str) -> None:
    colours = host_colours([*sorted(host_names()), "WS2", "PtSe2"])
    assert len(set(colours.values())) == len(colours) == 8
    assert {host: colours[host] for host in ("P", "MoS2")} == host_colours(["P", "MoS2"])
    for host in ("MoS2", "WSe2"):
        assert f".c-{host} {{ --c: {colours[host]}; }}" in page
    used = set(re.findall(r"\bc-(\w+)", page))
    assert used == {"MoS2", "WSe2"}


def test_high_density_is_told_from_low(frame: pl.DataFrame) -> None:
    both = pl.concat([frame, frame.filter(set="MoS2").with_columns(set=pl.lit("MoS2_500"), density=pl.lit("high"))])
    sets = summarize(both).sets
    assert [colour_class(item, sets) for item in sets] == ["c-MoS2", "c-WSe2", "c-MoS2 dark"]
    assert colour_class(sets[2], sets[1:]) == "c-MoS2"


def test_one_view_for_all_hosts_and_one_for_each(frame: pl.DataFrame, page: str) -> None:
    parsed = Page(page)
    assert [value for _, name, value in parsed.attributes if name == "for"] == ["view-all", "view-MoS2", "view-WSe2"]
    assert page.count('class="plot pair"') == 3
    assert page.count('class="lattice"') == 2
    alone = frame.filter(set="MoS2")
    single = render_data_page(alone, summarize(alone), CARD)
    assert Page(single).tags["input"] == 0
    assert 'class="panel view"' not in single


def test_the_same_rows_give_the_same_page(frame: pl.DataFrame, tiny_2dmd: Path, page: str) -> None:
    assert render_data_page(frame, summarize(frame, formation_energy_errors(tiny_2dmd)), CARD) == page
    assert str(tiny_2dmd) not in page


def test_what_comes_from_outside_is_escaped(frame: pl.DataFrame) -> None:
    evil = "<script>alert(1)</script>"
    card = CARD.model_copy(update={"title": evil, "traps": (evil,)})
    rows = frame.with_columns(defect_class=pl.lit(evil))
    page = render_data_page(rows, summarize(rows), card)
    assert Page(page).tags["script"] == 0
    assert html.escape(evil) in page


def test_numbers_and_names_as_people_write_them() -> None:
    assert number(-0.001) == "0.00"
    assert number(-1234.5, 1) == "\u22121,234.5"
    assert number(None) == "\u2013"
    assert span(None) == "\u2013"
    assert str(small(1.8e-13)) == "10<sup>\u221212</sup>"
    assert str(small(0.0)) == "10<sup>\u221215</sup>"
    assert str(small(0.25)) == "0.25"
    assert str(subscripts("v_Mo+2Se_S")) == "<i>v</i><sub>Mo</sub> + 2\u2009Se<sub>S</sub>"
    assert str(subscripts("2v_S")) == "2\u2009<i>v</i><sub>S</sub>"
    assert str(subscripts("E_form/site")) == "E<sub>form</sub>/site"


def test_the_real_page_is_small_and_says_all_classes(twodmd: pl.DataFrame) -> None:
    page = render_data_page(twodmd, summarize(twodmd), CARD)
    assert len(page.encode()) < 3_000_000
    parsed = Page(page)
    assert parsed.open == []
    assert page.count('class="lattice"') == 8
    for name, published in (("X5", 29), ("V3", 743), ("S6", 1415)):
        row = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', page)
        assert row is not None
        assert row[1].count(f"<td>{published:,}</td>") == 2
