"""Formation energies of bulk crystals by a potential beside the labels of a table of MP-20 layout.

    python benchmarks/bulk_stability.py run --data mp20.csv --m3gnet FOLDER -n 1500 --relax 50 -o rows.jsonl
    python benchmarks/bulk_stability.py table rows.jsonl

`run` draws rows at random, computes the energy of each crystal at its labelled geometry, then relaxes the
first ones, atoms and cell; it writes a line for each and goes on where it stopped. `table` prints Markdown:
mean and median absolute error, bias and Pearson correlation of the formation energy, with and without the
MP2020 corrections. The energies of the elements are fitted on four fifths of the rows, at their labelled
geometry, and the error is that of the remaining fifth.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition

from defectgen.data.assets import cache_dir
from defectgen.errors import DefectgenError
from defectgen.io.crystal_files import read_table
from defectgen.io.structures import parse_cif
from defectgen.score.potentials.m3gnet import load_m3gnet
from defectgen.score.potentials.relaxation import CRYSTAL, relax
from defectgen.stability.corrections import correction_ev
from defectgen.stability.references import fit_references

SEED, FOLDS, BATCH = 0, 5, 25


def run(options: argparse.Namespace) -> None:
    table = read_table(options.data)
    order = np.random.default_rng(SEED).permutation(table.height)[: options.n].tolist()
    rows = read(options.output)
    done = {(row["id"], row["kind"]) for row in rows}
    potential = load_m3gnet(options.m3gnet, cache_dir() / "matgl")
    with options.output.open("a", encoding="utf-8") as file:
        todo = [i for i in order if (table["material_id"][i], "labelled geometry") not in done]
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            cells = [parse_cif(table["cif"][i]) for i in part]
            for i, cell, found in zip(part, cells, potential.evaluate(cells), strict=True):
                write(file, table, i, "labelled geometry", cell, found.energy_ev / len(cell), potential)
            print(f"{start + len(part)} of {len(todo)} at their labelled geometry", flush=True)
        for i in order[: options.relax]:
            if (table["material_id"][i], "relaxed") in done:
                continue
            found = relax(parse_cif(table["cif"][i]), potential, CRYSTAL)
            facts = {"status": found.status, "steps": found.steps, "seconds": round(found.seconds, 2)}
            facts["volume_ratio"] = round(found.volume_ratio, 4)
            write(file, table, i, "relaxed", found.structure, found.energy_ev_per_atom, potential, **facts)
            print(table["pretty_formula"][i], facts, flush=True)


def write(file: Any, table: Any, i: int, kind: str, cell: Any, energy: float, potential: Any, **facts: Any) -> None:
    row = {
        "id": table["material_id"][i],
        "kind": kind,
        "formula": cell.composition.reduced_formula,
        "n_atoms": len(cell),
        "label_ev_per_atom": table["formation_energy_per_atom"][i],
        "energy_ev_per_atom": energy,
        "correction_ev_per_atom": correction_ev(cell, potential) / len(cell),
    }
    file.write(json.dumps(row | facts) + "\n")
    file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def predictions(rows: Sequence[dict[str, Any]], corrected: bool) -> dict[str, dict[str, float]]:
    """Of each kind, id -> formation energy minus label and the two, each by references of the other folds."""
    plain = [row for row in rows if row["kind"] == "labelled geometry"]
    fold = {row["id"]: index % FOLDS for index, row in enumerate(plain)}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for k in range(FOLDS):
        train = [row for row in plain if fold[row["id"]] != k]
        references = fit_references(
            [Composition(row["formula"]) for row in train],
            [energy(row, corrected) for row in train],
            [row["label_ev_per_atom"] for row in train],
            "the other folds",
        )
        for row in rows:
            if fold[row["id"]] != k or row.get("status", "converged") not in ("converged", "not converged"):
                continue
            try:
                value = references.formation_ev_per_atom(Composition(row["formula"]), energy(row, corrected))
            except DefectgenError:  # an element in no other fold
                continue
            found.setdefault(row["kind"], {})[row["id"]] = (value, row["label_ev_per_atom"])
    return found


def energy(row: dict[str, Any], corrected: bool) -> float:
    return row["energy_ev_per_atom"] + (row["correction_ev_per_atom"] if corrected else 0.0)


def table(options: argparse.Namespace) -> None:
    rows = read(options.rows)
    print("| geometry | corrections | n | MAE, eV/atom | median | bias | Pearson |")
    print("|---|---|---|---|---|---|---|")
    relaxed = {row["id"] for row in rows if row["kind"] == "relaxed"}
    for corrected in (False, True):
        found = predictions(rows, corrected)
        same = {key: pair for key, pair in found["labelled geometry"].items() if key in found.get("relaxed", {})}
        parts = [("labelled", found["labelled geometry"]), ("labelled, those below", same)]
        for name, pairs in [*parts, ("relaxed", found.get("relaxed", {}))]:
            if len(pairs) < 2:
                continue
            value, label = np.array(list(pairs.values())).T
            error, size = value - label, np.abs(value - label)
            numbers = f"{size.mean():.4f} | {np.median(size):.4f} | {error.mean():+.4f}"
            correlation = np.corrcoef(value, label)[0, 1]
            print(f"| {name} | {'MP2020' if corrected else 'none'} | {len(value)} | {numbers} | {correlation:.4f} |")
    if relaxed:
        ends = [row for row in rows if row["kind"] == "relaxed"]
        status = sorted({row["status"] for row in ends})
        counts = ", ".join(f"{sum(row['status'] == s for row in ends)} {s}" for s in status)
        median = {key: np.median([row[key] for row in ends]) for key in ("seconds", "steps", "n_atoms", "volume_ratio")}
        print(f"\n{len(ends)} relaxations: {counts}; medians: " + ", ".join(f"{k} {v:.4g}" for k, v in median.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--data", type=Path, required=True)
    runner.add_argument("--m3gnet", default=os.environ.get("DEFECTGEN_M3GNET"))
    runner.add_argument("-n", type=int, default=1500)
    runner.add_argument("--relax", type=int, default=0)
    runner.add_argument("-o", "--output", type=Path, required=True)
    runner.set_defaults(call=run)
    shower = commands.add_parser("table")
    shower.add_argument("rows", type=Path)
    shower.set_defaults(call=table)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
