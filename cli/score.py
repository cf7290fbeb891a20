"""`defectgen score`: what structures in files or a table are, whether they can be, and what scorers say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import POTENTIALS, JsonOption, M3GNetOption, SurrogateOption
from defectgen_cli.output import counted, emit, end_partial, progress, say, tell_skipped

if TYPE_CHECKING:
    import polars as pl

    from defectgen.score.score_request import ScoreRequest
    from defectgen.score.structure_table import StructureTable


def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="CIF, POSCAR or extended XYZ files, folders of them, or a table of `enumerate -o`."
        ),
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
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write a table, .csv or .parquet.")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="NAME|FILE",
            help="Score in parts, so that a killed run goes on; here, or through Parsl: two-workers, slurm, pbs.",
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            metavar="N",
            min=1,
            help="Structures of a part [20000 of a table, 500 files, 25 with a potential].",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Name the defects in structure files and predict properties.

    Each file is matched to the known hosts, in any supercell; the layer may be relaxed, strained by a few
    per cent, shifted, turned, lie across any axis, and have another vacuum. The surrogate needs a
    decoration of a host that it was trained on, in the supercell that it was trained on; a
    potential (m3gnet, chgnet) takes any atoms as they are. Columns valid, reasons and novel judge the
    structure, note says what has no score and why. Levels are in eV relative to the valence band
    maximum of the pristine host. Rows of a table are scored in their order, with atoms on the host's sites. The exit
    code is 3 if some have no score, and 1 if none has.
    """
    from defectgen.core.hosts import HOSTS, common_name
    from defectgen.data.assets import cache_dir
    from defectgen.data.known_labels import with_labels
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files
    from defectgen.io.host_files import find_host, stored_hosts
    from defectgen.io.structures import chosen_files, skipped_files
    from defectgen.llm.adapter import read_adapter, training_configurations
    from defectgen.models import SHIPPED_ADAPTER, shipped
    from defectgen.score.score_request import FILES, ROWS, ScoreRequest, file_items
    from defectgen.score.scorers import ScorerOptions, load_scorer, scorer_names
    from defectgen.score.table_rows import open_table

    names = scorer_names(scorer)
    if output is not None and output.suffix not in (".csv", ".parquet"):
        raise UsageError(f"got -o {output}, expected a file that ends in .csv or .parquet.")
    if executor is not None and output is None:
        raise UsageError("--executor needs -o FILE: the parts are put together there.", "Add -o scores.parquet.")
    table = next((path for path in files if path.suffix.lower() in (".csv", ".parquet") and not path.is_dir()), None)
    if table is not None and len(files) > 1:
        raise UsageError(f"got the table {table.name} and other files, expected one table or structure files.")
    with claimed_files(output):
        options = ScorerOptions(cache=cache_dir() / "matgl", surrogate=surrogate, m3gnet=m3gnet)
        carried = []
        if surrogate is not None and "surrogate" in names:
            load_scorer("surrogate", options)  # says best what is wrong with it
            carried = list(stored_hosts(surrogate).values())
        given = find_host(host) if host else None
        hosts = [given] if given is not None else [*carried, *HOSTS.values()]
        if table is not None:
            items, skipped = open_table(table, given), []
            request = ScoreRequest(ROWS, names, options, tuple(hosts), given)
        else:
            items, skipped = file_items(chosen_files(files)), skipped_files(files)
            adapter = shipped(SHIPPED_ADAPTER)
            trained = read_adapter(adapter).core_hosts
            seen = with_labels(training_configurations(adapter), trained)
            known = {title: sorted(keys) for title, keys in seen.items()}
            request = ScoreRequest(FILES, names, options, tuple(hosts), known=known, trained=tuple(trained))
        found = _scored(request, items, executor, chunk, output)
    found.require_scored()
    in_short = output is not None and (table is not None or executor is not None)
    result = {"n": found.frame.height, "scored": found.n_scored, "skipped": [str(path) for path in skipped]}
    if not in_short:
        result["structures"] = found.frame.to_dicts()
    shown_names = {item.name: common_name(item) for item in reversed(hosts)}
    told = f"{found.n_scored:,} of {found.frame.height:,} structures scored: {output}"
    emit({**result, "output": output}, as_json, told if in_short else _text(found.frame, names, shown_names))
    tell_skipped(skipped)
    if missing := found.frame.height - found.n_scored:
        end_partial(f"{missing} of {found.frame.height} structures have no score; see their note.")


def _scored(
    request: ScoreRequest, items: pl.DataFrame | Path, executor: str | None, chunk: int | None, output: Path | None
) -> StructureTable:
    """Score, here at once or in parts by an executor, and write the table."""

    from defectgen.execution.executors import load_executor
    from defectgen.io.files import write_whole
    from defectgen.io.tables import write_csv, write_parquet
    from defectgen.score.parts import n_items, parts_folder, remove_parts, score_at_once, score_in_parts

    size = chunk or request.usual_chunk
    folder = None
    if executor is not None and output is not None:
        folder = parts_folder(output)
        does = load_executor(executor, folder / ".parsl")
        with progress("scoring", n_items(items), "structures") as advance:
            summary = score_in_parts(folder, request, items, size, does, say=say, advance=advance)
        found = summary.table
        say(f"{counted(summary.parts, 'parts')}, {summary.found} of an earlier run; {summary.cpu_s:.0f} s of CPU time")
    else:
        found = score_at_once(request, items, size, progress)
    if output is not None and not found.is_void:
        frame, csv = found.frame, output.suffix == ".csv"
        write_whole(
            output, lambda part: write_csv(frame, part, float_precision=6) if csv else write_parquet(frame, part)
        )
    if folder is not None:
        remove_parts(folder)
    return found


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
        host = row.get("host")
        cell = f"{hosts.get(host, host)} {row.get('supercell')}" if host else ""
        what = f"{row.get('label')} in {cell}" if host else row.get("formula") or "not read"
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
        if row.get("reasons") and row["formula"]:
            parts.append(f"not valid: {row['reasons']}")
        if row.get("transformation"):
            parts.append(f"read so: {row['transformation']}")
        name = row["file"] if "file" in row else row["configuration"]
        if row["note"]:
            parts.append(str(row["note"]).removeprefix(f"{name}: "))
        lines.append(on_one_line(f"{name}: {'; '.join(parts)}"))
    return "\n".join(lines)
