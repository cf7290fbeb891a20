import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from defectgen.design.candidates import DesignRun, Target
from defectgen.design.wishes import parse_wish
from defectgen.report.table import render_table


def printed(run: DesignRun, top: int = 10, **console: object) -> str:
    stream = io.StringIO()
    render_table(run, top, Console(file=stream, width=80, highlight=False, **console))  # type: ignore[arg-type]
    return stream.getvalue()


def test_plain_text_where_there_is_no_terminal(run: DesignRun) -> None:
    assert "\x1b" not in printed(run)
    assert "\x1b[" in printed(run, force_terminal=True)


RANGES = Target.of(
    "1",
    [
        *(parse_wish(column, "-0.5:-0.1*2.5") for column in ("homo_ev", "lumo_ev", "fermi_level_ev")),
        parse_wish("band_gap_ev", ":1"),
    ],
)


@pytest.mark.parametrize("target", [Target("1", (("homo_ev", 0.05), ("lumo_ev", 1.15))), RANGES])
@pytest.mark.parametrize("name", ["MoS2", "GaSe", "P"])
def test_it_fits_eighty_columns_and_cuts_nothing(build: Callable[..., DesignRun], name: str, target: Target) -> None:
    run = build(name, n=8, targets=(target,))
    text = printed(run)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "\u2026" not in text
    lines = text.splitlines()
    for candidate in run.candidates:
        row = next(number for number, line in enumerate(lines) if line.split()[:1] == [str(candidate.rank)])
        line, folded = lines[row], lines[row].split()[1]
        assert candidate.configuration.label in (folded, folded + lines[row + 1].strip())
        assert f"{candidate.predicted['homo_ev']:.3f}" in line
        assert f" {candidate.distance_ev * 1000:.0f} " in line
        assert line.rstrip().endswith("yes" if candidate.novel else "no")


def test_targeted_properties_are_marked_and_shown_even_if_unusual(build: Callable[..., DesignRun]) -> None:
    run = build(targets=(Target("x", (("fermi_level_ev", 0.4), ("energy_per_atom_ev", -7.0))),), n=2)
    text = printed(run)
    assert "E_Fermi*" in text
    assert "E/atom*" in text
    assert "HOMO*" not in text
    goal = next(line for line in text.splitlines() if line.split()[:1] == ["target"])
    assert goal.split() == ["target", "0.400", "-7.0000"]


def test_only_the_best_of_each_target_are_shown(many_targets: DesignRun) -> None:
    text = printed(many_targets, top=2)
    assert text.count("and 1 more") == 5
    assert [line.split()[-1] for line in text.splitlines() if "target t" in line] == [f"t{k}" for k in range(5)]


def test_warnings_and_interruption_are_told(build: Callable[..., DesignRun]) -> None:
    run = build(warnings=("the gap [eV] is far from the data",), complete=False)
    text = printed(run)
    assert "the gap [eV] is far from the data" in text
    assert "interrupted" in text
    assert "interrupted" not in printed(build())
    assert "no candidate" in printed(build(n=0))


def test_what_comes_from_a_file_cannot_steer_the_terminal(run: DesignRun) -> None:
    evil = replace(run.targets[0], id="a\x1b[2J\x07[red]0")
    text = printed(replace(run, targets=(*run.targets, evil), warnings=("\x1b]0;title\x07 beware [bold]",)))
    assert not any(mark in text for mark in "\x1b\x07")
    assert "target a[2J[red]0" in text
    assert "]0;title beware [bold]" in text


@pytest.mark.parametrize(("width", "missing"), [(80, ""), (60, "gap, E_form")])
def test_a_narrow_terminal_loses_properties_that_nobody_asked_for(
    build: Callable[..., DesignRun], width: int, missing: str
) -> None:
    run = build("MoS2", n=4, targets=(Target("1", (("homo_ev", 0.05), ("lumo_ev", 1.15))),))
    run = replace(run, candidates=tuple(replace(candidate, similar=3) for candidate in run.candidates))
    stream = io.StringIO()
    render_table(run, 10, Console(file=stream, width=width, highlight=False))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if "HOMO*" in line)
    assert head.endswith(" like  new?")
    assert ("gap" in head) == (not missing)
    assert any(line == f"too narrow for {missing}: see report.html" for line in lines) == bool(missing)
    assert sum(line.endswith(("  yes", "  no", "  DFT")) for line in lines) == 4
