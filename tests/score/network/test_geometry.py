"""Features of hosts: the same for images under the symmetry, and true to the lattice."""

from __future__ import annotations

import numpy as np
import pytest

from defectgen.core import VACANCY, Host, get_host, host_names
from defectgen.core.symmetry import site_permutations
from defectgen.errors import UsageError
from defectgen.score.network.pair_geometry import (
    ELEMENT_FEATURES,
    N_NODE_FEATURES,
    N_PAIR_FEATURES,
    HostGeometry,
    element_features,
)


@pytest.mark.parametrize("name", host_names())
def test_pair_classes_are_kept_by_the_symmetry(name: str) -> None:
    host = get_host(name)
    geometry = HostGeometry.of(host)
    assert geometry.nodes.shape == (host.n_basis, len(geometry.kinds), N_NODE_FEATURES)
    assert geometry.pairs.shape == (host.n_sites, host.n_sites)
    assert geometry.classes.shape[1] == N_PAIR_FEATURES
    features = geometry.classes[geometry.pairs]
    np.testing.assert_array_equal(geometry.pairs, geometry.pairs.T)
    group = site_permutations(host)
    for row in np.random.default_rng(1).choice(len(group), 8, replace=False):
        moved = group[row]
        np.testing.assert_allclose(features[np.ix_(moved, moved)], features, atol=3e-4)


def test_sites_of_one_element_that_symmetry_joins_look_the_same(mos2: Host) -> None:
    geometry = HostGeometry.of(mos2)
    sulfur = [basis for basis, element in enumerate(mos2.species) if element == "S"]
    assert len(sulfur) == 2
    np.testing.assert_allclose(geometry.nodes[sulfur[0]], geometry.nodes[sulfur[1]], atol=1e-6)
    assert np.abs(geometry.nodes[sulfur[0]]).sum() > 0


def test_arrays_make_the_same_geometry_again(mos2: Host) -> None:
    geometry = HostGeometry.of(mos2)
    again = HostGeometry.from_arrays(mos2, geometry.arrays())
    assert again.kinds == geometry.kinds
    for name, array in geometry.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_numbers_of_a_configuration_name_its_defects(mos2: Host) -> None:
    geometry = HostGeometry.of(mos2)
    sites, kinds = geometry.numbers(((0, VACANCY), (70, "Se")))
    assert sites == [0, 70]
    named = [(geometry.kinds[k].element, geometry.kinds[k].replacement) for k in kinds]
    assert named == [("Mo", VACANCY), ("S", "Se")]
    with pytest.raises(UsageError, match="MoS2 allows no defect"):
        geometry.numbers(((0, "Cu"),))


@pytest.mark.filterwarnings("error:No Pauling")
def test_elements_have_features_and_others_are_refused() -> None:
    assert len(element_features("Mo")) == len(ELEMENT_FEATURES)
    assert element_features("S")[:2] == (3 / 6, 16 / 18)
    with pytest.raises(UsageError, match="got species 'Xx'"):
        element_features("Xx")
    for symbol, value in (("Ne", "electronegativity"), ("Kr", "atomic radius"), ("Rg", "electronegativity")):
        with pytest.raises(UsageError, match=f"cannot describe {symbol}: its {value} is not known"):
            element_features(symbol)
