"""Ensembles as files, what they refuse, and training at toy scale."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from synthetic import distinct_configurations, made_up_labels

from defectgen.core import VACANCY, Configuration, Host, Rule, get_host, host_names
from defectgen.errors import DefectgenError, UsageError
from defectgen.score.network.ensemble import Network
from defectgen.score.network.network_cells import Rows
from defectgen.score.network.network_file import NetworkFile
from defectgen.score.network.network_model import Shape
from defectgen.score.network.network_training import Geometries, TrainSettings, train_ensemble
from defectgen.score.network.pair_geometry import HostGeometry
from defectgen.score.surrogate.environments import Decorations


def test_a_saved_network_answers_as_before(network: Network, tmp_path: Path, mos2: Host) -> None:
    edits = [((0, VACANCY),), ((64, "Se"), (70, VACANCY))]
    network.save(tmp_path / "net.safetensors", {"data": "made up"})
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    again = Network.load(tmp_path / "net.safetensors")
    assert [host.name for host in again.hosts] == [host.name for host in network.hosts]
    assert again.hosts[0] == network.hosts[0]
    for name, values in network.score(mos2, edits).items():
        np.testing.assert_allclose(again.score(mos2, edits)[name], values, atol=2e-2)
    again.save(tmp_path / "second.safetensors", {"data": "made up"})
    third = Network.load(tmp_path / "second.safetensors")
    plain = NetworkFile.load(tmp_path / "second.safetensors")
    assert plain.hosts == again.hosts
    kept = network.arrays().as_saved()
    for column, values in plain.score(mos2, edits).items():
        np.testing.assert_array_equal(kept.score(mos2, edits)[column], values)
    np.testing.assert_array_equal(third.outputs(third.rows(mos2, edits)), again.outputs(again.rows(mos2, edits)))


@pytest.mark.parametrize("sizes", [(1, 2, 3, 8, 12), (7,)])
@pytest.mark.parametrize("name", host_names())
def test_values_without_torch_are_the_same(network: Network, name: str, sizes: tuple[int, ...]) -> None:
    host = get_host(name)
    edits = [item.edits for item in distinct_configurations(host, 40, 5, sizes)]
    plain, rows = network.arrays(), network.rows(host, edits)
    np.testing.assert_allclose(plain.outputs(rows), network.outputs(rows), atol=2e-5)
    for column, values in network.score(host, edits).items():
        np.testing.assert_allclose(plain.score(host, edits)[column], values, atol=2e-5)


def test_cells_as_numbers_have_the_same_values(network: Network) -> None:
    host = get_host("WSe2")
    items = distinct_configurations(host, 40, 5, (1, 3, 9))
    plain, described = network.arrays(), Decorations.of(host, items)
    found = plain.score_sites(host, *described.padded())
    for column, values in plain.score(host, [item.edits for item in items]).items():
        np.testing.assert_allclose(found[column], values, atol=2e-5)
    with pytest.raises(UsageError, match="does not know Te on W in WSe2"):
        plain.score_sites(replace(host, rules=(*host.rules, Rule("W", "Te"))), *described.padded())
    turned = replace(host, rules=tuple(reversed(host.rules)))
    other = Decorations.of(turned, [Configuration(turned, item.edits) for item in items])
    again = plain.score_sites(turned, *other.padded())
    np.testing.assert_allclose(again["homo_ev"], found["homo_ev"], atol=2e-5)


@pytest.mark.parametrize("name", ["BN", "WSe2"])
def test_one_host_alone_has_the_same_values(network: Network, name: str, tmp_path: Path) -> None:
    host = get_host(name)
    edits = [item.edits for item in distinct_configurations(host, 6, 5, (1, 8))]
    plain = network.arrays().as_saved()
    alone = plain.alone(name)
    alone.save(tmp_path / "alone.safetensors")
    loaded = NetworkFile.load(tmp_path / "alone.safetensors")
    assert loaded.hosts == (host,)
    assert loaded.spin == (plain.spin[plain.hosts.index(host)],)
    for column, values in plain.score(host, edits).items():
        np.testing.assert_allclose(loaded.score(host, edits)[column], values, atol=1e-5)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["network"])
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    change(tensors, about)
    target = path.with_name("changed.safetensors")
    save_file(tensors, target, metadata={"network": json.dumps(about)})
    return target


def with_an_unknown_host(_: dict[str, Any], about: dict[str, Any]) -> None:
    del about["hosts"][0]["species"]


def without_a_weight(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    del tensors["model.first.weight"]


def without_a_member(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["model.first.weight"] = tensors["model.first.weight"][:1].clone()


def with_nan(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["model.first.weight"][0, 0, 0] = float("nan")


def with_pairs_out_of_range(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["host.0.pairs"] = tensors["host.0.pairs"] + 30_000


def with_features_cut_off(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["host.0.nodes"] = tensors["host.0.nodes"][..., :5].clone()


def with_nan_features(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["host.0.classes"][0, 0] = float("nan")


def with_few_energies(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["linear"] = tensors["linear"][:, :1].clone()


def with_numbers_unknown_to_numpy(tensors: dict[str, Any], _: dict[str, Any]) -> None:
    tensors["model.first.weight"] = tensors["model.first.weight"].bfloat16()


def with_endless_rounds(_: dict[str, Any], about: dict[str, Any]) -> None:
    about["shape"]["rounds"] = 10**15


def of_another_format(_: dict[str, Any], about: dict[str, Any]) -> None:
    about["format"] = 99


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_weight, "a member of the ensemble is missing or damaged"),
        (without_a_member, "a member of the ensemble is missing or damaged"),
        (with_an_unknown_host, "not the record of a host"),
        (with_nan, "weights that are not finite"),
        (with_nan_features, "weights that are not finite"),
        (with_pairs_out_of_range, "pairs of .* are not numbers of the .* classes"),
        (with_features_cut_off, "nodes of .* have shape"),
        (with_few_energies, "linear has shape"),
        (with_numbers_unknown_to_numpy, "cannot be read as a network"),
        (with_endless_rounds, "members of 1000000000000000 rounds"),
        (of_another_format, "format 99, expected 4"),
    ],
)
def test_a_damaged_file_is_one_line(network: Network, tmp_path: Path, change: Any, said: str) -> None:
    network.save(tmp_path / "net.safetensors")
    with pytest.raises(DefectgenError, match=said) as caught:
        Network.load(rewritten(tmp_path / "net.safetensors", change))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_network_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no weights")
    for name in ("none", "text"):
        with pytest.raises(DefectgenError, match="cannot be read as a network") as caught:
            Network.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_unknown_hosts_and_defects_are_one_line(network: Network, mos2: Host) -> None:
    with pytest.raises(UsageError, match=r"does not cover MoS2 .* It covers: .*WSe2") as caught:
        network.score(get_host("MoS2", (4, 4)), [()])
    assert "\n" not in str(caught.value)
    turned = Host.from_dict(mos2.to_dict() | {"frac_coords": mos2.to_dict()["frac_coords"][::-1]})
    with pytest.raises(UsageError, match="does not cover MoS2 8x8"):
        network.score(turned, [()])
    with pytest.raises(UsageError, match="does not know Cu on Mo in MoS2"):
        network.score(mos2, [((0, "Cu"),)])


@pytest.fixture(scope="module")
def table() -> tuple[Rows, Geometries]:
    """60 MoS2 cells with made-up labels, a third of them with many defects."""
    host = get_host("MoS2")
    geometry = HostGeometry.of(host)
    items = distinct_configurations(host, 40, 1, (1, 2, 3)) + distinct_configurations(host, 20, 2, (6, 8))
    sites, kinds = (np.full((len(items), 8), -1, dtype=np.int64) for _ in range(2))
    targets = np.zeros((len(items), 7))
    for row, item in enumerate(items):
        n = item.n_defects
        sites[row, :n], kinds[row, :n] = geometry.numbers(item.edits)
        labels = made_up_labels(item)
        homo, gap = 0.1 * labels["formation_energy"], labels["homo_lumo_gap_min"]
        targets[row] = homo, np.nan, gap, np.nan, labels["formation_energy"], homo + gap / 2, np.nan
    zeros = np.zeros(len(items), dtype=np.int64)
    return Rows(zeros, sites, kinds, targets, zeros), Geometries([geometry], [False])


def trained(table: tuple[Rows, Geometries], seed: int, passes: float = 40) -> tuple[Network, list[float]]:
    rows, geometries = table
    losses: list[float] = []
    settings = TrainSettings(passes=passes, crowded=10, sparse=20, seed=seed)
    model, linear = train_ensemble(
        rows, geometries, np.ones((2, len(rows)), dtype=bool), settings, Shape(12, 2, 2),
        report=lambda *told: losses.append(told[2]),
    )  # fmt: skip
    return Network(model, geometries, linear), losses


def error(network: Network, rows: Rows) -> float:
    return float(np.nanmean(np.abs(network.outputs(rows).mean(axis=0) - rows.targets)))


def test_training_learns_and_the_seed_decides(table: tuple[Rows, Geometries]) -> None:
    network, losses = trained(table, seed=1, passes=120)
    assert np.isfinite(losses).all()
    short, first = trained(table, seed=1, passes=1)
    assert losses[-1] < 0.7 * first[-1]
    assert error(network, table[0]) < 0.7 * error(short, table[0])
    again, _ = trained(table, seed=1, passes=1)
    other, _ = trained(table, seed=2, passes=1)
    outputs = [item.outputs(table[0]) for item in (short, again, other)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3
