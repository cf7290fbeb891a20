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
        str, typer.Option("--temperatures", metavar="T[,T]", help="Sampling temperatures.")
    ] = "0.5,0.7,1.0",
    top_p: Annotated[str, typer.Option("--top-p", metavar="P[,P]", help="Nucleus sizes.")] = "0.9,1.0",
    min_distance: Annotated[
        float, typer.Option("--min-distance", metavar="A", min=0.0, help="Least distance of atoms, angstrom; 0: any.")
    ] = 0.5,
    radii: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least distance as a share of the radii.")] = 0.75,
    balance: Annotated[
        float, typer.Option(min=0.0, metavar="NATS", help="Lean towards an end where charges balance.")
    ] = 0.0,
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
    import polars as pl

    from defectgen.data.assets import cache_dir
    from defectgen.generate.crystal_request import CrystalRequest, bulk_card, bulk_model, draw_from, open_generator
    from defectgen.generate.sweep import draw_point, is_done, judge_points, points_of
    from defectgen.io.files import file_hash, write_text
    from defectgen.io.folders import claimed
    from defectgen.io.run_settings import claim_settings
    from defectgen.io.tables import write_csv
    from defectgen.llm.decode.generator import Sampling
    from defectgen.metrics.generated_entries import read_entries
    from defectgen.report.sweep_plot import sweep_plot

    model = bulk_model(model)
    points = points_of(_numbers("--temperatures", temperatures), _numbers("--top-p", top_p))
    read_entries([reference]).require_readable()
    request = CrystalRequest(
        {}, min_distance_angstrom=min_distance, radii=radii, balance=balance, allow_download=allow_download
    )
    with claimed(output):
        card = bulk_card(model)
        job = request.job(card)
        weights = Path(model) / "adapter_model.safetensors"
        settings = {
            "model": model,
            "weights": file_hash(weights) if weights.is_file() else None,
            "n": n,
            "seed": seed,
            "min_distance_angstrom": min_distance,
            "radii": radii,
            "balance": balance,
        }
        claim_settings(output, "sweep", settings)
        missing = [point for point in points if not is_done(output / point.name)]
        if missing:
            say(f"loading {model} ...")
            generator = open_generator(model, card, request)
        for point in missing:
            sampling = Sampling(temperature=point.temperature, top_p=point.top_p, batch_size=batch_size)
            draw = draw_from(generator, request, job, sampling)
            facts = request.facts(model, card, sampling) | {"max_draws": n}
            with progress(f"drawing {point.name}", n, "valid crystals") as advance:
                draw_point(point, output / point.name, job, draw, n, seed, request.checks(), facts, advance)
        rows = judge_points(points, output, reference, cache_dir() / "fingerprints", progress)
        write_csv(pl.DataFrame(rows, infer_schema_length=None), output / "sweep.csv")
        write_text(output / "sweep.svg", sweep_plot(rows))
    result = {"output": output, "drawn_now": len(missing), "points": rows, **settings}
    emit(result, as_json, _text(points, rows, output))


def _numbers(option: str, text: str) -> list[float]:
    from defectgen.errors import UsageError

    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"got {option} {text!r}, expected numbers with commas between, e.g. 0.5,1.0.") from error


def _text(points: list[SweepPoint], rows: list[dict[str, Any]], output: Path) -> str:
    names = {"raw_structural": "struct", "raw_compositional": "comp", "valid": "valid", "cov_recall": "COV-R"}
    names |= {"cov_precision": "COV-P", "wasserstein_density": "w(rho)", "wasserstein_elements": "w(Nel)"}
    lines = [f"{'point':<14}{'draws':>6}" + "".join(f"{short:>8}" for short in names.values())]
    for point, row in zip(points, rows, strict=True):
        cells = "".join(f"{'-' if row.get(key) is None else f'{row[key]:.3f}':>8}" for key in names)
        lines.append(f"{point.name:<14}{row['draws']:>6}{cells}")
    return "\n".join([*lines, f"table and plot in {output}"])
