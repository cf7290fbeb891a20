"""`defectgen search`: the most stable of the crystals that a model draws, by plain draws or a tree search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.generate import UNCONDITIONAL, USUAL_CRYSTALS, ConditionOptions, CrystalOptions
from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import (
    POTENTIALS,
    AllowDownloadOption,
    BulkModelOption,
    CoordinateTemperatureOption,
    JsonOption,
    M3GNetOption,
    SeedOption,
)
from defectgen_cli.output import emit, end_partial, progress, say

if TYPE_CHECKING:
    from defectgen.generate.crystal_search import CrystalSearch
    from defectgen.stability.study import Study

SHOWN = 5


@expand_groups
def search(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder; a stopped search goes on.")],
    hull: Annotated[
        str, typer.Option("--hull", metavar="FILE|DIR|mp-api", help="Known compounds, as for `defectgen stability`.")
    ],
    model: BulkModelOption = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Different crystals to relax, 2 or more.")] = 16,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="best: of plain draws; tree: from promising beginnings.")
    ] = "best",
    conditions: ConditionOptions = UNCONDITIONAL,
    crystals: CrystalOptions = USUAL_CRYSTALS,
    potential: Annotated[
        str, typer.Option("--potential", metavar="NAME", help=f"{' or '.join(POTENTIALS)}.")
    ] = "m3gnet",
    m3gnet: M3GNetOption = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of lattice and elements when sampling.")] = 1.0,
    coordinate_temperature: CoordinateTemperatureOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Crystals decoded at once.")] = 64,
    max_draws: Annotated[
        int | None, typer.Option("--max-draws", min=1, help="Give up after so many draws [10 for each crystal].")
    ] = None,
    allow_download: AllowDownloadOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Search the crystal of lowest energy above the hull.

    The model draws crystals as in `defectgen generate`, most often of one --formula; each that is new and
    passes the checks is relaxed with the potential, and its energy above the hull computed as in `defectgen
    stability`. With --method best all draws begin anew. With tree (after Antunes et al. 2024) only the first
    ones do: later ones keep the lattice and some atoms of crystals that came out low, and the model draws the
    rest. Both cost -n relaxations. The folder is one of `defectgen stability`, the lowest crystal first, with
    all draws in draws.jsonl; the same command goes on where it was stopped, with a larger -n too.
    """
    from defectgen.generate.crystal_request import CrystalRequest, bulk_model, crystal_sampling
    from defectgen.generate.search_study import run_search
    from defectgen.io.folders import claimed

    request = CrystalRequest(
        asdict(conditions),
        exact_formula=crystals.exact_formula,
        elements=crystals.symbols,
        max_atoms=crystals.max_atoms,
        min_distance_angstrom=crystals.min_distance,
        radii=crystals.radii,
        neutral=crystals.neutral,
        balance=crystals.balance,
        orbits=crystals.orbits,
        allow_download=allow_download,
    )
    with claimed(output):
        searched = run_search(
            request,
            bulk_model(model),
            hull,
            output,
            n=n,
            method=method,
            potential=potential,
            m3gnet=m3gnet,
            sampling=crystal_sampling(temperature, coordinate_temperature, batch_size=batch_size),
            seed=seed,
            max_draws=max_draws,
            watch=progress,
            say=say,
        )
    found, study = searched.found, searched.study
    for line in study.warnings:
        say(f"warning: {line}")
    study.require_judged()
    counts = {"draws": found.draws, "refused": found.refused, "repeated": found.repeated, "relaxed": len(found.found)}
    rows = study.table.select("name", "formula", "n_atoms", "e_above_hull_ev_per_atom", "n_competing", "status")
    result = {"output": output, **searched.settings, **counts, "partial_hull": study.hull.partial or None}
    shares = ("judged", "judged_without_competitor", "share_with_competitors_of_judged")
    result |= {name: study.counts[name] for name in (*shares, "share_with_competitors_of_judged_95")}
    emit(result | {"crystals": rows.to_dicts()}, as_json, _text(found, study, output))
    if len(found.found) < n:
        end_partial(f"only {len(found.found)} of {n} crystals were found in {found.draws} draws.")


def _text(found: CrystalSearch, study: Study, output: Path) -> str:
    """The result for people."""
    from defectgen.core.interval import percent_text

    partial = " (a partial hull: energies above it are too low)" if study.hull.partial else ""
    lines = [
        f"{len(found.found)} crystals relaxed, from {found.draws} draws ({found.refused} refused, {found.repeated} "
        f"repeated); energy above the hull{partial}:"
    ]
    if judged := study.counts["judged"]:
        known = judged - study.counts["judged_without_competitor"]
        rest = "; the others compete with their elements only" if known < judged else ""
        lines.append(f"competitors known: for {known} of {judged} judged ({percent_text(known, judged)}){rest}")
    for rank, row in enumerate(study.table.head(SHOWN).to_dicts(), 1):
        energy = row["e_above_hull_ev_per_atom"]
        shown = f"{energy:+.3f} eV/atom" if energy is not None else row["note"] or row["status"]
        lines.append(f"{rank:>3}  {row['formula']:<14} {row['n_atoms']:>3} atoms  {shown:<17} {row['name']}")
    if len(found.found) > SHOWN:
        lines.append(f"     and {len(found.found) - SHOWN} more in stability.csv")
    return "\n".join([*lines, f"results in {output}"])
