"""`defectgen inputs`: DFT inputs for structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import POTENTIALS, JsonOption, SupercellOption
from defectgen_cli.output import counted, emit, end_without, tell_skipped

HostOption = Annotated[
    str | None, typer.Option("--host", metavar="NAME|FILE", help="Host of all structures [each a built-in one].")
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="X:Y,VAC", help="Defects of a host from a file; may be given several times."),
]


def inputs(
    what: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILES", help="Folder of a design run, or structure files.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder for the inputs.")],
    code: Annotated[str, typer.Option("--code", metavar="NAME", help="vasp, gpaw, qe or ase.")] = "vasp",
    settings: Annotated[
        str, typer.Option("--settings", metavar="NAME|FILE.yaml", help="2dmd, mp, lcao, or your own.")
    ] = "2dmd",
    charge: Annotated[str, typer.Option("--charge", metavar="N,N", help="Charges of each cell, e.g. -1,0,1.")] = "0",
    element: Annotated[
        list[str] | None,
        typer.Option(
            "--element", metavar="X=FILE", help="Structure of an elemental phase instead of the usual; several times."
        ),
    ] = None,
    references: Annotated[
        bool, typer.Option("--references/--no-references", help="Host and elemental phases too.")
    ] = True,
    relax: Annotated[
        str | None, typer.Option("--relax", metavar="NAME", help=f"Move the atoms by {' or '.join(POTENTIALS)} before.")
    ] = None,
    host: HostOption = None,
    supercell: SupercellOption = None,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write inputs of a DFT code for structures and references.

    One folder for each calculation: the structures, their pristine host, the elemental phases; and a
    README.md that explains the settings. Structures that a symmetry of the host makes equal are
    computed once; a relaxed structure is where its calculation starts. The exit code is 3 if some files
    cannot be taken.
    """
    from defectgen.dft.inputs import dft_inputs
    from defectgen.dft.options import parse_charges, parse_elements
    from defectgen.io.host_files import host_of_options
    from defectgen.io.structures import skipped_files

    left_out: list[str] = []
    made = dft_inputs(
        what,
        output,
        code,
        settings=settings,
        charges=parse_charges(charge),
        host=host_of_options(host, supercell, allow),
        elements=parse_elements(element or ()),
        references=references,
        relax=relax,
        left_out=left_out,
    )
    tell_skipped(skipped_files(what))
    defects = sum(item.role == "defect" for item in made.calculations)
    result = {
        "output": output,
        "code": code,
        "host": made.host.name,
        "supercell": made.host.size,
        "calculations": [{"name": item.name, "about": item.about} for item in made.calculations],
        "notes": made.notes,
        "left_out": left_out,
    }
    others = len(made.calculations) - defects
    text = f"{counted(defects, 'calculations')} of defects and {others} of references in {output}"
    emit(result, as_json, "\n".join([text, *(f"note: {note}" for note in made.notes)]))
    end_without(left_out)
