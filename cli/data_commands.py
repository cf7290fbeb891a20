"""`defectgen data`: look at a data set, and export its table."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import DataOption, JsonOption, OverwriteOption, PilotOption, SetsOption
from defectgen_cli.output import emit, say, size_text

if TYPE_CHECKING:
    from defectgen.data.asset_cards import Card
    from defectgen.data.summary import Range, SetSummary, Summary

WIDTH = 80
FORMATION_TOLERANCE_EV = 1e-3
"""Largest difference of recomputed formation energies that rounding can explain."""

app = typer.Typer(no_args_is_help=True, help="Look at a data set, or export its table.", rich_markup_mode=None)


@app.command("summary")
def summary(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PAGE.html", help="Write a page with plots as well.")
    ] = None,
    data: DataOption = None,
    pilot: PilotOption = False,
    sets: SetsOption = "all",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print counts, ranges and missing labels; write a page.

    The page shows the same and more: pair plots of the properties by host, gap against
    concentration, defect classes, examples, licence and citation. It needs no other file.
    """
    from defectgen.data.checks import all_checks
    from defectgen.data.locations import labelled_sets
    from defectgen.data.summary import summarize
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files, write_text

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"got -o {output.name!r}, expected a page that ends in .html.")
    with claimed_files(output, overwrite=overwrite):
        labelled = labelled_sets(data, sets, pilot=pilot)
        card, frame = labelled.card, labelled.frame
        found = summarize(frame, *all_checks(labelled.path, labelled.names))
        result: dict[str, object] = {"data": card.name, "licence": card.licence, "page": output, **found.to_dict()}
        if output is not None:
            from defectgen.report.data_page import render_data_page

            text = render_data_page(frame, found, card)
            write_text(output, text)
            say(f"page written to {output} ({size_text(output.stat().st_size)})")
    emit(result, as_json, _table(found, card))


@app.command("export")
def export(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write: .parquet or .csv.")],
    data: DataOption = None,
    pilot: PilotOption = False,
    sets: SetsOption = "all",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write all structures and labels as one tidy table.

    One row a structure. Units are in the column names; levels are in eV relative to the pristine host's valence band
    maximum. Parquet carries licence and citation in its metadata; beside a CSV file they are
    written to FILE.csv-metadata.json.
    """
    from defectgen.data.labelled_table import check_table_path, table_files, write_table
    from defectgen.data.locations import labelled_sets
    from defectgen.io.files import claimed_files

    check_table_path(output, overwrite)
    with claimed_files(*table_files(output), overwrite=overwrite):
        labelled = labelled_sets(data, sets, pilot=pilot)
        frame = labelled.frame
        files = write_table(frame, output, labelled.card, overwrite=overwrite)
    size = output.stat().st_size
    result = {"output": output, "files": files, "n_rows": len(frame), "columns": frame.columns, "size_bytes": size}
    emit(
        result, as_json, f"{len(frame):,} rows of {len(frame.columns)} columns written to {output} ({size_text(size)})"
    )


def _table(found: Summary, card: Card) -> str:
    """Three tables of at most 80 columns: what is there, its labels, and where its levels come from."""
    plural = "" if len(found.sets) == 1 else "s"
    lines = [
        *textwrap.wrap(card.title, WIDTH),
        f"here: {found.n_rows:,} labelled structures, {len(found.sets)} set{plural}",
        "",
        f"{'set':<13} {'host':<5} {'density':<7} {'cell':<4} {'rows':>6} {'published':>9} {'distinct':>8} "
        f"{'defects':>7} {'% of sites':>11}",
    ]
    for item in found.sets:
        published = "-" if item.n_published is None else f"{item.n_published:,}"
        lines.append(
            f"{item.name:<13} {item.host:<5} {item.density:<7} {item.supercell:<4} {item.n_rows:>6,} {published:>9} "
            f"{item.n_distinct:>8,} {_span(item.n_defects, 0):>7} {_span(item.concentration_percent, 2):>11}"
        )
    lines += ["", f"{'set':<14} {'gap, eV':>12} {'E_form, eV':>14} {'per defect, eV':>15}  rows without a label"]
    for item in found.sets:
        shown = [
            _span(item.ranges[key], 2) for key in ("band_gap_ev", "formation_energy_ev", "formation_energy_per_site_ev")
        ]
        start = f"{item.name:<14} {shown[0]:>12} {shown[1]:>14} {shown[2]:>15}  "
        lines += textwrap.wrap(_missing(item), WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    lines += ["", f"{'levels from':<14} {'core level':>12} {'fitted shift':>14} {'off by, meV':>15}  not aligned"]
    for item in found.sets:
        levels = item.alignment
        error = (
            f"{1000 * levels.error_ev.median:.1f}, max {1000 * levels.error_ev.high:.0f}" if levels.error_ev else "-"
        )
        lines.append(
            f"{item.name:<14} {levels.core_level:>12,} {levels.fitted_shift:>14,} {error:>15}  {levels.missing:,}"
        )
    return "\n".join([*lines, "", *_notes(found, card)])


def _notes(found: Summary, card: Card) -> list[str]:
    checked = [item.formation_energy_error_ev for item in found.sets if item.formation_energy_error_ev is not None]
    formation = (
        f"recomputed from total energies, differs by at most {max(checked):.0e} eV."
        + (" WARNING: more than rounding." if max(checked) > FORMATION_TOLERANCE_EV else "")
        if checked
        else "not recomputed, these files have no chemical potentials."
    )
    notes = [
        "distinct: up to the symmetry of the host's supercell.",
        "off by: what a fitted shift may be wrong, median and largest; levels are relative to the pristine host's VBM.",
        f"E_form: {formation}",
        *_descriptor_notes(found),
        f"licence {card.licence}; cite {' and '.join(f'doi:{citation.doi}' for citation in card.citations)}",
    ]
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, break_on_hyphens=False)]


def _descriptor_notes(found: Summary) -> list[str]:
    checked = [item for item in found.sets if item.descriptor_mismatches is not None]
    wrong = [(item.name, name) for item in checked for name in item.descriptor_mismatches or ()]
    if not checked:
        return []
    if wrong:
        set_name, found_id = wrong[0]
        return [f"WARNING: {len(wrong)} structures are not what their descriptors say, e.g. {found_id} of {set_name}."]
    return ["composition and number of defects of every structure are those of its descriptor."]


def _span(values: Range | None, decimals: int) -> str:
    if values is None:
        return "-"
    low, high = (f"{value:z.{decimals}f}" for value in (values.low, values.high))
    return low if low == high else f"{low}..{high}"


def _missing(item: SetSummary) -> str:
    """Properties that some rows lack, those with the same count together."""
    from defectgen.data.summary import LABELS

    by_count: dict[int, list[str]] = {}
    for column, count in item.missing.items():
        if count:
            by_count.setdefault(count, []).append(LABELS[column][0])
    return "; ".join(f"{count:,}: {' '.join(titles)}" for count, titles in by_count.items()) or "none"
