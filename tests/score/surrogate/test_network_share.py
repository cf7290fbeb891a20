"""The share of networks: found from rows left out, and part of a trained folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from synthetic import distinct_configurations, random_configuration, write_set

from defectgen.core import Host, get_host
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_tables import with_host
from defectgen.score.network.network_file import NetworkFile
from defectgen.score.network.network_training import TrainSettings
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.model import METADATA, NETWORK, file_hashes
from defectgen.score.surrogate.network_share import NetworkShare
from defectgen.score.surrogate.training import fit_surrogate, n_networks, same_structure, train_surrogate
from defectgen.score.trees import TreeSettings

FEW_TREES = TreeSettings(iterations=20, depth=3, learning_rate=0.2)
SHORT = TrainSettings(passes=4, crowded=16, sparse=8, model_cells=16)
FILE = NETWORK.format("MoS2")

Sides = tuple[dict[str, np.ndarray], np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]


def two_sides(seed: int, network_ev: float) -> Sides:
    """400 rows with labels, and two guesses: 50 meV off per value, and so many eV."""
    rng = np.random.default_rng(seed)
    homo, gap = rng.uniform(0, 1, 400), rng.uniform(0.5, 2, 400)
    labels = {"homo_ev": homo, "lumo_ev": homo + gap, "band_gap_ev": gap, "formation_energy_ev": rng.uniform(5, 9, 400)}
    process = {c: (v + rng.normal(0, 0.05, 400), np.full(400, 1.645 * 0.05)) for c, v in labels.items()}
    return labels, np.full(400, 8.0), process, {c: v + rng.normal(0, network_ev, 400) for c, v in labels.items()}


@pytest.mark.parametrize(("network_ev", "least", "most"), [(0.05, 0.35, 0.65), (0.5, 0.0, 0.1), (0.005, 0.9, 1.0)])
def test_the_better_one_has_the_larger_share(network_ev: float, least: float, most: float) -> None:
    labels, sizes, process, network = two_sides(1, network_ev)
    found = NetworkShare.fit(labels, sizes, process, network)
    assert found is not None
    assert found.shares["homo_ev"] == found.shares["lumo_ev"] == found.shares["band_gap_ev"], "so that they agree"
    assert all(least <= share <= most for share in found.shares.values())
    assert NetworkShare.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    labels, _, process, network = two_sides(2, network_ev)
    values, widths = found.apply(
        {c: v for c, (v, _) in process.items()}, {c: w for c, (_, w) in process.items()}, network
    )
    for column, label in labels.items():
        off = np.abs(values[column] - label)
        assert off.mean() < 1.02 * min(
            np.abs(process[column][0] - label).mean(), np.abs(network[column] - label).mean()
        )
        assert 0.84 <= np.mean(off <= widths[column]) <= 0.97 or column != "formation_energy_ev"


def test_intervals_are_wide_where_both_differ() -> None:
    labels, sizes, process, network = two_sides(3, 0.05)
    rng = np.random.default_rng(4)
    unsure = rng.random(400) < 0.3  # both are far off, each in its own direction
    process = {c: (v + unsure * rng.normal(0, 0.5, 400), w) for c, (v, w) in process.items()}
    network = {c: v + unsure * rng.normal(0, 0.5, 400) for c, v in network.items()}
    found = NetworkShare.fit(labels, sizes, process, network)
    assert found is not None
    _, widths = found.apply({c: v for c, (v, _) in process.items()}, {c: w for c, (_, w) in process.items()}, network)
    for width in widths.values():
        assert width[unsure].mean() > 3 * width[~unsure].mean()


def test_nothing_in_common_is_no_share() -> None:
    labels, sizes, process, network = two_sides(1, 0.05)
    assert NetworkShare.fit(labels, sizes, {"fermi_level_ev": process["homo_ev"]}, network) is None


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory, mos2: Host) -> pl.DataFrame:
    """30 low-density and 60 high-density structures with made-up labels."""
    root = tmp_path_factory.mktemp("both")
    write_set(
        root, "MoS2", distinct_configurations(mos2, 30, 1, (1, 2, 3)) + distinct_configurations(mos2, 60, 2, (5, 8))
    )
    many = pl.col("n_defects") > 3
    table = read_2dmd(root, cache=False).with_columns(
        pl.when(many).then(pl.lit("MoS2_500")).otherwise(pl.lit("MoS2")).alias("set"),
        pl.when(many).then(pl.lit("high")).otherwise(pl.lit("low")).alias("density"),
    )
    return split_by_class(table, (0.7, 0.15, 0.15))


@pytest.fixture(scope="module")
def folder(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surrogate with one network."""
    path = tmp_path_factory.mktemp("model") / "model"
    trees = {"low_trees": FEW_TREES, "high_trees": FEW_TREES}
    told: list[int] = []
    train_surrogate(frame, path, 1, networks=1, network_settings=SHORT, advance=told.append, **trees)
    assert sum(told) == 12 + 1 + 2 * 5, "models of both sets, the network, and two of each fold"
    return path


