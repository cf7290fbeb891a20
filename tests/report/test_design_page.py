import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_pack import unpacked

from defectgen.design.candidates import RAW, DesignRun, Target
from defectgen.design.wishes import parse_wish
from defectgen.report.design_page import PICTURE_BUDGET, basis_text, render_report
from defectgen.report.export import write_run

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "circle", "rect", "polygon"}
OPTIONAL_END = {"td", "tr"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = {name: value or "" for name, value in attrs}
        self.classes.update(values.get("class", "").split())
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.loads += [values[name] for name in ("src", "href", "srcset", "data", "poster") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        while self.open[-1] != tag and self.open[-1] in OPTIONAL_END:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.words))


def test_the_page_is_well_formed_and_loads_nothing(run: DesignRun, many_targets: DesignRun) -> None:
    for each in (run, many_targets):
        html = render_report(each)
        page = Page(html)
        assert page.open == []
        assert page.loads == []
        assert len(set(page.ids)) == len(page.ids)
        outside = [link for link in page.links if re.match(r"[a-z]+:|//", link)]
        assert outside
        assert all(link.startswith("https://doi.org/10.") for link in outside)
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", html)
        assert set(re.findall(r"https?://[^/\"\s]+", html)) == {"https://doi.org", "http://www.w3.org"}


def test_each_of_the_best_has_a_card_and_all_have_a_row(build: Callable[..., DesignRun]) -> None:
    run = build(n=9)
    page = Page(render_report(run, top=4))
    assert page.classes["card"] == 4
    assert page.classes["lattice"] == 4
    assert page.classes["levels"] == 1
    rows = re.findall(r"<tr data-row[^>]*><td>(\d+)<td", render_report(run, top=4))
    assert [int(rank) for rank in rows] == list(range(1, 10))


def test_a_card_says_what_was_predicted_and_how_far_off_it_is(build: Callable[..., DesignRun]) -> None:
    run = build(n=1)
    (candidate,) = run.candidates
    page = Page(render_report(run))
    deviation = round(1000 * (candidate.predicted["homo_ev"] - 0.05))
    assert f"HOMO0.050{candidate.predicted['homo_ev']:.3f}\u00b10.100{deviation:+d}" in page.text
    assert candidate.configuration.key in page.text
    assert page.classes["outside"] + page.classes["inside"] == 2
    assert page.classes["new"] == 2, "on the card and in the table"


@pytest.mark.parametrize(
    ("text", "homo_ev", "said"),
    [
        ("0.1:0.3", 0.2, "HOMO0.100\xa0to 0.3000.200\u00b10.1000 gap"),
        ("0.1:0.3", 0.35, "HOMO0.100\xa0to 0.3000.350\u00b10.100+50 gap"),
        ("0.1:0.3", 0.05, "HOMO0.100\xa0to 0.3000.050\u00b10.100\u221250 gap"),
        ("0.1:", 0.05, "HOMO\u2265\xa00.1000.050\u00b10.100\u221250 gap"),
        (":0.3", 0.05, "HOMO\u2264\xa00.3000.050\u00b10.1000 gap"),
    ],
)
def test_deviations_count_from_the_ends_of_a_range(
    build: Callable[..., DesignRun], text: str, homo_ev: float, said: str
) -> None:
    target = Target.of("1", (parse_wish("homo_ev", text), parse_wish("band_gap_ev", "1")))
    run = build(targets=(target,), n=1)
    changed = replace(run.candidates[0], predicted={**run.candidates[0].predicted, "homo_ev": homo_ev})
    assert said in Page(render_report(replace(run, candidates=(changed,)))).text


def test_both_ends_of_a_range_are_drawn_and_what_lies_between(build: Callable[..., DesignRun]) -> None:
    html = render_report(build(targets=(Target.of("1", (parse_wish("homo_ev", "0.1:0.3"),)),), n=1))
    assert html.count('class="goal"') == 2
    assert html.count('class="goal-range"') == 1
    assert [f">HOMO {end}<" in html for end in ("0.100", "0.300", "0.200")] == [True, True, False]


def test_an_interval_is_never_shown_as_none(build: Callable[..., DesignRun]) -> None:
    run = build(n=1)
    narrow = replace(run.candidates[0], uncertainty={"energy_per_atom_ev": 3.4e-5, "homo_ev": 2e-4, "lumo_ev": 0.0})
    words = Page(render_report(replace(run, candidates=(narrow,)))).text
    assert re.findall(r"\u00b10\.0+[1-9]*", words) == ["\u00b10.0002", "\u00b10.000", "\u00b10.00003"]


def structures(html: str) -> dict[str, dict[str, str]]:
    """The structures that the page holds, by name."""
    packed = re.search(r'id="pack-structures">([^<]*)<', html)
    assert packed is not None
    found: dict[str, dict[str, str]] = json.loads(unpacked(packed[1]))["structures"]
    return found


