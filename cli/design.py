"""`defectgen design`: wanted levels in, ranked defect structures out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.design_options import (
    DrawingOptions,
    GrowthOptions,
    InputsOptions,
    LimitOptions,
    ModelOptions,
    PotentialOptions,
    RankingOptions,
    TargetOptions,
    names,
)
from defectgen_cli.option_groups import expand_groups
from defectgen_cli.options import FormatOption, JsonOption, VacuumOption
from defectgen_cli.output import EXIT_INTERRUPTED, EXIT_PARTIAL, counted, emit, end_partial, progress, say, show

if TYPE_CHECKING:
    from defectgen.core import Host
    from defectgen.design.candidates import DesignRun
    from defectgen.design.limits import Limits
    from defectgen.design.ranking import Labels
    from defectgen.design.request import DesignRequest
    from defectgen.score.protocol import Scorer


@expand_groups
def design(
    wanted: TargetOptions,
    ranking: RankingOptions,
    limits: LimitOptions,
    growth: GrowthOptions,
    drawing: DrawingOptions,
    models: ModelOptions,
    relaxing: PotentialOptions,
    hand_over: InputsOptions,
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME|DIR", help="Host, e.g. MoS2, or a surrogate's folder with it.")
    ] = None,
    campaign: Annotated[
        Path | None, typer.Option("--campaign", metavar="DIR", help="Campaign: its host, its results, its model.")
    ] = None,
    scorer: Annotated[
        str, typer.Option("--scorer", metavar="NAME", help="Predicts: surrogate or slices-catboost.")
    ] = "surrogate",
    proposer: Annotated[
        str, typer.Option(metavar="NAME,...", help="known, exhaustive, random, search, llm-search, llm [what suits].")
    ] = "",
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Structure that a search begins with, CIF or POSCAR.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the results [designs/HOST].")
    ] = None,
    formats: FormatOption = "cif,poscar",
    vacuum: VacuumOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Design defect structures with wanted levels.

    Labelled structures are looked up, every symmetry-distinct one is looked at where they can be listed (up to
    three defects, or what the limits leave); random structures, and where the models know no such cells the
    language model, add to it. The surrogate predicts every property, and candidates are ranked by
    their distance to the target (sum of absolute deviations, eV) that is to be expected with the
    uncertainty of the prediction. HOMO, LUMO and
    Fermi level are in eV relative to the valence band maximum of the pristine host unless --reference raw
    is given. The folder holds candidates.csv, candidates.parquet, the structures (--format, --vacuum),
    report.html and manifest.json.

    With --potential the best candidates are also relaxed in their cell, once more with the atoms around the defects
    displaced: relaxed formation energy, displacement and whether the geometry holds are columns. --potential-use filter
    leaves out what diverges or becomes another defect; tie-break puts candidates that are equally near, within the
    interval of the prediction, in the order of the relaxed formation energy; columns changes no rank.

    With --campaign the host, the computed values and the model are those of a campaign.

    With --inputs the folder also holds the DFT inputs of the candidates, relaxed ones from where the potential left
    them, of their host and the elemental phases: see defectgen inputs.
    """
    started = time.monotonic()
    from defectgen.core.hosts import common_name
    from defectgen.core.vacuum import check_vacuum
    from defectgen.design.request import DesignRequest
    from defectgen.io.structures import read_configuration
    from defectgen.io.writers import format_list
    from defectgen.report import claimed_run

    subject = _subject(host, campaign, scorer, models, limits)
    crystal = subject.host
    request = DesignRequest(
        crystal,
        wanted.read(),
        ranking.ranking(),
        subject.space,
        drawing.drawing(),
        models.models(),
        proposer.strip() or None,
        subject.scorer,
        subject.labels,
        subject.labels_by,
        conditions=growth.conditions,
        mu=names(growth.mu),
        start=() if start is None else (read_configuration(crystal, start),),
        potential=relaxing.use(),
    )
    forms = format_list(formats)
    if vacuum is not None:
        check_vacuum(vacuum)
    inputs_of = hand_over.writer(vacuum)
    folder = output or Path("designs") / common_name(crystal)

    def write(run: DesignRun, over: bool) -> None:
        run.write(folder, forms, vacuum_angstrom=vacuum, overwrite=over, also=inputs_of(run))

    with claimed_run(folder, overwrite):
        run, n_told = _carry_out(
            request, lambda first: write(first, overwrite), lambda relaxed: write(relaxed, True), has_table=not as_json
        )
        _show(run, folder, time.monotonic() - started, as_json, n_told)
        if not run.complete:
            say(f"interrupted: {len(run.candidates)} structures from what was generated so far are in {folder}")
            raise typer.Exit(EXIT_INTERRUPTED)
        if short := [target for target in run.targets if len(run.of(target)) < ranking.n]:
            told = [f"target {one.id}: {len(run.of(one))} distinct" for one in short]
            if all(any(line.startswith(start) for line in run.warnings) for start in told):
                raise typer.Exit(EXIT_PARTIAL)
            found = f"{len(run.of(short[0]))} of {ranking.n} structures for target {short[0].id}"
            end_partial(f"only {found}{f', and too few for {len(short) - 1} others' if len(short) > 1 else ''}.")


