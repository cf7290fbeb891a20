"""Features: invariant under the host's symmetry, and able to tell different structures apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import distinct_configurations

from defectgen.core import Configuration, Host, get_host, host_names, site_permutations
from defectgen.errors import UsageError
from defectgen.score.surrogate.features import (
    MAX_LISTED,
    TRIANGLE_ANGSTROM,
    Features,
    describe,
    displacements,
    frequent,
    histogram,
    kind_names,
    pair_orbits,
    pair_vocabulary,
)


@st.composite
def configurations(draw: st.DrawFn, most: int = 12) -> Configuration:
    host = get_host(draw(st.sampled_from(host_names())))
    sites = draw(st.lists(st.integers(0, host.n_sites - 1), min_size=1, max_size=most, unique=True))
    return Configuration.of(host, [(s, draw(st.sampled_from(host.allowed[host.site_cell(s)[0]]))) for s in sites])


def plain(features: Features) -> tuple[object, ...]:
    """Features of one configuration in a form that compares exactly."""
    return (
        features.counts.tolist(),
        np.nan_to_num(features.listed, nan=-1.0).tolist(),
        features.symmetry.tolist(),
        sorted(features.pairs[1].tolist()),
        sorted(features.triangles[1].tolist()),
    )


@settings(deadline=None, max_examples=150)
@given(configurations(), st.data())
def test_images_under_the_hosts_symmetry_have_equal_features(item: Configuration, data: st.DataObject) -> None:
    operation = data.draw(st.integers(0, len(site_permutations(item.host)) - 1))
    assert plain(describe(item.host, [item.image(operation)])) == plain(describe(item.host, [item]))


@settings(deadline=None, max_examples=30)
@given(st.lists(configurations(), min_size=1, max_size=6))
def test_a_configuration_has_the_same_features_alone_and_among_others(items: list[Configuration]) -> None:
    items = [item for item in items if item.host == items[0].host]
    together = describe(items[0].host, items)
    for row, item in enumerate(items):
        alone = describe(item.host, [item])
        assert alone.counts[0].tolist() == together.counts[row].tolist()
        assert np.array_equal(alone.listed[0], together.listed[row], equal_nan=True)
        for one, many in ((alone.pairs, together.pairs), (alone.triangles, together.triangles)):
            assert sorted(one[1].tolist()) == sorted(many[1][many[0] == row].tolist())


def test_different_pairs_of_vacancies_have_different_features(mos2: Host) -> None:
    """Two chalcogen vacancies in 8x8 MoS2 can stand in 19 ways."""
    chalcogens = [site for site, element in mos2.sites() if element == "S"]
    items = [Configuration.of(mos2, {chalcogens[0]: "VAC", other: "VAC"}) for other in chalcogens[1:]]
    classes = {item.canonical().key for item in items}
    features = {str(plain(describe(mos2, [item]))) for item in items}
    assert len(classes) == len(features) == 19


@pytest.mark.parametrize("name", host_names())
def test_pair_orbits_are_the_orbits_of_the_permutations(name: str) -> None:
    host = get_host(name)
    orbits = pair_orbits(host)
    assert (orbits.table == orbits.table.T).all()
    assert (orbits.table.diagonal() == -1).all()
    assert (np.diff(orbits.distances_angstrom) >= 0).all()
    rng = np.random.default_rng(0)
    first, second = rng.integers(host.n_sites, size=(2, 300))
    for image in site_permutations(host)[rng.integers(len(site_permutations(host)), size=20)]:
        assert (orbits.table[image[first], image[second]] == orbits.table[first, second]).all()
    unequal = first != second
    found = np.linalg.norm(displacements(host, first[unequal], second[unequal]), axis=1)
    expected = orbits.distances_angstrom[orbits.table[first, second][unequal]]
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", host_names())
def test_stabilizers_are_what_a_look_at_every_operation_finds(name: str) -> None:
    host = get_host(name)
    permutations = site_permutations(host).astype(int)
    fixed = (permutations == np.arange(host.n_sites)).sum(axis=1)
    drawn = distinct_configurations(host, 25, 5, (1, 2, 3))
    assert len(drawn) == 25
    for item in drawn:
        kept = [g for g in range(len(permutations)) if item.image(g) == item]
        other = [int(fixed[g]) for g in kept if fixed[g] < host.n_sites]
        expected = [len(kept), max(other, default=-1), sum(other)]
        assert describe(host, [item]).symmetry[0].tolist() == expected


def test_a_vacancy_keeps_its_point_group(mos2: Host) -> None:
    """D3h, of order 12, for the metal and C3v, of order 6, for the chalcogen."""
    found = [describe(mos2, [Configuration.of(mos2, {site: "VAC"})]).symmetry[0, 0] for site in (0, 64)]
    assert found == [12, 6]


def test_displacements_are_the_shortest_of_all_images(wse2: Host) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(wse2.n_sites, size=(2, 200))
    shifts = [i * wse2.supercell_lattice[0] + j * wse2.supercell_lattice[1] for i in range(-2, 3) for j in range(-2, 3)]
    straight = wse2.site_cart_coords[second] - wse2.site_cart_coords[first]
    shortest = np.min([np.linalg.norm(straight + shift, axis=1) for shift in shifts], axis=0)
    assert np.linalg.norm(displacements(wse2, first, second), axis=1) == pytest.approx(shortest)


def test_triangles_are_those_with_three_short_sides(mos2: Host) -> None:
    drawn = distinct_configurations(mos2, 5, 3, (20, 24))
    assert len(drawn) == 5
    for item in drawn:
        orbits = pair_orbits(mos2)
        sites = [site for site, _ in item.edits]
        short = [
            triple
            for triple in itertools.combinations(sites, 3)
            if all(
                orbits.distances_angstrom[orbits.table[a, b]] <= TRIANGLE_ANGSTROM
                for a, b in itertools.combinations(triple, 2)
            )
        ]
        assert len(describe(mos2, [item]).triangles[0]) == len(short)


def test_pairs_are_listed_nearest_first_and_only_for_few_defects(mos2: Host) -> None:
    three = Configuration.of(mos2, {64: "VAC", 65: "VAC", 68: "VAC"})
    distances = describe(mos2, [three]).listed.reshape(-1, MAX_LISTED, 2)[:, :, 0]
    (found,) = distances[~np.isnan(distances).all(axis=1)]
    assert found.tolist() == sorted(found)
    assert found[0] == pytest.approx(3.1903, abs=1e-3)
    four = Configuration.of(mos2, {64: "VAC", 65: "VAC", 68: "VAC", 100: "Se"})
    assert np.isnan(describe(mos2, [four]).listed).all()


def test_histograms_count_and_vocabularies_hold_what_is_frequent(mos2: Host) -> None:
    codes = np.array([0, 0, 1, 2, 2]), np.array([7, 7, 7, 9, 4])
    assert frequent(codes, 1).tolist() == [4, 7, 9]
    assert frequent(codes, 2).tolist() == [7]
    assert histogram(codes, np.array([4, 7]), 3).tolist() == [[0, 2], [0, 1], [1, 0]]
    assert histogram(codes, np.array([], dtype=np.int64), 3).shape == (3, 0)
    features = describe(mos2, distinct_configurations(mos2, 20, 1, (3,)))
    near = pair_vocabulary(mos2, 6.0, features.pairs)
    distances = pair_orbits(mos2).distances_angstrom
    assert (distances[near % len(distances)] <= 6.0).all()
    assert len(near) < len(frequent(features.pairs, 1))


def test_the_pristine_host_has_no_features(mos2: Host) -> None:
    features = describe(mos2, [Configuration.of(mos2, {})])
    assert not features.counts.any()
    assert not len(features.pairs[0])


def test_unknown_defects_and_other_hosts_are_refused(mos2: Host, wse2: Host) -> None:
    assert kind_names(mos2) == ["W_Mo", "v_Mo", "Se_S", "v_S"]
    with pytest.raises(UsageError, match=r"Te_S is no known defect of MoS2\. Known: W_Mo, v_Mo, Se_S, v_S\."):
        describe(mos2, [Configuration.of(mos2, {70: "Te"})])
    with pytest.raises(UsageError, match="configuration of WSe2 8x8, expected MoS2 8x8"):
        describe(mos2, [Configuration.of(wse2, {70: "VAC"})])
