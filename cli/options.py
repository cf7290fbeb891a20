"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

POTENTIALS = ("m3gnet", "chgnet")
"""The potentials that come with the package, for the help: their registry takes too long to import for it."""


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option, by the name of its parameter, is on the command line."""
    found = context.get_parameter_source(name)
    return found is not None and found.name == "COMMANDLINE"


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON result on stdout; everything else goes to stderr.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; accepted anywhere.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it again even if the result is already there.")]
M3GNetOption = Annotated[
    str | None,
    typer.Option(
        "--m3gnet", metavar="DIR", envvar="DEFECTGEN_M3GNET", help="M3GNet: its folder, or its name on the hub."
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed; the same seed gives the same result.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the config; may be given several times."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", envvar="DEFECTGEN_2DMD", help="2DMD in its published layout; else the fetched one."
    ),
]
SetsOption = Annotated[str, typer.Option("--sets", metavar="A,B", help="Sets of 2DMD, or all.")]
PilotOption = Annotated[bool, typer.Option("--pilot", help="Use the fetched 200-structure sample.")]
SurrogateOption = Annotated[
    Path | None, typer.Option("--surrogate", metavar="DIR", help="Surrogate [the shipped one].")
]
SupercellOption = Annotated[
    str | None, typer.Option("--supercell", metavar="NxM", help="Repetitions in the plane [as in 2DMD].")
]
CoordinateTemperatureOption = Annotated[
    float | None,
    typer.Option("--coordinate-temperature", metavar="T", min=0.0, help="Of the coordinates [that, at most 0.7]."),
]
BulkModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="DIR|NAME", help="Adapter trained on crystals, or a bare base model [the shipped adapter]."
    ),
]
AllowDownloadOption = Annotated[
    bool, typer.Option("--allow-download", help="Get the base model that an adapter names from the model hub.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="NAME,...", help="Files of the structures: cif, poscar, extxyz, db, zip.")
]
VacuumOption = Annotated[
    float | None,
    typer.Option(metavar="ANGSTROM", help="Empty height of the cells, the layer in the middle [the host's own]."),
]
