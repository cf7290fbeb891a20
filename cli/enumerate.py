"""`defectgen enumerate`: every symmetry-distinct defect structure of a host, their number, or a random sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.core import Host
    from defectgen.core.classes import DefectClass
    from defectgen.report.decoration_files import Decoration

BLOCK = 1_000
"""Structures between two steps of the progress bar."""

MAX_ROWS = 5_000_000
"""More structures than this are not listed without --limit."""


def enumerate_(
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="[LABEL]...", help="Defect classes, e.g. 2v_S v_Mo+Se_S.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="NAME|FILE", help="Known host, or a CIF or POSCAR of a layer's unit cell.")
    ] = "MoS2",
    supercell: Annotated[
        str | None, typer.Option("--supercell", metavar="NxM", help="Repetitions in the plane [as in 2DMD].")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="EL:SP[,SP]", help="Defects instead of the host's own, e.g. Mo:W,VAC."),
    ] = None,
    rules: Annotated[str | None, typer.Option("--rules", metavar="NAME", help="Classes of 2DMD: 2dmd-low.")] = None,
    max_defects: Annotated[int | None, typer.Option(min=1, help="All classes up to so many defects.")] = None,
    min_defects: Annotated[int, typer.Option(min=0, help="Fewest defects, with --max-defects.")] = 1,
    concentration: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of changed sites of random structures.")
    ] = None,
    defects: Annotated[int | None, typer.Option(min=1, help="Number of defects of random structures.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw so many distinct random structures instead of listing all.")
    ] = None,
    uniform: Annotated[
        str, typer.Option(metavar="OVER", help="What random draws are uniform over: classes or decorations.")
    ] = "classes",
    seed: SeedOption = 0,
    count: Annotated[bool, typer.Option("--count", help="Only say how many there are, by Burnside's lemma.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many structures.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Table, .parquet or .csv: a row a structure.")
    ] = None,
    cif_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each structure as a CIF.")] = None,
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

    from defectgen.core.classes import class_from_label, classes_up_to, rule_set
    from defectgen.core.counting import count_classes
    from defectgen.errors import UsageError
    from defectgen.io.files import refuse_existing
    from defectgen.io.host_files import find_host, parse_rules, parse_supercell
    from defectgen.report.decoration_files import CifFolder, numbered, to_frame, write_table

    crystal = find_host(host, parse_supercell(supercell) if supercell else None, parse_rules(allow or ()))
    ways = [bool(labels), rules is not None, max_defects is not None, defects is not None or concentration is not None]
    if sum(ways) != 1 or (defects is not None and concentration is not None):
        raise UsageError(
            "say which structures in one way: labels, --rules, --max-defects, or --defects or --concentration.",
            "E.g. defectgen enumerate --host MoS2 2v_S --count",
        )
    if ways[3] and sample is None and not count:
        raise UsageError("--defects and --concentration are for random structures.", "Add --sample N, or --count.")
    if labels:
        classes = list(dict.fromkeys(class_from_label(crystal, label) for label in labels))
    elif rules is not None:
        classes = rule_set(crystal, rules)
    elif max_defects is not None:
        classes = list(classes_up_to(crystal, max_defects, min_defects))
    else:
        classes = []
        defects = defects or round(float(concentration or 0) * crystal.n_sites)
    if output is not None:
        if output.suffix.lower() not in (".parquet", ".csv"):
            raise UsageError(f"got {output.name!r}, expected a name that ends in .parquet or .csv.")
        refuse_existing(output, overwrite)
    if min_defects != 1 and max_defects is None:
        raise UsageError("--min-defects goes with --max-defects.")
    if count:
        if output is not None or cif_dir is not None or sample is not None:
            raise UsageError("--count only counts.", "Leave out -o, --cif-dir and --sample, or --count.")
        _count(crystal, classes, defects, as_json)
        return
    if uniform not in ("classes", "decorations"):
        raise UsageError(f"got --uniform {uniform!r}, expected classes or decorations.")
    request: dict[str, Any] = {"classes": [c.name for c in classes]}
    if sample is not None:
        request |= {"defects": defects, "sample": sample, "seed": seed, "uniform": uniform}
        rows = _sampled(crystal, classes, defects, sample, uniform, np.random.default_rng(seed))
        expected = sample * max(1, len(classes))
    else:
        expected = sum(count_classes(crystal, c) for c in classes)
        if limit is None and expected > MAX_ROWS:
            raise UsageError(
                f"there are {expected:,} structures, more than {MAX_ROWS:,}.",
                "Add --limit N for the first N, --sample N for random ones, or --count.",
            )
        rows = _listed(crystal, classes)
    if limit is not None:
        rows, expected = itertools.islice(rows, limit), min(limit, expected)
    folder = CifFolder(cif_dir, crystal, {**request, "limit": limit}, overwrite=overwrite) if cif_dir else None
    rows = numbered(rows, folder)
    if output is None and folder is None and not as_json:
        for row in rows:
            print(f"{row.defect_class}\t{row.configuration.key}")
        return
    frames = [to_frame([])]
    with progress("structures", expected, "structures") as advance:
        while block := list(itertools.islice(rows, BLOCK)):
            frames.append(to_frame(block))
            advance(len(block))
    frame = pl.concat(frames)
    by_class = dict(frame.group_by("defect_class", maintain_order=True).len().iter_rows())
    if output is not None:
        write_table(frame, output)
    places = [str(place) for place in (output, cif_dir) if place is not None]
    result: dict[str, Any] = {"n": len(frame), "classes": by_class, "output": output, "cif_dir": cif_dir}
    if not places:
        result["structures"] = frame.to_dicts()
    emit(result, as_json, f"{len(frame):,} distinct structures of {crystal.name} {crystal.size}: {', '.join(places)}")


def _count(crystal: Host, classes: list[DefectClass], defects: int | None, as_json: bool) -> None:
    """Print {class: number}."""
    from defectgen.core.counting import Demand, count_classes

    if defects is not None:
        counted = {f"{defects} defects": Demand.of_size(crystal, defects).n_classes}
    else:
        counted = {c.name: count_classes(crystal, c) for c in classes}
    labels = {c.name: c.label for c in classes if c.label != c.name}
    width = max(len(f"{n:,}") for n in (*counted.values(), sum(counted.values())))
    lines = [f"{name:<6} {n:>{width},}  {labels.get(name, '')}".rstrip() for name, n in counted.items()]
    if len(counted) > 1:
        lines.append(f"{'sum':<6} {sum(counted.values()):>{width},}")
    emit(counted, as_json, "\n".join(lines))
    if not as_json:
        say(f"symmetry-distinct structures of {crystal.name} {crystal.size}")


def _listed(crystal: Host, classes: list[DefectClass]) -> Iterator[Decoration]:
    from defectgen.core.enumeration import enumerate_class
    from defectgen.report.decoration_files import Decoration

    for defects in classes:
        for configuration, multiplicity in enumerate_class(crystal, defects):
            yield Decoration(configuration, defects.name, multiplicity)


def _sampled(
    crystal: Host, classes: list[DefectClass], defects: int | None, sample: int, uniform: Any, rng: Any
) -> Iterator[Decoration]:
    """With several classes, so many of each."""
    from defectgen.core.counting import Demand, sample_distinct
    from defectgen.report.decoration_files import Decoration

    if defects is not None:
        for item in sample_distinct(Demand.of_size(crystal, defects), sample, rng, uniform):
            yield Decoration(item, f"{defects} defects")
    for kind in classes:
        for item in sample_distinct(Demand.of_class(crystal, kind), sample, rng, uniform):
            yield Decoration(item, kind.name)
