"""`defectgen surrogate`: train the surrogate, and say how good one is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import DataOption, JsonOption, SeedOption, SetsOption, is_given
from defectgen_cli.output import emit, progress, say, write
from defectgen_cli.table_options import NO_TABLE, TableOptions

if TYPE_CHECKING:
    from defectgen.score.surrogate import Surrogate

app = typer.Typer(no_args_is_help=True, help="Train or evaluate the surrogate of the DFT labels.")

ThreadsOption = Annotated[
    int, typer.Option("--threads", min=1, help="Threads of the trees; their number changes the last digits.")
]


@app.command("train")
@expand_groups
def train(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL", help="Folder to write the surrogate to.")],
    data: DataOption = None,
    sets: SetsOption = "all",
    own: TableOptions = NO_TABLE,
    seed: SeedOption = 42,
    threads: ThreadsOption = 1,
    half: Annotated[
        str | None,
        typer.Option("--half", metavar="a|b", help="Learn from one half of the classes, to judge by the other [all]."),
    ] = None,
    networks: Annotated[
        int,
        typer.Option(
            "--networks",
            metavar="N",
            min=0,
            help="Neural networks of each structure beside the models of crowded cells.",
        ),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a surrogate, and measure it on held-out structures.

    It learns from 90 % of the labelled structures, a ninth of which first chooses the kind of model, and
    is measured on the other 10 %.

    With --table on your own values, in any host: a column configuration (e.g. VAC@A00+Se@B14), structure
    (path of a file) or label, and a column for each property, e.g. homo_ev. The surrogate carries its host.

    With --half the 90 % are divided into two disjoint halves by symmetry class: what is searched for with the
    surrogate of one half is judged independently by that of the other.

    With --networks neural networks get a share in crowded cells, as large as cross-validation finds: some ten
    seconds of CPU time each for a set of 2DMD, and ten networks more for the folds. Hosts of one structure, as
    MoS2 and WSe2, share them.
    """
    from defectgen.errors import UsageError
    from defectgen.io.folders import claimed
    from defectgen.library import train_surrogate, train_surrogate_of_sets

    with claimed(output) as claim:
        if (output / "surrogate.json").exists() and not claim.continued:
            raise UsageError(f"{output} already holds a surrogate.", "Choose another folder for the new one.")
        host = own.find_host()
        words = f"--seed {seed} --threads {threads}" + (f" --networks {networks}" if networks else "")
        started = time.monotonic()
        if own.table is None:
            command = f"defectgen surrogate train --data DIR -o MODEL --sets {sets} {words}"
            command += "" if half is None else f" --half {half}"
            trained = train_surrogate_of_sets(
                data,
                output,
                sets,
                half=half,
                seed=seed,
                threads=threads,
                networks=networks,
                command=command,
                watch=progress,
            )
        elif sets != "all" or half is not None:
            raise UsageError(f"{'--sets' if half is None else '--half'} is of 2DMD.", "Leave it out, or --table.")
        else:
            named = f" --host {own.host}" if own.host else ""
            size = f" --supercell {own.supercell}" if own.supercell else ""
            rules = "".join(f" --allow {text}" for text in own.allow or ())
            command = f"defectgen surrogate train --table {own.table.name}{named}{size}{rules} -o MODEL {words}"
            trained = train_surrogate(
                own.table,
                output,
                host,
                seed=seed,
                threads=threads,
                networks=networks,
                command=command,
                watch=progress,
            )
        _show(trained, output, started, as_json)


