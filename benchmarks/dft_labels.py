"""Gaps and levels by another DFT code against the labels of 2DMD's low-density MoS2.

    defectgen data export --sets MoS2 -o low.parquet
    python benchmarks/dft_labels.py choose low.parquet --supercell 5x5 -o chosen
    defectgen inputs chosen/cells -o dft --host MoS2 --supercell 5x5 --code gpaw --settings lcao --relax chgnet
    defectgen compute dft --hours 1 && defectgen results dft -o results.csv
    python benchmarks/dft_labels.py compare chosen results.csv

`choose` takes one cell of each kind in the order of `KINDS` by ``random.Random(seed)`` among those of the kind, sorted
by id, whose defects are as far apart in the smaller cell as in 8x8.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pymatgen.core import Lattice
from scipy.stats import kendalltau, spearmanr

import defectgen as dg

KINDS = (
    ("v_S", ""), ("v_Mo", ""), ("Se_S", ""), ("W_Mo", ""), ("2v_S", "near"), ("v_S+Se_S", ""), ("W_Mo+v_S", ""),
    ("v_Mo+v_S", ""), ("W_Mo+2v_S", ""), ("2v_S", "far"), ("v_Mo+2v_S", ""), ("v_Mo+v_S+Se_S", ""),
    ("W_Mo+v_S+Se_S", ""), ("v_Mo+Se_S", ""), ("W_Mo+2v_S", "near"), ("v_Mo+2Se_S", ""), ("2Se_S", ""),
)  # fmt: skip
"""Label, and how far apart: near, no two farther than 5 angstrom; far, no two nearer than 8."""

NEAR, FAR = 5.0, 8.0

HOST_GAP_EV = 1.80
"""Of the pristine 8x8 cell by 2DMD, within 5 meV: the gap of its W_Mo and Se_S cells."""

COLUMNS = ("id", "band_gap_ev", "homo_ev", "lumo_ev", "homo_raw_ev", "lumo_raw_ev", "vbm_pristine_ev")


def distances(configuration: dg.Configuration) -> list[float]:
    """Between the changed sites, angstrom, sorted."""
    lattice = Lattice(configuration.host.supercell_lattice)
    places = [configuration.host.site_frac_coords[site] for site, _ in configuration.edits]
    return sorted(lattice.get_distance_and_image(a, b)[0] for a, b in itertools.combinations(places, 2))


def smaller(configuration: dg.Configuration, host: dg.Host) -> dg.Configuration | None:
    """The same arrangement in another supercell, None if it does not fit."""
    old, new = Lattice(configuration.host.supercell_lattice), Lattice(host.supercell_lattice)
    first = configuration.host.site_frac_coords[configuration.edits[0][0]]
    edits = {}
    for site, species in configuration.edits:
        place = configuration.host.site_frac_coords[site]
        image = old.get_distance_and_image(first, place)[1]
        frac = new.get_fractional_coords(old.get_cartesian_coords(place + image))
        away = host.site_frac_coords - frac
        edits[int(np.linalg.norm(new.get_cartesian_coords(away - np.round(away)), axis=1).argmin())] = species
    found = dg.Configuration.of(host, edits)
    same = len(edits) == configuration.n_defects and np.allclose(distances(found), distances(configuration), atol=0.01)
    return found if same and found.label == configuration.label else None


def choose(options: argparse.Namespace) -> None:
    big, host = dg.host("MoS2"), dg.host("MoS2", options.supercell)
    rng = random.Random(options.seed)
    table = pl.read_parquet(options.table).sort("id")
    folder = options.output / "cells"
    folder.mkdir(parents=True)
    chosen = []
    for number, (label, where) in enumerate(KINDS, 1):
        fitting = []
        for row in table.filter(label=label).rows(named=True):
            configuration = dg.Configuration.from_key(big, row["configuration"])
            apart = distances(configuration)
            if (where == "near" and max(apart) >= NEAR) or (where == "far" and min(apart) <= FAR):
                continue
            if (small := smaller(configuration, host)) is not None:
                fitting.append((row, small))
        row, small = rng.choice(fitting)
        small.to_structure().to(filename=str(folder / f"{number:02d}_{label}.cif"))
        apart = " ".join(f"{value:.1f}" for value in distances(small))
        chosen.append(
            {"number": number, "label": label, "apart": apart, "of": len(fitting)} | {c: row[c] for c in COLUMNS}
        )
    pl.DataFrame(chosen).write_csv(options.output / "chosen.csv")


def family(label: str) -> str:
    return "metal vacancy" if "v_Mo" in label else "S vacancy" if "v_S" in label else "no vacancy"


def summary(errors_ev: NDArray[np.float64]) -> str:
    values = 1e3 * errors_ev
    return (
        f"mean {values.mean():+.0f}, mean absolute {np.abs(values).mean():.0f}, largest {np.abs(values).max():.0f} meV"
    )


def compare(options: argparse.Namespace) -> None:
    results = pl.read_csv(options.results)
    rows = results.filter(role="defect").with_columns(
        number=pl.col("name").str.slice(0, 3).cast(pl.Int64), ours=pl.col("band_gap_ev")
    )
    found = pl.read_csv(options.chosen / "chosen.csv").join(
        rows.filter("converged").select("number", "ours", homo="homo_ev", lumo="lumo_ev"), on="number"
    )
    host_gap = results.filter(role="host")["band_gap_ev"].item()
    print(
        f"host {host_gap:.3f} eV\n\n| cell | apart | label | gap | error | HOMO | error | error, raw |\n|---|---|"
        + "---:|" * 6
    )
    found = found.with_columns(
        gap=pl.col("ours") - pl.col("band_gap_ev"),
        at=pl.col("homo") - pl.col("homo_ev"),
        raw=pl.col("homo") - pl.col("homo_raw_ev") + pl.col("vbm_pristine_ev"),
        lumo_at=pl.col("lumo") - pl.col("lumo_ev"),
        lumo_raw=pl.col("lumo") - pl.col("lumo_raw_ev") + pl.col("vbm_pristine_ev"),
        family=pl.col("label").map_elements(family, return_dtype=pl.String),
    )
    for row in found.rows(named=True):
        numbers = [f"{row['band_gap_ev']:.3f}", f"{row['ours']:.3f}", f"{1e3 * row['gap']:+.0f}", f"{row['homo']:.3f}"]
        numbers += [f"{1e3 * row[name]:+.0f}" for name in ("at", "raw")]
        print("| " + " | ".join([row["label"], row["apart"] or "", *numbers]) + " |")
    gap, kinds = found["gap"].to_numpy(), found["family"].to_numpy()
    n = len(gap)
    print(f"\nas computed: {summary(gap)}")
    print(f"less the host's own: {summary(gap - (host_gap - HOST_GAP_EV))}")
    print(f"less the mean of the others: {summary(np.array([gap[i] - np.delete(gap, i).mean() for i in range(n)]))}")
    kind = [gap[i] - gap[(kinds == kinds[i]) & (np.arange(n) != i)].mean() for i in range(n)]
    print(f"less the mean of the others of its kind: {summary(np.array(kind))}")
    groups = [("all", np.ones(n, dtype=bool)), *((name, kinds == name) for name in sorted(set(kinds)))]
    for name, part in groups:
        a, b = found["band_gap_ev"].to_numpy()[part], found["ours"].to_numpy()[part]
        print(
            f"{name} ({part.sum()}): Kendall {kendalltau(a, b).statistic:.2f}, Spearman {spearmanr(a, b).statistic:.2f}"
        )
        for column in ("gap", "at", "raw", "lumo_at", "lumo_raw"):
            print(f"    {column}: {summary(found[column].to_numpy()[part])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("choose")
    one.add_argument("table", type=Path)
    one.add_argument("--supercell", default="5x5")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("-o", "--output", type=Path, required=True)
    one.set_defaults(run=choose)
    two = commands.add_parser("compare")
    two.add_argument("chosen", type=Path)
    two.add_argument("results", type=Path)
    two.set_defaults(run=compare)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
