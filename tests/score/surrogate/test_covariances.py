"""What scores crowded cells fast gives the same as the sums that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import random_configuration

from defectgen.core import Configuration, Host, get_host, host_names
from defectgen.errors import UsageError
from defectgen.score.surrogate import surroundings
from defectgen.score.surrogate.covariances import EnergyCovariance, level_covariances
from defectgen.score.surrogate.environments import Decorations
from defectgen.score.surrogate.features import encode, encode_flat
from defectgen.score.surrogate.kernel_table import (
    LEVEL_POWERS,
    LEVEL_SURROUNDINGS,
    NEAR,
    WIDE,
    EnergyKernel,
    LevelKernel,
)
from defectgen.score.surrogate.kernels import EnergySide, LevelScales, LevelSide, energy_kernels, level_kernels
from defectgen.score.surrogate.surroundings import environment_kernels


def some(host: Host, n: int, seed: int) -> list[Configuration]:
    """Of 0 to 12 defects; some have none of a kind."""
    rng = np.random.default_rng(seed)
    return [random_configuration(host, int(rng.integers(0, 13)), rng) for _ in range(n)]


@pytest.mark.parametrize("name", host_names())
def test_covariances_are_the_weighted_kernels(name: str) -> None:
    host, rng = get_host(name), np.random.default_rng(3)
    ours, theirs = Decorations.of(host, some(host, 70, 1)), Decorations.of(host, some(host, 40, 2))
    weights = rng.exponential(size=len(EnergyKernel))
    a, b = EnergySide.of(ours), EnergySide.of(theirs)
    expected = np.tensordot(weights, energy_kernels(a, b), 1)
    np.testing.assert_allclose(EnergyCovariance(b, weights.tolist()).of(a), expected, rtol=1e-10)
    scales = LevelScales.of(theirs)
    several = rng.exponential(size=(3, len(LevelKernel)))
    c, d = (LevelSide.of(rows, scales) for rows in (ours, theirs))
    expected = np.tensordot(several, level_kernels(c, d), 1)
    np.testing.assert_allclose(level_covariances(c, d, several), expected, rtol=1e-10)


@pytest.mark.parametrize("largest", [surroundings.LARGEST_EXPONENT, 0.0])
@pytest.mark.parametrize("chosen", [NEAR, WIDE, LEVEL_SURROUNDINGS])
def test_kernels_of_surroundings_are_sums_over_all_pairs(
    chosen: tuple[float, ...], largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "LARGEST_EXPONENT", largest)
    monkeypatch.setattr(surroundings, "BLOCK_POINTS", 7)
    monkeypatch.setattr(surroundings, "FEW_NUMBERS", 150)  # some kinds at once, some in blocks
    host = get_host("GaSe")
    items = some(host, 12, 4)
    rows = Decorations.of(host, [*items, *items[:3]])
    a = rows.environments(*chosen)
    n_orbits = len(a.basis) // rows.n_kinds
    points = rows.neighbours[:, :, :n_orbits].reshape(len(rows.rows), -1) @ a.basis
    apart = ((points[:, None] - points) ** 2).sum(axis=2)
    alike = rows.kinds[:, None] == rows.kinds
    out = np.empty((len(LEVEL_POWERS), len(rows), len(rows)))
    environment_kernels(a, a, LEVEL_POWERS, out)
    for power, found, own in zip(LEVEL_POWERS, out, a.own(LEVEL_POWERS), strict=True):
        each = np.where(alike, np.exp(-power * apart), 0.0)
        expected = np.zeros_like(found)
        np.add.at(expected, (rows.rows[:, None], rows.rows), each)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(own, np.diag(expected), rtol=1e-9, atol=1e-12)


def test_very_crowded_cells_do_not_overflow() -> None:
    host = get_host("MoS2")
    full = Configuration.of(host, dict.fromkeys(range(host.n_sites), "VAC"))
    rows = Decorations.of(host, [full, random_configuration(host, 5, np.random.default_rng(0))])
    a = rows.environments(*NEAR)
    out = np.empty((1, 2, 2))
    environment_kernels(a, a, (20,), out)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(np.diagonal(out[0]), a.own((20,))[0], rtol=1e-6)


def test_some_rows_are_as_described_alone() -> None:
    host = get_host("WSe2")
    items = some(host, 9, 5)
    rows, chosen = Decorations.of(host, items), np.array([4, 0, 8, 4])
    alone = Decorations.of(host, [items[k] for k in chosen])
    found = rows.some(chosen)
    for attribute in ("n", "rows", "kinds", "sites", "counts", "pooled", "pair_counts"):
        np.testing.assert_array_equal(getattr(found, attribute), getattr(alone, attribute))
    sites, kinds = rows.padded()
    for row in range(len(rows)):
        assert sites[row][sites[row] >= 0].tolist() == rows.sites[rows.rows == row].tolist()
        assert kinds[row][sites[row] >= 0].tolist() == rows.kinds[rows.rows == row].tolist()
    assert rows.some(chosen[:0]).padded()[0].shape == (0, 1)


def test_defects_in_one_list_are_those_of_each_configuration(mos2: Host) -> None:
    items = some(mos2, 9, 6)
    sizes, sites, kinds = encode_flat(mos2, items)
    assert sizes.tolist() == [item.n_defects for item in items]
    parts = np.split(np.stack([kinds, sites], axis=1), np.cumsum(sizes)[:-1])
    found = [sorted(map(tuple, part.tolist())) for part in parts]
    assert found == encode(mos2, items)
    with pytest.raises(UsageError, match="Te_S is no known defect of MoS2"):
        encode_flat(mos2, [Configuration.of(mos2, {70: "Te"})])
    with pytest.raises(UsageError, match="got a configuration of WSe2"):
        encode_flat(mos2, [Configuration.of(get_host("WSe2"), {70: "VAC"})])
