"""`defectgen compute`: run a folder of DFT inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption
from defectgen_cli.output import emit, end_partial, progress, say

if TYPE_CHECKING:
    from defectgen.dft.compute import Outcome


def compute(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that defectgen inputs wrote.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="These calculations; may be given several times.")
    ] = None,
    command: Annotated[
        str | None, typer.Option("--command", metavar="TEXT", help="What starts the code, e.g. 'mpirun -n 8 vasp_std'.")
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
    """Run DFT calculations one by one; go on where a run stopped.

    GPAW is looked for; VASP and Quantum ESPRESSO by their command. A self-consistent cycle that
    does not converge is tried again with slower mixing, then more smearing; what fails says why. Two
    runs in one folder share the work. The exit code is 3 if some are not done, and 1 if none is.
    """
    from defectgen.dft.codes import EngineOptions
    from defectgen.dft.compute import DONE, JobLimits, read_names
    from defectgen.dft.compute import compute as run

    limits = JobLimits(hours, memory)
    names = only or read_names(folder)
    with progress("computing", len(names), "calculations") as advance:

        def tell(outcome: Outcome) -> None:
            say(_text(outcome))
            advance(1)

        outcomes = run(
            folder,
            only=names,
            options=EngineOptions(command, python),
            limits=limits,
            retry_failed=retry_failed,
            advance=tell,
        )
    done = sum(outcome.status == DONE for outcome in outcomes)
    cpu = sum(attempt.cpu_s for outcome in outcomes if outcome.fresh for attempt in outcome.attempts)
    result = {"folder": folder, "done": done, "cpu_s": cpu, "calculations": [_plain(outcome) for outcome in outcomes]}
    emit(result, as_json, f"{done} of {len(outcomes)} calculations in {folder} are done ({cpu:.0f} s of CPU time)")
    if missing := len(outcomes) - done:
        end_partial(f"{missing} of {len(outcomes)} calculations are not done.", some=bool(done))


def _plain(outcome: Outcome) -> dict[str, object]:
    attempts = [vars(attempt) for attempt in outcome.attempts]
    return {"name": outcome.name, "status": outcome.status, "reason": outcome.reason, "attempts": attempts}


def _text(outcome: Outcome) -> str:
    changes = [attempt.change for attempt in outcome.attempts if attempt.change]
    what = f"{outcome.name}: {outcome.status}" + (f" ({outcome.reason})" if outcome.reason else "")
    earlier = "" if outcome.fresh or not outcome.attempts else ", earlier"
    spent = f", {sum(attempt.wall_s for attempt in outcome.attempts):.0f} s" if outcome.attempts else ""
    return what + earlier + spent + (f"; {', '.join(changes)}" if changes else "")
