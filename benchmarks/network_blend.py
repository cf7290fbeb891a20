"""What the joint network adds to the surrogate on crowded cells: weights by cross-validation in the training part.

    python benchmarks/network_blend.py NETWORKS --rows runs/gpu/networks --data 2DMD

NETWORKS: the folder of the step `networks` of benchmarks/gpu (`fold0.safetensors` to `fold4.safetensors` and
`shipped.safetensors`). Rows of the training and validation part are valued by networks and by processes that have
not seen them; one weight for HOMO, LUMO and gap together and one for the energy are chosen there for each set, and
judged on the test part.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from defectgen.core import Configuration
from defectgen.data.splits import split_rows
from defectgen.data.twodmd import read_2dmd
from defectgen.io.host_tables import host_of
from defectgen.score.network.ensemble import Network
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.fitting import FitSettings, fit_dense
from defectgen.score.surrogate.labelled_rows import LabelledRows
from defectgen.score.surrogate.training import HIGH_TREES, low_rows

COLUMNS = ("formation_energy_ev", "band_gap_ev", "homo_ev", "lumo_ev")
WEIGHTS = np.linspace(0, 1, 21)
SEED = 42


def by_network(network: Network, rows: pl.DataFrame) -> np.ndarray:
    """Values of rows of one set, shape (columns, n)."""
    host = host_of(rows)
    cells = [Configuration.from_key(host, key).edits for key in rows["configuration"]]
    values = network.score(host, cells, 64)
    return np.stack([values[column] for column in COLUMNS])


def errors(values: np.ndarray, rows: pl.DataFrame) -> np.ndarray:
    """Mean absolute errors in meV, the energy per site, shape (columns,)."""
    off = np.abs(values - np.stack([rows[column].cast(float).to_numpy() for column in COLUMNS]))
    off[0] /= rows["n_defects"].to_numpy()
    return 1e3 * np.nanmean(off, axis=1)


def blended(surrogate: np.ndarray, network: np.ndarray, energy: float, levels: float) -> np.ndarray:
    """Both with the network's weights."""
    weight = np.array([energy, levels, levels, levels])[:, None]
    return (1 - weight) * surrogate + weight * network


def shown(title: str, found: np.ndarray) -> str:
    """One cell of the table."""
    return f"  {title} " + " / ".join(f"{error:.1f}" for error in found)


def main(
    networks: Annotated[Path, typer.Argument(help="Folder of trained networks.")],
    rows: Annotated[Path, typer.Option(help="Folder with rows.npz, which says the folds.")],
    data: Annotated[Path, typer.Option(help="Folder with 2DMD in its published layout.")],
) -> None:
    """Errors in meV: formation energy per site / gap / HOMO / LUMO."""
    frame = read_2dmd(data).sort("set", "id")
    frame = split_rows(frame.with_columns(fold=pl.Series(np.load(rows / "rows.npz")["folds"])), seed=SEED)
    learnt = frame.filter(pl.col("split") != "test")
    folds = [Network.load(networks / f"fold{k}.safetensors") for k in range(5)]
    shipped, surrogate = Network.load(networks / "shipped.safetensors"), Surrogate.load()
    total: dict[str, list[np.ndarray]] = {}
    seconds = {"surrogate": 0.0, "network": 0.0}
    for name in frame.filter(density="high")["set"].unique(maintain_order=True):
        mine, tested = learnt.filter(set=name).sort("id"), frame.filter(set=name, split="test")
        labelled = LabelledRows.of(mine)
        fit = fit_dense(labelled, low_rows(learnt, mine, SEED), FitSettings(HIGH_TREES, SEED, 1), lambda _: None)
        left_out = np.stack([fit.left_out[column] for column in COLUMNS])
        network = np.zeros_like(left_out)
        for k, member in enumerate(folds):
            part = mine["fold"].to_numpy() == k
            network[:, part] = by_network(member, mine.filter(pl.Series(part)))
        tries = np.stack([errors(blended(left_out, network, w, w), mine) for w in WEIGHTS])
        energy = float(WEIGHTS[tries[:, 0].argmin()])
        levels = float(WEIGHTS[(tries[:, 1:] / tries[0, 1:]).sum(axis=1).argmin()])
        cells = [Configuration.from_key(labelled.host, key) for key in tested["configuration"]]
        surrogate.score(cells[:1])  # what is made once is not counted
        start = time.process_time()
        scores = surrogate.score(cells)
        middle = time.process_time()
        new = by_network(shipped, tested)
        seconds["surrogate"] += middle - start
        seconds["network"] += time.process_time() - middle
        old = np.stack([scores[column].to_numpy() for column in COLUMNS])
        found = {
            "left out: surrogate": errors(left_out, mine),
            "both": errors(blended(left_out, network, energy, levels), mine),
            "test part: surrogate": errors(old, tested),
            "both ": errors(blended(old, new, energy, levels), tested),
        }
        print(f"{name:<14} weights {energy:.2f} {levels:.2f}" + "".join(shown(*item) for item in found.items()))
        for title, value in found.items():
            total.setdefault(title, []).append(value)
    print(f"{'mean':<14}{'':<18}" + "".join(shown(title, np.mean(value, axis=0)) for title, value in total.items()))
    print(f"CPU seconds on the test part: {seconds}")


if __name__ == "__main__":
    typer.run(main)
