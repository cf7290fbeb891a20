"""`defectgen evaluate bulk`: validity, coverage, diversity, novelty and asked conditions of any crystals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from defectgen.metrics.entries import Crystals

WIDTH = 80


def bulk(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...",
            help="Folders of CIFs or of samples; CIF, POSCAR, extended XYZ, CSV or parquet (column cif).",
        ),
    ],
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="CSV|DIR", help="Crystals to be covered, e.g. a test part.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option("--training", metavar="CSV|DIR", help="Crystals that a novel one differs from.")
    ] = None,
    stability: Annotated[
        Path | None,
        typer.Option(
            "--stability", metavar="FILE.csv", help="Energies above the hull: stability.csv of the same FILES."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.json", help="Write metrics, and a page FILE.html beside them."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the row [of the first file or folder].")] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option("--compare", metavar="FILE.json", help="Show metrics of an earlier run as a row; several times."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate a random sample of so many.")] = None,
    reference_limit: Annotated[
        int | None, typer.Option(min=1, help="Take a random sample of reference and of training.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge crystals that any program generated, beside the published figures.

    Fingerprints take up to a second a crystal and are kept in the cache folder. Composition rules and
    fingerprints of compositions need the extra bulk; without it the other metrics are still measured. Crystals that
    cannot be read count in every denominator. --stability brings energies above the hull, row by row, from what
    `defectgen stability` wrote for the same FILES. docs/bulk.md defines each metric.
    """
    from defectgen import __version__
    from defectgen.data.assets import cache_dir
    from defectgen.errors import UsageError
    from defectgen.metrics.crystal_metrics import measure
    from defectgen.metrics.definitions import published
    from defectgen.metrics.entries import read_entries
    from defectgen.report.bulk_page import bulk_page

    page = output.with_suffix(".html") if output is not None else None
    for path in (output, page):
        if path is not None and path.exists():
            raise UsageError(f"{path} exists already.", "Choose another file.")
    if output is not None and output.suffix != ".json":
        raise UsageError(f"got -o {output}, expected a file that ends in .json.")
    title = name or _name(files[0])
    others: dict[str, Mapping[str, Any]] = {}
    for path in compare or ():
        earlier, metrics = _earlier(path)
        if earlier in (title, *others):
            raise UsageError(f"two rows are named {earlier!r}, one in {path}.", "Give each evaluation its own --name.")
        others[earlier] = metrics
    crystals = read_entries(files)
    if stability is not None:
        crystals = crystals.with_stability(stability)
    crystals = crystals.sampled(limit, seed)

    def compared(path: Path) -> Crystals:
        found = read_entries([path]).accepted()
        if not found.entries:
            raise UsageError(f"{path} holds refused draws only.", "Give crystals to compare with.")
        return found.sampled(reference_limit, seed)

    expected = compared(reference) if reference else None
    known: Crystals | None = None
    if training is not None:
        known = expected if training == reference else compared(training)
    report = measure(crystals, expected, known, cache_dir() / "fingerprints", _watch)
    result: dict[str, Any] = {
        "name": title,
        "defectgen": __version__,
        "settings": {
            "files": [str(path) for path in files], "reference": reference, "training": training,
            "stability": stability, "limit": limit, "reference_limit": reference_limit, "seed": seed,
        },
        "counts": report.counts,
        "metrics": report.metrics,
        "failures": report.failures,
        "notes": list(report.notes),
        "published": published(),
    }  # fmt: skip
    if output is not None and page is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
        page.write_text(bulk_page(result, others), encoding="utf-8")
    emit(result | {"output": output, "page": page}, as_json, _text(result, others))
    if report.counts["readable"] < report.counts["crystals"]:
        missing = report.counts["crystals"] - report.counts["readable"]
        first = next(iter(report.failures), "")
        say(f"warning: {missing} of {report.counts['crystals']} crystals cannot be read ({first}, ...).")


def _watch(title: str, total: int, unit: str) -> AbstractContextManager[Any]:
    return progress(title, total, unit)


def _name(path: Path) -> str:
    """Of a folder, of the folder of a table of samples, or of a file without its suffix."""
    place = path.resolve()
    if place.is_dir():
        return place.name
    return place.parent.name if place.name == "samples.parquet" else place.stem


def _earlier(path: Path) -> tuple[str, Mapping[str, Any]]:
    """Name and metrics of an earlier run."""
    from defectgen.errors import UsageError

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return str(data["name"]), {key: item["value"] for key, item in data["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no metrics of `defectgen evaluate bulk`.", "Give its -o file.") from error


def _text(result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """The metrics, then the table of methods, at most 80 columns wide."""
    from defectgen.metrics.definitions import BY_NAME
    from defectgen.report.bulk_page import TABLE, method_rows, number

    lines = [f"{result['name']:.60}: {result['counts']['crystals']} crystals"]
    for key, item in ((key, result["metrics"][key]) for key in BY_NAME if key in result["metrics"]):
        title = BY_NAME[key].title
        if item["value"] is None:
            lines.append(f"  {title:<36}       -  {item.get('why', ''):.31}".rstrip())
            continue
        of = f"{item['n']} of {item['of']}" if "n" in item else f"{item['of']} crystals" if "of" in item else ""
        lines.append(f"  {title:<36}{number(item['value']):>8}  {of}".rstrip())
    for note in result["notes"]:
        lines += wrap(f"note: {note}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    lines += ["", f"{'':<22}" + "".join(f"{short:>8}" for _, short in TABLE)]
    for title, row in method_rows(result, others):
        lines.append(f"{title:<22.22}" + "".join(f"{number(row.get(key)):>8}" for key, _ in TABLE))
    lines.append("published rows: Gruver et al. 2024, Table 1; w: Wasserstein distance")
    return "\n".join(lines)