def _show(trained: Surrogate, output: Path, started: float, as_json: bool) -> None:
    """Print what was trained, and its errors on the test part."""
    from defectgen.score.intervals import LEAST_ROWS

    if "warning" in trained.metadata:
        say(f"warning: {trained.metadata['warning']}")
    size = sum(file.stat().st_size for file in output.iterdir())
    result = {
        "output": str(output),
        "hosts": trained.hosts,
        "rows": trained.metadata["rows"],
        "size_bytes": size,
        "seconds": round(time.monotonic() - started, 1),
        "test": trained.metadata["errors"]["test"],
    }
    emit(result, as_json, _table(result["test"], f"Test part (not used in training); model in {output}"))
    few = [
        name for name, errors in result["test"].items() if all(one["coverage_90"] is None for one in errors.values())
    ]
    if few:
        kept = ", ".join(f"{name} {trained.metadata['rows'].get(f'{name}/validation', 0)}" for name in few)
        say(f"note: no 90 % intervals, which need {LEAST_ROWS} rows to choose on, some 90 in all; there are: {kept}")


@app.command("evaluate")
def evaluate(
    context: typer.Context,
    data: DataOption = None,
    model: Annotated[Path | None, typer.Option("--model", metavar="MODEL", help="Surrogate [the shipped one].")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the metrics to a JSON file.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Write a page with parity plots.")
    ] = None,
    cross_validate: Annotated[
        bool, typer.Option("--cross-validate", help="Train anew for each of 5 folds of the data, and judge those.")
    ] = False,
    sets: SetsOption = "all",
    seed: SeedOption = 42,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure a surrogate on structures that it has not seen.

    Those in neither its training nor its validation part count. On the data that it was trained from, these are
    exactly the test part of its split. With --cross-validate no trained surrogate is used: five are trained,
    each without one fold of the symmetry classes and without networks, and every structure is judged by the one
    that has not seen it.
    """
    import json

    from defectgen.data.levels import scale_of
    from defectgen.data.locations import labelled_sets
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files
    from defectgen.score.surrogate import Surrogate
    from defectgen.score.surrogate.judgement import judge_by_folds, judge_unseen

    if cross_validate and model is not None:
        raise UsageError("--cross-validate trains its own surrogates.", "Leave out --model.")
    for name in () if cross_validate else ("seed", "threads"):
        if is_given(context, name):
            raise UsageError(f"got --{name} without --cross-validate: nothing is drawn or trained.", "Leave it out.")
    with claimed_files(output, page):
        frame = labelled_sets(data, sets).frame
        if cross_validate:
            scales = {str(name): scale_of(rows).to_dict() for (name,), rows in frame.group_by("set")}
            found = judge_by_folds(frame, seed, threads, watch=progress, level_scales=scales)
        else:
            found = judge_unseen(Surrogate.load(model), frame, "shipped" if model is None else str(model))
        result = found.to_dict()
        write(output, "metrics", lambda: json.dumps(result, indent=1) + "\n")
        if page is not None:
            from defectgen.report.parity import parity_page

            write(page, "parity plots", lambda: parity_page(found.predictions, found.sets, found.means, found.title))
    emit(result, as_json, _table(found.sets | {"mean of sets": found.means}, found.title))


def _table(sets: dict[str, dict[str, dict[str, Any]]], title: str) -> str:
    head = f"{'set':<14} {'property':<29} {'n':>5} {'MAE':>8} {'RMSE':>8} {'R2':>7} {'<20 meV':>8} {'in 90 %':>8}"
    lines = [title, "errors in meV (magnetization: Bohr magnetons); shares are of all n", "", head]
    for name, found in sets.items():
        for column, m in found.items():
            unit = "mev" if "mae_mev" in m else "mu_b"
            numbers = " ".join(_cell(m[f"{key}_{unit}"], 8, 2) for key in ("mae", "rmse"))
            shares = " ".join(_cell(m.get(key), 8, 3) for key in ("within_20_mev", "coverage_90"))
            count = m.get("n", m.get("n_sets"))
            lines.append(f"{name:<14} {column:<29} {count:>5} {numbers} {_cell(m['r2'], 7, 4)} {shares}")
    return "\n".join(lines)


def _cell(value: float | None, width: int, decimals: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{decimals}f}"
