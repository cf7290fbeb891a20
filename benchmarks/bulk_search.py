"""Searches for stable crystals of known formulas: a tree beside as many plain draws.

    python benchmarks/bulk_search.py run FORMULAS.csv --hull MP20.csv --m3gnet DIR --formulas 10 -n 24 -o searches
    python benchmarks/bulk_search.py table searches

The formulas are drawn from the crystals of the file, compounds with cells of at most 20 atoms; the crystal of the file
is relaxed with the same potential, so that each search has a goal. Goes on where it was stopped. The table is one JSON
document: for each formula and method the lowest energy above that of the known crystal, eV/atom, of all crystals that
were relaxed and of their first quarter and half, and the median of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen.data.mp20 import read_crystals
from defectgen.generate.crystal_request import CrystalRequest, bulk_card, bulk_model, open_generator
from defectgen.generate.crystal_search import DRAWS, METHODS, completing
from defectgen.generate.search_study import Judge, search_stable
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.io.crystal_files import NamedCrystal
from defectgen.llm.decode.generator import Sampling
from defectgen.stability.assessment import REFERENCES, RelaxationSettings, relax_all
from defectgen.stability.study import element_references, open_hull, open_potential

KNOWN = "known"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("crystals", type=Path)
    running.add_argument("--hull", type=Path, required=True)
    running.add_argument("--m3gnet", required=True)
    running.add_argument("--model", default=None)
    running.add_argument("--formulas", type=int, default=10)
    running.add_argument("-n", type=int, default=24)
    running.add_argument("--temperature", type=float, default=1.0)
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("table").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        print(json.dumps(table(options.folder), indent=1))


def run(options: argparse.Namespace) -> None:
    model, request = bulk_model(options.model), CrystalRequest({})
    card = bulk_card(model)
    generator, sampling = open_generator(model, card, request), Sampling(options.temperature, batch_size=32)
    potential = open_potential("m3gnet", options.m3gnet)
    settings = RelaxationSettings(potential.name)
    judging = Judge(potential, open_hull(str(options.hull)), options.hull, settings)
    shared = options.output / KNOWN
    element_references(judging.hull, options.hull, None, potential, settings, shared)
    for number, row in enumerate(chosen(options.crystals, options.formulas, options.seed)):
        crystal = crystal_from_cif(row["cif"])
        relax_all([NamedCrystal(crystal.formula, crystal.to_structure())], potential, settings, shared)
        asked = CrystalRequest({"formula": crystal.formula}, max_atoms=20)
        job = asked.job(card)
        for method in METHODS:
            folder = options.output / f"{number:02d}-{crystal.formula}-{method}"
            if (folder / "seconds.json").is_file():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / REFERENCES, folder / REFERENCES)
            started = time.process_time()
            found, _ = search_stable(
                job,
                completing(lambda: generator, job, sampling),
                judging,
                options.n,
                folder,
                method=method,
                seed=options.seed + number,
                checks=asked.checks(),
            )
            facts = {"cpu_seconds": time.process_time() - started, "draws": found.draws, "refused": found.refused}
            (folder / "seconds.json").write_text(json.dumps(facts | {"repeated": found.repeated}))
            print(folder.name, facts, found.ranked[0].energy_ev, flush=True)


def chosen(path: Path, n: int, seed: int) -> list[dict[str, Any]]:
    """Crystals of different formulas with two elements or more."""
    frame = read_crystals(path).frame
    rows = frame.sample(frame.height, seed=seed, shuffle=True).iter_rows(named=True)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        crystal = crystal_from_cif(row["cif"])
        if len(crystal.elements) > 1 and len(crystal.species) <= 20:
            found.setdefault(crystal.formula, row)
    return list(found.values())[:n]


def table(folder: Path) -> dict[str, Any]:
    known = {}
    for line in (folder / KNOWN / "relaxations.jsonl").read_text().splitlines()[1:]:
        row = json.loads(line)
        known[row["formula"]] = row["energy_ev_per_atom"] + row["correction_ev_per_atom"]
    searches = []
    for path in sorted(folder.glob("*/seconds.json")):
        _, formula, method = path.parent.name.split("-")
        rows = pl.read_csv(path.parent / "stability.csv").with_columns(
            pl.col("name").str.strip_prefix("draw-").cast(int).alias("draw"),
            (pl.col("energy_ev_per_atom") + pl.col("correction_ev_per_atom") - known[formula]).alias("above_known"),
        )
        above = rows.sort("draw")["above_known"].to_list()
        energies = [np.inf if value is None else value for value in above]
        searches.append(
            {
                "formula": formula,
                "method": method,
                "atoms": rows["n_atoms"].median(),
                **{f"lowest_of_{k}": min(energies[:k]) for k in (len(above) // 4, len(above) // 2, len(above))},
                "median": float(np.median(energies)),
                "e_above_hull": rows["e_above_hull_ev_per_atom"].min(),
                "draws_noted": len((path.parent / DRAWS).read_text().splitlines()),
                **json.loads(path.read_text()),
            }
        )
    summary: dict[str, Any] = {}
    for method in METHODS:
        own = [item for item in searches if item["method"] == method]
        lowest = [key for key in own[0] if key.startswith("lowest")]
        numbers = [*lowest, "median", "e_above_hull", "cpu_seconds", "draws", "refused", "repeated"]
        summary[method] = {key: float(np.median([item[key] for item in own])) for key in numbers}
        summary[method]["within_50_meV_of_known"] = sum(item[lowest[-1]] < 0.05 for item in own)
    pairs = {
        formula: {item["method"]: item[lowest[-1]] for item in searches if item["formula"] == formula}
        for formula in {item["formula"] for item in searches}
    }
    both = [pair for pair in pairs.values() if len(pair) == len(METHODS)]
    summary["tree_lower_by_1_meV"] = sum(pair["tree"] < pair["best"] - 1e-3 for pair in both)
    summary["best_lower_by_1_meV"] = sum(pair["best"] < pair["tree"] - 1e-3 for pair in both)
    return {"summary": summary, "searches": searches}


if __name__ == "__main__":
    main()
