"""A design from a request to ranked candidates: what the command line and the library call."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectgen import __version__
from defectgen.core import Host, as_host
from defectgen.core.hosts import common_name, common_title
from defectgen.core.properties import BY_COLUMN, COLUMNS, FORMATION
from defectgen.data.known_labels import labels_of
from defectgen.data.twodmd import SET_NAMES
from defectgen.design.candidates import RAW, TRAINED_ON, TWO_DMD, DesignRun, Target
from defectgen.design.engine import (
    SHIPPED,
    USUAL,
    Drawing,
    Models,
    check_cell,
    coverage,
    load_surrogate,
    raw_reference,
    shipped_adapter,
)
from defectgen.design.growth_conditions import (
    ConditionedScorer,
    Conditions,
    formation_enthalpy_ev,
    growth_conditions,
    known_enthalpy_ev,
    potentials,
    shifted_labels,
)
from defectgen.design.limits import Limits
from defectgen.design.mix import LLM, Mix, default_mix, named_mix, verdicts
from defectgen.design.model_notes import model_notes
from defectgen.design.own_limits import divided, named, united
from defectgen.design.pipeline import design as propose_and_rank
from defectgen.design.pipeline import stages_of
from defectgen.design.proposers import Proposer, ProposerOptions
from defectgen.design.ranking import Labels
from defectgen.design.raw_reference import RawReference
from defectgen.design.request import DesignRequest, Ranking
from defectgen.design.targets import (
    Wanted,
    counted_from,
    coverage_warnings,
    targets_of,
)
from defectgen.design.with_potential import PotentialUse, first_of_each, load_relaxer, relax_top
from defectgen.design.with_scorer import other_scorer
from defectgen.errors import UsageError
from defectgen.llm.adapter import AdapterCard, read_defect_adapter, training_configurations
from defectgen.models import SHIPPED_SURROGATE, shipped
from defectgen.one_line import OneLine
from defectgen.score.protocol import CautiousScorer, Scorer


@dataclass(frozen=True, repr=False)
class PreparedDesign(OneLine):
    """A request with its models loaded.

    Attributes:
        request: what is wanted.
        mix: where configurations come from.
        scorer: predicts their properties.
        known: canonical keys of the training structures.
        labels: DFT values by canonical key.
        raw: conversion to the data's own zero, if that is asked for.
        warnings: what a reader has to know before the run, a line each.
        facts: what to report of models and draws.
        others: the same for targets with limits or conditions of their own.
        ids: of all targets in the order asked for, those of the others among them.
    """

    request: DesignRequest
    mix: Mix
    scorer: Scorer
    known: Container[str]
    labels: Labels
    raw: RawReference | None = None
    warnings: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    others: tuple[PreparedDesign, ...] = ()
    ids: tuple[str, ...] = ()

    def run(self, progress: Callable[[int], None] = lambda _: None) -> DesignRun:
        """Propose, predict and rank; after Ctrl-C what was there by then, with ``complete=False``.

        A target has `DesignRequest.settings.spare` candidates more than wanted, for a potential to filter.

        Args:
            progress: called with the number of new structures, those that nothing has proposed before.
        """
        runs = [self._run_own(progress)]
        for other in self.others:
            if runs[-1].complete:
                runs.append(other._run_own(progress))
        return united(runs, self.ids) if self.others else runs[0]

    def _run_own(self, progress: Callable[[int], None]) -> DesignRun:
        return propose_and_rank(
            self.request.host,
            self.request.targets,
            self.mix.stages,
            self.scorer,
            self.known,
            self.request.settings,
            labels=self.labels,
            raw=self.raw,
            warnings=self.warnings,
            extra=self.facts,
            conclude=lambda search: verdicts(search, self.mix, self.request.labels_by),
            progress=progress,
        )


def prepare_design(request: DesignRequest) -> PreparedDesign:
    """Load what a request needs.

    Raises:
        UsageError: models that were not trained for the host, a number that is out of range, or limits that leave
            nothing.
        DefectgenError: a model that is missing or damaged.
    """
    parts = []
    for part in divided(request):
        try:
            parts.append(_prepared(part))
        except UsageError as error:
            raise named(error, part.targets[0]) from error
    lines = dict.fromkeys(line for part in parts for line in part.warnings)
    others = tuple(replace(part, warnings=()) for part in parts[1:])
    return replace(parts[0], warnings=tuple(lines), others=others, ids=tuple(target.id for target in request.targets))


def _prepared(request: DesignRequest) -> PreparedDesign:
    from defectgen.design.own_knowledge import SeenStructures, covered_ranges, most_defects
    from defectgen.score.surrogate import Surrogate

    host, models, ranking = request.host, request.models, request.ranking
    adapter = models.adapter or shipped_adapter(host, request.limits.min_defects)
    card = read_defect_adapter(adapter)
    predictor = scorer = request.scorer or _surrogate_for(request)
    learnt = training_configurations(adapter).get(host.title, frozenset()) if card.knows(host) else frozenset()
    trained = card.max_defects.get(host.name) if learnt else None
    known: Container[str] = learnt
    own = predictor if isinstance(predictor, Surrogate) and not predictor.knows_2dmd else None
    if own is not None:
        known, trained = SeenStructures(own, host), most_defects(own, host)
    labels = request.labels
    if labels is None:
        labels = labels_of(host) if request.scorer is None and _knows_2dmd(predictor) else {}
    conditions = _conditions(request, scorer)
    if conditions is not None:
        scorer, labels = ConditionedScorer(scorer, conditions), shifted_labels(host, labels, conditions)
    options = ProposerOptions(
        host, request.limits, request.drawing, models, trained, scorer, ranking.budget, ranking.random,
        labels={} if ranking.novel else labels, start=request.start, seed=ranking.seed,
    )  # fmt: skip
    warnings = list(request.scorer.cautions) if isinstance(request.scorer, CautiousScorer) else []
    if request.names:
        mix = named_mix(request.names, options)
    elif request.proposer is not None:
        assert not isinstance(request.proposer, str)
        mix = Mix((stages_of(request.proposer),))
    else:
        knows = card.knows(host)
        if request.asks_for_llm or knows:
            _check_llm(card, host, adapter.name)
        mix = default_mix(options, llm=knows, llm_is_asked_for=request.asks_for_llm)
        if trained is not None and options.space.most > trained:
            most = options.space.most
            warnings.append(
                f"the model saw at most {trained} defects in {common_name(host)}; {most} is beyond its training."
            )
    warnings += model_notes(request, card, adapter.name, [stage.name for stage in mix.stages])
    raw = _raw_reference(request, predictor, learnt, options) if ranking.reference == RAW else None
    of_card = coverage(card, host, raw) if learnt else {}
    covered = _with_labels(of_card if own is None else covered_ranges(own, host), labels, raw, conditions)
    request = replace(request, targets=counted_from(request.targets, covered))
    if covered and not request.scorer:
        warnings += coverage_warnings(common_name(host), request.targets, covered)
    facts = _facts(request, card, adapter, mix) | {TRAINED_ON: TWO_DMD if _knows_2dmd(predictor) else "other values"}
    if conditions is not None:
        facts |= {"formation_energy_at": conditions.text, "chemical_potentials_ev": dict(conditions.potentials_ev)}
    if labels:
        facts["labels_by"] = request.labels_by
    facts["host_formation_enthalpy_ev"] = known_enthalpy_ev(host, predictor)
    return PreparedDesign(request, mix, scorer, known, labels, raw, tuple(warnings), facts)


def _with_labels(
    covered: Mapping[str, list[float]], labels: Labels, raw: RawReference | None, conditions: Conditions | None
) -> dict[str, list[float]]:
    """Ranges of the training data, widened to those of all labels; formation energies only under the conditions."""
    offset = 0.0 if raw is None else raw.scale.e_vbm_ev + raw.mean_shift_ev
    found = {c: list(ends) for c, ends in covered.items() if conditions is None or c != FORMATION}
    for column in COLUMNS:
        values = [known[column] for known in labels.values() if column in known]
        if values:
            shift = offset if BY_COLUMN[column].is_level else 0.0
            low, high = min(values) + shift, max(values) + shift
            before = found.get(column, [low, high])
            found[column] = [min(low, before[0]), max(high, before[1])]
    return found


def _conditions(request: DesignRequest, scorer: Scorer) -> Conditions | None:
    """The growth conditions that were asked for.

    Raises:
        UsageError: outside the limits, or for a host whose formation enthalpy is not known.
    """
    from defectgen.score.surrogate import Surrogate

    if not request.conditions and not request.mu:
        return None
    if not isinstance(scorer, Surrogate):
        raise UsageError("got growth conditions and a scorer of your own, whose references are not known.")
    enthalpy = formation_enthalpy_ev(request.host, scorer)
    return growth_conditions(request.host, enthalpy, request.conditions, request.mu)


def _surrogate_for(request: DesignRequest) -> Scorer:
    """The surrogate of the request, if it knows the host.

    Raises:
        UsageError: it was not trained on it, or on another cell.
    """
    scorer = load_surrogate(request.models.surrogate or shipped(SHIPPED_SURROGATE))
    host = request.host
    if host.name not in scorer.hosts:
        raise UsageError(
            f"the surrogate was trained on {', '.join(map(common_name, scorer.hosts))}, not on {common_name(host)}.",
            f"Train one on {common_name(host)} (surrogate train) and give it with --surrogate, or a scorer in Python.",
        )
    check_cell(host, [part.core_host for part in scorer.parts])
    return scorer


def _knows_2dmd(scorer: Scorer) -> bool:
    """Whether values of 2DMD may stand beside those of a scorer: another code has other zeros and offsets."""
    from defectgen.score.slices_catboost import SlicesCatBoost
    from defectgen.score.surrogate import Surrogate

    if isinstance(scorer, SlicesCatBoost):
        return {part.set_name for part in scorer.parts} <= set(SET_NAMES)
    return isinstance(scorer, Surrogate) and scorer.knows_2dmd


def _check_llm(card: AdapterCard, host: Host, name: str) -> None:
    """Refuse a language model that does not know the host."""
    if not card.knows(host):
        this = f"this {common_title(host)}" if host.name in card.hosts else common_name(host)
        raise UsageError(
            f"the model in {name} was trained on {', '.join(map(common_name, card.hosts))}, not on {this}.",
            f"Train one on {common_name(host)} (build-data --sets, finetune) and give it with --model.",
        )


def _raw_reference(
    request: DesignRequest, scorer: Scorer, known: frozenset[str], options: ProposerOptions
) -> RawReference:
    from defectgen.score.surrogate import Surrogate

    if not isinstance(scorer, Surrogate):
        raise UsageError("got reference 'raw' and a scorer of your own, whose cells have no raw zero.")
    if request.proposer is not None and not request.names:
        raise UsageError("got reference 'raw' and a proposer of your own, whose cells have no raw zero.")
    return raw_reference(request.host, scorer, known, options.space.least, options.space.most)


def _facts(request: DesignRequest, card: AdapterCard, adapter: Path, mix: Mix) -> dict[str, object]:
    """What to report of models and draws."""
    host, models, limits = request.host, request.models, request.limits
    facts: dict[str, object] = {
        "defectgen": __version__,
        "supercell": host.size,
        "proposers": ", ".join(stage.name for stage in mix.stages),
        "surrogate": type(request.scorer).__name__ if request.scorer else str(models.surrogate or SHIPPED_SURROGATE),
        **limits.facts,
    }
    if mix.space is not None:
        facts |= {"min_defects": mix.space.least, "max_defects": mix.space.most}
        facts["kinds"] = ", ".join(limits.kinds) or "any"
        facts["random"] = request.ranking.random
        facts["budget"] = request.ranking.budget.text or None
    if mix.listing is not None:
        facts["listed"] = mix.listing.count
        facts["listed_up_to_defects"] = mix.listing.most
    if any(stage.name == LLM for stage in mix.stages):
        facts |= {
            "model": adapter.name if models.adapter is None else str(adapter),
            "base_model": card.base_model,
            "engine": models.engine,
            "encoding": card.encoding,
            "prompt_version": card.prompt_version,
            "temperature": request.drawing.temperature,
            "top_p": request.drawing.top_p,
            "guidance": request.drawing.guidance,
        }
    return facts


def design(
    host: Host | str,
    *,
    targets: Target | Sequence[Target] | Sequence[Mapping[str, Wanted]] | Path | str | None = None,
    n: int = 16,
    min_defects: int = 1,
    max_defects: int | None = None,
    kinds: Sequence[str] | str = (),
    seed: int = 0,
    ranking: Ranking | None = None,
    drawing: Drawing = USUAL,
    models: Models = SHIPPED,
    proposer: Proposer | str | None = None,
    scorer: Scorer | str | None = None,
    limits: Limits | None = None,
    conditions: str = "",
    mu: Mapping[str, float] | None = None,
    potential: PotentialUse | str | None = None,
    progress: Callable[[int], None] = lambda _: None,
    **wanted: Wanted,
) -> DesignRun:
    """Defect structures with wanted properties, best first, as ``defectgen design`` makes them.

    Labelled structures are looked up, and every symmetry-distinct structure is looked at where they can be listed (up
    to three defects, or what the limits leave); random structures and the language model add to it where there are
    more. The surrogate predicts every property, and the candidates of each target come out sorted by the distance to it
    that is to be expected.

    Args:
        host: what is decorated, or the name of a built-in host.
        targets: many targets, rows such as ``{"id": "deep", "homo": 0.5}``, or a CSV file with one a line; in place
            of `wanted`.
        n: candidates to return for each target.
        min_defects: fewest defects in a cell.
        max_defects: most; None for as many as the model saw in the host.
        kinds: kinds of defects, some of ``vacancy`` and ``substitution``; empty for any.
        seed: of all draws; the same seed gives the same candidates.
        ranking: the zero of levels, how many compete, what decides; `n` and `seed` are in it then.
        drawing: how the language model draws.
        models: other models than the shipped ones.
        proposer: proposes in place of that mix: an object, or names of registered ones (``known``,
            ``exhaustive``, ``random``, ``llm``) with commas between them.
        scorer: predicts in place of the surrogate: an object, or the name of a registered one.
        limits: all that may be said of the defects, in place of `min_defects`, `max_defects` and `kinds`.
        conditions: growth conditions of formation energies, e.g. ``S-rich``.
        mu: chemical potentials relative to the elements instead, in eV, e.g. ``{"S": -0.6}``.
        potential: relaxes the best candidates: ``chgnet``, ``m3gnet``, or a `PotentialUse` that says how many and what
            it decides.
        progress: called with the number of new structures, those that nothing has proposed before.
        wanted: by property a value, a range ``(0.5, 0.8)``, or text as the options take it (``"0.5:0.8"``, ``"min"``,
            ``"0.6+-0.02*2"``): ``homo``, ``lumo``, ``band_gap``, ``formation_energy``, ``fermi_level``,
            ``energy_per_atom`` in eV, ``magnetization`` in Bohr magnetons. Levels count from the valence band maximum
            of the pristine host.

    Returns:
        The run. Its `candidates` hold configurations with predicted values, `to_polars` gives a table, and `write`
        a folder with structures and report.

    Raises:
        UsageError: no target, a value or type that does not fit, or a host that the models were not trained for.
        DefectgenError: a model or table that is missing or damaged.
    """
    if limits is not None and (min_defects != 1 or max_defects is not None or kinds):
        raise UsageError("got limits and min_defects, max_defects or kinds.", "Give all of them as limits=Limits(...).")
    if ranking is not None and (n != Ranking().n or seed):
        raise UsageError("got ranking and n or seed.", "Give all of them as ranking=Ranking(...).")
    known = as_host(host)
    predictor = other_scorer(scorer, models.surrogate) if isinstance(scorer, str) else scorer
    request = DesignRequest(
        host=known,
        targets=targets_of(targets, wanted),
        ranking=ranking or Ranking(n=n, seed=seed),
        limits=limits or Limits(min_defects, max_defects, (kinds,) if isinstance(kinds, str) else tuple(kinds)),
        drawing=drawing,
        models=models,
        proposer=proposer,
        scorer=predictor,
        labels=labels_of(known) if isinstance(scorer, str) and predictor is not None else None,
        conditions=conditions,
        mu=potentials(mu),
        potential=PotentialUse(potential) if isinstance(potential, str) else potential,
    )
    chosen = request.potential
    relaxer = None if chosen is None else load_relaxer(chosen.name, chosen.m3gnet)
    run = prepare_design(request).run(progress)
    if chosen is None or relaxer is None or not run.complete:
        return first_of_each(run, request.ranking.n)
    return relax_top(run, relaxer, chosen.top, chosen.use, n=request.ranking.n)
