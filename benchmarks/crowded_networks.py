"""What networks add to the processes of crowded cells, in five folds of all labelled rows.

    python benchmarks/crowded_networks.py --data DIR -o FOLDER
    python benchmarks/crowded_networks.py --data DIR -o FOLDER --members 6 --joint

The folds are those of `defectgen surrogate evaluate --cross-validate`: symmetry classes stay together, and every row is
judged by models that have not seen it. For each fold networks are trained on the sets of each structure (MoS2 and
WSe2, GaSe and InSe, h-BN, P) and, with ``--joint``, on all sets together. ``one`` is the mean error of single
networks, ``networks`` that of their mean, ``processes`` that of the surrogate without networks, ``both`` that of the
weighted mean, whose shares and intervals for a fold come from the rows of the other four; ``joint`` and ``with joint``
are the same with networks of all sets. Finished folds are kept in the folder; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.data.sources import read_dataset
from defectgen.score.network.folds import first_weights
from defectgen.score.network.labelled_cells import labelled_cells
from defectgen.score.network.network_cells import combine
from defectgen.score.network.network_model import Shape
from defectgen.score.network.network_training import DEFAULT_SETTINGS, DEFAULT_SHAPE, predict, train_ensemble
from defectgen.score.surrogate.cross_validation import class_folds, cross_validate
from defectgen.score.surrogate.evaluation import PER_SITE
from defectgen.score.surrogate.network_share import ENERGY, SHARED, NetworkShare
from defectgen.score.surrogate.training import same_structure

FOLDS = 5
COLUMNS = (PER_SITE, "homo_ev", "lumo_ev", "band_gap_ev")
SOURCES = ("one", "networks", "joint", "processes", "both", "with joint")

Values = dict[str, np.ndarray]


def networks(
    rows: pl.DataFrame, folds: np.ndarray, members: int, seed: int, kept: Path, joint: bool = False
) -> np.ndarray:
    """What each member of each fold's ensemble gives for its rows, shape (members, n, 7); folds in `kept` are read."""
    cells, geometries = labelled_cells(rows)
    found = np.full((members, len(rows), cells.targets.shape[1]), np.nan)
    kept.mkdir(parents=True, exist_ok=True)
    start = None
    for fold in range(FOLDS):
        file, apart = kept / f"{fold}-{members}-{seed}.npy", np.flatnonzero(folds == fold)
        if not file.is_file():
            started = time.process_time()
            use = np.repeat((folds != fold)[None], members, axis=0)
            settings = replace(DEFAULT_SETTINGS, seed=seed + fold, **({"dropout": 0.1} if joint else {}))
            shape = Shape(width=64) if joint else DEFAULT_SHAPE
            start = start or first_weights(cells, geometries, members, replace(settings, seed=seed))
            model, linear = train_ensemble(cells, geometries, use, settings, shape, start=start)
            with file.with_suffix(".part").open("wb") as stream:
                np.save(stream, predict(model, geometries, cells.some(apart), linear))
            file.with_suffix(".part").rename(file)
            print(f"{kept.name}, fold {fold}: {time.process_time() - started:.0f} s of CPU time", flush=True)
        found[:, apart] = np.load(file)
    return found


def processes(frame: pl.DataFrame, seed: int, kept: Path) -> pl.DataFrame:
    """Predictions for every row by a surrogate without networks that has not seen it; kept in a file."""
    file = kept / f"processes-{seed}.parquet"
    if not file.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        cross_validate(frame, FOLDS, seed).write_parquet(part)
        part.rename(file)
    return pl.read_parquet(file)


