"""`defectgen campaign`: propose, compute, learn, again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.design_options import TargetOptions
from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import POTENTIALS, JsonOption, SeedOption, SupercellOption
from defectgen_cli.output import counted, emit, end_partial, progress, say

if TYPE_CHECKING:
    from defectgen.campaign.learning import Learnt
    from defectgen.campaign.status import Status

app = typer.Typer(no_args_is_help=True, help="Propose structures, compute them, learn, propose better ones.")

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the campaign.")]


@app.command("new")
def new(
    host: Annotated[
        str, typer.Argument(metavar="HOST", help="Unit cell of the layer, CIF or POSCAR, or the name of a known host.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="New folder for the campaign.")],
    supercell: SupercellOption = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="X:Y,VAC", help="Defects that may be made; may be given several times."),
    ] = None,
    max_defects: Annotated[int, typer.Option("--max-defects", min=1, help="Most point defects in a cell.")] = 2,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", metavar="NAME", help=f"gpaw, vasp, qe, {', '.join(POTENTIALS)}, or package.module:Class."
        ),
    ] = "gpaw",
    settings: Annotated[
        str | None,
        typer.Option(
            "--settings", metavar="NAME|FILE.yaml", help="lcao, 2dmd, mp, or your own [gpaw lcao, else 2dmd]."
        ),
    ] = None,
    relax: Annotated[
        str | None, typer.Option("--relax", metavar="NAME", help=f"Move the atoms by {' or '.join(POTENTIALS)} first.")
    ] = None,
    start: Annotated[
        bool | None,
        typer.Option(
            "--start/--no-start", help="Learning starts from 2DMD's values [where it knows host and defects]."
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Begin a campaign: a host, the defects allowed, how to compute.

    The folder holds campaign.yaml and structures.db, an ASE database with a row for each structure. On
    hosts of 2DMD learning starts from its values, and states how far the code is from them.
    """
    from defectgen.campaign.folder import new_campaign
    from defectgen.campaign.kept_references import note_on_phases
    from defectgen.campaign.pool import pool_of
    from defectgen.core.hosts import common_title
    from defectgen.io.host_files import host_of_options

    crystal = host_of_options(host, supercell, allow)
    assert crystal is not None
    made = new_campaign(
        output, crystal, max_defects=max_defects, engine=engine, settings=settings, relax=relax, start=start, seed=seed
    )
    pool = pool_of(crystal, max_defects, seed)
    total = f"{pool.total:,}" if pool.total is not None else f"more than {len(pool.configurations):,}"
    most = counted(max_defects, "defects")
    lines = [f"{total} structures of {common_title(crystal)} with up to {most}; campaign in {output}"]
    if not made.config.settings.relax and relax is None:
        lines.append("note: atoms stay on the host's sites; --relax chgnet would move them")
    package = engine.partition(":")[0].partition(".")[0]
    if ":" in engine and importlib.util.find_spec(package) is None:
        lines.append(f"note: there is no package {package} here, which campaign run needs for {engine}")
    if phases := note_on_phases(made):
        lines.append(f"note: {phases}")
    if made.config.start:
        lines.append("learning starts from 2DMD's values of this host")
    result = {"campaign": output, "host": crystal.name, "supercell": crystal.size, "structures": pool.total}
    emit({**result, "start": made.config.start}, as_json, "\n".join(lines))


