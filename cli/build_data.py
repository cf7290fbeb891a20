"""`defectgen build-data`: labelled structures to instruction records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, say


def build_data(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the records.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", envvar="DEFECTGEN_2DMD", help="2DMD in its published layout; else the fetched one."
        ),
    ] = None,
    pilot: Annotated[bool, typer.Option("--pilot", help="Use the fetched 200-structure sample.")] = False,
    sets: Annotated[str, typer.Option("--sets", metavar="NAME[,NAME]", help="Sets of 2DMD, or all.")] = "all",
    encoding: Annotated[
        str, typer.Option(metavar="NAME", help="edits (compact), symbols, or crystal (every line written out).")
    ] = "edits",
    copies: Annotated[int, typer.Option(min=1, help="Training records a structure, drawn anew.")] = 1,
    rotations: Annotated[
        bool | None,
        typer.Option("--rotations/--canonical", help="Random symmetry images; by default except with edits."),
    ] = None,
    cartesian: Annotated[
        bool, typer.Option("--cartesian", help="Positions in angstrom, axes turned at random (not with edits).")
    ] = False,
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="symmetry-class, or to extrapolate: defect-class, density.")
    ] = "symmetry-class",
    seed: SeedOption = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace records made with other settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn labelled defect structures into instruction records.

    Writes train, validation and test as JSON lines and a manifest. The parts are drawn by symmetry
    class (80/10/10), so no image of a training structure is in the other two; --split defect-class tests
    on the classes V6 and S6, --split density on high density after training on low. Levels in the
    prompts are in eV relative to the pristine host's valence band maximum.
    """
    from defectgen.data.records import RecordSettings
    from defectgen.data.records import build_data as build
    from defectgen.data.splits import split_rows
    from defectgen.data.twodmd import read_dataset
    from defectgen.errors import UsageError
    from defectgen.text.encodings import ENCODINGS
    from defectgen_cli.data import chosen_sets, dataset_path

    if encoding not in ENCODINGS:
        raise UsageError(f"unknown encoding {encoding!r}.", f"Expected one of: {', '.join(ENCODINGS)}.")
    chosen = encoding != "edits" if rotations is None else rotations
    settings = RecordSettings(
        encoding=encoding, copies=copies, rotations=chosen, cartesian=cartesian, split=split, seed=seed
    )
    if pilot and sets != "all":
        raise UsageError("--sets is for the full data.", "Leave out --sets or --pilot.")
    wanted = chosen_sets(sets)
    say("reading structures ...")
    frame = split_rows(read_dataset(dataset_path(data, pilot=pilot), wanted), split, seed=seed)
    manifest = build(frame, output, settings, overwrite=overwrite)
    counts = {name: entry["records"] for name, entry in manifest["files"].items()}
    text = ", ".join(f"{n} in {name}" for name, n in counts.items())
    done = "records are there already" if manifest.get("skipped") else "records written"
    emit({"output": output, "skipped": False} | manifest, as_json, f"{done}: {text} ({output})")
