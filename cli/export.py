"""`defectgen export`: structures in the form that another tool reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.inputs import AllowOption, HostOption
from defectgen_cli.options import JsonOption, SupercellOption
from defectgen_cli.output import emit, end_without, tell_skipped


def export(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|DFT|FILES", help="Design runs, campaigns, folders of DFT results, or structure files."
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="doped, defects, jobflow, optimade or db.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write: .json or .db.")],
    maker: Annotated[
        str | None,
        typer.Option("--maker", metavar="MODULE:CLASS", help="Job of a flow [atomate2.vasp.jobs.core:RelaxMaker]."),
    ] = None,
    host: HostOption = None,
    supercell: SupercellOption = None,
    allow: AllowOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write structures in the form that another tool reads.

    doped: its DefectEntry objects. defects: those of pymatgen-analysis-defects, Defect objects where there is no
    energy by DFT. jobflow: a flow with a job a structure, by default atomate2's relaxation in VASP. optimade: a
    JSON response. db: ASE's database. Structures are relaxed where the run or the results have them so. The exit
    code is 3 if some files cannot be taken.
    """
    from defectgen.errors import UsageError
    from defectgen.exports import ExportOptions
    from defectgen.exports import export as write
    from defectgen.exports.items import holds_files
    from defectgen.io.host_files import host_of_options
    from defectgen.io.structures import skipped_files

    if maker is not None and to != "jobflow":
        raise UsageError(f"got --maker for {to}.", "It is of --to jobflow.")
    options = ExportOptions() if maker is None else ExportOptions(maker)
    left_out: list[str] = []
    made, notes = write(
        what,
        output,
        to,
        host=host_of_options(host, supercell, allow),
        options=options,
        overwrite=overwrite,
        left_out=left_out,
    )
    tell_skipped(skipped_files([path for path in what if holds_files(path)]))
    lines = [f"{to}: written to {made}", *(f"note: {note}" for note in notes)]
    emit({"output": made, "to": to, "notes": notes, "left_out": left_out}, as_json, "\n".join(lines))
    end_without(left_out)
