"""The best candidates as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from defectgen.core.properties import PROPERTIES, Property
from defectgen.design.candidates import PRISTINE_VBM, DesignRun, Target
from defectgen.one_line import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

USUAL_COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev")
MAX_WIDTH = 100


def render_table(run: DesignRun, top: int = 10, console: Console | None = None) -> None:
    """Print the best candidates of every target; without colours where there is no terminal.

    Args:
        run: the design run.
        top: rows for each target.
        console: where to print; standard output if None.
    """
    from rich.console import Console

    console = console or Console(highlight=False)
    width = min(console.width, MAX_WIDTH)
    for target in run.targets:
        console.print(candidate_table(run, target, top), width=width)
        hidden = len(run.of(target)) - top
        if hidden > 0:
            console.print(f"[dim]and {hidden} more[/]", width=width)
    zero = (
        "relative to the VBM of pristine " + _plain(run.host.name)
        if run.reference == PRISTINE_VBM
        else "on the raw scale"
    )
    order = " Uncertain candidates rank lower." if run.settings.get("rank_by") == "expected" else ""
    delta = "\u0394 in meV is the summed deviation from *."
    console.print(f"[dim]Values in eV, levels {zero}; {delta}{order}[/]", width=width)
    for warning in run.warnings:
        console.print(f"[yellow]warning:[/] {_plain(warning)}", width=width)
    if not run.complete:
        console.print("[yellow]The run was interrupted: these are the candidates found until then.[/]", width=width)


def candidate_table(run: DesignRun, target: Target, top: int = 10) -> Table:
    """The best candidates of one target: first the target's values, then a row a candidate."""
    from rich import box
    from rich.table import Table

    asked = dict(target.values)
    shown = _shown_properties(target)
    candidates = run.of(target)
    title = f"{_plain(run.host.name)} {run.host.size}" + (
        f", target {_plain(target.id)}" if len(run.targets) > 1 else ""
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("defect", overflow="fold", min_width=8)
    for item in shown:
        mark = "*" if item.column in asked else ""
        table.add_column(f"{item.title}{mark}", justify="right", no_wrap=True, style="bold" if mark else "")
    table.add_column("\u0394 meV", justify="right", no_wrap=True)
    table.add_column("new", no_wrap=True)
    goal = [f"{asked[item.column]:.{item.decimals}f}" if item.column in asked else "" for item in shown]
    table.add_row("", "target", *goal, "", "", style="cyan", end_section=True)
    for candidate in candidates[:top]:
        cells = [_value(candidate.predicted.get(item.column), item) for item in shown]
        distance = f"{candidate.distance_ev * 1000:.0f}"
        new = "[green]yes[/]" if candidate.novel else "no"
        table.add_row(str(candidate.rank), _plain(candidate.configuration.label), *cells, distance, new)
    if candidates:
        best = candidates[0].uncertainty
        errors = [f"\u00b1{best[item.column]:.{item.decimals}f}" if item.column in best else "" for item in shown]
        if any(errors):
            table.add_section()
            table.add_row("", f"90 % of #{candidates[0].rank}", *errors, "", "", style="dim")
    else:
        table.add_row("", "no candidate", *[""] * len(shown), "", "")
    return table


def _plain(text: str) -> str:
    """A text for a console, without markup and control characters."""
    from rich.markup import escape

    return escape(printable(text))


def _shown_properties(target: Target) -> list[Property]:
    """Four properties at least: those asked for, filled up with the usual ones, in their usual order."""
    asked = [column for column, _ in target.values]
    usual = [column for column in USUAL_COLUMNS if column not in asked]
    wanted = {*asked, *usual[: max(0, len(USUAL_COLUMNS) - len(asked))]}
    return [item for item in PROPERTIES if item.column in wanted]


def _value(value: float | None, item: Property) -> str:
    return "" if value is None else f"{round(value, item.decimals) + 0.0:.{item.decimals}f}"
