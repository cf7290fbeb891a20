"""`defectgen enumerate`: every symmetry-distinct defect structure of a host, their number, or a random sample."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import FormatOption, JsonOption, SeedOption, SupercellOption, VacuumOption, is_given
from defectgen_cli.output import counted, emit, progress, say, show

if TYPE_CHECKING:
    from defectgen.core.selection import Selection

BLOCK = 1_000
"""Structures between two steps of the progress bar."""


@dataclass(frozen=True)
class HostOptions:
    """The host to decorate."""

    host: Annotated[
        str, typer.Option("--host", metavar="NAME|FILE", help="Known host, or a CIF or POSCAR of a layer's unit cell.")
    ] = "MoS2"
    supercell: SupercellOption = None
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="EL:SP[,SP]", help="Defects instead of the host's own, e.g. Mo:W,VAC; several times."
        ),
    ] = None
    symmetry_tolerance: Annotated[
        float,
        typer.Option(metavar="A", help="A file that is symmetric to so many angstrom only is noisy; 0.01 takes any."),
    ] = 0.1


@dataclass(frozen=True)
class ClassOptions:
    """Which structures, besides the labels."""

    rules: Annotated[str | None, typer.Option("--rules", metavar="NAME", help="Classes of 2DMD: 2dmd-low.")] = None
    max_defects: Annotated[int | None, typer.Option(min=1, help="All classes up to so many defects.")] = None
    min_defects: Annotated[int, typer.Option(min=0, help="Fewest defects, with --max-defects.")] = 1
    concentration: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of changed sites of random structures.")
    ] = None
    defects: Annotated[int | None, typer.Option(min=1, help="Number of defects of random structures.")] = None


@dataclass(frozen=True)
class DrawOptions:
    """How random structures are drawn."""

    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw so many distinct random structures instead of listing all.")
    ] = None
    uniform: Annotated[
        str, typer.Option(metavar="OVER", help="What random draws are uniform over: classes or decorations.")
    ] = "classes"
    seed: SeedOption = 0


ANY_HOST, ANY_CLASS, NO_DRAW = HostOptions(), ClassOptions(), DrawOptions()


@expand_groups
def enumerate_(
    context: typer.Context,
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="LABEL", help="Defect classes, e.g. 2v_S v_Mo+Se_S.")
    ] = None,
    host: HostOptions = ANY_HOST,
    classes: ClassOptions = ANY_CLASS,
    draw: DrawOptions = NO_DRAW,
    count: Annotated[bool, typer.Option("--count", help="Only say how many there are, by Burnside's lemma.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many structures.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Table, .parquet or .csv: a row a structure.")
    ] = None,
    cif_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the structures there, as CIF or in --format.")
    ] = None,
    formats: FormatOption = "cif",
    vacuum: VacuumOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table and changed CIFs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List, count or sample symmetry-distinct defects of a host.

    Which: defect classes by label, --rules, --max-defects, or, with --sample, any with --defects or
    --concentration. Structures that differ by a symmetry operation of the supercell are one; each is
    shown in canonical form, as species@site, in an order that never changes.
    """
    import numpy as np
    import polars as pl

    from defectgen.core.hosts import common_title
    from defectgen.core.selection import select
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files, refuse_existing
    from defectgen.io.folders import claimed
    from defectgen.io.host_files import find_host, parse_rules, parse_supercell
    from defectgen.io.writers import format_list
    from defectgen.report.decoration_files import StructureFolder, numbered, to_frame, write_table

    size = parse_supercell(host.supercell) if host.supercell else None
    crystal = find_host(host.host, size, parse_rules(host.allow or ()), host.symmetry_tolerance)
    selection = select(
        crystal,
        labels or (),
        rules=classes.rules,
        max_defects=classes.max_defects,
        min_defects=classes.min_defects,
        n_defects=classes.defects,
        concentration=classes.concentration,
    )
    sample, forms = draw.sample, format_list(formats)
    if cif_dir is None and (vacuum is not None or forms != ("cif",)):
        raise UsageError("got --format or --vacuum, and no folder for structures.", "Add --cif-dir DIR.")
    if output is not None:
        if output.suffix.lower() not in (".parquet", ".csv"):
            raise UsageError(f"got {output.name!r}, expected a name that ends in .parquet or .csv.")
        refuse_existing(output, overwrite)
    if draw.sample is None and is_given(context, "uniform"):
        raise UsageError("got --uniform without --sample, whose draws it is for.", "Add --sample N.")
    if count:
        if output is not None or cif_dir is not None or sample is not None or limit is not None:
            raise UsageError("--count only counts.", "Leave out -o, --cif-dir, --sample and --limit, or --count.")
        _show_counts(selection, as_json)
        return
    request: dict[str, Any] = {"classes": [kind.name for kind in selection.classes]}
    if sample is not None:
        request |= {"defects": selection.n_defects, "sample": sample, "seed": draw.seed, "uniform": draw.uniform}
        rows = selection.sampled(sample, np.random.default_rng(draw.seed), draw.uniform)  # type: ignore[arg-type]
        expected = sample * max(1, len(selection.classes))
    else:
        rows = selection.listed(limit)
        expected = sum(selection.counts.values())
    if limit is not None:
        rows, expected = itertools.islice(rows, limit), min(limit, expected)
    with claimed_files(output, overwrite=overwrite), claimed(cif_dir) if cif_dir else nullcontext():
        folder = None
        if cif_dir is not None:
            about = {**request, "limit": limit}
            folder = StructureFolder(cif_dir, crystal, about, forms, vacuum, overwrite=overwrite)
        rows = numbered(rows, folder)
        if output is None and folder is None and not as_json:
            for row in rows:
                show(f"{row.defect_class}\t{row.configuration.key}")
            return
        frames = [to_frame([])]
        with progress("structures", expected, "structures") as advance:
            while block := list(itertools.islice(rows, BLOCK)):
                frames.append(to_frame(block))
                advance(len(block))
        frame = pl.concat(frames)
        by_class = dict(frame.group_by("defect_class", maintain_order=True).len().iter_rows())
        if output is not None:
            write_table(frame, output, crystal)
    places = [str(place) for place in (output, cif_dir) if place is not None]
    result: dict[str, Any] = {"n": len(frame), "classes": by_class, "output": output, "cif_dir": cif_dir}
    if not places:
        result["structures"] = frame.to_dicts()
    number = counted(len(frame), "distinct structures")
    emit(result, as_json, f"{number} of {common_title(crystal)}: {', '.join(places)}")


def _show_counts(selection: Selection, as_json: bool) -> None:
    """Print {class: number}."""
    from defectgen.core.hosts import common_title

    counted, host = selection.counts, selection.host
    labels = {kind.name: kind.label for kind in selection.classes if kind.label != kind.name}
    width = max(len(f"{n:,}") for n in (*counted.values(), sum(counted.values())))
    lines = [f"{name:<6} {n:>{width},}  {labels.get(name, '')}".rstrip() for name, n in counted.items()]
    if len(counted) > 1:
        lines.append(f"{'sum':<6} {sum(counted.values()):>{width},}")
    emit(counted, as_json, "\n".join(lines))
    if not as_json:
        say(f"symmetry-distinct structures of {common_title(host)}")
