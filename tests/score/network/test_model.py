"""The network itself: images look alike, levels obey what labels obey, members and cells do not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import random_configuration

from defectgen.core import get_host, host_names
from defectgen.core.symmetry import site_permutations
from defectgen.score.network.ensemble import Network
from defectgen.score.network.network_model import assemble


@pytest.mark.parametrize("name", host_names())
def test_images_under_the_symmetry_have_the_same_outputs(network: Network, name: str) -> None:
    host, rng = get_host(name), np.random.default_rng(5)
    group = site_permutations(host)
    for n_defects in (1, 3, 12):
        edits = random_configuration(host, n_defects, rng).edits
        images = [[(int(group[row, s]), e) for s, e in edits] for row in rng.choice(len(group), 6)]
        images.append([edits[k] for k in rng.permutation(len(edits))])
        found = network.outputs(network.rows(host, [edits, *images]))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[:, 1:], np.repeat(found[:, :1], len(images), axis=1), atol=1e-5, rtol=1e-5)


def test_different_configurations_have_different_outputs(network: Network) -> None:
    host, rng = get_host("MoS2"), np.random.default_rng(6)
    found = network.outputs(network.rows(host, [random_configuration(host, 3, rng).edits for _ in range(5)]))
    assert np.ptp(found[..., 0], axis=1).min() > 1e-4
    assert np.abs(found[0] - found[1]).max() > 1e-3, "members have weights of their own"


@pytest.mark.parametrize("name", host_names())
def test_levels_obey_what_labels_obey(network: Network, name: str) -> None:
    host, rng = get_host(name), np.random.default_rng(7)
    edits = [random_configuration(host, int(n), rng).edits for n in rng.integers(1, 15, 60)]
    for outputs in network.outputs(network.rows(host, edits)):
        assert (outputs[:, 2:4] >= 0).all()
    values = network.score(host, edits)
    between = values["lumo_ev"] - values["homo_ev"]
    assert (values["band_gap_ev"] >= 0).all()
    assert (between <= values["band_gap_ev"] + 1e-6).all()
    if name in ("MoS2", "WSe2"):
        np.testing.assert_allclose(between, values["band_gap_ev"], atol=1e-6)
        assert not values["total_magnetization_mu_b"].any()
    else:
        assert (between < values["band_gap_ev"] - 1e-6).any(), "the channels differ"


def test_a_cell_does_not_depend_on_its_neighbours_in_the_batch(network: Network) -> None:
    host, rng = get_host("hBN"), np.random.default_rng(8)
    edits = [random_configuration(host, n, rng).edits for n in (1, 2, 9)]
    together = network.outputs(network.rows(host, edits))
    alone = np.concatenate([network.outputs(network.rows(host, [item])) for item in edits], axis=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_gaps_are_positive_and_one_channel_is_both_without_spin() -> None:
    values = torch.tensor([[0.1, 0.5, -3.0, 1.0, 0.2, 0.3, 2.0]] * 2)
    without, with_spin = assemble(values, torch.tensor([0.0, 1.0]))
    assert without[0] == without[1]
    assert without[2] == without[3] >= 0
    assert without[6] == 0
    assert with_spin[[1, 6]].tolist() == [0.5, 2.0]
    assert with_spin[3] == pytest.approx(1.0, abs=1e-5)
