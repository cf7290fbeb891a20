"""`defectgen design`: wanted levels in, ranked defect structures out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.engine import Drawing
from defectgen_cli.options import JsonOption, M3GNetOption, SeedOption
from defectgen_cli.output import emit, progress, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from defectgen.core import Configuration
    from defectgen.design.candidates import DesignRun
    from defectgen.score.potentials.relaxation import Relaxation

LEVEL_HELP = "eV relative to the pristine VBM"


def design(
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Host crystal, e.g. MoS2 or WSe2.")],
    homo: Annotated[float | None, typer.Option("--homo", metavar="EV", help=f"Wanted HOMO, {LEVEL_HELP}.")] = None,
    lumo: Annotated[float | None, typer.Option("--lumo", metavar="EV", help=f"Wanted LUMO, {LEVEL_HELP}.")] = None,
    band_gap: Annotated[
        float | None, typer.Option("--band-gap", metavar="EV", help="Wanted HOMO-LUMO gap, eV.")
    ] = None,
    formation_energy: Annotated[
        float | None, typer.Option("--formation-energy", metavar="EV", help="Wanted formation energy of the cell, eV.")
    ] = None,
    fermi_level: Annotated[
        float | None, typer.Option("--fermi-level", metavar="EV", help=f"Wanted Fermi level, {LEVEL_HELP}.")
    ] = None,
    energy_per_atom: Annotated[
        float | None, typer.Option("--energy-per-atom", metavar="EV", help="Wanted total energy per atom, eV.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option("--targets", metavar="FILE.csv", help="Many targets: one a line, a column a property."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Candidates to return for each target.")] = 16,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the results [designs/HOST].")
    ] = None,
    max_defects: Annotated[
        int | None, typer.Option("--max-defects", min=1, help="Most point defects in a cell [as in training].")
    ] = None,
    min_defects: Annotated[int, typer.Option("--min-defects", min=1, help="Fewest point defects in a cell.")] = 1,
    rank_by: Annotated[
        str, typer.Option(metavar="WHAT", help="expected (distance, uncertainty counted) or distance (predicted).")
    ] = "expected",
    kinds: Annotated[
        str | None, typer.Option("--kinds", metavar="KIND", help="Only these defects: vacancy or substitution.")
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="ZERO", help="Zero of all levels: vbm (of the pristine host), or raw (of the data).")
    ] = "vbm",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Structures to generate for each target before ranking [16 n].")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature of the language model.")] = 0.5,
    top_p: Annotated[
        float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest tokens of this probability.")
    ] = 1.0,
    guidance: Annotated[
        float, typer.Option(min=0.0, help="Weight of the target in the model: 1 as trained, more is stricter.")
    ] = 1.0,
    search: Annotated[
        int, typer.Option(min=0, help="Random structures to rank beside those of the language model.")
    ] = 1000,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Trained adapter [the shipped one].")
    ] = None,
    engine_name: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="What runs the language model: transformers or vllm.")
    ] = "transformers",
    surrogate: Annotated[
        Path | None, typer.Option("--surrogate", metavar="DIR", help="Trained surrogate [the shipped one].")
    ] = None,
    relax: Annotated[
        str | None, typer.Option("--relax", metavar="NAME", help="Relax the best with a potential: m3gnet or chgnet.")
    ] = None,
    relax_top: Annotated[
        int, typer.Option("--relax-top", metavar="K", min=1, help="Candidates of each target to relax.")
    ] = 3,
    m3gnet: M3GNetOption = None,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Design defect structures with wanted levels.

    The language model fills in vacancies and substitutions, random structures are added (--search),
    duplicates by symmetry are removed, the surrogate predicts every property, and candidates are ranked by
    their distance to the target (sum of absolute deviations, eV) that is to be expected with the
    uncertainty of the prediction. HOMO, LUMO and
    Fermi level are in eV relative to the valence band maximum of the pristine host unless --reference raw
    is given. The folder holds candidates.csv, candidates.parquet, structures as CIF and POSCAR,
    report.html and manifest.json. With --relax the best candidates are also relaxed by a potential in
    their cell; ranks do not change.
    """
    started = time.monotonic()
    from defectgen.core import get_host
    from defectgen.core.properties import BY_COLUMN
    from defectgen.design.pipeline import DesignSettings
    from defectgen.design.pipeline import design as run_design
    from defectgen.design.pipeline import relax_top as relax_run
    from defectgen.design.proposers import RandomProposer, WithSearch
    from defectgen.design.seeds import seed_for
    from defectgen.design.targets import coverage_warnings, read_targets, single_target
    from defectgen.errors import UsageError
    from defectgen.report import check_output_folder, render_table, write_run
    from defectgen.tasks.defect.encodings import KINDS

    crystal = get_host(host)
    given = {
        "homo_ev": homo,
        "lumo_ev": lumo,
        "band_gap_ev": band_gap,
        "formation_energy_ev": formation_energy,
        "fermi_level_ev": fermi_level,
        "energy_per_atom_ev": energy_per_atom,
    }
    if targets is not None and any(value is not None for value in given.values()):
        raise UsageError("got --targets and single targets.", "Give either a table or options.")
    asked = read_targets(targets) if targets is not None else (single_target(given),)
    if rank_by not in ("expected", "distance"):
        raise UsageError(f"got --rank-by {rank_by!r}, use `expected` or `distance`.")
    if reference not in ("vbm", "raw"):
        raise UsageError(f"got --reference {reference!r}, expected vbm or raw.")
    named = {kind.strip() for kind in (kinds or "").split(",") if kind.strip()}
    wanted_kinds = tuple(kind for kind in KINDS if kind in named)
    if named - set(KINDS):
        raise UsageError(f"got --kinds {kinds!r}, expected vacancy, substitution or both with a comma.")
    if max_defects is not None and min_defects > max_defects:
        raise UsageError(f"got --min-defects {min_defects} and --max-defects {max_defects}, expected no fewer at most.")
    drawing = Drawing(min_defects, max_defects, wanted_kinds, temperature, top_p, guidance, engine_name)
    folder = output or Path("designs") / crystal.name
    check_output_folder(folder, overwrite)

    relaxer = _relaxer(relax, m3gnet) if relax else None
    say("loading model and surrogate ...")
    from defectgen_cli.engine import load_engine

    engine = load_engine(crystal, model, surrogate, drawing)
    raw = engine.raw_reference() if reference == "raw" else None
    warnings = [*engine.warnings]
    if raw is None:
        warnings += coverage_warnings(crystal.name, asked, engine.card.covered_ev[crystal.name])
    else:
        shown = engine.raw_coverage(raw)
        warnings += coverage_warnings(crystal.name, asked, shown)
    for line in warnings:
        say(f"warning: {line}")
    settings = DesignSettings(n=n, samples=samples or 16 * n, seed=seed, rank_by=rank_by)  # type: ignore[arg-type]
    blind = RandomProposer(engine.proposer.max_defects, min_defects, wanted_kinds)
    total = len(asked) * (settings.samples + search)
    with progress(f"generating for {crystal.name}", total, "structures") as advance:
        run = run_design(
            crystal,
            asked,
            WithSearch(engine.proposer, blind, search, seed_for(seed, crystal.name, "search")),
            engine.scorer,
            engine.known,
            settings,
            raw=raw,
            warnings=warnings,
            extra={**engine.facts, "search": search},
            progress=advance,
        )
    if not run.candidates:
        say("interrupted before the first structures; nothing was written." if not run.complete else "no candidates.")
        raise typer.Exit(130 if not run.complete else 1)
    write_run(run, folder, overwrite=overwrite)
    if relaxer is not None and run.complete:
        total = sum(min(relax_top, len(run.of(target))) for target in run.targets)
        with progress(f"relaxing with {relax}", total, "structures") as advance:
            run = relax_run(run, relaxer, relax_top, progress=advance)
        write_run(run, folder, overwrite=True)
    for line in run.warnings[len(warnings) :]:
        say(f"warning: {line}")
    result = _summary(run, folder, time.monotonic() - started)
    emit(result, as_json)
    if not as_json:
        render_table(run)
        levels = not raw and any(BY_COLUMN[column].is_level for target in asked for column, _ in target.values)
        zero = f"; levels in eV relative to the valence band maximum of pristine {crystal.name}" if levels else ""
        typer.echo(f"\n{len(run.candidates)} structures in {folder} ({result['seconds']:.0f} s)")
        typer.echo(f"open {folder / 'report.html'}{zero}")
    if not run.complete:
        say(f"interrupted: {len(run.candidates)} structures from what was generated so far are in {folder}")
        raise typer.Exit(130)


