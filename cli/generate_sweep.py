"""`defectgen sweep`: crystals at several temperatures and nucleus sizes, validity against coverage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import AllowDownloadOption, BulkModelOption, JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.generate.sweep import SweepPoint


def sweep(
    reference: Annotated[
        Path, typer.Option("--reference", metavar="CSV|DIR", help="Crystals to be covered, e.g. a test part.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder; a stopped sweep goes on.")],
    model: BulkModelOption = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Crystals to draw at each point, without redraw.")] = 100,
    temperatures: Annotated[
        str, typer.Option("--temperatures", metavar="T[,T]", help="Sampling temperatures, of coordinates too.")
    ] = "0.5,0.7,1.0",
    top_p: Annotated[str, typer.Option("--top-p", metavar="P[,P]", help="Nucleus sizes.")] = "0.9,1.0",
    min_distance: Annotated[
        float, typer.Option("--min-distance", metavar="A", min=0.0, help="Least distance of atoms, angstrom; 0: any.")
    ] = 0.5,
    radii: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least distance as a share of the radii.")] = 0.75,
    balance: Annotated[
        float | None, typer.Option(min=0.0, metavar="NATS", help="Lean towards an end where charges balance [5].")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Crystals decoded at once.")] = 64,
    allow_download: AllowDownloadOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw crystals at several temperatures, and judge them.

    The more a model sticks to what is likely, the more of its crystals are valid and the less they cover
    (Gruver et al., figure 8). Each pair gets a folder of samples; sweep.csv has validity, coverage and their
    95 % intervals, sweep.svg the plot. The same command goes on where it was stopped: points that are there
    are not drawn again, the one that was interrupted is drawn anew.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.generate.crystal_request import CrystalRequest, bulk_model
    from defectgen.generate.sweep import points_of, run_sweep
    from defectgen.io.folders import claimed
    from defectgen.metrics.generated_entries import read_entries
    from defectgen.report.sweep_plot import write_sweep

    points = points_of(_numbers("--temperatures", temperatures), _numbers("--top-p", top_p))
    read_entries([reference]).require_readable()
    request = CrystalRequest(
        {}, min_distance_angstrom=min_distance, radii=radii, balance=balance, allow_download=allow_download
    )
    with claimed(output):
        found = run_sweep(
            request,
            bulk_model(model),
            points,
            output,
            reference,
            n=n,
            seed=seed,
            batch_size=batch_size,
            store=cache_dir() / "fingerprints",
            watch=progress,
            say=say,
        )
        write_sweep(found.rows, output)
    result = {"output": output, "drawn_now": found.drawn, "points": found.rows, **found.settings}
    emit(result, as_json, _text(points, found.rows, output))


def _numbers(option: str, text: str) -> list[float]:
    from defectgen.errors import UsageError

    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"got {option} {text!r}, expected numbers with commas between, e.g. 0.5,1.0.") from error


def _text(points: list[SweepPoint], rows: list[dict[str, Any]], output: Path) -> str:
    names = {"raw_structural": "struct", "raw_compositional": "comp", "valid": "valid", "cov_recall": "COV-R"}
    names |= {"cov_precision": "COV-P", "wasserstein_density": "w(rho)", "wasserstein_elements": "w(Nel)"}
    lines = [f"{'point':<14}{'draws':>6}" + "".join(f"{short:>19}" for short in names.values())]
    for point, row in zip(points, rows, strict=True):
        cells = "".join(f"{_cell(row, key):>19}" for key in names)
        lines.append(f"{point.name:<14}{row['draws']:>6}{cells}")
    return "\n".join([*lines, f"in brackets: 95 % intervals; table and plot in {output}"])


def _cell(row: dict[str, Any], key: str) -> str:
    """A figure, with its 95 % interval where it has one."""
    if row.get(key) is None:
        return "-"
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return f"{row[key]:.3f}" + (f" ({low:.2f}-{high:.2f})" if low is not None and high is not None else "")
