"""The tight-binding model that networks learn first: bands of h-BN, symmetry, electrons, and what is learnt of it."""

from __future__ import annotations

import numpy as np
import pytest

from defectgen.core import VACANCY, get_host
from defectgen.core.symmetry import site_permutations
from defectgen.score.network.folds import first_weights
from defectgen.score.network.network_cells import Rows
from defectgen.score.network.network_training import Geometries, TrainSettings, train_ensemble
from defectgen.score.network.pair_geometry import HostGeometry
from defectgen.score.network.tight_binding import (
    PP_PI,
    TERMS,
    UNIT_EV_ANGSTROM2,
    TightBinding,
    is_modelled,
    model_cells,
)

NONE = np.zeros(0, dtype=np.int64)


@pytest.fixture(scope="module")
def boron_nitride() -> TightBinding:
    return TightBinding(HostGeometry.of(get_host("BN")))


def test_pristine_gap_is_that_of_the_pi_bands(boron_nitride: TightBinding) -> None:
    host = boron_nitride.geometry.host
    a = float(np.linalg.norm(host.lattice[0]))
    n = round(float(np.linalg.norm(host.supercell_lattice[0])) / a)
    turns = np.exp(2j * np.pi * np.arange(n) / n)
    structure = np.abs(1 + turns[:, None] + turns[None, :])  # three neighbours, all k points of the supercell
    hopping = PP_PI * UNIT_EV_ANGSTROM2 / (a / np.sqrt(3)) ** 2
    middle, half = (TERMS["B"][1] + TERMS["N"][1]) / 2, (TERMS["B"][1] - TERMS["N"][1]) / 2
    above = np.sqrt(half**2 + (hopping * structure) ** 2).min()
    found = boron_nitride.levels(NONE, NONE)
    np.testing.assert_allclose(found[:2], middle - above, atol=2e-4)
    np.testing.assert_allclose(found[2:4], 2 * above, atol=4e-4)


@pytest.mark.parametrize("name", ["BN", "P", "GaSe"])
def test_images_under_the_symmetry_have_the_same_levels(name: str) -> None:
    model = TightBinding(HostGeometry.of(get_host(name)))
    host, kinds = model.geometry.host, model.geometry.kinds
    rng = np.random.default_rng(2)
    sites = rng.choice(host.n_sites, 5, replace=False)
    chosen = np.array(
        [rng.choice([k for k, rule in enumerate(kinds) if rule.element == host.site_elements[s]]) for s in sites]
    )
    wanted = model.levels(sites, chosen)
    assert np.abs(wanted - model.levels(NONE, NONE))[:4].max() > 0.01
    group = site_permutations(host)
    for row in rng.choice(len(group), 4, replace=False):
        np.testing.assert_allclose(model.levels(group[row][sites], chosen), wanted, atol=1e-3)


def test_channels_differ_where_electrons_are_odd(boron_nitride: TightBinding) -> None:
    geometry = boron_nitride.geometry
    kinds = {(rule.element, rule.replacement): k for k, rule in enumerate(geometry.kinds)}
    boron = geometry.host.site_elements.index("B")
    donor = boron_nitride.levels(np.array([boron]), np.array([kinds["B", "C"]]))
    pristine = boron_nitride.levels(NONE, NONE)
    assert donor[0] > pristine[0] + 1  # the fourth electron of carbon is in the gap
    assert donor[0] + donor[2] > donor[0] > donor[1]
    vacancy = boron_nitride.levels(np.array([boron]), np.array([kinds["B", VACANCY]]))
    assert vacancy[1] + vacancy[3] < pristine[1] + pristine[3] - 1  # empty dangling bonds


def test_hosts_of_transition_metals_are_not_modelled() -> None:
    assert [name for name in ("BN", "P", "GaSe", "InSe", "MoS2", "WSe2") if is_modelled(get_host(name))] == [
        "BN", "P", "GaSe", "InSe",
    ]  # fmt: skip


def test_cells_of_several_hosts_are_like_those_of_their_crowded_sets() -> None:
    geometries = [HostGeometry.of(get_host(name)) for name in ("GaSe", "InSe")]
    sites, kinds = np.full((3, 6), -1), np.full((3, 6), -1)
    for row, size in enumerate((2, 6, 5)):
        sites[row, :size], kinds[row, :size] = np.arange(size), 0
    hosts, groups = np.array([0, 0, 1]), np.array([0, 1, 2])  # the first host has a set of few defects too
    cells = model_cells(Rows(hosts, sites, kinds, np.full((3, 7), np.nan), groups), geometries, 4, 7)
    np.testing.assert_array_equal(cells.hosts, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(cells.sizes, [6] * 4 + [5] * 4)
    for number, geometry in enumerate(geometries):
        row = 4 * number
        there = cells.sites[row] >= 0
        wanted = TightBinding(geometry).levels(cells.sites[row][there], cells.kinds[row][there])
        np.testing.assert_allclose(cells.targets[row], wanted, atol=1e-6)


def test_networks_learn_the_model_and_no_label() -> None:
    geometry = HostGeometry.of(get_host("P"))
    sites, kinds = np.array([[0, 5, -1], [3, -1, -1]]), np.array([[0, 1, -1], [1, -1, -1]])
    zeros = np.zeros(2, dtype=np.int64)
    rows = Rows(zeros, sites, kinds, np.full((2, 7), np.nan), zeros)
    labelled = Rows(zeros, sites, kinds, np.ones((2, 7)), zeros)
    settings = TrainSettings(model_cells=24, model_passes=2, crowded=8, passes=0.1, learning_rate=3e-3)
    geometries = Geometries([geometry], [True])
    found = first_weights(rows, geometries, 2, settings)
    again = first_weights(labelled, geometries, 2, settings)
    assert found is not None
    assert again is not None
    assert all(bool((found[name] == again[name]).all()) for name in found)
    still = TrainSettings(crowded=2, passes=0.1, learning_rate=0.0, few=0, seed=9)
    model, _ = train_ensemble(labelled, geometries, np.ones((1, 2), dtype=bool), still, start=found)
    assert all(bool((weight == found[name][:1]).all()) for name, weight in model.named_parameters())
    both = Geometries([geometry, HostGeometry.of(get_host("GaSe"))], [True, True])
    two = Rows(np.array([0, 1]), sites, kinds, np.full((2, 7), np.nan), np.array([0, 1]))
    assert first_weights(two, both, 1, settings) is not None
    metal = Geometries([HostGeometry.of(get_host("MoS2"))], [False])
    assert first_weights(rows, metal, 2, settings) is None
    assert first_weights(rows, geometries, 2, TrainSettings(model_cells=0)) is None
