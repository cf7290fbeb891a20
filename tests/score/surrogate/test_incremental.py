"""Neighbours of a configuration, scored by what changes: the same values as the full score."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from defectgen.core import Configuration, Host, host_names
from defectgen.errors import UsageError
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.high_density import DenseModels
from defectgen.score.surrogate.host_models import HostModels
from defectgen.score.surrogate.incremental import Moves, State
from defectgen.score.surrogate.mean_values import MeanModel

AGREEMENT = 1e-6
"""In eV, mu_B and eV per atom."""

N_MOVES = 120
"""Of each of three states of each host: 2,160 in all."""

BY_PARITY = "GaSe", "InSe"
"""Hosts in whose shipped models the parity of the electrons counts."""

Change = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


@cache
def shipped_surrogate() -> Surrogate:
    return Surrogate.load()


def crowded(name: str) -> HostModels:
    return next(part for part in shipped_surrogate().parts if part.host == name and part.density == "high")


def random_configuration(host: Host, n: int, rng: np.random.Generator) -> Configuration:
    sites = [int(site) for site in rng.choice(host.n_sites, n, replace=False)]
    return Configuration.of(host, {site: str(rng.choice(host.allowed[host.site_cell(site)[0]])) for site in sites})


def random_moves(state: State, host: Host, rng: np.random.Generator, n: int) -> list[Change]:
    """Moves, swaps, additions, removals, changes of kind, in turn."""
    kinds: dict[str, list[int]] = {}
    for kind, rule in enumerate(host.rules):
        kinds.setdefault(rule.element, []).append(kind)
    found: list[Change] = []
    for number in range(n):
        site = int(rng.choice(state.sites))
        element, own = host.site_element(site), int(state.kind_of[site])
        free = [int(s) for s in np.flatnonzero(state.kind_of < 0) if host.site_element(int(s)) == element]
        to, kind = int(rng.choice(free)), int(rng.choice(kinds[element]))
        others = [int(s) for s in state.sites if host.site_element(int(s)) == element and s != site]
        if number % 5 == 0:
            found.append(((site,), ((to, own),)))
        elif number % 5 == 1 and others:
            other = int(rng.choice(others))
            found.append(((site, other), ((site, int(state.kind_of[other])), (other, own))))
        elif number % 5 == 2:
            found.append(((), ((to, kind),)))
        elif number % 5 == 3:
            found.append(((site,), ()))
        else:
            found.append(((site,), ((site, kind),)))
    return found


def changed(configuration: Configuration, change: Change) -> Configuration:
    host = configuration.host
    edits = {site: species for site, species in configuration.edits if site not in change[0]}
    edits |= {site: host.rules[kind].replacement for site, kind in change[1]}
    return Configuration.of(host, edits)


@pytest.mark.parametrize("name", host_names())
def test_moves_are_scored_as_the_full_score_scores_them(name: str) -> None:
    part, rng = crowded(name), np.random.default_rng(3)
    assert isinstance(part.models, DenseModels)
    rows = part.models.rows.decorations
    columns = (*part.models.models, "energy_per_atom_ev")
    model = MeanModel(part, columns)
    odd = set()
    for size in (part.defects_range[0], 9, part.defects_range[1]):
        state = State(model, random_configuration(part.core_host, size, rng))
        changes = random_moves(state, part.core_host, rng, N_MOVES)
        moves = Moves.of(changes)
        found = state.propose(moves)
        expected, _, _ = part.score([changed(state.configuration, change) for change in changes], [""] * N_MOVES)
        assert set(found) == set(columns)
        for column in columns:
            assert np.ptp(expected[column]) > 1000 * AGREEMENT, "the moves make no difference"
            assert np.abs(found[column] - expected[column]).max() < AGREEMENT, column
        odd |= set(rows.odd(moves.counts(state.kind_of, rows.n_kinds).astype(float)).tolist())
    assert odd == ({0, 1} if name in BY_PARITY else {0}), "both parities are met where they count"


@pytest.mark.parametrize("name", ["MoS2", "P", "GaSe"])
def test_a_walk_of_accepted_moves_does_not_drift(name: str) -> None:
    part, rng = crowded(name), np.random.default_rng(4)
    model = MeanModel(part, ("homo_ev", "formation_energy_ev"))
    configuration = random_configuration(part.core_host, 8, rng)
    state = State(model, configuration)
    for _ in range(200):
        (change,) = random_moves(state, part.core_host, rng, 6)[int(rng.integers(6)) :][:1]
        if len(state.sites) < 4 and not change[1]:
            continue
        configuration = changed(configuration, change)
        state.accept(Moves.of([change]))
    assert state.configuration == configuration
    expected, _, _ = part.score([configuration], [""])
    for column, value in state.values().items():
        assert value == pytest.approx(expected[column][0], abs=AGREEMENT)


def test_only_what_is_asked_for_is_predicted() -> None:
    part = crowded("MoS2")
    configuration = random_configuration(part.core_host, 10, np.random.default_rng(5))
    expected, _, _ = part.score([configuration], [""])
    for columns in (("homo_ev",), ("band_gap_ev", "fermi_level_ev"), ("energy_per_atom_ev",)):
        found = State(MeanModel(part, columns), configuration).values()
        assert set(found) == set(columns)
        assert all(value == pytest.approx(expected[column][0], abs=AGREEMENT) for column, value in found.items())


def test_properties_and_parts_without_models_are_refused() -> None:
    said = r"no values of total magnetization for cells of MoS2 with many defects\. Leave out --magnetization"
    with pytest.raises(UsageError, match=said):
        MeanModel(crowded("MoS2"), ("total_magnetization_mu_b",))
    low = next(part for part in shipped_surrogate().parts if part.density == "low")
    with pytest.raises(UsageError, match="got the low-density models"):
        MeanModel(low, ("homo_ev",))
