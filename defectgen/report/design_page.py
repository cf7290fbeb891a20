"""The report of a design run: one self-contained HTML page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defectgen.core.properties import BY_COLUMN, PROPERTIES, Property
from defectgen.design.candidates import PRISTINE_VBM, DesignRun, Target
from defectgen.report.candidate_cards import CandidateCard, candidate_card, number_text, subscripts, wish_text
from defectgen.report.cloud_plot import cloud_of
from defectgen.report.front_plot import front_svgs
from defectgen.report.level_plot import level_svg
from defectgen.report.pack import VIEWER_CITATION, packed_json, packed_viewer
from defectgen.report.page_templates import template
from defectgen.report.potential_plot import potential_svg
from defectgen.report.rows import Row, half_width_text, is_on_2dmd, run_rows
from defectgen.report.settings_list import setting_lines
from defectgen.report.structure_view import rows_record

if TYPE_CHECKING:
    from markupsafe import Markup

PICTURE_BUDGET = 150
"""Pictures in one page (about 16 kB each), shared by the targets."""

ROW_BUDGET = 6000
"""Table rows in one page (about 300 bytes each), shared by the targets; at least 5 a target."""

FILE_BUDGET = 200
"""Structures in one page, for download and the 3D view (about 1.5 kB each, packed), shared by the targets."""

OPEN_TARGETS = 3
"""Targets whose section starts open."""

LEVEL_COLUMNS = 12
"""Candidates in a level diagram."""

TABLE_COLUMNS = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev")
"""Properties in the table beside those asked for; the others are on the cards and in candidates.csv."""

CITATIONS = (
    (
        "P. Huang, R. Lukin, M. Faleev, N. Kazeev et al., Unveiling the complex structure-property correlation of "
        "defects in 2D materials based on high throughput datasets, npj 2D Materials and Applications 7, 6 (2023)",
        "10.1038/s41699-023-00369-1",
    ),
    (
        "N. Kazeev, A. R. Al-Maeeni, I. Romanov et al., Sparse representation for machine learning the properties "
        "of defects in 2D materials, npj Computational Materials 9, 113 (2023)",
        "10.1038/s41524-023-01062-z",
    ),
)
"""What a user of candidates by 2DMD should cite for the data, with DOI."""


@dataclass(frozen=True)
class Section:
    """All of one target."""

    target: Target
    anchor: str
    wanted: Markup
    has_levels: bool
    cards: tuple[CandidateCard, ...]
    levels: Markup
    fronts: tuple[Markup, ...]
    potential: Markup
    rows: tuple[Row, ...]
    n_candidates: int
    n_novel: int
    is_open: bool
    columns: tuple[Property, ...] = ()
    verdict: str = ""


def render_report(run: DesignRun, top: int = 12) -> str:
    """The run as a page that needs nothing else, not even the structure files: it can be mailed.

    The text depends on the run only; durations among the settings (names that end in ``seconds``)
    are left to the manifest, so that equal runs give equal pages.

    Args:
        run: the design run.
        top: largest number of candidates of a target shown with a picture; fewer with many targets.
    """
    from markupsafe import Markup

    n_targets = max(len(run.targets), 1)
    n_cards = min(top, PICTURE_BUDGET // n_targets)
    n_rows = max(ROW_BUDGET // n_targets, 5)
    by_target: dict[Target, list[Row]] = {target: [] for target in run.targets}
    for row in run_rows(run, ()):
        by_target[row.candidate.target].append(row)
    verdicts = {verdict.target_id: verdict.text for verdict in run.verdicts}
    sections = []
    for number, (target, rows) in enumerate(by_target.items(), start=1):
        shown = rows[:n_cards]
        leading = [row.candidate for row in rows[:LEVEL_COLUMNS]] if shown else []
        section = Section(
            target=target,
            anchor=f"target-{number}",
            wanted=subscripts(", ".join(f"{BY_COLUMN[wish.column].title} {wish_text(wish)}" for wish in target.wishes)),
            has_levels=any(BY_COLUMN[column].is_level for column, _ in target.values),
            cards=tuple(candidate_card(row) for row in shown),
            levels=Markup(level_svg(run, target, leading)),
            fronts=tuple(Markup(svg) for svg in front_svgs(run, target, leading)),
            potential=Markup(potential_svg(run, leading)),
            rows=tuple(rows[:n_rows]),
            n_candidates=len(rows),
            n_novel=sum(row.candidate.novel for row in rows),
            is_open=number <= OPEN_TARGETS,
            columns=tuple(p for p in PROPERTIES if p.column in {*TABLE_COLUMNS, *dict(target.values)}),
            verdict=verdicts.get(target.id, ""),
        )
        sections.append(section)
    cloud = cloud_of(run, tuple(row.candidate for rows in by_target.values() for row in rows[:LEVEL_COLUMNS]))
    held = [row for rows in by_target.values() for row in rows[: FILE_BUDGET // n_targets]]
    return template("report.html").render(
        run=run,
        sections=sections,
        n_novel=sum(candidate.novel for candidate in run.candidates),
        n_distinct=len({row.configuration.key for rows in by_target.values() for row in rows}),
        relative=run.reference == PRISTINE_VBM,
        basis=basis_text(run),
        held={row.name for row in held},
        structures=packed_json(rows_record(held)),
        viewer=packed_viewer(),
        cloud=cloud,
        cloud_svg=None if cloud is None else Markup(cloud.svg),
        known=None if cloud is None else packed_json(cloud.data),
        settings=setting_lines(run.settings),
        citations=(*(CITATIONS if is_on_2dmd(run) else ()), VIEWER_CITATION),
        number=number_text,
        half_width=half_width_text,
        formula=_formula,
        subscripts=subscripts,
    ) + "\n"  # fmt: skip


def basis_text(run: DesignRun) -> str:
    """What the numbers are, in one line: method, charge, geometry, and what an energy is of."""
    method = "PBE Kohn-Sham levels" if is_on_2dmd(run) else "Levels as in the data that predictions were learnt from"
    given = run.settings.get("formation_energy_at")
    return (
        f"{method}, neutral cells; the structures are unrelaxed, the values are those after relaxation; formation "
        f"energies are of the whole cell, with all its defects{f', at {given}' if given else ''}."
    )


def _formula(text: str) -> Markup:
    """A chemical formula with its numbers as subscripts."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(\d+)", r"<sub>\1</sub>", str(escape(text))))
