"""The best candidates as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from defectgen.core.hosts import common_name
from defectgen.core.names import short_text
from defectgen.core.properties import BY_COLUMN, PROPERTIES, Property
from defectgen.design.candidates import PRISTINE_VBM, DesignRun, Target
from defectgen.design.wishes import Wish
from defectgen.one_line import printable
from defectgen.report.rows import half_width_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from defectgen.design.fronts import Front

USUAL_COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev")
MAX_WIDTH = 100
UNKNOWN_WIDTH = 80
NARROW = (0, 1, 0, 0)
"""Space about a cell, so that ten columns fit into 80 characters."""


def render_table(run: DesignRun, top: int = 10, console: Console | None = None) -> None:
    """Print the best candidates of every target; without colours where there is no terminal.

    Args:
        run: the design run.
        top: rows for each target.
        console: where to print; standard output if None.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    if console.width < 1:  # a terminal that does not know its size, or COLUMNS=0: rich would print nothing
        console = Console(highlight=False, width=UNKNOWN_WIDTH)
    width = min(console.width, MAX_WIDTH)
    verdicts = {verdict.target_id: verdict.text for verdict in run.verdicts}
    fronts = {front.target_id: front for front in run.fronts}
    for target in run.targets:
        table, left_out = _fitting_table(run, target, top, console, width)
        console.print(table, width=width)
        if left_out:
            console.print(f"[dim]too narrow for {', '.join(left_out)}: see report.html[/]", width=width)
        hidden = len(run.of(target)) - top
        if hidden > 0:
            console.print(f"[dim]and {hidden} more[/]", width=width)
        if any(candidate.relaxation for candidate in run.of(target)):
            console.print(relaxation_table(run, target), width=width)
        if target.id in verdicts:
            console.print(_plain(verdicts[target.id]), width=width)
        if target.id in fronts and (front := front_text(fronts[target.id], target)):
            console.print(_plain(front), width=width)
    zero = (
        "relative to the VBM of pristine " + common_name(run.host)
        if run.reference == PRISTINE_VBM
        else "on the raw scale"
    )
    console.print(
        f"[dim]Values in eV where no other unit is named, levels {zero}. {ORDER[_ranks_by(run)]}[/]", width=width
    )
    if any(candidate.is_labelled for candidate in run.candidates):
        console.print(
            f"[dim]{_plain(run.labels_by)}: not new; \u0394 and what was asked for are labels, without uncertainty.[/]",
            width=width,
        )
    if any(candidate.dft and not candidate.is_labelled for candidate in run.candidates):
        console.print(
            f"[dim]part: not new; labels by {_plain(run.labels_by)}, but not of all that was asked for: that is "
            "predicted.[/]",
            width=width,
        )
    if any(candidate.similar for candidate in run.candidates):
        console.print("[dim]like: as many more of the same label, alike within the intervals (--all).[/]", width=width)
    if conditions := run.settings.get("formation_energy_at"):
        console.print(f"[dim]Formation energies at {_plain(str(conditions))}.[/]", width=width)
    for warning in run.warnings:
        console.print(f"[yellow]warning:[/] {_plain(warning)}", width=width)
    if not run.complete:
        console.print("[yellow]The run was interrupted: these are the candidates found until then.[/]", width=width)


def _fitting_table(run: DesignRun, target: Target, top: int, console: Console, width: int) -> tuple[Table, list[str]]:
    """The table without as many of the properties that were not asked for as it takes to fit, and their titles."""
    from rich.measure import Measurement

    asked = {column for column, _ in target.values}
    optional = [item for item in _shown_properties(target) if item.column not in asked]
    for number in range(len(optional) + 1):
        left_out = optional[len(optional) - number :]
        table = candidate_table(run, target, top, without=[item.column for item in left_out])
        if Measurement.get(console, console.options.update(width=10 * MAX_WIDTH), table).minimum <= width:
            break
    return table, [item.title for item in left_out]


