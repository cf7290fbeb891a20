"""`defectgen evaluate bulk`: validity, coverage, diversity, novelty and asked conditions of any crystals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectgen_cli.options import JsonOption, SeedOption
from defectgen_cli.output import emit, progress, tell_left_out, tell_unreadable

if TYPE_CHECKING:
    from defectgen.score.bulk_gap import GapModel

WIDTH = 80


def bulk(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
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
    gaps: Annotated[
        Path | None,
        typer.Option(
            "--gaps",
            metavar="CSV",
            help="Judge asked band gaps by trees fitted to these crystals (columns cif, band_gap).",
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
    """Judge generated crystals, beside the published figures.

    Any program may have made them. Fingerprints take up to a second a crystal and are kept in the cache folder.
    Composition rules and fingerprints of compositions need the extra bulk; without it the other metrics are
    still measured. Crystals that cannot be read count in every denominator. --stability brings energies above
    the hull, row by row, from what `defectgen stability` wrote for the same FILES. --gaps fits a predictor of
    band gaps to labelled crystals, in seconds, and states its error. docs/bulk.md defines each metric.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.errors import UsageError
    from defectgen.io.files import claimed_files, write_text
    from defectgen.metrics.crystal_evaluation import CrystalSets, earlier_rows, evaluate_crystals, row_name
    from defectgen.report.bulk_page import bulk_page

    page = output.with_suffix(".html") if output is not None else None
    if output is not None and output.suffix != ".json":
        raise UsageError(f"got -o {output}, expected a file that ends in .json.")
    with claimed_files(output, page):
        title = name or row_name(files[0])
        others = earlier_rows(compare or (), title)
        sets = CrystalSets(tuple(files), reference, training, stability, limit, reference_limit, seed)
        predictor = None if gaps is None else _fitted(gaps)
        result = evaluate_crystals(sets, title, cache_dir() / "fingerprints", progress, predictor)
        if output is not None and page is not None:
            write_text(output, json.dumps(result, indent=1) + "\n")
            write_text(page, bulk_page(result, others))
    emit(result | {"output": output, "page": page}, as_json, _text(result, others))
    counts, named = result["counts"], [(item["name"], item["reason"]) for item in result["unreadable"]]
    tell_unreadable(named, counts["crystals"] - counts["readable"], counts["crystals"])
    tell_left_out([Path(path) for path in result["skipped"]])


def _fitted(gaps: Path) -> GapModel:
    """The predictor of band gaps fitted to a file."""
    from defectgen.data.mp20 import crystal_of, read_crystals
    from defectgen.score.bulk_gap import fit_gaps

    data = read_crystals(gaps)
    named = [(f"{row.source} row {row.row}", row.problem) for row in data.skipped]
    tell_unreadable(named, len(named), len(named) + len(data.frame))
    crystals = [crystal_of(row) for row in data.frame.iter_rows(named=True)]
    return fit_gaps(crystals, data.frame["band_gap_ev"].to_list(), str(gaps), watch=progress)


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
        between = _between(item)
        lines.append(f"  {title:<36}{number(item['value']):>8}  {between:<11}  {of}".rstrip())
    for note in result["notes"]:
        lines += wrap(f"note: {note}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    lines += _by_atoms(result["by_atoms"])
    for condition, table in result["by_asked"].items():
        lines += _by_asked(condition, table)
    lines += ["", f"{'':<17}" + "".join(f"{short:>7}" for _, short in TABLE)]
    for title, row in method_rows(result, others):
        lines.append(f"{title:<18.18}" + "".join(f"{number(row.get(key)):>7}" for key, _ in TABLE)[1:])
    lines.append("published rows: Gruver et al. 2024, Table 1; w: Wasserstein distance")
    lines.append("COV: of all crystals, as CDVAE counts; vCOV: of valid ones, as Gruver et al. do")
    return "\n".join(lines)


def _between(item: Mapping[str, Any]) -> str:
    """The ends of a 95 % interval, e.g. ``0.210-0.330``; empty if there is none."""
    from defectgen.report.bulk_page import number

    ends = item.get("interval_95", ())
    return " to ".join(f"{end:.2f}" for end in ends) if any(end < 0 for end in ends) else "-".join(map(number, ends))


def _by_asked(condition: str, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What came out for each asked value, beside the crystals that were not asked for any against the same value."""
    from defectgen.report.bulk_page import ASKED, number

    lines = [
        "",
        f"{ASKED[condition]:<22}{'n':>5}{'median':>8}{'95 %':>15}{'off':>7}{'hit':>7}{'not: off':>9}{'hit':>7}",
    ]
    for asked, row in table.items():
        names = ("deviation", "hit", "deviation_not_asked", "hit_not_asked")
        off, hit, other_off, other_hit = (number(row.get(name, {}).get("value")) for name in names)
        median = row["median"]
        n = row.get("hit", median)["of"]
        lines.append(
            f"{asked:<22}{n:>5}{number(median['value']):>8}{_between(median):>15}{off:>7}{hit:>7}{other_off:>9}"
            f"{other_hit:>7}"
        )
    return [*lines, "off: mean deviation from the asked value; not: of crystals not asked for any"]


def _by_atoms(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Shares by the number of atoms, where something was asked for or energies are known."""
    shown = {"hit_formula": "formula", "hit_spacegroup": "group", "hit_e_above_hull": "E hull"}
    shown |= {"hit_band_gap": "gap"}
    shown |= {"hit_formula_metastable": "f.+meta", "hit_spacegroup_metastable": "g.+meta", "metastable": "meta"}
    names = [name for name in shown if any(name in shares for shares in classes.values())]
    if not names:
        return []
    lines = ["", f"{'atoms in the cell':<18}{'n':>6}{'valid':>9}" + "".join(f"{shown[name]:>9}" for name in names)]
    for title, shares in classes.items():
        values = [shares.get(name, {}).get("value") for name in ("valid", *names)]
        cells = "".join(f"{'-' if value is None else f'{value:.3f}':>9}" for value in values)
        lines.append(f"{title:<18}{shares['valid']['of']:>6}{cells}")
    return lines