def _relaxer(name: str, m3gnet: str | None) -> Callable[[Configuration], Relaxation]:
    """The function that relaxes a configuration with the potential of this name."""
    from defectgen.data.assets import cache_dir
    from defectgen.errors import UsageError
    from defectgen.score.potentials.potential import PotentialScorer
    from defectgen.score.potentials.relaxation import relax
    from defectgen.score.registry import ScorerOptions, load_scorer

    if name not in ("m3gnet", "chgnet"):
        raise UsageError(f"got --relax {name!r}, expected m3gnet or chgnet.")
    say(f"loading {name} ...")
    scorer = load_scorer(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet))
    if not isinstance(scorer, PotentialScorer):
        raise UsageError(f"{name} is no potential.")
    potential = scorer.potential
    return lambda configuration: relax(configuration.structure(), potential)


def _summary(run: DesignRun, folder: Path, seconds: float) -> dict[str, object]:
    best = [group[0] for target in run.targets if (group := run.of(target))]
    return {
        "output": folder,
        "complete": run.complete,
        "host": run.host.name,
        "reference": run.reference,
        "targets": len(run.targets),
        "candidates": len(run.candidates),
        "novel": sum(candidate.novel for candidate in run.candidates),
        "relaxed": sum(candidate.relaxation is not None for candidate in run.candidates),
        "best": [
            {
                "target_id": candidate.target.id,
                "target": candidate.target.text,
                "label": candidate.configuration.label,
                "configuration": candidate.configuration.key,
                "distance_ev": candidate.distance_ev,
                "novel": candidate.novel,
                **candidate.predicted,
            }
            for candidate in best
        ],
        "settings": dict(run.settings),
        "warnings": list(run.warnings),
        "seconds": round(seconds, 2),
    }