def candidate_table(run: DesignRun, target: Target, top: int = 10, without: Sequence[str] = ()) -> Table:
    """The best candidates of one target: first the target's values, then a row a candidate.

    Args:
        run: the design run.
        target: one of its targets.
        top: rows.
        without: columns of properties that are not shown.
    """
    from rich import box
    from rich.table import Table

    asked = {column for column, _ in target.values}
    shown = [item for item in _shown_properties(target) if item.column not in without]
    candidates = run.of(target)
    title = f"{_plain(common_name(run.host))} {run.host.size}" + (
        f", target {_plain(target.id)}" if len(run.targets) > 1 else ""
    )
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("defect", overflow="fold", min_width=8)
    for item in shown:
        mark = "*" if item.column in asked else ""
        unit = "" if item.unit == "eV" else f" {item.unit}"
        table.add_column(f"{item.title}{unit}{mark}", justify="right", no_wrap=True, style="bold" if mark else "")
    by_expected, alike = _ranks_by(run) == "expected", any(candidate.similar for candidate in candidates)
    table.add_column("\u0394 meV", justify="right", no_wrap=True)
    if by_expected:
        table.add_column("exp.", justify="right", no_wrap=True)
    if alike:
        table.add_column("like", justify="right", no_wrap=True)
    table.add_column("new?", no_wrap=True)
    last = [""] * (2 + by_expected + alike)
    goals = {wish.column: wish for wish in target.wishes}
    goal = [_two_lines(goals[item.column]) if item.column in goals else "" for item in shown]
    table.add_row("", "target", *goal, *last, style="cyan", end_section=True)
    for candidate in candidates[:top]:
        values = candidate.best_values
        cells = [_value(values.get(item.column), item) for item in shown]
        labelled = _plain(run.labels_by) if candidate.is_labelled else "part" if candidate.dft else "no"
        new = "[green]yes[/]" if candidate.novel else labelled
        cells.append(f"{candidate.best_distance_ev * 1000:.0f}")
        if by_expected:
            cells.append(f"{candidate.expected_ev * 1000:.0f}" if math.isfinite(candidate.expected_ev) else "\u2013")
        if alike:
            cells.append(f"+{candidate.similar}" if candidate.similar else "")
        table.add_row(str(candidate.rank), _plain(candidate.configuration.label), *cells, new)
    first = next((c for c in candidates[:top] if not c.is_labelled and c.uncertainty), None)
    if not candidates:
        table.add_row("", "no candidate", *[""] * len(shown), *last)
    if first is not None:
        errors = [
            half_width_text(first.uncertainty[item.column], item)
            if item.column in first.uncertainty and item.column not in first.dft
            else ""
            for item in shown
        ]
        table.add_section()
        table.add_row("", f"90 % of #{first.rank}", *errors, *last, style="dim")
    return table


def relaxation_table(run: DesignRun, target: Target) -> Table:
    """What a potential says of the candidates that it relaxed."""
    from rich import box
    from rich.table import Table

    relaxed = [(candidate, candidate.relaxation) for candidate in run.of(target) if candidate.relaxation is not None]
    table = Table(
        title=f"relaxed by {_plain(relaxed[0][1].potential)}", title_justify="left", box=box.SIMPLE_HEAD,
        pad_edge=False, padding=NARROW,
    )  # fmt: skip
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("defect", overflow="fold", min_width=8)
    for name in ("E_form eV", "relaxing eV", "moved \u00c5", "shaken eV"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("geometry", no_wrap=True)
    for candidate, outcome in relaxed:
        numbers = (
            outcome.formation_energy_ev, outcome.energy_change_ev, outcome.max_displacement_angstrom,
            outcome.shaken_energy_change_ev,
        )  # fmt: skip
        cells = ["" if x is None or not math.isfinite(x) else f"{x:z.2f}" for x in numbers]
        table.add_row(str(candidate.rank), _plain(candidate.configuration.label), *cells, outcome.verdict)
    return table


FRONT_SHOWN = 3
"""Structures of a front that are named in the terminal: both ends and what is between."""


def front_text(front: Front, target: Target) -> str:
    """Some structures of a front in one line; empty where one structure is the nearest to every wish.

    Args:
        front: of the target.
        target: its wishes; distances are those of the values, whatever the wishes weigh.
    """
    members = front.members
    if len(members) < 2:
        return ""
    columns = list(members[0].distances_ev)
    nearest = min(range(len(members)), key=lambda k: sum(members[k].distances_ev.values()))
    ends = [min(range(len(members)), key=lambda k: members[k].distances_ev[column]) for column in columns]
    shown = sorted(list(dict.fromkeys([nearest, *ends]))[:FRONT_SHOWN])
    parts = []
    for k in shown:
        away = " / ".join(f"{1e3 * away:z.0f}" for away in members[k].off_ev(target).values())
        parts.append(f"{away} meV ({short_text(members[k].configuration.label)})")
    titles = " / ".join(BY_COLUMN[column].title for column in columns)
    rest = f"; {len(members) - len(shown)} more in the manifest" if len(members) > len(shown) else ""
    return f"Pareto front of {len(members)} structures, {titles} off by {', '.join(parts)}{rest}"


ORDER = {
    "expected": "Sorted by exp., the summed deviation from * to be expected in meV with the uncertainty of the "
    "predictions; \u0394 is that of the values shown.",
    "distance": "Sorted by \u0394, the summed deviation from * in meV.",
}
"""What decides the order."""


def _ranks_by(run: DesignRun) -> str:
    return "distance" if run.settings.get("rank_by") == "distance" else "expected"


def _shown_properties(target: Target) -> list[Property]:
    """Four properties at least: those asked for, filled up with the usual ones, in their usual order."""
    asked = [column for column, _ in target.values]
    usual = [column for column in USUAL_COLUMNS if column not in asked]
    wanted = {*asked, *usual[: max(0, len(USUAL_COLUMNS) - len(asked))]}
    return [item for item in PROPERTIES if item.column in wanted]


def _two_lines(wish: Wish) -> str:
    """A wish with the upper end of a range on a line of its own."""
    low, colon, high = wish.text.partition(":")
    return f"{low}:\n{high}" if low and high else f"{low}{colon}{high}"


def _value(value: float | None, item: Property) -> str:
    return "" if value is None else item.text(value)


def _plain(text: str) -> str:
    """A text for a console, without markup and control characters."""
    from rich.markup import escape

    return escape(printable(text))
