"""HOMO, LUMO, gap and energies of every row agree as those of labels do."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from synthetic import random_configuration

from defectgen.core import VACANCY, Configuration, get_host, host_names
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.agreement import COLUMNS, Agreement

ONE_CHANNEL = ("MoS2", "WSe2")
ROUNDING_EV = 1e-12
N_RANDOM = 10_000


def values(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {column: rng.normal(0.5, 0.5, size=n) for column in COLUMNS}


def two_channels(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Made-up labels of two spin channels."""
    homo, gap = rng.normal(size=(2, n)), rng.uniform(0.1, 1.0, size=(2, n))
    lumo = (homo + gap).min(axis=0)
    return {"homo_ev": homo.max(axis=0), "lumo_ev": lumo, "band_gap_ev": gap.min(axis=0)}


def excess(found: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(found["lumo_ev"] - found["homo_ev"] - found["band_gap_ev"])


def test_one_channel_has_a_gap_from_homo_to_lumo_and_none_below_zero() -> None:
    rng = np.random.default_rng(0)
    label = values(rng, 50)
    label["band_gap_ev"] = label["lumo_ev"] - label["homo_ev"]
    agreement = Agreement.fit(label, {column: rng.normal(size=50) for column in COLUMNS})
    assert agreement.one_channel
    found = agreement.apply(values(rng, 400))
    assert (excess(found) == 0).all()
    assert found["band_gap_ev"].min() == 0


def test_two_channels_never_have_a_lumo_beyond_the_gap() -> None:
    rng = np.random.default_rng(1)
    label = two_channels(rng, 200)
    agreement = Agreement.fit(label, {column: rng.normal(size=200) for column in COLUMNS})
    assert not agreement.one_channel
    before = values(rng, 1000)
    found = agreement.apply(before)
    assert (excess(before) > 0.02).mean() > 0.2
    assert excess(found).max() <= 0
    assert found["band_gap_ev"].min() >= 0


def test_values_come_nearer_to_labels_that_agree() -> None:
    rng = np.random.default_rng(2)
    label = two_channels(rng, 3000)
    spread = np.array([[0.04, 0.01, 0.0], [0.01, 0.09, 0.02], [0.0, 0.02, 0.06]])
    error = dict(zip(COLUMNS, rng.multivariate_normal(np.zeros(3), spread, size=3000).T, strict=True))
    agreement = Agreement.fit(label, error)
    assert np.array(agreement.covariance_ev2) == pytest.approx(spread, abs=0.01)
    found = agreement.apply({column: label[column] + error[column] for column in COLUMNS})
    weight = np.linalg.inv(spread)

    def distance(off: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("in,ij,jn->n", off, weight, off))

    before = distance(np.stack([error[column] for column in COLUMNS]))
    after = distance(np.stack([found[column] - label[column] for column in COLUMNS]))
    assert after.mean() < 0.9 * before.mean()


def test_gaps_stay_where_levels_are_guesses() -> None:
    rng = np.random.default_rng(3)
    label = two_channels(rng, 200)
    agreement = Agreement.fit(label, {column: rng.normal(size=200) for column in COLUMNS})
    before, stays = values(rng, 500), np.arange(500) % 2 == 0
    found, usual = agreement.apply(before, stays), agreement.apply(before)
    positive = stays & (before["band_gap_ev"] > 0)
    assert found["band_gap_ev"][positive] == pytest.approx(before["band_gap_ev"][positive])
    assert excess(found).max() <= 0
    assert all(np.array_equal(found[column][~stays], usual[column][~stays]) for column in COLUMNS)


def test_values_that_agree_with_the_usual_slack_stay() -> None:
    agreement = Agreement(((0.01, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.0, 0.03)), 0.1, 0.02)
    start = {"homo_ev": np.array([0.2]), "lumo_ev": np.array([1.0]), "band_gap_ev": np.array([0.9])}
    assert {k: v[0] for k, v in agreement.apply(start).items()} == pytest.approx({k: v[0] for k, v in start.items()})
    assert Agreement.from_dict(json.loads(json.dumps(agreement.to_dict()))) == agreement


def check(scores: pl.DataFrame, items: list[Configuration], surrogate: Surrogate) -> None:
    """No row contradicts itself."""
    host = items[0].host
    assert scores["band_gap_ev"].null_count() == 0
    off = (scores["lumo_ev"] - scores["homo_ev"] - scores["band_gap_ev"]).to_numpy()
    assert off.max() <= ROUNDING_EV
    if host.name in ONE_CHANNEL:
        assert np.abs(off).max() <= ROUNDING_EV
    assert (scores["band_gap_ev"] >= 0).all()
    n_atoms = np.array([host.n_sites - sum(s == VACANCY for _, s in item.edits) for item in items])
    energy = scores["energy_per_atom_ev"].to_numpy() * n_atoms - scores["formation_energy_ev"].to_numpy()
    weights = {part.density: np.array(part.energy_weights_ev) for part in surrogate.parts if part.host == host.name}
    kinds = [(rule.element, rule.replacement) for rule in host.rules]
    counts = np.array([[1, *(item.kinds[kind] for kind in kinds)] for item in items])
    expected = np.array([weights[surrogate.part_for(i).density] @ n for i, n in zip(items, counts, strict=True)])
    assert np.abs(energy - expected).max() < 1e-8


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate.load()


class TestShipped:
    """The surrogate in the package."""

    @pytest.mark.parametrize("name", host_names())
    def test_random_structures_agree(self, surrogate: Surrogate, name: str) -> None:
        self._random(surrogate, name, 60)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", host_names())
    def test_many_random_structures_agree(self, surrogate: Surrogate, name: str) -> None:
        self._random(surrogate, name, N_RANDOM // len(host_names()) + 1)

    @staticmethod
    def _random(surrogate: Surrogate, name: str, n: int) -> None:
        rng, most = np.random.default_rng(6), max(p.defects_range[1] for p in surrogate.parts if p.host == name)
        items = [random_configuration(get_host(name), int(rng.integers(1, most + 1)), rng) for _ in range(n)]
        check(surrogate.score(items), items, surrogate)

    def test_the_labelled_structures_of_each_set_agree(self, surrogate: Surrogate, twodmd: pl.DataFrame) -> None:
        self._rows(surrogate, twodmd.filter(pl.int_range(pl.len()).over("set") % 12 == 5))

    @pytest.mark.slow
    def test_all_labelled_structures_agree(self, surrogate: Surrogate, twodmd: pl.DataFrame) -> None:
        self._rows(surrogate, twodmd)

    @staticmethod
    def _rows(surrogate: Surrogate, frame: pl.DataFrame) -> None:
        for (host, size), rows in frame.group_by("host", "supercell"):
            items = [Configuration.from_key(get_host(str(host), str(size)), key) for key in rows["configuration"]]
            check(surrogate.score(items), items, surrogate)
            label = {column: rows[column].drop_nulls().len() for column in COLUMNS}
            assert min(label.values()) > 0
            slack = rows["band_gap_ev"] - rows["lumo_ev"] + rows["homo_ev"]
            assert slack.min() >= -ROUNDING_EV, "what labels obey"  # type: ignore[operator]
