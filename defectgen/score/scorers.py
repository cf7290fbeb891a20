"""The scorers by short name, loaded on demand, and scoring that goes on past what a scorer does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from defectgen.core import Configuration
from defectgen.core.registry import Registry, breaks, require_members, require_type
from defectgen.errors import UsageError
from defectgen.score.potentials.potential import PotentialScorer
from defectgen.score.protocol import BoundedScorer, Sample, Scorer, StructureScorer

NO_CONFIGURATION = "no decoration of a known host"


@dataclass(frozen=True)
class ScorerOptions:
    """What a scorer may need to be loaded.

    Attributes:
        cache: folder for what a library insists on writing.
        surrogate: folder of a trained surrogate; None for the shipped one.
        m3gnet: folder of a potential, or its name on the hub; None if none was named.
    """

    cache: Path
    surrogate: Path | None = None
    m3gnet: str | Path | None = None


@dataclass(frozen=True)
class ScorerEntry:
    """One line of the registry: what a scorer is, and how to load it.

    Attributes:
        description: one line.
        load: makes the scorer; what it needs is imported there.
        is_potential: whether it makes a `PotentialScorer`, which can relax atoms and knows no levels.
    """

    description: str
    load: Callable[[ScorerOptions], Scorer]
    is_potential: bool = False


def _surrogate(options: ScorerOptions) -> Scorer:
    from defectgen.score.surrogate import Surrogate

    return Surrogate.load(options.surrogate)


def _m3gnet(options: ScorerOptions) -> Scorer:
    from defectgen.score.potentials.m3gnet import load_m3gnet

    return PotentialScorer(load_m3gnet(options.m3gnet, options.cache))


def _chgnet(_: ScorerOptions) -> Scorer:
    from defectgen.score.potentials.chgnet import load_chgnet

    return PotentialScorer(load_chgnet())


def _slices_catboost(_: ScorerOptions) -> Scorer:
    from defectgen.score.slices_catboost import load_slices_catboost

    return load_slices_catboost()


def _check(name: str, entry: ScorerEntry) -> None:
    require_type("scorer", name, entry, ScorerEntry)
    if not callable(entry.load):
        raise breaks("scorer", name, "its load cannot be called")


SCORERS: Registry[ScorerEntry] = Registry("scorer", "scorers", _check)
SCORERS.built_in(
    {
        "surrogate": ScorerEntry("levels, gap and energies of decorations of its hosts, in milliseconds", _surrogate),
        "m3gnet": ScorerEntry("energy and forces of any atoms by M3GNet (extra m3gnet, --m3gnet)", _m3gnet, True),
        "chgnet": ScorerEntry("energy and forces of any atoms by CHGNet (extra chgnet)", _chgnet, True),
        "slices-catboost": ScorerEntry("the published baseline: trees on SLICES strings", _slices_catboost),
    }
)


def register_scorer(name: str, description: str, load: Callable[[ScorerOptions], Scorer]) -> ScorerEntry:
    """Add a scorer.

    Args:
        name: short name, for ``--scorer`` and `load_scorer`.
        description: one line.
        load: makes the scorer; what it needs is imported there.

    Raises:
        UsageError: the name is taken, or `load` cannot be called.
    """
    return SCORERS.register(name, ScorerEntry(description, load))


def register_potential(name: str, description: str, load: Callable[[ScorerOptions], PotentialScorer]) -> ScorerEntry:
    """Add a potential: a scorer whose forces can relax atoms, for ``--scorer``, ``--potential`` and ``--relax``.

    Raises:
        UsageError: as `register_scorer`.
    """
    return SCORERS.register(name, ScorerEntry(description, load, True))


def potential_names() -> tuple[str, ...]:
    """The scorers that are potentials."""
    return tuple(name for name, entry in SCORERS.items() if entry.is_potential)


def scorer_names(text: str) -> tuple[str, ...]:
    """The scorers named in a list with commas.

    Raises:
        UsageError: none, one twice, or one that does not exist; names the nearest.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        SCORERS.find(name)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"got scorers {text!r}, expected one or more of {', '.join(SCORERS)}, each once.")
    return tuple(names)


