"""`defectgen score`: what structure files are, whether they can be, and what scorers say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import POTENTIALS, JsonOption, M3GNetOption, SurrogateOption
from defectgen_cli.output import emit, end_partial, progress, tell_skipped

if TYPE_CHECKING:
    import polars as pl


def score(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="CIF, POSCAR or extended XYZ files, or folders of them.")
    ],
    scorer: Annotated[
        str,
        typer.Option(
            "--scorer", metavar="NAME[,NAME]", help=f"Some of surrogate, {', '.join(POTENTIALS)}, slices-catboost."
        ),
    ] = "surrogate",
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="NAME|DIR", help="Host of all files, or a folder with it [each its own]."),
    ] = None,
    surrogate: SurrogateOption = None,
    m3gnet: M3GNetOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.csv", help="Write a CSV table.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Name the defects in structure files and predict properties.

    Each file is matched to the known hosts, in any supercell; the layer may be relaxed, strained by a few
    per cent, shifted, turned, lie across any axis, and have another vacuum. The surrogate needs a
    decoration of a host that it was trained on, in the supercell that it was trained on; a
    potential (m3gnet, chgnet) takes any atoms as they are. Columns valid, reasons and novel judge the
    structure, note says what has no score and why. Levels are in eV relative to the valence band
    maximum of the pristine host. The exit code is 3 if some have no score, and
    1 if none has.
    """
    from defectgen.core.hosts import HOSTS, common_name
    from defectgen.data.assets import cache_dir
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files, write_whole
    from defectgen.io.host_files import find_host, stored_hosts
    from defectgen.io.structures import chosen_files, skipped_files
    from defectgen.io.tables import write_csv
    from defectgen.llm.adapter import read_adapter, training_configurations
    from defectgen.models import SHIPPED_ADAPTER, shipped
    from defectgen.score.samples import read_samples
    from defectgen.score.scorers import ScorerOptions, load_scorer, scorer_names
    from defectgen.score.structure_table import structure_table

    names = scorer_names(scorer)
    if output is not None and output.suffix != ".csv":
        raise UsageError(f"got -o {output}, expected a file that ends in .csv.")
    with claimed_files(output):
        paths = chosen_files(files)
        options = ScorerOptions(cache=cache_dir() / "matgl", surrogate=surrogate, m3gnet=m3gnet)
        scorers = {name: load_scorer(name, options) for name in names}
        carried = list(stored_hosts(surrogate).values()) if surrogate is not None and "surrogate" in names else []
        hosts = [find_host(host)] if host else [*carried, *HOSTS.values()]
        samples = []
        with progress("reading", len(paths), "files") as advance:
            for path in paths:
                samples += read_samples(path, hosts)
                advance(1)
        adapter = shipped(SHIPPED_ADAPTER)
        known, trained = training_configurations(adapter), read_adapter(adapter).core_hosts
        found = structure_table(samples, scorers, known, progress, hosts=trained)
        if output is not None:
            write_whole(output, lambda part: write_csv(found.frame, part, float_precision=6))
    found.require_scored()
    skipped = skipped_files(files)
    shown = {"structures": found.frame.to_dicts(), "skipped": [str(path) for path in skipped], "output": output}
    shown_names = {item.name: common_name(item) for item in reversed(hosts)}
    emit(shown, as_json, _text(found.frame, names, shown_names))
    tell_skipped(skipped)
    if missing := found.frame.height - found.n_scored:
        end_partial(f"{missing} of {found.frame.height} structures have no score; see their note.")


def _text(table: pl.DataFrame, names: Sequence[str], hosts: Mapping[str, str]) -> str:
    """A line a structure for people; `hosts` says what they call a host."""
    from itertools import groupby

    from defectgen.core.properties import PROPERTIES, Property
    from defectgen.one_line import on_one_line
    from defectgen.score.protocol import uncertainty_column

    def value_text(row: dict[str, Any], prefix: str, item: Property) -> str:
        half_width = row.get(prefix + uncertainty_column(item.column))
        interval = "" if half_width is None else f" ± {item.text(half_width)}"
        return f"{item.title} {item.text(row[prefix + item.column])}{interval}"

    prefixes = [(f"{name}_", f"{name} ") for name in names] if len(names) > 1 else [("", "")]
    lines = []
    for row in table.iter_rows(named=True):
        cell = f"{hosts.get(row['host'], row['host'])} {row['supercell']}"
        what = f"{row['label']} in {cell}" if row["host"] else row["formula"] or "not read"
        values = [
            (p.unit, shown + value_text(row, prefix, p))
            for prefix, shown in prefixes
            for p in PROPERTIES
            if row.get(prefix + p.column) is not None
        ]
        by_unit = [
            f"{', '.join(text for _, text in group)} {unit}" for unit, group in groupby(values, lambda pair: pair[0])
        ]
        parts = [what, ", ".join(by_unit) or "no score"]
        if row["reasons"] and row["formula"]:
            parts.append(f"not valid: {row['reasons']}")
        if row["transformation"]:
            parts.append(f"read so: {row['transformation']}")
        if row["note"]:
            parts.append(str(row["note"]).removeprefix(f"{row['file']}: "))
        lines.append(on_one_line(f"{row['file']}: {'; '.join(parts)}"))
    return "\n".join(lines)