def test_a_folder_holds_the_network_and_scores_with_it(folder: Path, mos2: Host) -> None:
    surrogate, rng = Surrogate.load(folder), np.random.default_rng(3)
    assert FILE in surrogate.metadata["files"]
    crowded = [random_configuration(mos2, 8, rng) for _ in range(5)]
    sparse = [random_configuration(mos2, 2, rng) for _ in range(5)]
    part = surrogate.part_for(crowded[0])
    assert part.network is not None
    few = [item for item in sparse if surrogate.part_for(item).density == "low"]
    assert surrogate.score(few).equals(surrogate.quick.score(few)), "networks have no share in them"
    assert surrogate.quick.quick is surrogate.quick
    full, quick = surrogate.score(crowded), surrogate.quick.score(crowded)
    share = part.network.shares["formation_energy_ev"]
    energies = surrogate.networks[mos2.name].score(mos2, [item.edits for item in crowded])
    mixed = (1 - share) * quick["formation_energy_ev"] + share * pl.Series(energies["formation_energy_ev"])
    assert full["formation_energy_ev"].to_list() == pytest.approx(mixed.to_list(), abs=1e-5)
    assert (full["lumo_ev"] - full["homo_ev"] - full["band_gap_ev"]).abs().max() < 1e-9  # type: ignore[operator]
    assert full.equals(surrogate.score([item.random_image(rng) for item in crowded]))


def test_a_folder_without_its_network_is_one_line(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(folder, damaged)
    (damaged / FILE).write_bytes(b"other")
    with pytest.raises(DefectgenError, match=r"network-MoS2\.safetensors is not the file that was trained"):
        Surrogate.load(damaged)
    (damaged / FILE).unlink()
    with pytest.raises(DefectgenError, match=r"network-MoS2\.safetensors is missing"):
        Surrogate.load(damaged)


def rewritten(folder: Path, target: Path, change: Callable[[Any], None], network: bytes | None = None) -> Path:
    """A copy of a folder with another share of its crowded part, or another network, whose checksums are right."""
    shutil.copytree(folder, target)
    if network is not None:
        (target / FILE).write_bytes(network)
    metadata = json.loads((target / METADATA).read_text())
    change(next(part["network"] for part in metadata["parts"] if "network" in part))
    (target / METADATA).write_text(json.dumps(metadata | {"files": file_hashes(target)}))
    return target


@pytest.mark.parametrize(
    "change",
    [
        lambda share: share["shares"].update(band_gap_majority_ev=0.5),
        lambda share: share["shares"].update(homo_ev=[0.5]),
        lambda share: share["shares"].update(homo_ev=float("nan")),
        lambda share: share["shares"].update(homo_ev=-1),
        lambda share: share["own"].pop("homo_ev"),
        lambda share: share["apart"].update(homo_ev=float("inf")),
        lambda share: [share[name].update(fermi_level_ev=0.5) for name in ("shares", "own", "apart", "errors")],
        lambda share: share.update(shares=[]),
        lambda share: share.pop("agreement"),
    ],
)
def test_a_share_that_makes_no_sense_is_one_line(folder: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    with pytest.raises(DefectgenError, match=r"surrogate\.json is damaged") as caught:
        Surrogate.load(rewritten(folder, tmp_path / "model", change))
    assert "\n" not in str(caught.value)


def test_a_network_of_other_hosts_is_found_at_once(folder: Path, tmp_path: Path) -> None:
    network = NetworkFile.load(folder / FILE)
    (geometry,) = network.geometries
    other = replace(geometry, host=replace(geometry.host, name="Other"))
    replace(network, geometries=(other,)).save(tmp_path / "other")
    with pytest.raises(DefectgenError, match="does not cover MoS2 8x8 and its defects"):
        Surrogate.load(rewritten(folder, tmp_path / "model", lambda _: None, (tmp_path / "other").read_bytes()))


def test_networks_without_a_crowded_set_are_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(UsageError, match="without a crowded set"):
        fit_surrogate(frame.filter(density="low"), 1, networks=1, low_trees=FEW_TREES)
    with pytest.raises(UsageError, match="got -1 networks"):
        fit_surrogate(frame, 1, networks=-1)


def test_structures_are_told_by_elements_and_bonds() -> None:
    names = ["MoS2", "GaSe", "BN", "WSe2", "P", "InSe"]
    rows = pl.concat([with_host(pl.DataFrame({"density": ["high"]}), get_host(name)) for name in names])
    assert same_structure(rows) == [["BN"], ["GaSe", "InSe"], ["MoS2", "WSe2"], ["P"]]
    assert same_structure(rows.with_columns(density=pl.lit("low"))) == []


def test_hosts_of_one_structure_share_networks(frame: pl.DataFrame, tmp_path: Path) -> None:
    host, told = get_host("WSe2"), []
    write_set(tmp_path, "WSe2_500", distinct_configurations(host, 40, 2, (5, 8)))
    other = split_by_class(read_2dmd(tmp_path, cache=False), (0.7, 0.15, 0.15))
    both = pl.concat([frame.filter(density="high"), other], how="diagonal_relaxed")
    found = fit_surrogate(both, 1, networks=1, network_settings=SHORT, high_trees=FEW_TREES, advance=told.append)
    assert {name: [host.name for host in network.hosts] for name, network in found.networks.items()} == {
        "MoS2": ["MoS2"],
        "WSe2": ["WSe2"],
    }
    assert sum(told) == 12 + n_networks(both, 1) == 12 + 11
    weights = [network.weights["second.weight"] for network in found.networks.values()]
    np.testing.assert_array_equal(*weights)
    assert all(part.network is not None for part in found.parts)
