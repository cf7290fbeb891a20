"""The proposers of a run, one after the other, and what a finished run knows of each target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from defectgen.core.properties import BY_COLUMN
from defectgen.design.candidates import Target
from defectgen.design.exhaustive import ExhaustiveProposer, Listing, plan_listing
from defectgen.design.landscape import has_crowded
from defectgen.design.limits import Space
from defectgen.design.pipeline import Search, Stage
from defectgen.design.proposers import ENDLESS, POOL, PROPOSERS, ProposerOptions, make_proposer
from defectgen.design.verdict import Verdict
from defectgen.errors import UsageError

KNOWN, EXHAUSTIVE, RANDOM, LLM, SEARCH = "known", "exhaustive", "random", "llm", "search"

REACHED_EV = 1e-3
"""A target is reached at this distance, however narrow the intervals are."""

HIDDEN_EV = 1e-4
"""Differences below it do not show."""

POOL_BESIDE = 400
"""Random structures beside a listing: crowded cells take some milliseconds each to score."""


@dataclass(frozen=True)
class Mix:
    """What proposes in a run.

    Attributes:
        stages: in their order.
        listing: what `EXHAUSTIVE` lists; None if it does not propose.
        space: what the limits leave; None where a proposer of the user's decides.
    """

    stages: tuple[Stage, ...]
    listing: Listing | None = None
    space: Space | None = None


def named_mix(names: Sequence[str], options: ProposerOptions) -> Mix:
    """The proposers that the user named; all of them propose to every target.

    Raises:
        UsageError: an unknown proposer, one named twice, or one that does not suit the options.
        DefectgenError: a model that is missing or damaged.
    """
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UsageError(f"the proposer {twice[0]!r} is named twice.")
    if options.start and set(names) <= {KNOWN, EXHAUSTIVE, RANDOM, LLM}:
        raise UsageError(
            f"got --from and the proposers {', '.join(names)}, none of which begins with a structure.",
            f"Add --proposer {SEARCH}, or leave out --from.",
        )
    entries = {name: PROPOSERS.find(name) for name in names}
    stages, listing = [], None
    for name, entry in entries.items():
        proposer = make_proposer(name, options)
        if isinstance(proposer, ExhaustiveProposer):
            listing = proposer.listing
        stages.append(Stage(name, lambda made=proposer: made, entry.repeats))  # type: ignore[misc]
    return Mix(tuple(stages), listing, options.space if listing else None)


def default_mix(options: ProposerOptions, *, llm: bool, llm_is_asked_for: bool) -> Mix:
    """Everything that is small enough to be listed, then what may add to it.

    Random structures follow where the listing does not hold all that the limits leave, and a search for targets that
    are out of reach by then, or for all of them where a budget or a structure to begin with is given. The language
    model follows where nothing could be listed that the scorer was made for and no search came near enough: what is
    listed it cannot add to, and beyond it a search comes nearer by the surrogate that ranks
    (docs/results/crowded-cells.md), and sooner by far.

    Args:
        options: host, limits, scorer and the like.
        llm: whether the language model knows the host.
        llm_is_asked_for: whether it proposes in any case.

    Raises:
        UsageError: limits that leave nothing.
        DefectgenError: a model that is asked for and missing or damaged.
    """
    space = options.space
    listing = plan_listing(space, options.scorer)
    is_listed = bool(listing.classes) and (listing.is_whole or listing.in_domain)
    stages = [_stage(KNOWN, options)] if options.labels else []
    if is_listed:
        stages.append(_stage(EXHAUSTIVE, options))
    if not (is_listed and listing.is_whole):
        more = options if options.pool is not None else replace(options, pool=POOL_BESIDE if is_listed else POOL)
        if is_listed and not options.limits.beyond_kinds:
            more = replace(more, limits=replace(options.limits, min_defects=listing.most + 1))
        stages.append(_stage(RANDOM, more))
    if llm_is_asked_for:
        proposer = make_proposer(LLM, options)
        stages.append(Stage(LLM, lambda: proposer))
    searched = not (is_listed and listing.is_whole) and has_crowded(options.scorer, options.host)
    if searched or options.start:
        asked_for = bool(options.start) or options.budget != ENDLESS
        stages.append(replace(_stage(SEARCH, options), gains=None if asked_for else _is_away))
    if llm and not is_listed and not llm_is_asked_for:
        stages.append(replace(_stage(LLM, options), is_optional=True, gains=_is_away if searched else None))
    return Mix(tuple(stages), listing if is_listed else None, space)


def _is_away(search: Search, target: Target) -> bool:
    """Whether nothing yet is as near as its interval is wide."""
    nearest = search.shortlists[target.id].nearest
    return not nearest.distance_ev <= max(nearest.half_width_ev, REACHED_EV)


def _stage(name: str, options: ProposerOptions) -> Stage:
    return Stage(name, lambda: make_proposer(name, options), PROPOSERS.find(name).repeats)


def _why_not_first(search: Search, target: Target, labels_by: str) -> str:
    """Where row 1 is farther away than the nearest: which one that is, and why it comes later; else nothing."""
    shortlist = search.shortlists[target.id]
    nearest, first = shortlist.nearest, shortlist.candidates(1, ())
    if not first or first[0].best_distance_ev - nearest.distance_ev < HIDDEN_EV:
        return ""
    away = 1e3 * first[0].best_distance_ev
    basis = labels_by if first[0].is_labelled else "a surer prediction"
    return f"; it is {nearest.label}, which its uncertainty puts behind row 1, {away:.1f} meV away by {basis}"


def verdicts(search: Search, mix: Mix, labels_by: str) -> list[Verdict]:
    """What is known of each target: reached or not, and what that rests on; `labels_by` as of `DesignRequest`."""
    return [_verdict(search, mix, target, labels_by) for target in search.targets]


def _away_text(target: Target, distance_ev: float) -> str:
    """How far a structure is from a target; wishes for ``min`` and ``max`` count from the extreme value known."""
    towards = {wish.towards for wish in target.wishes}
    weighted = [wish for wish in target.wishes if wish.weight != 1]
    names = [f"{BY_COLUMN[wish.column].name.replace('_', ' ')} counted {wish.weight:g} times" for wish in weighted]
    items = [BY_COLUMN[wish.column] for wish in target.wishes]
    names += [f"1 {one.unit} counts {1e3 * one.weight_ev:g} meV" for one in items if one.weight_ev != 1]
    counted = f" ({', '.join(names)})" if names else ""
    if "" in towards:
        return f"{1e3 * distance_ev:.1f} meV away{counted}"
    known = f"the {'lowest' if towards == {'min'} else 'highest' if towards == {'max'} else 'extreme'} value known"
    return f"{1e3 * abs(distance_ev):.1f} meV {'away from' if distance_ev >= 0 else 'beyond'} {known}{counted}"


def _verdict(search: Search, mix: Mix, target: Target, labels_by: str) -> Verdict:
    listing, nearest = mix.listing, search.shortlists[target.id].nearest
    number = search.n_distinct(target)
    whole = listing is not None and listing.is_whole and number >= listing.count and not search.settings.novel
    if not math.isfinite(nearest.distance_ev):
        text = f"none of {number:,} structures has a prediction with an interval; not a proof"
        return Verdict(target.id, text, None, False, number, False)
    half = f", predicted to within {1e3 * nearest.half_width_ev:.0f} meV" if nearest.half_width_ev else ""
    away = _away_text(target, nearest.distance_ev) + half
    reached = nearest.distance_ev <= max(nearest.half_width_ev, REACHED_EV)
    unseen = 0 if listing is None else listing.count + listing.left_out - number  # labels are seen in any kind
    proof = whole and unseen <= 0
    if whole and listing is not None:
        left = f", but for {unseen:,} of kinds that the surrogate was not trained on" if not proof else ""
        looked, what = f"(all {number:,} were looked at{left})", f"structure with {listing.words}"
        if reached or len({bool(wish.towards) for wish in target.wishes}) > 1:  # with a goal "this" is no place
            text = f"the nearest {what} is {away} {looked}"
        elif nearest.may_be_met:
            text = f"no {what} surely has this: the nearest known is {away}; others may, by their intervals {looked}"
        else:
            text = f"no {what} has this: the nearest that exists is {away} {looked}"
    else:
        text = f"the nearest is {away}: best of {number:,} evaluated; not a proof"
        if listing is not None and number >= listing.count and not search.settings.novel:
            kinds = " of kinds that the surrogate was trained on" if listing.left_out else ""
            text += f" (among them all {listing.count:,} with {listing.words}{kinds})"
    text += _why_not_first(search, target, labels_by)
    return Verdict(target.id, text, round(nearest.distance_ev, 6), bool(reached), number, proof)
