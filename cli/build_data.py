"""`defectgen build-data`: labelled structures to instruction records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, PilotOption, SeedOption, SetsOption
from defectgen_cli.output import emit, say

if TYPE_CHECKING:
    from defectgen.data.mp20 import CrystalData

DEFECT_OPTIONS = ("pilot", "sets", "encoding", "rotations", "cartesian", "enlarge", "surrogate")
BULK_OPTIONS = ("max_atoms",)
FLAGS = {"rotations": "--rotations/--canonical"}
NAMED_ROWS = 5
"""So many of the rows that cannot be used are named on the terminal."""


def build_data(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the records.")],
    task: Annotated[str, typer.Option(metavar="NAME", help="defect, or bulk (whole crystals).")] = "defect",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            envvar="DEFECTGEN_2DMD",
            help="2DMD in its published layout; bulk: CSV files or CIFs; else the fetched 2DMD or MP-20.",
        ),
    ] = None,
    pilot: PilotOption = False,
    sets: SetsOption = "all",
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
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="symmetry-class (default), or to extrapolate: defect-class, density; bulk: published, formula.",
        ),
    ] = None,
    enlarge: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Random structures to add to each high-density set, with the surrogate's values."
        ),
    ] = 0,
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="With --enlarge [the shipped one].")
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Bulk: leave out crystals with more atoms.")] = 30,
    seed: SeedOption = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace records made with other settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn labelled structures into instruction records.

    Of defects, or with --task bulk of crystals. Writes train, validation and test as JSON lines and a
    manifest. The parts are drawn by symmetry class (80/10/10), so no image of a training structure is in
    the other two; --split defect-class tests on the classes V6 and S6, --split density on high density
    after training on low. Levels in the prompts are in eV relative to the pristine host's valence band
    maximum. --enlarge adds random structures to the training part of the high-density sets; their records
    say values_by: surrogate.

    With --task bulk: generation and infill records of crystals from CSV files with a column cif, such as
    MP-20's, or from a folder of CIFs. The parts are those of train.csv, val.csv and test.csv; one table is
    divided by formula (80/10/10).
    """
    from defectgen.errors import UsageError

    if task not in ("defect", "bulk"):
        raise UsageError(f"unknown task {task!r}.", "Expected one of: defect, bulk.")
    foreign = DEFECT_OPTIONS if task == "bulk" else BULK_OPTIONS
    given = [name for name in foreign if _source(context, name) == "COMMANDLINE"]
    if given:
        option = FLAGS.get(given[0], "--" + given[0].replace("_", "-"))
        raise UsageError(f"{option} has no meaning for the task {task}.", "Leave it out.")
    if task == "bulk":
        chosen_path = data if _source(context, "data") == "COMMANDLINE" else None
        manifest = _build_bulk(output, chosen_path, copies, split, max_atoms, seed, overwrite)
        _report(manifest, output, as_json)
        return

    from defectgen.data.locations import chosen_sets, dataset_path
    from defectgen.data.records import RecordSettings
    from defectgen.data.records import build_data as build
    from defectgen.data.splits import split_rows
    from defectgen.data.twodmd import read_dataset
    from defectgen.design.pseudo_labels import enlarge_records
    from defectgen.io.files import require_writable
    from defectgen.models import SHIPPED_SURROGATE, shipped
    from defectgen.tasks.defect.encodings import ENCODINGS

    if encoding not in ENCODINGS:
        raise UsageError(f"unknown encoding {encoding!r}.", f"Expected one of: {', '.join(ENCODINGS)}.")
    chosen = encoding != "edits" if rotations is None else rotations
    how = split or "symmetry-class"
    if surrogate is not None and not enlarge:
        raise UsageError("--surrogate values the structures that --enlarge adds.", "Add --enlarge N or leave it out.")
    if enlarge and (pilot or how != "symmetry-class"):
        what = "the pilot sample has" if pilot else f"the split {how} trains on"
        raise UsageError(f"{what} no high-density structures for --enlarge.", "Leave it out.")
    settings = RecordSettings(
        encoding=encoding, copies=copies, rotations=chosen, cartesian=cartesian, split=how, enlarge=enlarge, seed=seed
    )
    if pilot and sets != "all":
        raise UsageError("--sets is for the full data.", "Leave out --sets or --pilot.")
    wanted = chosen_sets(sets)
    require_writable(output)
    say("reading structures ...")
    frame = split_rows(read_dataset(dataset_path(data, pilot=pilot), wanted), how, seed=seed)
    if enlarge:
        say("drawing random structures ...")
        frame, settings = enlarge_records(frame, settings, surrogate or shipped(SHIPPED_SURROGATE))
    _report(build(frame, output, settings, overwrite=overwrite), output, as_json)


def _report(manifest: dict[str, Any], output: Path, as_json: bool) -> None:
    counts = {name: entry["records"] for name, entry in manifest["files"].items()}
    text = ", ".join(f"{n} in {name}" for name, n in counts.items())
    done = "records are there already" if manifest.get("skipped") else "records written"
    emit({"output": output, "skipped": False} | manifest, as_json, f"{done}: {text} ({output})")


def _source(context: typer.Context, name: str) -> str:
    """Where the value of an option comes from, e.g. ``COMMANDLINE`` or ``ENVIRONMENT``."""
    found = context.get_parameter_source(name)
    return "" if found is None else found.name


def _build_bulk(
    output: Path, data: Path | None, copies: int, split: str | None, max_atoms: int, seed: int, overwrite: bool
) -> dict[str, Any]:
    from defectgen.data.bulk_records import BulkRecordSettings, build_bulk_data
    from defectgen.data.locations import crystals_path
    from defectgen.data.mp20 import read_crystals

    BulkRecordSettings(copies, max_atoms, split or "formula", seed)  # refused before the reading if they are wrong
    path = crystals_path(data)
    say("reading crystals ...")
    found = read_crystals(path)
    _tell_skipped(found)
    how = split or ("published" if found.own_split else "formula")
    settings = BulkRecordSettings(copies=copies, max_atoms=max_atoms, split=how, seed=seed)
    manifest = build_bulk_data(found, output, settings, overwrite=overwrite)
    if manifest["too_large"]:
        say(f"left out {manifest['too_large']} crystals with more than {max_atoms} atoms")
    return manifest


def _tell_skipped(found: CrystalData) -> None:
    """Name the first rows that cannot be used and count all."""
    for item in found.skipped[:NAMED_ROWS]:
        say(f"skipped {item}")
    if found.skipped:
        say(f"skipped {len(found.skipped)} of {len(found.skipped) + len(found.frame)} crystals")