@dataclass(frozen=True)
class _Subject:
    """What is designed, and what is known of it: labels and scorer are None where the shipped ones apply."""

    host: Host
    labels: Labels | None
    scorer: Scorer | None
    space: Limits
    labels_by: str = "DFT"


def _subject(
    host: str | None, campaign: Path | None, scorer: str, models: ModelOptions, limits: LimitOptions
) -> _Subject:
    """The host that is named, or that of a campaign with what it has learnt.

    Raises:
        UsageError: neither or both are given, a file of a layer as host, or another model beside a campaign.
    """
    from defectgen.campaign.designing import knowledge_of
    from defectgen.data.known_labels import labels_of
    from defectgen.design.with_scorer import other_scorer
    from defectgen.errors import UsageError
    from defectgen.io.host_files import find_host
    from defectgen.io.structures import is_structure_file

    if (host is None) == (campaign is None):
        raise UsageError(
            f"got {'neither --host nor' if host is None else '--host and'} --campaign, expected one of them."
        )
    if campaign is not None:
        if scorer != "surrogate" or models.surrogate is not None:
            raise UsageError("got --campaign and another model.", "Leave out --scorer and --surrogate.")
        known, space = knowledge_of(campaign), limits.limits()
        return _Subject(
            known.host,
            known.labels,
            known.model,
            replace(space, max_defects=limits.max_defects or known.max_defects),
            known.labels_by,
        )
    if is_structure_file(Path(str(host))) and not Path(str(host)).is_dir():
        raise UsageError(
            f"got the file {host} as host, and no model knows the defects of a layer of your own.",
            f"Train one (surrogate train --host {host}) and give its folder as --host and as --surrogate, or begin a "
            f"campaign (campaign new {host}) and give --campaign.",
        )
    crystal, other = find_host(str(host)), other_scorer(scorer, models.surrogate)
    return _Subject(crystal, None if other is None else labels_of(crystal), other, limits.limits())


def _carry_out(
    request: DesignRequest,
    write_first: Callable[[DesignRun], None],
    write_relaxed: Callable[[DesignRun], None],
    *,
    has_table: bool,
) -> tuple[DesignRun, int]:
    """The run, told as it goes and written: before anything is relaxed, so that nothing found is lost, and after.

    Its warnings are told here where no table that shows them follows, the first ones before it begins: how many is
    the second value.

    Raises:
        typer.Exit: no candidates.
    """
    from defectgen.core.hosts import common_name
    from defectgen.design.run import prepare_design
    from defectgen.design.with_potential import first_of_each, load_relaxer, relax_top

    chosen, n = request.potential, request.ranking.n
    if chosen is not None:
        say(f"loading {chosen.name} ...")
    relaxer = None if chosen is None else load_relaxer(chosen.name, chosen.m3gnet)
    say("loading model and surrogate ...")
    prepared = prepare_design(request)
    for line in prepared.warnings:
        say(f"warning: {line}")
    with progress(f"looking at {common_name(request.host)}", None, "structures") as advance:
        found = prepared.run(advance)
    if not found.candidates:
        say("interrupted before the first structures; nothing was written." if not found.complete else "no candidates.")
        raise typer.Exit(EXIT_INTERRUPTED if not found.complete else 1)
    run = first_of_each(found, n)
    write_first(run)
    if chosen is not None and relaxer is not None and found.complete:
        total = sum(min(chosen.top, len(found.of(target))) for target in found.targets)
        with progress(f"relaxing with {chosen.name}", total, "structures") as advance:
            run = relax_top(found, relaxer, chosen.top, chosen.use, n=n, progress=advance)
        write_relaxed(run)
    for line in () if has_table else run.warnings[len(prepared.warnings) :]:
        say(f"warning: {line}")
    return run, len(prepared.warnings)


def _show(run: DesignRun, folder: Path, seconds: float, as_json: bool, told: int) -> None:
    """Print the run: one JSON document, or a table and where the rest is.

    Warnings of which `told` stand above the table already are not repeated where both go to the terminal.
    """
    from defectgen.one_line import on_one_line
    from defectgen.report import render_table

    emit({"output": folder, **run.summary(), "seconds": round(seconds, 2)}, as_json)
    if as_json:
        return
    seen = told if sys.stdout.isatty() and sys.stderr.isatty() else 0
    render_table(replace(run, warnings=run.warnings[seen:]))
    place = Path(on_one_line(str(folder)))
    show(f"\n{counted(len(run.candidates), 'structures')} in {place} ({seconds:.0f} s)")
    for made in sorted(folder.glob("*-inputs")):
        show(f"DFT inputs in {place / made.name}")
    show(f"open {place / 'report.html'}")
