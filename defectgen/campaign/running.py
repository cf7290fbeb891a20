"""A run of a campaign: what is proposed is computed, recorded as it ends, and never computed twice.

The truth of a calculation is in its folder, with a lock that goes when its process ends. The database follows: a run
that was killed is made good by the next one, and two runs share the work.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectgen.campaign.adding import kept_settings, read_calculation
from defectgen.campaign.asked_settings import other_than_asked
from defectgen.campaign.folder import CALCULATIONS, CONFIG, REFERENCES, Campaign
from defectgen.campaign.kept_references import given_references, note_on_phases, reference_keys, reservoirs
from defectgen.campaign.store import DONE, FAILED, PROPOSED, RUNNING, StructureRow
from defectgen.campaign.task import LOST, NO_ROOM, Task, TaskOutcome, check_engine, prepare, run_task
from defectgen.dft.codes import EngineOptions
from defectgen.dft.codes.pseudopotentials import with_folder
from defectgen.dft.compute import HELD, JobLimits, read_names
from defectgen.errors import DefectgenError
from defectgen.execution.executors import Executor, LocalExecutor, Lost
from defectgen.one_line import OneLine

HELD_POLL_S = 2.0
"""Seconds between two looks at what another run has."""


@dataclass(frozen=True)
class RunOptions:
    """How a run computes.

    Attributes:
        command: that starts the code; None to look for it.
        python: of a code that is a Python library; None to look for it.
        hours: most wall time of an attempt.
        memory_gib: most memory of a process.
        retry_failed: whether what failed before is tried again.
        limit: most structures of this run; None for all that are proposed.
    """

    command: str | None = None
    python: str | None = None
    hours: float | None = None
    memory_gib: float | None = None
    retry_failed: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        JobLimits(self.hours, self.memory_gib)  # refuses what is no limit before anything is marked as running


@dataclass(frozen=True, repr=False)
class RunSummary(OneLine):
    """What a run did.

    Attributes:
        done: structures with values now, of those that it was to compute.
        failed: (label, reason) of the others.
        cpu_s: CPU time of the calculations.
        others: structures that another run computed meanwhile.
    """

    done: int
    failed: tuple[tuple[str, str], ...]
    cpu_s: float
    others: int = 0


@dataclass
class _Tally:
    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    cpu_s: float = 0.0
    others: int = 0


def run_campaign(
    campaign: Campaign,
    executor: Executor | None = None,
    options: RunOptions | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> RunSummary:
    """Compute what is proposed: references first, then structure by structure.

    Args:
        campaign: the campaign.
        executor: does the tasks; None for one by one in this process.
        options: how.
        say: is told of each structure, and where another run is waited for.
        advance: is told of each finished structure, and of 0 once the references are there.

    Raises:
        DefectgenError: the code is not installed, what is there was computed by other settings than the campaign's, a
            reference failed, or the disk is full.
    """
    how = options or RunOptions()
    does = executor or LocalExecutor()
    check_engine(campaign.config.engine, how.command, how.python)
    _require_same_settings(campaign)
    rows = _take(campaign, how, say)
    if not rows:
        return RunSummary(0, (), 0.0)
    tally = _Tally()
    try:
        _references(campaign, does, how, say)
        advance(0)
        waiting = rows
        while waiting:
            waiting = _pass(campaign, waiting, does, how, tally, say, advance)
            if waiting:
                say(f"waiting for {len(waiting)} structures that another run computes ...")
                time.sleep(HELD_POLL_S)
    except BaseException:
        _put_back(campaign, [row.id for row in rows])
        raise
    finally:
        does.close()
    return RunSummary(tally.done, tuple(tally.failed), tally.cpu_s, tally.others)


def _require_same_settings(campaign: Campaign) -> None:
    """Refuse to compute what could not stand beside the results that are there.

    Raises:
        DefectgenError: they are by other settings.
    """
    if why := other_than_asked(campaign, kept_settings(campaign)):
        raise DefectgenError(
            f"the results in {campaign.folder} are by other settings than its {CONFIG}: {why}.",
            "Make a campaign by the settings of the results (campaign new --settings FILE) and add them there, or "
            "compute elsewhere.",
        )


def _take(campaign: Campaign, how: RunOptions, say: Callable[[str], None]) -> list[StructureRow]:
    """Rows to compute, marked as running, each with its folder."""
    wanted = {PROPOSED, RUNNING, *([FAILED] if how.retry_failed else [])}
    with campaign.store.changed(say):
        rows = [row for row in campaign.store.rows() if row.state in wanted][: how.limit]
        taken = []
        for row in rows:
            label = re.sub(r"[^A-Za-z0-9_]+", "-", row.configuration.label)[:40]
            new = replace(row, state=RUNNING, reason="", place=row.place or f"{row.id:05d}_{label}")
            campaign.store.update(new)
            taken.append(new)
    return taken


def _put_back(campaign: Campaign, identities: Sequence[int]) -> None:
    """Say of unfinished rows that nothing runs them any more."""
    try:
        with campaign.store.changed():
            for row in campaign.store.rows():
                if row.id in identities and row.state == RUNNING:
                    campaign.store.update(replace(row, state=PROPOSED))
    except DefectgenError:  # the next run takes running ones too
        return


def task_of(campaign: Campaign, row: StructureRow, how: RunOptions) -> Task:
    """The task of a structure."""
    return _task(campaign, campaign.folder / CALCULATIONS / row.place, "", (row.key,), False, how)


def _task(
    campaign: Campaign, folder: Path, only: str, keys: tuple[str, ...], references: bool, how: RunOptions
) -> Task:
    config = campaign.config
    engine = EngineOptions(how.command, how.python).placed()
    return Task(
        folder=str(folder.absolute()),
        only=only,
        host=config.host,
        keys=keys,
        references=references,
        code=config.engine,
        settings=with_folder(config.settings).model_dump(mode="json"),
        relax=config.relax,
        command=engine.command,
        python=engine.python,
        hours=how.hours,
        memory_gib=how.memory_gib,
        retry_failed=how.retry_failed,
    )


def _references(campaign: Campaign, executor: Executor, how: RunOptions, say: Callable[[str], None]) -> None:
    """Compute the pristine host and the elemental phases, but for those whose results were handed over.

    Raises:
        DefectgenError: one of them failed.
    """
    given = given_references(campaign)
    if given >= {"", *reservoirs(campaign.host)}:
        return
    if note := note_on_phases(campaign):
        say(f"note: {note}")
    folder = campaign.folder / CALCULATIONS / REFERENCES
    whole = _task(campaign, folder, "", reference_keys(campaign.host), True, how)
    with campaign.store.changed(say):
        prepare(whole, folder)
    names = [name for name in read_names(folder) if name.partition("element_")[2] not in given]
    if not names:
        return
    tasks = [replace(whole, only=name) for name in names]
    say(f"first the references: {', '.join(names)}")
    left = list(range(len(tasks)))
    while left:
        held = []
        for number, outcome in _outcomes(executor, [tasks[k] for k in left]):
            name = names[left[number]]
            if outcome.status == HELD:
                held.append(left[number])
            elif outcome.no_room:
                raise _full(campaign)
            elif outcome.status != DONE:
                raise DefectgenError(
                    f"the reference {name} failed: {outcome.reason.rstrip('.')}.",
                    "Mend it, then: campaign run --retry-failed.",
                )
            elif outcome.fresh:
                say(f"{name}: done")
        left = held
        if left:
            say(f"waiting for {len(left)} references that another run computes ...")
            time.sleep(HELD_POLL_S)


def _pass(
    campaign: Campaign,
    rows: Sequence[StructureRow],
    executor: Executor,
    how: RunOptions,
    tally: _Tally,
    say: Callable[[str], None],
    advance: Callable[[int], None],
) -> list[StructureRow]:
    """Compute rows once; those that another run has come back."""
    held = []
    for number, outcome in _outcomes(executor, [task_of(campaign, row, how) for row in rows]):
        row = rows[number]
        if outcome.status == HELD:
            held.append(row)
            continue
        if outcome.no_room:
            raise _full(campaign)
        _record(campaign, row, outcome, tally, say)
        advance(1)
    return held


def _outcomes(executor: Executor, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskOutcome]]:
    for number, found in executor.outcomes(run_task, tasks):
        yield number, TaskOutcome(LOST, found.reason) if isinstance(found, Lost) else found


def _full(campaign: Campaign) -> DefectgenError:
    return DefectgenError(
        f"{campaign.folder}: {NO_ROOM}.", "Free some, then give the same command again: it goes on where it stopped."
    )


def _record(
    campaign: Campaign, row: StructureRow, outcome: TaskOutcome, tally: _Tally, say: Callable[[str], None]
) -> None:
    """Put what came out into the database, and say it."""
    reading, reason = None, outcome.reason
    if outcome.status == DONE:
        place = campaign.folder / CALCULATIONS / row.place
        reading, reason = read_calculation(campaign, place)
        if reading is not None and reading.configuration.key != row.key:
            reason = (
                f"its atoms moved into {reading.configuration.label} ({reading.configuration.key}), another structure; "
                f"as that it is taken by: defectgen campaign add {campaign.folder} {place}"
            )
            reading = None
    with campaign.store.changed(say):
        now = campaign.store.get(row.id)
        if now.state == DONE:
            tally.others += 1
            return
        new = replace(now, place=row.place, cpu_s=outcome.cpu_s)
        label = f"{row.id} {row.configuration.label}"
        if reading is None:
            lost = outcome.status == LOST
            state, why = (PROPOSED, "") if lost else (FAILED, reason[:300] or "no result")
            campaign.store.update(replace(new, state=state, reason=why))
            tally.failed.append((label, reason))
            say(f"{label}: {'left for the next run' if lost else 'failed'} ({reason})")
            return
        campaign.store.update(
            replace(new, state=DONE, computed=reading.values, settings=reading.settings, reason=""), reading.structure
        )
    tally.done += 1
    tally.cpu_s += outcome.cpu_s if outcome.fresh else 0.0
    gap = reading.values.get("band_gap_ev")
    say(f"{label}: done" + (f", gap {gap:.3f} eV" if gap is not None else "") + f", {outcome.cpu_s:.0f} s")
