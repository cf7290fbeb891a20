"""`defectgen data`: look at a data set, and export its table."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit, say, size_text

if TYPE_CHECKING:
    import polars as pl

    from defectgen.data.cards import Card
    from defectgen.data.summary import Range, SetSummary, Summary

WIDTH = 80

app = typer.Typer(no_args_is_help=True, help="Look at a data set, or export its table.", rich_markup_mode=None)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", envvar="DEFECTGEN_2DMD", help="2DMD in its published layout; else the fetched one."
    ),
]
PilotOption = Annotated[bool, typer.Option("--pilot", help="Use the fetched 200-structure sample.")]
SetsOption = Annotated[str, typer.Option("--sets", metavar="A,B", help="Sets of 2DMD, or all.")]


@app.command("summary")
def summary(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PAGE.html", help="Write a page with plots as well.")
    ] = None,
    data: DataOption = None,
    pilot: PilotOption = False,
    sets: SetsOption = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print counts, ranges and missing labels; write a page.

    The page shows the same and more: pair plots of the properties by host, gap against
    concentration, defect classes, examples, licence and citation. It needs no other file.
    """
    from defectgen.data.export import refuse_existing, write_whole
    from defectgen.data.summary import summarize
    from defectgen.errors import UsageError

    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"got -o {output.name!r}, expected a page that ends in .html.")
        refuse_existing(output, overwrite)
    path, card, frame = _read(data, pilot, sets)
    found = summarize(frame, _formation_energy_errors(path, frame))
    result: dict[str, object] = {"data": card.name, "licence": card.licence, "page": output, **found.to_dict()}
    if output is not None:
        from defectgen.report.data_page import render_data_page

        text = render_data_page(frame, found, card)
        write_whole(output, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
        say(f"page written to {output} ({size_text(output.stat().st_size)})")
    emit(result, as_json, _table(found, card))


@app.command("export")
def export(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write: .parquet or .csv.")],
    data: DataOption = None,
    pilot: PilotOption = False,
    sets: SetsOption = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all structures and labels as one tidy table.

    One row a structure. Units are in the column names; levels are in eV relative to the pristine host's valence band
    maximum. Parquet carries licence and citation in its metadata; beside a CSV file they are
    written to FILE.csv-metadata.json.
    """
    from defectgen.data.export import check_table_path, write_table

    check_table_path(output, overwrite)
    _, card, frame = _read(data, pilot, sets)
    files = write_table(frame, output, card, overwrite=overwrite)
    size = output.stat().st_size
    result = {"output": output, "files": files, "n_rows": len(frame), "columns": frame.columns, "size_bytes": size}
    emit(
        result, as_json, f"{len(frame):,} rows of {len(frame.columns)} columns written to {output} ({size_text(size)})"
    )


def _read(data: Path | None, pilot: bool, sets: str) -> tuple[Path, Card, pl.DataFrame]:
    """The folder, its card and the rows of the sets asked for."""
    import polars as pl

    from defectgen.data.cards import get_card
    from defectgen.data.twodmd import read_dataset
    from defectgen.errors import UsageError
    from defectgen_cli.data import dataset_path

    chosen = _chosen(sets)
    path = dataset_path(data, pilot=pilot)
    frame = read_dataset(path, chosen)
    if chosen is not None:
        missing = [name for name in chosen if name not in set(frame["set"])]
        if missing:
            raise UsageError(f"{path} holds no set {missing[0]}.", f"It holds: {', '.join(frame['set'].unique())}.")
        frame = frame.filter(pl.col("set").is_in(chosen))
    return path, get_card("2dmd" if (path / "csv_cif").is_dir() else "2dmd-pilot"), frame


def _chosen(sets: str) -> list[str] | None:
    """The names of the sets, None for all.

    Raises:
        UsageError: no name, or one that no set has; says the nearest one.
    """
    import difflib

    from defectgen.data.twodmd import SET_NAMES, SETS
    from defectgen.errors import UsageError

    if sets.strip() == "all":
        return None
    names = [name.strip() for name in sets.split(",") if name.strip()]
    if not names:
        raise UsageError(f"got --sets {sets!r}, expected all or some of {', '.join(SET_NAMES)}.")
    for name in names:
        if name not in SET_NAMES:
            known = {set_name.lower(): set_name for set_name in SET_NAMES}
            close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            nearest = [info.name for info in SETS if info.host.lower() == name.lower()] or [known[c] for c in close]
            meant = f"Did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"unknown set {name!r}.", f"{meant}Known sets: {', '.join(SET_NAMES)}, or all.")
    return names


def _formation_energy_errors(path: Path, frame: pl.DataFrame) -> dict[str, float]:
    """Empty for the pilot sample, which has no chemical potentials."""
    from defectgen.data.checks import formation_energy_errors

    if not (path / "csv_cif").is_dir():
        return {}
    return formation_energy_errors(path, frame["set"].unique(maintain_order=True).to_list())


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
    lines += ["", f"{'levels from':<14} {'core level':>12} {'fitted shift':>14} {'error, meV':>15}  not aligned"]
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
        if checked
        else "not recomputed, these files have no chemical potentials."
    )
    notes = [
        "distinct: up to the symmetry of the host's supercell.",
        "error: of the fitted shift, median and largest; levels are relative to the pristine host's VBM.",
        f"E_form: {formation}",
        f"licence {card.licence}; cite {' and '.join(f'doi:{citation.doi}' for citation in card.citations)}",
    ]
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, break_on_hyphens=False)]


def _span(values: Range | None, decimals: int) -> str:
    if values is None:
        return "-"
    low, high = (f"{value + 0.0:.{decimals}f}" for value in (values.low, values.high))
    return low if low == high else f"{low}..{high}"


def _missing(item: SetSummary) -> str:
    """Properties that some rows lack, those with the same count together."""
    from defectgen.data.summary import LABELS

    by_count: dict[int, list[str]] = {}
    for column, count in item.missing.items():
        if count:
            by_count.setdefault(count, []).append(LABELS[column][0])
    return "; ".join(f"{count:,}: {' '.join(titles)}" for count, titles in by_count.items()) or "none"
