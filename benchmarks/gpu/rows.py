"""Labelled cells of 2DMD as arrays for the joint network, made where the data is and read where the GPU is.

python benchmarks/gpu/rows.py --data 2DMD -o runs/gpu/networks
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from cells import draw

from defectgen.core import Host
from defectgen.core.hosts import HOSTS
from defectgen.score.network.network_cells import Rows
from defectgen.score.network.network_training import Geometries
from defectgen.score.network.pair_geometry import HostGeometry

N_DILUTE_SETS = 2
"""The first sets have few defects a cell."""


def write(data: Path, output: Path, random: int) -> None:
    """Write ``rows.npz`` and ``rows.json``, and so many random crowded cells of each host to ``random.npz``."""
    from defectgen.data.splits import split_rows
    from defectgen.data.twodmd import SET_NAMES, read_2dmd
    from defectgen.io.host_tables import hosts_of
    from defectgen.score.network.labelled_cells import labelled_cells

    frame = read_2dmd(data).sort("set", "id")
    keys = ["set", "id"]
    parts = {
        "split": split_rows(frame),
        "split602020": split_rows(frame, fractions=(0.6, 0.2, 0.2)),
    }
    splits = {
        name: frame.join(part.select(*keys, "split"), on=keys, maintain_order="left")["split"]
        for name, part in parts.items()
    }
    parts_of = {
        name: np.array([("train", "validation", "test").index(s) for s in values], dtype=np.int8)
        for name, values in splits.items()
    }
    hosts = sorted(hosts_of(frame).values(), key=lambda host: list(HOSTS).index(host.name))
    rows, geometry = labelled_cells(frame, tuple(hosts))
    geometries, n = geometry.hosts, len(frame)
    numbers, sites, kinds = rows.hosts.astype(np.int8), rows.sites.astype(np.int16), rows.kinds.astype(np.int16)
    rng = np.random.default_rng(42)
    folds, halves = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8)
    groups = np.array([SET_NAMES.index(name) for name in frame["set"]])  # in the published order
    for group in range(len(SET_NAMES)):
        members = np.flatnonzero(groups == group)
        folds[rng.permutation(members)] = np.arange(len(members)) % 5
        halves[rng.permutation(members)] = np.arange(len(members)) % 2
    output.mkdir(parents=True, exist_ok=True)
    arrays = {f"host{k}_{name}": array for k, g in enumerate(geometries) for name, array in g.arrays().items()}
    np.savez_compressed(
        output / "rows.npz",
        hosts=numbers,
        groups=groups.astype(np.int8),
        sites=sites,
        kinds=kinds,
        targets=rows.targets,
        extra=np.stack([frame[name].cast(float).to_numpy() for name in ("homo_ev", "lumo_ev", "band_gap_ev")], axis=1),
        per_atom=frame["energy_per_atom_ev"].cast(float).to_numpy(),
        folds=folds,
        halves=halves,
        **parts_of,
        **arrays,
    )
    about = {
        "sets": list(SET_NAMES),
        "hosts": [host.to_dict() for host in hosts],
        "spin": [bool(value) for value in geometry.spin.tolist()],  # whether the two channels of some cell differ
    }
    (output / "rows.json").write_text(json.dumps(about) + "\n")
    crowded = (parts_of["split"] == 0) & (groups >= N_DILUTE_SETS)
    found: dict[str, np.ndarray] = {}
    for k, host in enumerate(hosts):
        mine = np.flatnonzero(crowded & (numbers == k))
        counts = (kinds[mine, :, None] == np.arange(len(host.rules))).sum(axis=1)
        sizes = counts.sum(axis=1)
        drawn = draw(host, counts, np.random.default_rng(k), random, int(sizes.min()), int(sizes.max()))
        found[f"host{k}_sites"], found[f"host{k}_codes"] = drawn
    np.savez_compressed(output / "random.npz", **found)


def read(folder: Path, device: str = "cpu") -> tuple[Rows, Geometries, dict[str, np.ndarray], list[str]]:
    """Rows, geometries on a device, the other arrays, and names of the sets."""
    arrays = dict(np.load(folder / "rows.npz"))
    about = json.loads((folder / "rows.json").read_text())
    hosts = [
        HostGeometry.from_arrays(
            Host.from_dict(record), {key: arrays[f"host{k}_{key}"] for key in ("nodes", "pairs", "classes")}
        )
        for k, record in enumerate(about["hosts"])
    ]
    wide = {name: arrays[name].astype(np.int64) for name in ("hosts", "sites", "kinds", "groups")}
    rows = Rows(wide["hosts"], wide["sites"], wide["kinds"], arrays["targets"], wide["groups"])
    return rows, Geometries(hosts, about["spin"], device), arrays, about["sets"]


def main(
    data: Annotated[Path, typer.Option(help="Folder with 2DMD in its published layout.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    random: Annotated[int, typer.Option(help="Random crowded cells of each host.")] = 40_000,
) -> None:
    """Write the labelled cells as arrays, and random crowded ones."""
    write(data, output, random)


if __name__ == "__main__":
    typer.run(main)
