"""`defectgen build-data`: labelled structures to instruction records."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import JsonOption, PilotOption, SeedOption, SetsOption, is_given
from defectgen_cli.output import emit, say, tell_left_out, tell_repeated
from defectgen_cli.table_options import NO_TABLE, TableOptions

NAMED_ROWS = 5
"""So many of the rows that cannot be used are named on the terminal."""


@dataclass(frozen=True)
class DefectOptions:
    """What is for records of defects only."""

    pilot: PilotOption = False
    sets: SetsOption = "all"
    encoding: Annotated[
        str,
        typer.Option(metavar="NAME", help="edits (compact), composition (crowded cells), symbols, or crystal (long)."),
    ] = "edits"
    rotations: Annotated[
        bool | None,
        typer.Option("--rotations/--canonical", help="Random symmetry images; by default in the long encodings."),
    ] = None
    cartesian: Annotated[
        bool, typer.Option("--cartesian", help="Positions in angstrom, axes turned at random (long encodings only).")
    ] = False
    enlarge: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Random structures to add to each high-density set, with the surrogate's values."
        ),
    ] = 0
    around: Annotated[
        int, typer.Option(min=0, metavar="N", help="Structures around what searches found to add likewise.")
    ] = 0
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="Records of each labelled high-density structure, per copy.")
    ] = 1
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="With --enlarge, --around [the shipped one].")
    ] = None


@dataclass(frozen=True)
class BulkOptions:
    """What is for records of crystals only."""

    max_atoms: Annotated[int, typer.Option(min=1, help="Bulk: leave out crystals with more atoms.")] = 30
    prompts: Annotated[str, typer.Option(metavar="NAME", help="Bulk: defectgen or gruver2024.")] = "defectgen"
    permute: Annotated[bool, typer.Option("--permute", help="Bulk: atoms in random order.")] = False
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Bulk: positions in angstrom, not in shares of the cell.")
    ] = False


@dataclass(frozen=True)
class RecordOptions:
    """What is for both."""

    copies: Annotated[int, typer.Option(min=1, help="Training records a structure, drawn anew.")] = 1
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="symmetry-class (default), or to extrapolate: defect-class, density; bulk: published, formula.",
        ),
    ] = None
    seed: SeedOption = 42
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace records made with other settings.")] = False


ANY_DEFECTS, ANY_CRYSTALS, USUAL_RECORDS = DefectOptions(), BulkOptions(), RecordOptions()


@expand_groups
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
            help="2DMD in its published layout; bulk: CSV or structure files; else the fetched 2DMD or MP-20.",
        ),
    ] = None,
    records: RecordOptions = USUAL_RECORDS,
    defects: DefectOptions = ANY_DEFECTS,
    own: TableOptions = NO_TABLE,
    crystals: BulkOptions = ANY_CRYSTALS,
    as_json: JsonOption = False,
) -> None:
    """Turn labelled structures into instruction records.

    Of defects, or with --task bulk of crystals. Writes train, validation and test as JSON lines and a
    manifest. The parts are drawn by symmetry class (80/10/10), so no image of a training structure is in
    the other two; --split defect-class tests on the classes V6 and S6, --split density on high density
    after training on low. Levels in the prompts are in eV relative to the pristine host's valence band
    maximum. --enlarge adds random structures to the training part of the high-density sets, --around those
    that searches for levels over the whole range found, and neighbours; their records say values_by: surrogate.

    With --table records of your own values in any host; the columns are those of `surrogate train --table`.

    With --task bulk: generation and infill records of crystals from CSV files with a column cif, such as
    MP-20's, or from structure files. The parts are those of train.csv, val.csv and test.csv; one table is
    divided by formula (80/10/10).
    """
    from defectgen.errors import UsageError
    from defectgen.io.folders import claimed

    if task not in ("defect", "bulk"):
        raise UsageError(f"unknown task {task!r}.", "Expected one of: defect, bulk.")
    for field in (*fields(DefectOptions), *fields(TableOptions)) if task == "bulk" else fields(BulkOptions):
        if is_given(context, field.name):
            option = "--rotations/--canonical" if field.name == "rotations" else f"--{field.name.replace('_', '-')}"
            raise UsageError(f"{option} has no meaning for the task {task}.", "Leave it out.")
    with claimed(output):
        if task == "bulk":
            manifest = _build_bulk(output, data if is_given(context, "data") else None, records, crystals)
        else:
            if is_given(context, "data") and (own.table is not None or defects.pilot):
                raise UsageError(
                    f"got --data with {'--pilot' if defects.pilot else '--table'}, which is where the structures come "
                    "from.",
                    "Leave one of them out.",
                )
            manifest = _build_defects(output, data, records, defects, own)
    counts = {name: entry["records"] for name, entry in manifest["files"].items()}
    text = ", ".join(f"{n} in {name}" for name, n in counts.items())
    done = "records are there already" if manifest.get("skipped") else "records written"
    emit({"output": output, "skipped": False} | manifest, as_json, f"{done}: {text} ({output})")


def _build_defects(
    output: Path, data: Path | None, records: RecordOptions, defects: DefectOptions, own: TableOptions
) -> dict[str, Any]:
    from defectgen.data.locations import chosen_sets, dataset_path
    from defectgen.data.own_table import read_own_table, valued_columns
    from defectgen.data.records import RecordSettings, build_data
    from defectgen.data.sources import read_dataset
    from defectgen.data.splits import split_rows
    from defectgen.data.twodmd import COLUMNS
    from defectgen.design.pseudo_labels import enlarge_records
    from defectgen.errors import UsageError
    from defectgen.models import SHIPPED_SURROGATE, shipped
    from defectgen.tasks.defect.encodings import get_encoding

    how = records.split or "symmetry-class"
    more_asked = bool(defects.enlarge or defects.around)
    more = "--around" if defects.around and not defects.enlarge else "--enlarge"
    if defects.surrogate is not None and not more_asked:
        raise UsageError(
            "--surrogate values the structures that --enlarge and --around add.", "Add one of these or leave it out."
        )
    if more_asked and (defects.pilot or how != "symmetry-class"):
        what = "the pilot sample has" if defects.pilot else f"the split {how} trains on"
        raise UsageError(f"{what} no high-density structures for {more}.", "Leave it out.")
    if own.table is not None and more_asked and defects.surrogate is None:
        raise UsageError(
            f"got {more} with --table: its structures need values like yours, not those of the shipped surrogate.",
            f"Train one on the table (defectgen surrogate train --table {own.table} --seed {records.seed} -o DIR), and "
            "give --surrogate DIR.",
        )
    settings = RecordSettings(
        encoding=defects.encoding,
        copies=records.copies,
        rotations=get_encoding(defects.encoding).has_coordinates if defects.rotations is None else defects.rotations,
        cartesian=defects.cartesian,
        split=how,
        enlarge=defects.enlarge,
        around=defects.around,
        repeat=defects.repeat,
        seed=records.seed,
    )
    if defects.pilot and defects.sets != "all":
        raise UsageError("--sets is for the full data.", "Leave out --sets or --pilot.")
    wanted = chosen_sets(defects.sets)
    host = own.find_host()
    if own.table is not None and (defects.pilot or defects.sets != "all"):
        raise UsageError("--pilot and --sets are of 2DMD.", "Leave them out, or --table.")
    say("reading structures ...")
    if own.table is not None:
        rows = read_own_table(own.table, host)
        settings = replace(settings, properties=valued_columns(rows))
    else:
        rows = read_dataset(dataset_path(data, pilot=defects.pilot), wanted)
        own_columns = tuple(column for column in valued_columns(rows) if column not in COLUMNS)
        settings = replace(settings, properties=(*settings.properties, *own_columns))
    frame = split_rows(rows, how, seed=records.seed)
    if more_asked:
        say("searching and drawing structures ..." if defects.around else "drawing random structures ...")
        frame, settings = enlarge_records(frame, settings, defects.surrogate or shipped(SHIPPED_SURROGATE))
    return build_data(frame, output, settings, overwrite=records.overwrite)


def _build_bulk(output: Path, data: Path | None, records: RecordOptions, crystals: BulkOptions) -> dict[str, Any]:
    from defectgen.data.bulk_records import BulkRecordSettings, build_bulk_data
    from defectgen.data.locations import crystals_path
    from defectgen.data.mp20 import read_crystals

    settings = BulkRecordSettings(
        records.copies,
        crystals.max_atoms,
        records.split or "formula",
        records.seed,
        crystals.prompts,
        crystals.permute,
        crystals.absolute,
    )
    path = crystals_path(data)
    say("reading crystals ...")
    found = read_crystals(path)
    tell_repeated([str(item) for item in found.repeated])
    for item in found.skipped[:NAMED_ROWS]:
        say(f"skipped {item}")
    if found.skipped:
        say(f"skipped {len(found.skipped)} of {len(found.skipped) + len(found.frame)} crystals")
    left_out = found.left_out if path == data else ()  # a folder of the user's, not a fetched one
    tell_left_out(left_out)
    if records.split is None and found.own_split:
        settings = replace(settings, split="published")
    manifest = build_bulk_data(found, output, settings, overwrite=records.overwrite)
    if manifest["too_large"]:
        say(f"left out {manifest['too_large']} crystals with more than {crystals.max_atoms} atoms")
    return manifest | {"left_out": [str(file) for file in left_out]}