def load_scorer(name: str, options: ScorerOptions) -> Scorer:
    """The scorer of this name.

    Raises:
        UsageError: no such scorer, or an option that it needs is missing.
        DefectgenError: its extra is not installed, or its files are missing or damaged.
    """
    known = scorer_names(name)[0]
    entry = SCORERS[known]
    scorer = entry.load(options)
    require_members("scorer", known, scorer, Scorer)
    if isinstance(scorer, PotentialScorer) != entry.is_potential:
        raise breaks("scorer", known, f"is_potential is {entry.is_potential}, and it made a {type(scorer).__name__}")
    return scorer


def load_potential(name: str, options: ScorerOptions) -> PotentialScorer:
    """The potential of this name.

    Raises:
        UsageError: no such potential; lists all. Else as `load_scorer`.
    """
    if name not in potential_names():
        raise UsageError(f"got potential {name!r}, expected {' or '.join(potential_names())}.")
    scorer = load_scorer(name, options)
    assert isinstance(scorer, PotentialScorer)  # which load_scorer has seen to
    return scorer


def score_samples(scorer: Scorer, samples: Sequence[Sample]) -> tuple[pl.DataFrame, list[str]]:
    """Score what the scorer knows, and say of the rest why not.

    Returns:
        One row a sample in their order, all null where there is no score; and a note a sample, empty
        where there is one.
    """
    atoms = samples if isinstance(scorer, StructureScorer) else None
    return _score(scorer, [sample.configuration for sample in samples], atoms)


def score_configurations(scorer: Scorer, configurations: Sequence[Configuration]) -> tuple[pl.DataFrame, list[str]]:
    """As `score_samples`, for configurations with their atoms on the sites."""
    of_atoms = isinstance(scorer, StructureScorer)
    return _score(scorer, configurations, [Sample(c.to_structure(), c) for c in configurations] if of_atoms else None)


def _score(
    scorer: Scorer, configurations: Sequence[Configuration | None], samples: Sequence[Sample] | None
) -> tuple[pl.DataFrame, list[str]]:
    """See `score_samples`; `samples` are given to a scorer that looks at the atoms."""
    notes = [""] * len(configurations)
    usable = list(range(len(configurations)))
    if samples is None:
        usable = [index for index in usable if configurations[index] is not None]
        for index in set(range(len(configurations))) - set(usable):
            notes[index] = NO_CONFIGURATION
    if isinstance(scorer, BoundedScorer):
        usable = [index for index in usable if not _beyond(scorer, configurations[index], index, notes)]
    parts = _score_parts(scorer, configurations, samples, usable, notes)
    rows = pl.DataFrame({"_row": range(len(configurations))}, schema={"_row": pl.Int64})
    if not parts:
        return rows.drop("_row"), notes
    return rows.join(pl.concat(parts, how="diagonal_relaxed"), on="_row", how="left").sort("_row").drop("_row"), notes


def _beyond(scorer: BoundedScorer, configuration: Configuration | None, index: int, notes: list[str]) -> bool:
    """Whether a configuration has no value; notes why."""
    try:
        notes[index] = scorer.why_not(configuration) if configuration is not None else ""
    except UsageError as error:
        notes[index] = str(error)
    return bool(notes[index])


def _score_parts(
    scorer: Scorer,
    configurations: Sequence[Configuration | None],
    samples: Sequence[Sample] | None,
    chosen: list[int],
    notes: list[str],
) -> list[pl.DataFrame]:
    """Scores of the chosen ones; where some are refused, of each half by itself."""
    if not chosen:
        return []
    try:
        if isinstance(scorer, StructureScorer) and samples is not None:
            frame = scorer.score_samples([samples[index] for index in chosen])
        else:
            frame = scorer.score([item for index in chosen if (item := configurations[index]) is not None])
    except UsageError as error:
        if len(chosen) == 1:
            notes[chosen[0]] = str(error)
            return []
    except Exception as error:  # what a potential's library makes of odd atoms must not end the run
        if samples is None:
            raise
        if len(chosen) == 1:
            notes[chosen[0]] = f"the computation failed ({type(error).__name__}: {error!s:.100})."
            return []
    else:
        if not isinstance(frame, pl.DataFrame) or frame.height != len(chosen):
            what = f"{frame.height} rows" if isinstance(frame, pl.DataFrame) else f"a {type(frame).__name__}"
            raise breaks("scorer", type(scorer).__name__, f"it gave {what} for {len(chosen)} samples")
        return [frame.with_columns(pl.Series("_row", chosen, dtype=pl.Int64))]
    middle = len(chosen) // 2
    return [
        part
        for half in (chosen[:middle], chosen[middle:])
        for part in _score_parts(scorer, configurations, samples, half, notes)
    ]
