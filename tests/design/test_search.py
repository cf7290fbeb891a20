"""Search in crowded cells: within the limits, nearer than random structures, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl
import pytest
from counting_scorer import CountingScorer

from defectgen.core import Configuration, canonicalize, get_host
from defectgen.design.edit_moves import SHARES, Edits
from defectgen.design.engine import SHIPPED, USUAL
from defectgen.design.landscape import STAY, Account, Archive, Landscape, crowded_model, edits_of
from defectgen.design.limits import Limits, Space
from defectgen.design.proposers import Ask, Budget, ProposerOptions, make_proposer
from defectgen.design.ranking import rank, score_batch
from defectgen.design.search import SearchProposer
from defectgen.design.tree_search import tree_search
from defectgen.design.widths import WidthModel
from defectgen.errors import UsageError
from defectgen.score.surrogate import Surrogate

COLUMNS = ("homo_ev", "lumo_ev")


@cache
def surrogate() -> Surrogate:
    return Surrogate.load()


def space_of(name: str, limits: Limits | None = None) -> Space:
    host = get_host(name)
    part = next(part for part in surrogate().parts if part.host == name and part.density == "high")
    return Space.of(host, limits or Limits(), part.defects_range[1])


def target_of(name: str, seed: int = 0) -> dict[str, float]:
    """What some crowded cell is predicted to have."""
    space = space_of(name)
    item = Space.of(space.host, Limits(6, 12), 12).draw(np.random.default_rng(seed))
    scores = surrogate().score([item])
    return {column: float(scores[column][0]) for column in COLUMNS}


def test_the_same_seed_gives_the_same_and_another_seed_another() -> None:
    proposer = SearchProposer(space_of("MoS2"), surrogate(), Budget(evaluations=1500))
    wanted = target_of("MoS2")
    first, again, other = (proposer.find(Ask(wanted, 8, seed)) for seed in (1, 1, 2))
    assert first.configurations == again.configurations
    assert first.distances_ev == again.distances_ev
    assert first.configurations != other.configurations
    assert 1500 <= first.evaluated < 1700, "the last block of neighbours may go beyond the budget"


@pytest.mark.parametrize("name", ["MoS2", "P"])
def test_what_it_finds_is_distinct_canonical_as_near_as_it_says_and_nearer_than_random(name: str) -> None:
    wanted, space = target_of(name, 3), space_of(name)
    ask = Ask(wanted, 12, 5)
    found = SearchProposer(space, surrogate(), Budget(evaluations=6000)).find(ask)
    assert len(found.configurations) == 12
    assert len({item.key for item in found.configurations}) == 12
    assert all(item == item.canonical() and space.admits(item) for item in found.configurations)
    ranked = rank(ask.objective, {item.key: item for item in found.configurations}, surrogate(), ())
    assert [candidate.configuration for candidate in ranked] == list(found.configurations), "as a design ranks them"

    def distances(items: list[Configuration]) -> np.ndarray:
        scores = surrogate().score(items)
        return ask.objective.distances_ev({column: scores[column].to_numpy() for column in COLUMNS})

    assert distances(list(found.configurations)) == pytest.approx(np.array(found.distances_ev), abs=1e-6)
    rng = np.random.default_rng(0)
    best_random = np.sort(distances([space.draw(rng) for _ in range(700)]))[:6]
    assert np.mean(sorted(found.distances_ev)[:6]) < np.mean(best_random), "the other half is nearer to be expected"


@pytest.mark.parametrize("name", ["MoS2", "P"])
def test_what_decides_guides_nearer_by_the_expected_distance_than_random_at_equal_time(name: str) -> None:
    space, rng = space_of(name), np.random.default_rng(1)
    # in full 1,200 cost about as much as the values of 5,000
    drawn = score_batch(canonicalize([space.draw(rng) for _ in range(1200)]), surrogate())
    least = []
    for seed in range(4, 9):
        ask = Ask(target_of(name, seed), 20, 2)
        found = SearchProposer(space, surrogate(), Budget(evaluations=5000)).find(ask)
        assert found.evaluated < 5200, "what is scored in full counts"
        assert min(found.distances_ev) < 0.01, "the other half looks for what is nearest"
        both = score_batch(found.configurations, surrogate()), drawn
        least.append([float(np.nanmin(ask.objective.expected_ev(b.values, b.half_widths))) for b in both])
    by_search, by_chance = np.mean(least, axis=0)
    assert by_search < by_chance


def test_widths_are_learnt_from_compositions() -> None:
    space, rng = space_of("MoS2"), np.random.default_rng(0)
    drawn = np.array([edits_of(space, None).draw(rng) for _ in range(400)])
    counts = np.array([np.bincount(kinds[kinds >= 0], minlength=len(space.host.rules)) for kinds in drawn])
    batch = score_batch([edits_of(space, None).configuration(kinds) for kinds in drawn], surrogate())
    widths = [batch.half_widths[column] for column in COLUMNS]
    model = WidthModel(COLUMNS)
    model.learn(counts[:10], [width[:10] for width in widths])
    assert not model.is_fitted, "too few"
    model.learn(counts[10:300], [width[10:300] for width in widths])
    for column, guessed in model.guess(counts[300:]).items():
        known = np.log(batch.half_widths[column])
        left = np.log(guessed) - known[300:]
        assert np.nanvar(left) < 0.5 * np.nanvar(known[300:])
        assert guessed.min() >= np.nanmin(batch.half_widths[column][:300]) * (1 - 1e-9)
    before = model.guess(counts)
    model.learn(counts, [np.full(len(counts), np.nan), widths[1]])
    assert all((model.guess(counts)[column] == before[column]).all() for column in COLUMNS), "none with both intervals"


def test_an_archive_takes_the_exact_distance_in_place_of_the_guessed_one() -> None:
    archive, first, second = Archive(10), np.array([0, -1, 1]), np.array([-1, 0, 1])
    archive.add(0.1, first)
    archive.add(0.2, second)
    assert archive.exact(first) is None
    archive.correct(0.3, first, {"homo_ev": 1.5})
    archive.add(0.01, first)
    assert archive.exact(first) == {"homo_ev": 1.5}
    assert [distance for distance, _ in archive.best(2)] == [0.2, 0.3]
    (left,) = archive.unseen(5)
    assert (left == second).all()


@pytest.mark.parametrize("name", ["BN", "GaSe"])
def test_near_a_decoration_fast_values_are_corrected_by_its_exact_ones(name: str) -> None:
    space, rng, ask = space_of(name), np.random.default_rng(2), Ask(target_of(name), 8, 0)
    crowded = crowded_model(surrogate(), space.host, COLUMNS)
    assert crowded is not None
    edits, archive, account = edits_of(space, crowded), Archive(10), Account(Budget())
    plain = Landscape(ask.objective, edits, surrogate(), crowded[0])
    errors: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(8):
        kind_of = edits.draw(rng)
        assert not plain.near([kind_of], archive).shifts, "nothing is known of it"
        scores = surrogate().score(canonicalize([edits.configuration(kind_of)]))
        exact = {column: float(scores[column][0]) for column in COLUMNS}
        archive.correct(0.1, kind_of, exact)
        close = plain.near([kind_of], archive)
        (distance,) = close.distances(close.walker(kind_of), STAY, account, Archive(10))
        assert distance == pytest.approx(ask.objective.distance_ev(exact), abs=1e-6)
        moves = edits.block(kind_of, rng, 24)
        items = [edits.configuration(moves.applied(kind_of, row)) for row in range(len(moves))]
        scores = surrogate().score(canonicalize(items))
        full = ask.objective.distances_ev({column: scores[column].to_numpy() for column in COLUMNS})
        for landscape in (plain, close):
            fast = landscape.distances(landscape.walker(kind_of), moves, account, Archive(10))
            errors[landscape is close].append(float(np.mean(abs(fast - full))))
    assert np.mean(errors[True]) < 0.9 * np.mean(errors[False]), errors


LIMITS = [
    Limits(5, 9, kinds=("vacancy",)),
    Limits(4, 12, only=("v_S", "Se_S")),
    Limits(4, 10, defects=("v_Mo=1:2", "W_Mo=2")),
    Limits(4, 8, side="top"),
    Limits(4, 9, least_distance_angstrom=5.0),
    Limits(6, 6),
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_limits_are_kept(limits: Limits) -> None:
    space = space_of("MoS2", limits)
    found = SearchProposer(space, surrogate(), Budget(evaluations=1200)).find(Ask(target_of("MoS2"), 20, 1))
    assert len(found.configurations) == 20
    assert all(space.admits(item) for item in found.configurations)


def test_a_flat_host_has_no_sides() -> None:
    with pytest.raises(UsageError, match="got sublattice 'top', but hBN is flat: all its atoms are on both sides"):
        space_of("BN", Limits(1, 3, side="top"))


def test_a_start_on_the_other_side_is_taken_as_its_image_and_stays_on_one_side() -> None:
    space, rng = space_of("MoS2", Limits(4, 8, side="top")), np.random.default_rng(3)
    edits = edits_of(space, None)
    sides = {}
    for key in ("VAC@B00+VAC@B01+VAC@B20+Se@B70", "VAC@C00+VAC@C01+VAC@C20+Se@C70"):
        kind_of = edits.kinds_of(Configuration.from_key(space.host, key))
        assert kind_of is not None
        sides[key] = {space.host.site_cell(int(site))[0] for site in np.flatnonzero(kind_of >= 0)}
        assert edits.configuration(kind_of).canonical() == Configuration.from_key(space.host, key).canonical()
        for _ in range(20):
            moves = edits.block(kind_of, rng, 30)
            assert all(space.admits(edits.configuration(moves.applied(kind_of, row))) for row in range(len(moves)))
    assert len(set(map(frozenset, sides.values()))) == 1
    assert edits.kinds_of(Configuration.from_key(space.host, "VAC@B00+VAC@C01+VAC@B20+Se@B70")) is None


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_every_edit_is_of_its_sort_and_within_the_limits(limits: Limits) -> None:
    space, rng = space_of("MoS2", limits), np.random.default_rng(2)
    edits = edits_of(space, None)
    kind_of, seen = edits.draw(rng), set()
    for _ in range(60):
        moves = edits.block(kind_of, rng, 30)
        for row in range(len(moves)):
            after = moves.applied(kind_of, row)
            assert edits.within(after)
            assert (moves.counts(kind_of, len(edits.lows))[row] == np.bincount(after[after >= 0], minlength=4)).all()
            before, now = (np.bincount(x[x >= 0], minlength=4) for x in (kind_of, after))
            seen.add((int((now - before).sum()), bool((now == before).all())))
            assert (after != kind_of).any()
        if len(moves):
            kind_of = moves.applied(kind_of, int(rng.integers(len(moves))))
    assert (0, True) in seen, "moves and swaps keep the composition"
    if limits.min_defects < (limits.max_defects or 99):
        assert {(1, False), (-1, False)} <= seen


def test_all_sorts_of_edits_are_made() -> None:
    edits, rng = edits_of(space_of("MoS2"), None), np.random.default_rng(0)
    kind_of = edits.draw(rng)
    for name in SHARES:
        assert len(edits._edits(name, kind_of, rng)), name


def test_crossings_have_halves_of_both() -> None:
    edits, rng = edits_of(space_of("MoS2", Limits(4, 24)), None), np.random.default_rng(1)
    first, second = edits.draw(rng), edits.draw(rng)
    child = edits.crossed(first, second, rng)
    assert child is not None
    assert ((child == first) | (child == second)).all()
    assert (child != first).any()
    assert (child != second).any()


def test_starts_are_used() -> None:
    space = space_of("MoS2")
    hit = space_of("MoS2", Limits(9, 9)).draw(np.random.default_rng(7))
    scores = surrogate().score([hit])
    wanted = {column: float(scores[column][0]) for column in COLUMNS}
    proposer = SearchProposer(space, surrogate(), Budget(evaluations=300))
    cold, warm = proposer.find(Ask(wanted, 200, 0)), proposer.find(Ask(wanted, 200, 0, start=(hit,)))
    assert hit.canonical() in warm.configurations
    assert min(warm.distances_ev) < 1e-6 < min(cold.distances_ev)


def test_time_is_kept_for_the_end() -> None:
    now = [0.0]
    account = Account(Budget(seconds=10.0), clock=lambda: now[0], kept_s=2.0)
    now[0] = 4.0
    assert account.spent == pytest.approx(0.5)
    assert account.seconds_left == pytest.approx(4.0)
    account.kept_s = 100.0
    assert account.seconds_left == pytest.approx(3.5), "no more than a quarter"
    assert Account(Budget(evaluations=5)).seconds_left == np.inf


def test_a_budget_of_seconds_ends() -> None:
    found = SearchProposer(space_of("P"), surrogate(), Budget(seconds=0.3)).find(Ask(target_of("P"), 4, 0))
    assert found.evaluated > 50
    assert found.configurations


def test_any_scorer_can_be_searched() -> None:
    space = space_of("MoS2", Limits(1, 15))
    found = SearchProposer(space, CountingScorer(), Budget(evaluations=600)).find(Ask({"homo_ev": 0.7}, 3, 0))
    assert [item.n_defects for item in found.configurations] == [7, 7, 7]
    assert found.distances_ev[0] == pytest.approx(0, abs=1e-12)


def test_a_prior_decides_where_the_tree_grows() -> None:
    crowded = crowded_model(surrogate(), get_host("MoS2"), COLUMNS)
    assert crowded is not None
    space = space_of("MoS2")
    edits: Edits = edits_of(space, crowded)
    landscape = Landscape(Ask(target_of("MoS2"), 1, 0).objective, edits, surrogate(), crowded[0])
    start = edits.draw(np.random.default_rng(3))

    sizes: list[int] = []

    def tungsten(factor: float) -> float:
        def likes(decorations: Sequence[np.ndarray]) -> list[np.ndarray]:
            sizes.append(len(decorations))
            table = np.zeros((edits.host.n_sites, len(edits.host.rules)))
            table[:, [(rule.element, rule.replacement) for rule in edits.host.rules].index(("Mo", "W"))] = factor
            return [table] * len(decorations)

        account, archive = Account(Budget(evaluations=4000)), Archive(10_000)
        tree_search(landscape, start, 1.0, account, archive, np.random.default_rng(4), likes)
        assert account.evaluated >= 4000
        root = float(landscape.distances(landscape.walker(start), STAY, account, Archive(10))[0])
        assert archive.best(1)[0][0] < root
        return float(np.mean([edits.configuration(k).kinds["Mo", "W"] for _, k in archive.best(10_000)]))

    assert tungsten(9.0) > tungsten(-9.0) + 0.5
    assert max(sizes) > 1, "several nodes are judged together"


def test_it_is_a_proposer_by_name_and_needs_a_scorer() -> None:
    host = get_host("MoS2")
    options = ProposerOptions(host, Limits(4, 12), USUAL, SHIPPED, scorer=surrogate(), budget=Budget(evaluations=300))
    proposals = list(make_proposer("search", options).propose(host, [Ask(target_of("MoS2"), 5, 0)]))
    assert [proposal.ask for proposal in proposals] == [0] * 5
    with pytest.raises(UsageError, match="'search' needs a scorer"):
        make_proposer("search", ProposerOptions(host, Limits(4, 12), USUAL, SHIPPED))


def test_a_property_without_predictions_is_refused() -> None:
    proposer = SearchProposer(space_of("MoS2"), surrogate(), Budget(evaluations=100))
    with pytest.raises(UsageError, match="no values of total magnetization for cells of MoS2"):
        proposer.find(Ask({"total_magnetization_mu_b": 1.0}, 1, 0))


class InterruptedAfter(CountingScorer):
    """Ctrl-C in the call after so many."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().score(configurations)


def test_an_interrupted_search_hands_over_what_it_has() -> None:
    host = get_host("MoS2")
    space = Space.of(host, Limits(4, 8), 8)
    ask = Ask({"homo_ev": 0.5}, 4, 1)
    proposals = SearchProposer(space, InterruptedAfter(3), Budget(evaluations=100_000)).propose(host, [ask])
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(proposals)  # a list that is extended keeps what came before
    assert len({item.configuration for item in found}) == 4
    with pytest.raises(KeyboardInterrupt):
        SearchProposer(space, InterruptedAfter(3), Budget(evaluations=100_000)).find(ask)
    with pytest.raises(KeyboardInterrupt):
        next(SearchProposer(space, InterruptedAfter(0), Budget(evaluations=100_000)).propose(host, [ask]))
