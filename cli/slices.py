"""`defectgen slices`: the SLICES strings of structure files, and structures from strings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit, end_partial, say, tell_skipped

if TYPE_CHECKING:
    from defectgen.slices.structure_files import SlicesOutcome


def slices(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Structure files or folders of them; with --decode text files, a string a line."
        ),
    ],
    decode: Annotated[
        bool, typer.Option("--decode", help="Structures from strings, by the reference package.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="With --decode: folder for the CIF files.")
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            "--python",
            metavar="FILE",
            envvar="DEFECTGEN_SLICES_PYTHON",
            help="With --decode: interpreter that has the reference package.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the SLICES string of each structure, one a line.

    Atoms keep the order of the file; unrelaxed decorations of a host in its own cell have the order of its
    sites, so that equal decorations give equal strings.
    """
    from defectgen.errors import UsageError
    from defectgen.io.folders import claimed, contents
    from defectgen.io.structures import skipped_files
    from defectgen.slices import ReferencePackage
    from defectgen.slices.structure_files import decode_to_files, encode_files, read_strings

    if not decode:
        if output is not None:
            raise UsageError("-o goes with --decode; strings are printed.", "Redirect them into a file instead.")
        found = encode_files(files)
        tell_skipped(skipped_files(files))
        _report(found, "structures", as_json, [row["slices"] for row in found.made])
        return
    if output is None:
        raise UsageError("--decode writes CIF files and needs a folder for them.", "Name it with -o DIR.")
    with claimed(output) as claim:
        if contents(output) and not claim.continued:
            raise UsageError(f"{output} exists already.", "Choose another folder.")
        texts = read_strings(files)
        package = ReferencePackage.from_environment() if python is None else ReferencePackage(python)
        say(f"decoding {len(texts)} strings with the reference package, up to half a minute each")
        found = decode_to_files(texts, output, package)
    _report(found, "files", as_json, [str(path) for path in found.made])


def _report(found: SlicesOutcome, key: str, as_json: bool, lines: list[str]) -> None:
    """Print what went well; end with an error if nothing did, and say what did not."""
    if not found.made:
        for line in found.problems[1:]:
            say(f"error: {line}")
        found.require_all()
    emit({key: found.made, "problems": found.problems}, as_json, "\n".join(lines))
    for line in found.problems:
        say(f"error: {line}")
    if found.problems:
        end_partial(f"{len(found.problems)} of {found.n_items} failed.")
