import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from test_pack import unpacked

from defectgen.design.candidates import DesignRun


def names(page: str) -> list[str]:
    packed = re.search(r'id="pack-structures">([^<]*)<', page)
    assert packed is not None
    return list(json.loads(unpacked(packed[1]))["structures"])


def test_a_run_is_viewed_in_its_order_and_a_candidate_alone(run: DesignRun) -> None:
    found = run.view()
    assert repr(found) == "StructureView(4 structures)"
    assert [name[:4] for name in names(found.page)] == ["r001", "r002", "r003", "r004"]
    one = run.candidates[1].view()
    assert repr(one) == "StructureView(1 structure)"
    assert [name[:4] for name in names(one.page)] == ["r002"]


def test_a_notebook_gets_a_frame_that_holds_the_page(run: DesignRun) -> None:
    view = run.candidates[0].view()
    html = view._repr_html_()
    frame = re.fullmatch(r'<iframe ([^>]*) srcdoc="([^"]*)"></iframe>', html, re.DOTALL)
    assert frame is not None
    assert unescape(frame[2]) == view.page
    assert 'sandbox="allow-scripts allow-downloads"' in frame[1]
    assert len(html) < 400_000


def test_it_is_saved_as_a_page(run: DesignRun, tmp_path: Path) -> None:
    path = run.view().save(tmp_path / "view.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "default-src 'none'" in path.read_text(encoding="utf-8")


def test_there_is_nothing_to_view_in_an_empty_run(run: DesignRun) -> None:
    with pytest.raises(ValueError, match="no candidate to view"):
        replace(run, candidates=()).view()


def test_labels_are_shown_in_place_of_predictions(run: DesignRun) -> None:
    best = replace(run.candidates[0], dft={"homo_ev": 0.123, "lumo_ev": 1.456}, novel=False)
    html = replace(run, candidates=(best,))._repr_html_()
    assert html.count('<b title="DFT">0.123</b>') == 1
    assert "<td>DFT</td>" in html
    off = round(1000 * (abs(0.123 - 0.05) + abs(1.456 - 1.15)))
    assert f"\u0394 {off} meV" in html
    assert "PBE Kohn-Sham levels" in html
