"""The report in a browser, where there is one: `benchmarks/page_checks.py` says what is needed."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from defectgen.design.candidates import DesignRun, Target
from defectgen.report.design_page import render_report

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from page_checks import check, missing_tools

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_tools()), reason=f"pages are not looked at without {missing_tools()}"),
]


def test_a_report_has_no_findings_and_does_what_it_says(build: Callable[..., DesignRun], tmp_path: Path) -> None:
    run = build(n=5, settings={"host_formation_enthalpy_ev": -2.66})
    page = tmp_path / "report.html"
    page.write_text(render_report(run), encoding="utf-8")
    found, is_well = check([page])
    assert is_well, found
    assert [entry["look"] for entry in found] == ["light", "dark", "phone"]
    expected = {"saved", "sorted", "filtered", "named", "known", "hovered", "drawn"}
    assert set(found[0]["used"]) == expected


def test_names_of_strangers_do_nothing(build: Callable[..., DesignRun], tmp_path: Path) -> None:
    evil = "\"><img src=x onerror=alert(1)>'</script><script>throw Error('in')</script>"
    targets = (Target(evil, (("homo_ev", 0.1), ("lumo_ev", 1.2))), Target("b", (("homo_ev", 0.2),)))
    run = build(targets=targets, n=3, warnings=(evil,), settings={evil: evil})
    page = tmp_path / "report.html"
    page.write_text(render_report(run), encoding="utf-8")
    found, is_well = check([page])
    assert is_well, found


def test_findings_are_found(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<html><body><img src="https://example.org/a.png"><button></button></body></html>', encoding="utf-8"
    )
    found, is_well = check([page])
    assert not is_well
    assert {"image-alt", "button-name"} <= {item["id"] for item in found[0]["axe"]}
    assert "asks for https://example.org/a.png" in found[0]["errors"]


def test_the_view_of_a_run_draws_in_a_page_and_in_a_notebooks_frame(run: DesignRun, tmp_path: Path) -> None:
    page, frame = run.view().save(tmp_path / "view.html"), tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><html lang="en"><head><title>notebook</title></head><body><main><h1>cell</h1>'
        f"{run.view()._repr_html_()}</main></body></html>",
        encoding="utf-8",
    )
    found, is_well = check([page, frame])
    assert is_well, found
    drawn = {(entry["page"], entry["look"]): entry["views"] for entry in found}
    assert drawn == {(path.name, look): 1 for path in (page, frame) for look in ("light", "dark", "phone")}
