"""Candidates relaxed by a potential: what it says of each, and what that decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from defectgen.core.configuration import Configuration
from defectgen.core.whole import whole
from defectgen.design.candidates import Candidate, DesignRun
from defectgen.errors import UsageError
from defectgen.score.potentials.defects import DIVERGED, LEFT, DefectRelaxation

Use = Literal["columns", "filter", "tie-break"]

USES: tuple[Use, ...] = ("columns", "filter", "tie-break")

REJECTED = (DIVERGED, LEFT)
"""Verdicts that a filter leaves out: there is no such defect by the potential."""


@dataclass(frozen=True)
class PotentialUse:
    """Whether the best candidates are relaxed, and what that decides.

    Attributes:
        name: of the potential, e.g. ``m3gnet`` or ``chgnet``.
        top: candidates of each target to relax.
        use: ``columns`` decides nothing; ``filter`` leaves out what diverges or becomes another defect, and looks at
            the next in its place; ``tie-break`` puts candidates whose distances differ by less than the half-width of
            their interval in the order of the relaxed formation energy.
        m3gnet: folder of M3GNet, or its name on the hub.
    """

    name: str
    top: int = 3
    use: Use = "columns"
    m3gnet: str | Path | None = None

    def __post_init__(self) -> None:
        if self.use not in USES:
            raise UsageError(f"got use {self.use!r} of the potential, expected {', '.join(USES)}.")
        object.__setattr__(self, "top", whole(self.top, "top", 1))

    @property
    def spare(self) -> int:
        """Candidates that a target needs beyond those wanted."""
        return self.top if self.use == "filter" else 0


def first_of_each(run: DesignRun, n: int) -> DesignRun:
    """The run with the first `n` candidates of each target."""
    return replace(run, candidates=tuple(item for target in run.targets for item in run.of(target)[:n]))


def load_relaxer(name: str, m3gnet: str | Path | None = None) -> Callable[[Configuration], DefectRelaxation]:
    """The function that relaxes a configuration with the potential of this name, e.g. ``m3gnet`` or ``chgnet``.

    Args:
        name: of the potential.
        m3gnet: folder of M3GNet, or its name on the hub.

    Raises:
        UsageError: no potential of that name, or one that needs a folder.
        DefectgenError: its extra is not installed, or its files are missing.
    """
    from defectgen.data.assets import cache_dir
    from defectgen.score.potentials.defects import DefectRelaxer
    from defectgen.score.scorers import ScorerOptions, load_potential

    return DefectRelaxer(load_potential(name, ScorerOptions(cache=cache_dir() / "matgl", m3gnet=m3gnet)))


def relax_top(
    run: DesignRun,
    relax: Callable[[Configuration], DefectRelaxation],
    top: int,
    use: Use = "columns",
    *,
    n: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> DesignRun:
    """The run with the best candidates of each target relaxed; predictions stay as they are.

    Args:
        run: the run; to filter, with some candidates more than wanted.
        relax: relaxes the unrelaxed structure of a configuration.
        top: how many of each target.
        use: see `PotentialUse`.
        n: candidates to return for each target; None for as many as there are.
        progress: called with the number of candidates done.

    Returns:
        The run; after Ctrl-C with what was relaxed by then. Relaxations that diverged are kept, with a warning, unless
        they are filtered.
    """
    found: dict[str, DefectRelaxation] = {}
    kept: dict[str, list[Candidate]] = {}
    rejected: list[str] = []
    complete, used = run.complete, 0
    for target in run.targets:
        kept[target.id] = []
        good = 0
        for candidate in run.of(target):
            item = candidate
            configuration = candidate.configuration.canonical()
            if good < top and (complete or configuration.key in found):
                try:
                    if configuration.key not in found:
                        found[configuration.key] = relax(configuration)
                except KeyboardInterrupt:
                    complete = False
                else:
                    item = replace(candidate, relaxation=(outcome := found[configuration.key]))
                    used += 1
                    progress(1)
                    if use == "filter" and outcome.verdict in REJECTED:
                        rejected.append(f"{configuration.label}, {configuration.key} ({outcome.verdict})")
                        continue
                    good += 1
            kept[target.id].append(item)
    if use == "tie-break":
        kept = {name: _ties_broken(items) for name, items in kept.items()}
    ranked = tuple(
        replace(item, rank=place) if use != "columns" else item
        for items in kept.values()
        for place, item in enumerate(items[:n], 1)
    )
    notes = list(run.warnings)
    bad = sorted(result.summary for result in found.values() if not result.usable)
    if rejected:
        notes.append(
            f"{len(rejected)} of {used} relaxed candidates left out by the potential: {'; '.join(rejected[:3])}"
        )
    elif bad:
        notes.append(f"{len(bad)} of {len(found)} relaxations diverged and are not to be used, e.g. {bad[0]}.")
    by = sorted({result.potential for result in found.values()})
    facts = {"relaxed": len(found), "relaxed_by": ", ".join(by) or None, "potential_decides": use}
    return replace(run, candidates=ranked, settings={**run.settings, **facts}, complete=complete, warnings=tuple(notes))


def _ties_broken(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Relaxed candidates that are as near as the first of them, within its interval, by relaxed formation energy."""
    ordered: list[Candidate] = []
    rest = list(candidates)
    while rest:
        first = rest[0]
        wishes = [wish for wish in first.target.wishes if wish.column not in first.dft]
        width = sum(first.uncertainty.get(wish.column, 0.0) * wish.scale_ev for wish in wishes)
        tied = [first]
        for other in rest[1:]:
            if abs(other.best_distance_ev - first.best_distance_ev) > width or other.relaxation is None:
                break
            tied.append(other)
        rest = rest[len(tied) :]
        ordered += sorted(tied, key=_energy_ev)
    return ordered


def _energy_ev(candidate: Candidate) -> float:
    outcome = candidate.relaxation
    if outcome is None or outcome.verdict in REJECTED or outcome.formation_energy_ev is None:
        return float("inf")
    return outcome.formation_energy_ev
