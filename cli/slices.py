"""`defectgen slices`: the SLICES strings of structure files, and structures from strings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit, say

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from defectgen.core import Configuration

SAME_CELL_ANGSTROM = 0.01
"""How far cell and atoms may be from a host's to be numbered as its sites."""


def slices(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES...", help="CIF or POSCAR files; with --decode text files, a string a line."),
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
    """Print the SLICES string of each structure file, one a line.

    Atoms keep the order of the file; unrelaxed decorations of a host in its own cell have the order of its
    sites, so that equal decorations give equal strings.
    """
    from defectgen.errors import DefectgenError, UsageError

    if decode:
        if output is None:
            raise UsageError("--decode writes CIF files and needs a folder for them.", "Name it with -o DIR.")
        _decode(files, output, python, as_json)
        return
    if output is not None:
        raise UsageError("-o goes with --decode; strings are printed.", "Redirect them into a file instead.")
    rows, problems = [], []
    for path in files:
        try:
            rows.append(_encode(path))
        except DefectgenError as error:
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if rows:
        emit({"structures": rows, "problems": problems}, as_json, "\n".join(row["slices"] for row in rows))
    _refuse(problems, len(files))


def _refuse(problems: list[str], count: int) -> None:
    """End with an error if something failed; what did not is printed or written already."""
    from defectgen.errors import DefectgenError

    for line in problems[1:]:
        say(f"error: {line}")
    if problems:
        raise DefectgenError(problems[0] if count == 1 else f"{problems[0]} ({len(problems)} of {count} failed.)")


def _encode(path: Path) -> dict[str, Any]:
    from defectgen.io.structures import read_structure
    from defectgen.slices import graph_of_configuration, graph_of_structure

    structure = read_structure(path)
    found = _decoration(structure)
    graph = graph_of_structure(structure) if found is None else graph_of_configuration(found)
    return {
        "file": path,
        "host": None if found is None else found.host.name,
        "space_group": graph.space_group,
        "n_atoms": len(graph.species),
        "n_edges": len(graph.edges),
        "slices": graph.text(),
    }


def _decoration(structure: Structure) -> Configuration | None:
    """The decoration of a host's own cell that a structure is, or None."""
    import numpy as np

    from defectgen.core import NotADecorationError, configuration_from_structure, get_host, host_names

    for host in map(get_host, host_names()):
        lengths = np.linalg.norm(host.supercell_lattice, axis=1)
        if np.abs(lengths - structure.lattice.abc).max() < SAME_CELL_ANGSTROM:
            try:
                return configuration_from_structure(host, structure, SAME_CELL_ANGSTROM)
            except NotADecorationError:
                continue
    return None


def _decode(files: list[Path], output: Path, python: Path | None, as_json: bool) -> None:
    from defectgen.errors import DefectgenError, UsageError
    from defectgen.io.files import require_writable
    from defectgen.slices import ReferencePackage, parse_slices

    if output.exists():
        raise UsageError(f"{output} exists already.", "Choose another folder.")
    texts = []
    for path in files:
        try:
            texts += [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DefectgenError(f"{path} cannot be read as text.", "Expected a SLICES string a line.") from error
    if not texts:
        raise UsageError("the files hold no SLICES strings.", "Expected a string a line.")
    for text in texts:
        parse_slices(text)
    package = ReferencePackage.from_environment() if python is None else ReferencePackage(python)
    say(f"decoding {len(texts)} strings with the reference package, up to half a minute each")
    require_writable(output)
    decoded = package.decode(texts)
    written, problems = [], []
    for number, structure in enumerate(decoded, start=1):
        if isinstance(structure, str):
            problems.append(f"string {number}: {structure}")
            continue
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"{number:04d}-{structure.composition.reduced_formula}.cif"
        structure.to(str(path), fmt="cif")
        written.append(path)
    if written:
        emit({"files": written, "problems": problems}, as_json, "\n".join(map(str, written)))
    _refuse(problems, len(texts))