@app.command("propose")
@expand_groups
def propose(
    folder: FolderArgument,
    wanted: TargetOptions,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Structures of the round.")] = 24,
    explore: Annotated[
        bool, typer.Option("--explore", help="What the model knows least of, whatever is wished.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the next structures to compute.

    Before anything is learnt they fill the space: single defects first, then each as unlike the others
    as can be. Then, with wishes as in design, those of largest expected improvement of the distance; without,
    those that the model knows least of.
    """
    from defectgen.campaign.folder import Campaign
    from defectgen.campaign.proposing import propose as choose
    from defectgen.campaign.status import SHOWN
    from defectgen.core.properties import BY_COLUMN

    campaign = Campaign.open(folder)
    given = any(value is not None for value in vars(wanted).values())
    found = choose(campaign, n, wanted.read() if given else (), exploring=explore, say=say)
    left = f"; {found.left} left" if found.total is not None else ""
    lines = [f"round {found.number}: {counted(len(found.rows), 'structures')} proposed{left}"]
    for row in found.rows:
        widths = {column: f"±{width:.3f}" for column, width in row.widths.items()}
        told = [(BY_COLUMN[c].title, f"{v:.3f}{widths.get(c, '')}") for c, v in row.predicted.items() if c in SHOWN]
        guess = ", ".join(f"{title} {value}" for title, value in told)
        lines.append(f"{row.id:>5}  {row.configuration.label:<14} {guess or row.origin}")
    rows = [
        {
            "id": r.id,
            "label": r.configuration.label,
            "configuration": r.key,
            "origin": r.origin,
            "predicted": r.predicted,
            "half_widths": r.widths,
        }
        for r in found.rows
    ]
    emit({"campaign": folder, "round": found.number, "structures": rows}, as_json, "\n".join(lines))
    for note in found.notes:
        say(f"note: {note}")
    if len(found.rows) < n:
        end_partial(f"{len(found.rows)} of {n} structures: no others are left.")


@app.command("add")
def add(
    folder: FolderArgument,
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Folders or files of DFT results.")],
    as_json: JsonOption = False,
) -> None:
    """Take in results that were computed elsewhere.

    They are matched to their structures, also to such that were not proposed. Results of another host or of other
    settings are refused, and listed in apart.jsonl.
    """
    from defectgen.campaign.adding import add_results
    from defectgen.campaign.folder import APART, Campaign

    found = add_results(Campaign.open(folder), results, say)
    lines = [f"{counted(len(found.new), 'results')} added"]
    lines[0] += f", {found.known} known before" if found.known else ""
    lines[0] += f"; references kept: {', '.join(found.references)}" if found.references else ""
    result = {
        "campaign": folder,
        "added": [{"id": row.id, "label": row.configuration.label, "computed": row.computed} for row in found.new],
        "known": found.known,
        "references": found.references,
        "refused": [{"name": name, "reason": reason} for name, reason in found.refused],
    }
    emit(result, as_json, "\n".join(lines))
    for name, reason in found.refused:
        say(f"refused: {name}: {reason}")
    for note in found.notes:
        say(f"note: {note}")
    if found.refused:
        end_partial(f"{counted(len(found.refused), 'results')} refused; listed in {folder / APART}.")


@app.command("learn")
def learn(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Train the campaign's model on all its results.

    The kind of model is chosen by cross-validation, its errors are those of rows that neither choice nor
    fit has seen, and its 90 % intervals are conformal: by these errors.
    """
    from defectgen.campaign.folder import Campaign
    from defectgen.campaign.learning import learn_campaign

    with progress("learning", None, "properties") as advance:
        found = learn_campaign(Campaign.open(folder), advance)
    result = {
        "campaign": folder,
        "results": len(found.model.keys),
        "errors": {column: vars(judged) for column, judged in found.model.judged.items()},
        "offsets": [vars(offset) for offset in found.offsets],
    }
    emit(result, as_json, _learnt(found))


def _learnt(found: Learnt) -> str:
    from defectgen.campaign.campaign_model import interval_note
    from defectgen.core.properties import BY_COLUMN

    lines = [
        f"learnt from {len(found.model.keys)} results; errors by cross-validation",
        "",
        f"{'property':<20} {'n':>3} {'MAE':>7} {'of mean':>8}  model",
    ]
    notes = []
    for column, judged in found.model.judged.items():
        if note := interval_note(judged):
            notes.append(f"{BY_COLUMN[column].title}: {note}")
        unit = BY_COLUMN[column].unit
        lines.append(
            f"{BY_COLUMN[column].title[:14] + ' (' + unit + ')':<20} {judged.n:>3} {judged.mae:>7.3f} "
            f"{judged.spread:>8.3f}  {judged.form}"
        )
    return "\n".join([*lines, *notes, *(offset.text for offset in found.offsets)])


@app.command("run")
def run(
    folder: FolderArgument,
    executor: Annotated[
        str,
        typer.Option("--executor", metavar="local|FILE.yaml", help="Here, or through Parsl: two-workers, slurm, pbs."),
    ] = "local",
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Most structures of this run.")] = None,
    command: Annotated[
        str | None, typer.Option("--command", metavar="TEXT", help="What starts the code, e.g. 'srun vasp_std'.")
    ] = None,
    python: Annotated[
        str | None, typer.Option("--python", metavar="FILE", help="Python that has GPAW [looked for].")
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", metavar="H", help="Most wall time of one attempt, hours.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option("--memory", metavar="GIB", help="Most memory of one process, GiB.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute what is proposed; go on where a run stopped.

    The pristine host and the elements come first. Each structure is moved by the potential, if the campaign says so,
    computed, and recorded as it ends. Two runs share the work, and nothing is computed twice.
    """
    from defectgen.campaign.folder import Campaign
    from defectgen.campaign.running import RunOptions, run_campaign
    from defectgen.campaign.store import DONE, FAILED
    from defectgen.execution.executors import load_executor

    campaign = Campaign.open(folder)
    does = load_executor(executor, folder / "parsl")
    options = RunOptions(command, python, hours, memory, retry_failed, limit)
    waiting = sum(row.state not in (DONE, *(() if retry_failed else (FAILED,))) for row in campaign.store.rows())
    with progress("computing", min(waiting, limit or waiting), "structures") as advance:
        found = run_campaign(campaign, does, options, say=say, advance=advance)
    lines = [f"{counted(found.done, 'structures')} computed ({found.cpu_s:.0f} s of CPU time)"]
    lines[0] += f", {found.others} by another run" if found.others else ""
    if not waiting:
        lines = ["nothing is proposed: defectgen campaign propose"]
    result = {"campaign": folder, "done": found.done, "cpu_s": found.cpu_s, "failed": dict(found.failed)}
    emit({**result, "by_others": found.others}, as_json, "\n".join(lines))
    if found.failed:
        end_partial(f"{counted(len(found.failed), 'structures')} failed.", some=found.done + found.others > 0)


@app.command("status")
def status(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Say where a campaign stands, and write its page, campaign.html.

    Rounds with the errors of what was foretold, errors of the model against the number of calculations, and
    how near the best are to the wishes, beside as many random structures.
    """
    from defectgen.campaign.folder import PAGE, Campaign
    from defectgen.campaign.status import status_of
    from defectgen.io.files import write_text
    from defectgen.report.campaign_page import campaign_page

    found = status_of(Campaign.open(folder))
    write_text(folder / PAGE, campaign_page(found))
    result = {
        "campaign": folder,
        "structures": found.total,
        "states": found.states,
        "rounds": [vars(item) | {"foretold": {c: vars(f) for c, f in item.foretold.items()}} for item in found.rounds],
        "errors": {column: vars(judged) for column, judged in found.judged.items()},
        "history": found.history,
        "wishes": [vars(wish) for wish in found.wishes],
        "cpu_hours": found.cpu_hours,
        "page": folder / PAGE,
    }
    emit(result, as_json, _status(found, folder / PAGE))


def _status(found: Status, page: Path) -> str:
    from defectgen.campaign.status import SHOWN, wish_title
    from defectgen.core.hosts import common_title

    host = found.campaign.host
    total = f" of {found.total:,}" if found.total is not None else ""
    states = ", ".join(f"{number} {state}" for state, number in found.states.items() if number) or "nothing proposed"
    most = counted(found.campaign.config.max_defects, "defects")
    lines = [f"{common_title(host)}, up to {most}: {states}{total}", ""]
    lines.append(f"{'round':>5} {'done':>9} {'failed':>6} {'gap err':>8} {'inside':>7} {'E err':>7} {'inside':>7}  why")
    for item in found.rounds:
        cells = []
        for column, width in (("band_gap_ev", 8), ("formation_energy_ev", 7)):
            told = item.foretold.get(column)
            cells.append(f"{'-' if told is None else f'{told.mae:.3f}':>{width}}")
            cells.append(f"{'-' if told is None or told.inside is None else f'{told.inside}/{told.n}':>7}")
        done = f"{item.states['done']} of {sum(item.states.values())}"
        origin = next(iter(item.origins)) if len(item.origins) == 1 else f"{len(item.origins)} reasons"
        why = wish_title(origin) if "=" in origin else origin
        lines.append(f"{item.number:>5} {done:>9} {item.states['failed']:>6} {' '.join(cells)}  {why[:22]}")
    if any(item.foretold for item in found.rounds):
        lines.append("err: mean error of what was foretold, eV; inside: within the 90 % interval")
    if found.history:
        lines += [
            "",
            f"{'results':>7} {'gap':>8} {'HOMO':>8} {'LUMO':>8} {'E_form':>8}   errors by cross-validation, eV",
        ]
        for entry in found.history:
            errors = [entry["errors"].get(column) for column in SHOWN]
            cells = [f"{'-' if error is None else format(error['mae'], '.3f'):>8}" for error in errors]
            lines.append(f"{entry['results']:>7} {' '.join(cells)}")
    if found.wishes:
        lines += ["", f"{'wish':<26} {'eV away':>8} {'chance':>7}  nearest"]
    for wish in found.wishes:
        best = f"{wish.path[-1][1]:.3f}" if wish.path else "-"
        chance = f"{wish.chance[-1]:.3f}" if wish.chance else "-"
        nearest = f"{wish.best} {wish.found}" if wish.best else "-"
        lines.append(f"{wish_title(wish.text)[:26]:<26} {best:>8} {chance:>7}  {nearest[:35]}")
    if found.wishes:
        lines.append("chance: the nearest of as many random structures, eV away")
    if found.unlearnt:
        lines += ["", f"{found.unlearnt} results are not learnt from yet: defectgen campaign learn"]
    return "\n".join([*lines, "", f"open {page}"])
