"""The options that several commands share, each written once."""

from __future__ import annotations

from typing import Annotated

import typer

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
