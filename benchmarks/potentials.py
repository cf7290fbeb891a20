"""Formation energies of a potential beside the DFT labels of 2DMD, unrelaxed and relaxed.

    python benchmarks/potentials.py run --data DIR --potential m3gnet --m3gnet FOLDER -o m3gnet.jsonl
    python benchmarks/potentials.py table m3gnet.jsonl chgnet.jsonl
    python benchmarks/potentials.py elements --potential m3gnet --m3gnet FOLDER

`run` draws the same number of structures from each of the eight sets, writes one line for each and
leaves out those that the file holds already. `table` prints Markdown: mean absolute error, bias,
Pearson and Spearman correlation of the formation energy of the cell, and Pearson correlation of the
formation energy divided by the number of defects, by set and over all. Labels are of DFT-relaxed
structures; the cell is fixed in relaxations, and the pristine cell is relaxed likewise. `elements` prints
the energy of elemental phases beside the chemical potentials that formation energies use.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from pymatgen.core import Lattice, Structure

from defectgen.core import Configuration
from defectgen.data.assets import cache_dir
from defectgen.data.twodmd import SET_NAMES, read_2dmd
from defectgen.io.host_tables import host_of_row
from defectgen.score.potentials.potential import CHEMICAL_POTENTIALS_EV, PotentialScorer
from defectgen.score.potentials.relaxation import relax
from defectgen.score.scorers import ScorerOptions, load_scorer

SEED = 42
KINDS = (("unrelaxed", "unrelaxed_ev"), ("relaxed", "relaxed_ev"))


def sample(data: Path, per_set: int) -> pl.DataFrame:
    """The same number of labelled rows of each set, in an order that a smaller sample shares."""
    frame = read_2dmd(data).filter(pl.col("formation_energy_ev").is_not_null())
    parts = []
    for name in SET_NAMES:
        rows = frame.filter(set=name).sort("id")
        order = np.random.default_rng(SEED).permutation(rows.height)[:per_set]
        parts.append(rows[order.tolist()].with_row_index("place"))
    return pl.concat(parts).sort("place", "set")


def load(options: argparse.Namespace) -> PotentialScorer:
    scorer = load_scorer(options.potential, ScorerOptions(m3gnet=options.m3gnet, cache=cache_dir() / "matgl"))
    if not isinstance(scorer, PotentialScorer):
        raise SystemExit(f"{options.potential} is no potential")
    return scorer


def elemental_phases() -> dict[str, Structure]:
    """Each element near the PBE geometry of its stable phase; S8 and N2 as molecules."""

    def crystal(group: str, lattice: Lattice, element: str, *sites: tuple[float, float, float]) -> Structure:
        return Structure.from_spacegroup(group, lattice, [element] * len(sites), list(sites))

    def molecule(element: str, positions: np.ndarray) -> Structure:
        return Structure(Lattice.cubic(15), [element] * len(positions), positions + 7.5, coords_are_cartesian=True)

    turn = np.arange(8) * np.pi / 4
    ring = np.column_stack([2.34 * np.cos(turn), 2.34 * np.sin(turn), 0.5 * (-1.0) ** np.arange(8)])
    boron = ((0.1189, -0.1189, 0.8912), (0.1965, -0.1965, 0.0243))
    return {
        "B": crystal("R-3m", Lattice.hexagonal(4.90, 12.54), "B", *boron),
        "C": crystal("P6_3/mmc", Lattice.hexagonal(2.468, 6.8), "C", (0, 0, 0.25), (1 / 3, 2 / 3, 0.25)),
        "Ga": crystal("Cmce", Lattice.orthorhombic(4.57, 7.77, 4.59), "Ga", (0, 0.1549, 0.081)),
        "In": crystal("I4/mmm", Lattice.tetragonal(3.32, 5.0), "In", (0, 0, 0)),
        "Mo": crystal("Im-3m", Lattice.cubic(3.16), "Mo", (0, 0, 0)),
        "N": molecule("N", np.array([[0, 0, 0], [0, 0, 1.11]])),
        "P": crystal("Cmce", Lattice.orthorhombic(3.31, 11.3, 4.56), "P", (0, 0.0977, 0.0879)),
        "S": molecule("S", ring),
        "Se": crystal("P3_121", Lattice.hexagonal(4.5, 5.05), "Se", (0.2157, 0, 1 / 3)),
        "W": crystal("Im-3m", Lattice.cubic(3.18), "W", (0, 0, 0)),
    }


def elements(options: argparse.Namespace) -> str:
    potential = load(options).potential
    phases = elemental_phases()
    lines = ["| element | potential, eV/atom | chemical potential, eV |", "|---|---|---|"]
    for element, found in zip(phases, potential.evaluate(list(phases.values())), strict=True):
        own = found.energy_ev / len(phases[element])
        lines.append(f"| {element} | {own:.3f} | {CHEMICAL_POTENTIALS_EV[element]:.3f} |")
    return "\n".join([potential.name, "", *lines])


def run(options: argparse.Namespace) -> None:
    scorer = load(options)
    rows = sample(options.data, options.per_set)
    done = {record["id"]: record for record in records([options.output])} if options.output.exists() else {}
    relaxed_pristine: dict[str, float] = {}
    for row in rows.iter_rows(named=True):
        to_relax = row["place"] < options.relax_per_set
        old = done.get(f"{row['set']}/{row['id']}")
        if old is not None and (old["relaxed_ev"] is not None or old["status"] or not to_relax):
            continue
        host = host_of_row(row)
        configuration = Configuration.from_key(host, row["configuration"])
        started = time.perf_counter()
        record = {
            "id": f"{row['set']}/{row['id']}",
            "set": row["set"],
            "n_defects": row["n_defects"],
            "dft_ev": row["formation_energy_ev"],
            "unrelaxed_ev": scorer.score([configuration])["formation_energy_ev"][0],
            "relaxed_ev": None,
            "potential": scorer.potential.name,
            "status": "",
        }
        record["score_s"] = round(time.perf_counter() - started, 3)
        if to_relax:
            if host.name not in relaxed_pristine:
                cell = Configuration.of(replace(host, supercell=(2, 2)), {}).to_structure()
                energy = relax(cell, scorer.potential, max_steps=options.max_steps).energy_ev
                relaxed_pristine[host.name] = energy * host.supercell[0] * host.supercell[1] / 4
            started = time.perf_counter()
            result = relax(configuration.to_structure(), scorer.potential, max_steps=options.max_steps)
            formation = scorer.formation_energy_ev(configuration, result.energy_ev)
            if result.usable and formation is not None:
                record["relaxed_ev"] = formation + scorer.pristine_energy_ev(host) - relaxed_pristine[host.name]
            record |= {
                "status": result.status,
                "detail": result.detail,
                "steps": result.steps,
                "energy_change_ev": result.energy_change_ev,
                "displacement_angstrom": result.max_displacement_angstrom,
                "relax_s": round(time.perf_counter() - started, 2),
            }
        with options.output.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")


def records(paths: list[Path]) -> Iterator[dict[str, object]]:
    """The lines of result files; of several for one structure the last."""
    for path in paths:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        yield from {line["id"]: line for line in lines}.values()


def figures(rows: pl.DataFrame, column: str) -> list[str]:
    """Number of rows, MAE, bias, Pearson, Spearman, and Pearson by site as cells of a table."""
    rows = rows.filter(pl.col(column).is_not_null())
    if rows.height < 3:
        return [str(rows.height), "-", "-", "-", "-", "-"]
    error = rows[column] - rows["dft_ev"]
    pearson, spearman = (
        rows.select(pl.corr(column, "dft_ev", method=method)).item() for method in ("pearson", "spearman")
    )
    mae, bias = float(error.abs().mean()), float(error.mean())  # type: ignore[arg-type]
    site = rows.select(pl.corr(pl.col(column) / pl.col("n_defects"), pl.col("dft_ev") / pl.col("n_defects"))).item()
    return [str(rows.height), f"{mae:.2f}", f"{bias:+.2f}", f"{pearson:.3f}", f"{spearman:.3f}", f"{site:.3f}"]


def table(paths: list[Path]) -> str:
    lines = [
        "| potential | cells | set | n | MAE, eV | bias, eV | Pearson | Spearman | Pearson by site |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for path in paths:
        frame = pl.DataFrame(list(records([path])), infer_schema_length=None)
        name = frame["potential"][0]
        for kind, column in KINDS:
            if frame[column].null_count() == frame.height:
                continue
            for part in (*SET_NAMES, "all"):
                rows = frame if part == "all" else frame.filter(set=part)
                lines.append(f"| {name} | {kind} | {part} | {' | '.join(figures(rows, column))} |")
        counts = frame.filter(pl.col("status") != "").group_by("status").len().sort("status").rows()
        if counts:
            steps, seconds = frame["steps"].median(), frame["relax_s"].median()
            found = ", ".join(f"{status} {number}" for status, number in counts)
            notes.append(f"{name}: {found}; median {steps:.0f} steps, {seconds:.1f} s a relaxation")
    return "\n".join([*lines, "", *notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--data", type=Path, default=os.environ.get("DEFECTGEN_2DMD"))
    runner.add_argument("--per-set", type=int, default=30)
    runner.add_argument("--relax-per-set", type=int, default=30)
    runner.add_argument("--max-steps", type=int, default=100)
    runner.add_argument("-o", "--output", type=Path, required=True)
    lister = commands.add_parser("elements")
    for parser_with_potential in (runner, lister):
        parser_with_potential.add_argument("--potential", default="m3gnet")
        parser_with_potential.add_argument("--m3gnet", default=os.environ.get("DEFECTGEN_M3GNET"))
    tabulator = commands.add_parser("table")
    tabulator.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    elif options.command == "elements":
        print(elements(options))
    else:
        print(table(options.files))


if __name__ == "__main__":
    main()
