"""A design run and a candidate as a notebook shows them: a piece of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from defectgen.core.hosts import common_name, common_title
from defectgen.core.properties import PROPERTIES
from defectgen.design.candidates import PRISTINE_VBM, Candidate, DesignRun
from defectgen.report.candidate_cards import CandidateCard, candidate_card, number_text, subscripts
from defectgen.report.design_page import basis_text
from defectgen.report.page_templates import template
from defectgen.report.rows import Row, run_rows, safe_name
from defectgen.report.structure_view import StructureView, view_of

__all__ = ["StructureView", "candidate_html", "candidate_view", "run_html", "run_view"]

PICTURES = 3
"""Candidates of a target shown with a picture (about 16 kB each)."""

ROWS = 10
"""Candidates of a target in its table."""

TARGETS = 5
"""Targets shown; a table of hundreds is for `DesignRun.to_polars`."""

COMPUTED = "computed"
"""What a value of a candidate by itself is, which does not say by what."""


@dataclass(frozen=True)
class NotebookSection:
    """One target's part.

    Attributes:
        title: in one line; empty for none.
        asked: columns of the properties wanted, marked with a star.
        rows: of the table.
        cards: candidates with pictures.
    """

    title: str
    asked: frozenset[str]
    rows: tuple[Row, ...]
    cards: tuple[CandidateCard, ...]


def run_html(run: DesignRun) -> str:
    """The best candidates of a run: a table and pictures for each target, warnings below."""
    by_target: dict[str, list[Row]] = {target.id: [] for target in run.targets[:TARGETS]}
    for row in run_rows(run, ()):
        by_target.get(row.candidate.target.id, []).append(row)
    sections = [
        NotebookSection(
            f"{common_title(run.host)}, target {target.id}: {target.text}, {len(by_target[target.id])} candidates",
            frozenset(column for column, _ in target.values),
            tuple(by_target[target.id][:ROWS]),
            tuple(candidate_card(row) for row in by_target[target.id][:PICTURES]),
        )
        for target in run.targets[:TARGETS]
    ]
    notes = [f"warning: {line}" for line in run.warnings]
    if len(run.targets) > TARGETS:
        notes.insert(0, f"and {len(run.targets) - TARGETS} more targets; all of them: to_polars()")
    zero = (
        f"the valence band maximum of pristine {common_name(run.host)}"
        if run.reference == PRISTINE_VBM
        else "the raw scale"
    )
    first = (
        f"Values in eV where no other unit is named, levels relative to {zero}; * wanted; bold: {run.labels_by}. "
        f"{basis_text(run)} "
        "In three dimensions: .view() of the run or of a candidate."
    )
    return _render(sections, [first, *notes], run.labels_by)


def candidate_html(candidate: Candidate) -> str:
    """A candidate with its picture and a line for each property."""
    row = Row(candidate, candidate.configuration.canonical(), "", {})
    asked = frozenset(column for column, _ in candidate.target.values)
    return _render([NotebookSection("", asked, (), (candidate_card(row),))], [], COMPUTED)


def run_view(run: DesignRun) -> StructureView:
    """The candidates of a run in three dimensions."""
    return view_of(run_rows(run, ()), f"Defects in {common_name(run.host)}")


def candidate_view(candidate: Candidate) -> StructureView:
    """A candidate in three dimensions."""
    configuration = candidate.configuration.canonical()
    row = Row(candidate, configuration, f"r{candidate.rank:03d}-{safe_name(configuration.label)}", {})
    return view_of([row], configuration.label)


def _render(sections: Sequence[NotebookSection], notes: Sequence[str], labels_by: str) -> str:
    return template("notebook.html").render(
        sections=sections,
        notes=notes,
        labels_by=labels_by,
        properties=PROPERTIES,
        number=number_text,
        subscripts=subscripts,
    )
