"""`defectgen results`: DFT results as a table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.inputs import AllowOption, HostOption
from defectgen_cli.options import JsonOption, OverwriteOption, SupercellOption
from defectgen_cli.output import emit, say

if TYPE_CHECKING:
    import polars as pl


def results(
    where: Annotated[list[Path], typer.Argument(metavar="DIRS", help="Folders of calculations, or files of results.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Table, .parquet or .csv: a row a result.")
    ] = None,
    predicted: Annotated[
        Path | None, typer.Option("--predicted", metavar="RUN", help="Compare with a design run's predictions.")
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option("--comparison", metavar="FILE", help="Write predicted against computed, .csv.")
    ] = None,
    mu: Annotated[
        list[str] | None,
        typer.Option(
            "--mu", metavar="X=EV|2dmd", help="Chemical potential, eV an atom; several times [elemental phases there]."
        ),
    ] = None,
    host: HostOption = None,
    supercell: SupercellOption = None,
    allow: AllowOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read DFT results: convergence, energies, levels, gaps.

    vasprun.xml and OUTCAR (also compressed), GPAW, Quantum ESPRESSO's XML, ASE's .db and extended XYZ.
    Levels are relative to the valence band maximum of the pristine host where a potential aligns them.
    Results of different settings are never compared: settings_id and note say which and why.
    """
    from defectgen.dft.comparison import compare, read_predictions, scale_warnings, summary
    from defectgen.dft.results import dft_results, parse_potentials
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files, write_whole
    from defectgen.io.host_files import host_of_options
    from defectgen.io.tables import write_csv, write_parquet

    for path, endings in ((output, (".parquet", ".csv")), (comparison, (".csv",))):
        if path is not None and path.suffix.lower() not in endings:
            raise UsageError(f"got {path.name!r}, expected a name that ends in {' or '.join(endings)}.")
    if comparison is not None and predicted is None:
        raise UsageError("--comparison needs --predicted.", "Name the folder of a design run.")
    with claimed_files(output, comparison, overwrite=overwrite):
        guesses = read_predictions(predicted) if predicted is not None else None
        table = dft_results(
            where, host=host_of_options(host, supercell, allow), chemical_potentials=parse_potentials(mu or ())
        )
        frame = table.frame
        compared = compare(guesses, frame) if guesses is not None else None
        for path, made in ((output, frame), (comparison, compared)):
            if path is not None and made is not None:
                write_whole(path, partial(write_csv if path.suffix.lower() == ".csv" else write_parquet, made))
    lines = [_text(row) for row in frame.iter_rows(named=True)]
    warnings = list(table.warnings)
    result = {"results": frame.to_dicts(), "warnings": warnings, "output": output}
    if compared is not None:
        lines += ["", *_compared(compared), *summary(compared)]
        result["comparison"] = compared.to_dicts()
        warnings += scale_warnings(frame)
    emit(result, as_json, "\n".join(lines))
    for line in warnings:
        say(f"warning: {line}")


def _text(row: dict[str, Any]) -> str:
    """A line a result for people."""
    from defectgen.core.properties import BY_COLUMN
    from defectgen.one_line import on_one_line

    what = f"{row['label'] or 'pristine'} in {row['host']} {row['supercell']}" if row["host"] else str(row["role"])
    failed = False in (row["electronic_converged"], row["ionic_converged"])  # None: not known, which the note says
    parts = [f"{what} (not converged)" if failed else what]
    shown = (("gap", "band_gap_ev"), ("HOMO", "homo_ev"), ("LUMO", "lumo_ev"), ("E_form", "formation_energy_ev"))
    values = [f"{title} {BY_COLUMN[column].text(row[column])}" for title, column in shown if row[column] is not None]
    energy = row["energy_ev"]
    if row["role"] != "element":  # a metal's few k points show a gap that it does not have
        parts.append(f"{', '.join(values)} eV" if values else "no levels")
    parts += [f"energy {energy:.4f} eV"] if energy is not None else []
    parts += [str(row["note"])] if row["note"] else []
    return on_one_line(f"{row['name']}: {'; '.join(parts)}")


def _compared(table: pl.DataFrame) -> list[str]:
    lines = []
    for row in table.iter_rows(named=True):
        ratio = row["error_in_intervals"]
        width = "" if ratio is None else f", {ratio:+z.2f} of its interval"
        values = f"predicted {row['predicted']:z.3f}, computed {row['computed']:z.3f}, error {row['error']:+z.3f}"
        lines.append(f"{row['label']} {row['property']}: {values}{width}")
    return lines or ["none of the predicted configurations was computed"]