def of_set(table: pl.DataFrame, name: str, ids: pl.Series, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and half-widths of a property for some rows of a set, NaN where there are none."""
    rows = table.filter(pl.col("set").cast(pl.String) == name, pl.col("property").cast(pl.String) == column)
    joined = pl.DataFrame({"id": ids}).join(rows, on="id", how="left", maintain_order="left")
    return tuple(joined[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("predicted", "half_width"))


def both(labels: Values, sizes: np.ndarray, process: dict, network: Values, folds: np.ndarray) -> tuple[Values, Values]:
    """Weighted means and half-widths, of each fold by what the others say."""
    values, widths = ({c: np.full(len(sizes), np.nan) for c in SHARED} for _ in range(2))
    for fold in range(FOLDS):
        mine, rest = folds == fold, folds != fold
        some = {c: (v[rest], w[rest]) for c, (v, w) in process.items()}
        share = NetworkShare.fit(
            {c: v[rest] for c, v in labels.items()}, sizes[rest], some, {c: v[rest] for c, v in network.items()}
        )
        assert share is not None
        found, half = share.apply(
            {c: v[mine] for c, (v, _) in process.items()},
            {c: w[mine] for c, (_, w) in process.items()},
            {c: network[c][mine] for c in SHARED},
        )
        for column in SHARED:
            values[column][mine], widths[column][mine] = found[column], half[column]
    return values, widths


def mean_error(found: np.ndarray, labels: np.ndarray, unit: np.ndarray | float) -> float:
    """Mean absolute error in meV over the rows that have a label and a value."""
    return 1000 * float(np.nanmean(np.abs(found - labels) / unit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--joint", action="store_true", help="also networks of all sets together")
    arguments = parser.parse_args()
    members, seed, kept = arguments.members, arguments.seed, arguments.output
    frame = read_dataset(arguments.data).sort("density", "set", "id", descending=[True, False, False])
    folds = class_folds(frame, FOLDS, seed).to_numpy()
    judged = processes(frame, seed, kept)
    crowded = frame.filter(density="high")["set"].unique(maintain_order=True)
    lines: dict[str, dict[str, Values]] = {column: {} for column in COLUMNS}
    inside: dict[str, Values] = {}
    structures = {host: hosts for hosts in same_structure(frame) for host in hosts}
    for name in crowded:
        mine = (frame["set"] == name).to_numpy()
        rows = frame.filter(set=name)
        sizes = rows["n_defects"].to_numpy().astype(float)
        labels = {c: rows[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in SHARED}
        process = {c: of_set(judged, name, rows["id"], c) for c in SHARED}
        hosts = structures[rows["host"][0]]
        like = frame["host"].is_in(hosts).to_numpy()
        own = networks(frame.filter(like), folds[like], members, seed, kept / "-".join(hosts))[:, mine[like]]
        mean = combine(own.mean(axis=0))
        mixed, widths = both(labels, sizes, process, mean, folds[mine])
        found: dict[str, list[Values]] = {
            "one": [combine(member) for member in own],
            "networks": [mean],
            "processes": [{c: v for c, (v, _) in process.items()}],
            "both": [mixed],
        }
        if arguments.joint:
            joint = combine(networks(frame, folds, members, seed, kept / "joint", joint=True)[:, mine].mean(axis=0))
            found |= {"joint": [joint], "with joint": [both(labels, sizes, process, joint, folds[mine])[0]]}
        for column in COLUMNS:
            source, unit = (ENERGY, sizes) if column == PER_SITE else (column, 1.0)
            lines[column][name] = {
                which: np.mean([mean_error(each[source], labels[source], unit) for each in given])
                for which, given in found.items()
            }
        known = {c: ~np.isnan(mixed[c] - labels[c]) for c in SHARED}
        inside[name] = {c: 100 * (np.abs(mixed[c] - labels[c]) <= widths[c])[known[c]].mean() for c in SHARED}
    shown = [which for which in SOURCES if "joint" not in which or arguments.joint]
    for column, sets in lines.items():
        print(f"\n| {column}, meV | {' | '.join(shown)} |\n| --- |{' ---: |' * len(shown)}")
        means = {which: np.mean([found[which] for found in sets.values()]) for which in shown}
        for name, found in [*sets.items(), ("mean", means)]:
            print(f"| {name} | {' | '.join(f'{found[which]:.1f}' for which in shown)} |")
    print("\ninside the 90 % interval of both:")
    for name, shares in inside.items():
        print(f"{name:<14} " + ", ".join(f"{c} {s:.0f} %" for c, s in shares.items()))


if __name__ == "__main__":
    main()