def test_the_page_holds_the_files_of_the_run_and_links_to_none(many_targets: DesignRun, tmp_path: Path) -> None:
    write_run(many_targets, tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert all(link.startswith(("https://doi.org/", "#target-", "#main")) for link in page.links)
    anchors = [link[1:] for link in page.links if link.startswith("#target")]
    assert anchors == [f"target-{k}" for k in range(1, 6)]
    assert set(anchors) <= set(page.ids)
    held = structures(html)
    assert len(held) == 15
    for name, record in held.items():
        for form, suffix in (("cif", "cif"), ("poscar", "vasp")):
            written = (tmp_path / "out" / "structures" / f"{name}.{suffix}").read_bytes()
            assert record[form].encode() == written
    saved = re.findall(r'data-save="(cif|poscar)" data-name="([^"]*)"', html)
    assert {name for _, name in saved} == set(re.findall(r'data-view="([^"]*)"', html)) == set(held)


def test_rows_beyond_the_budget_have_no_buttons(
    build: Callable[..., DesignRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defectgen.report.design_page.FILE_BUDGET", 2)
    html = render_report(build(n=5))
    assert len(structures(html)) == 2
    assert len(set(re.findall(r'data-view="([^"]*)"', html))) == 2
    assert len(re.findall(r"<tr data-row", html)) == 5


def test_a_report_of_sixteen_candidates_is_small(build: Callable[..., DesignRun]) -> None:
    assert len(render_report(build(n=16), top=16).encode()) < 2_000_000


def test_what_the_numbers_are_is_said(run: DesignRun) -> None:
    text = Page(render_report(run)).text
    assert "PBE Kohn-Sham levels, neutral cells; the structures are unrelaxed" in text
    assert "of the whole cell" in text
    assert "PBE" not in basis_text(replace(run, host=replace(run.host, name="WO2"), candidates=()))
    assert "PBE" in basis_text(replace(run, settings={"trained_on": "2DMD"}))
    other = replace(run, settings={"trained_on": "other values"})
    assert "PBE" not in basis_text(other)
    assert "10.1038/s41699-023-00369-1" in render_report(run)
    assert "10.1038/s41699-023-00369-1" not in render_report(other)


def test_only_the_first_of_many_targets_are_open(many_targets: DesignRun) -> None:
    html = render_report(many_targets)
    assert re.findall(r"<details( open)?>", html) == [" open"] * 3 + [""] * 2


def test_fifty_targets_stay_small(build: Callable[..., DesignRun]) -> None:
    run = build("BN", tuple(Target(str(k), (("homo_ev", 0.01 * k),)) for k in range(50)), n=6)
    html = render_report(run)
    page = Page(html)
    assert page.tags["section"] == 50
    assert page.classes["lattice"] == PICTURE_BUDGET // 50 * 50
    assert len(html.encode()) < 4_000_000


def test_what_comes_from_outside_is_escaped(build: Callable[..., DesignRun]) -> None:
    target = Target("<script>alert(1)</script>", (("lumo_ev", 1.0),))
    run = build(
        targets=(target, Target("b", (("homo_ev", 0.0),))), n=1, warnings=("a < b & c",), settings={"x<y": "<i>"}
    )
    html = render_report(run)
    page = Page(html)
    assert page.tags["script"] == 4
    assert "a < b & c" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "x<y" in page.text


def test_the_zero_of_the_levels_is_said(run: DesignRun) -> None:
    assert "relative to the pristine host\u2019s valence band maximum" in Page(render_report(run)).text
    raw = DesignRun(run.host, RAW, run.candidates, {})
    assert "raw scale" in Page(render_report(raw)).text
    assert "VBM" not in Page(render_report(raw)).text


def test_warnings_interruption_settings_and_citations_are_shown(build: Callable[..., DesignRun]) -> None:
    run = build(warnings=("far from the data",), complete=False, settings={"a": {"b": 1, "generation_seconds": 3.5}})
    text = Page(render_report(run)).text
    assert "far from the data" in text
    assert "interrupted" in text
    assert "a.b" in text
    assert "3.5" not in text
    assert "10.1038/s41699-023-00369-1" in text
    assert "10.1038/s41524-023-01062-z" in text


@pytest.mark.parametrize("gap", [None, 1.8, float("nan")])
def test_the_conduction_band_is_shaded_if_the_gap_is_known(build: Callable[..., DesignRun], gap: float | None) -> None:
    html = render_report(build(settings={"pristine_band_gap_ev": gap}))
    assert html.count('class="band"') == (2 if gap == 1.8 else 1)
    assert html.count('class="goal"') == 2
    assert html.count('class="homo interval"') == 4


def test_levels_are_drawn_by_dft_where_it_is_known(run: DesignRun) -> None:
    first, *others = run.candidates
    known = replace(run, candidates=(replace(first, dft={"homo_ev": 0.777, "lumo_ev": 1.444}), *others))
    html = render_report(known)
    assert "#1 HOMO 0.777 eV, DFT</title>" in html
    assert html.count('class="homo interval"') == len(run.candidates) - 1
    assert "#1 HOMO 0.777" not in render_report(run)


def test_missing_and_infinite_values_are_dashes(build: Callable[..., DesignRun]) -> None:
    run = build(n=1)
    (best,) = run.candidates
    values = {**best.predicted, "band_gap_ev": float("nan")}
    values.pop("energy_per_atom_ev")
    changed = type(best)(1, best.target, best.configuration, values, {}, float("inf"), False)
    html = render_report(DesignRun(run.host, run.reference, (changed,), {}))
    assert "nan" not in Page(html).text
    assert "\u2013" in Page(html).text
