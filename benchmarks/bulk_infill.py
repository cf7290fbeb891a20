"""Diversity against metastable share of mutated crystals: elements by a model, or at random (Gruver et al., figure 7).

    python benchmarks/bulk_infill.py test.csv --hull mp20.csv --m3gnet DIR -n 40 --temperatures 0.3,0.7,1,1.5 -o front

The template method swaps an element of each of n known crystals at random; a model names the new one of the same
element instead, from the same table of partners, at each temperature. Equal mutants are relaxed once, and a run that
was stopped goes on. Diversity is the mean distance of two fingerprints of the metastable mutants over that of the n
known crystals. Writes front.csv and front.json; 95 % intervals are Wilson's for shares, of a bootstrap for diversity.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pymatgen.core import Structure

from defectgen.core.crystal import Crystal
from defectgen.data.assets import cache_dir
from defectgen.data.mp20 import read_crystals
from defectgen.generate.crystal_request import CrystalRequest, bulk_card, bulk_model, open_generator, trained_elements
from defectgen.generate.sampling import infill_job
from defectgen.generate.template import Swap, template_swaps
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.io.crystal_files import NamedCrystal
from defectgen.io.files import write_text
from defectgen.io.folders import claimed
from defectgen.io.run_settings import claim_settings
from defectgen.llm.decode.generator import Generator, Request, Sampling
from defectgen.metrics.crystal_metrics import rate
from defectgen.metrics.fingerprint_distances import mean_distance
from defectgen.metrics.fingerprint_store import structure_fingerprints
from defectgen.metrics.fingerprints import composition_fingerprint, scale_composition
from defectgen.stability.assessment import METASTABLE_EV_PER_ATOM, RelaxationSettings, judge, relax_all
from defectgen.stability.study import element_references, open_hull, open_potential
from defectgen.tasks.bulk.crystal_grammar import MP_ELEMENTS

TEMPLATE = "template"
SAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", type=Path, help="known crystals to mutate, e.g. a test part")
    parser.add_argument("--hull", type=Path, required=True)
    parser.add_argument("--m3gnet", required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--temperatures", default="0.3,0.7,1,1.5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    temperatures = [float(word) for word in options.temperatures.split(",")]
    model = bulk_model(options.model)
    potential, hull = open_potential("m3gnet", options.m3gnet), open_hull(str(options.hull))
    settings = RelaxationSettings(potential.name)
    with claimed(options.output):
        told = {"model": model, "n": options.n, "seed": options.seed, "crystals": str(options.crystals)}
        claim_settings(options.output, "infill", told | {"hull": hull.source})
        rows = read_crystals(options.crystals).frame.select("id", "cif").iter_rows()
        known = {name: crystal_from_cif(cif) for name, cif in rows}
        structures = [(name, crystal.to_structure()) for name, crystal in known.items()]
        swaps, _ = template_swaps(structures, options.n, np.random.default_rng(options.seed))
        generator = open_generator(model, bulk_card(model), CrystalRequest({}))
        points = {TEMPLATE: swaps}
        for temperature in temperatures:
            points[f"{temperature:g}"] = mutants(generator, model, swaps, known, temperature, options.seed)
        references = element_references(hull, options.hull, None, potential, settings, options.output)
        base = fingerprints([known[swap.template].to_structure() for swap in swaps])
        found = []
        for name, mutated in points.items():
            named = [NamedCrystal(f"{swap.template}: {swap.old} -> {swap.new}", swap.structure) for swap in mutated]
            energies = judge(relax_all(named, potential, settings, options.output), hull, references)
            found.append({"temperature": name} | point(mutated, energies, base, swaps))
            print(json.dumps(found[-1]), flush=True)
        write_text(options.output / "front.json", json.dumps(found, indent=1) + "\n")
        pl.DataFrame(found).write_csv(options.output / "front.csv")


def mutants(
    generator: Generator, model: str, swaps: Sequence[Swap], known: dict[str, Crystal], temperature: float, seed: int
) -> list[Swap]:
    """The same elements of the same crystals replaced by what the model names."""
    elements = trained_elements(bulk_card(model)) or MP_ELEMENTS
    jobs = [infill_job(known[swap.template], swap.old, elements=elements) for swap in swaps]
    requests = [Request(job.prompt, job.grammar, 1, seed + number) for number, job in enumerate(jobs)]
    found = []
    for completion in generator.generate(requests, Sampling(temperature, batch_size=16)):
        job, swap = jobs[completion.request], swaps[completion.request]
        crystal, reason = job.read(completion.text)
        assert crystal is not None, reason
        found.append(Swap(swap.template, swap.old, completion.text.strip(), crystal.to_structure()))
    return found


def point(
    mutated: Sequence[Swap],
    energies: pl.DataFrame,
    base: dict[str, np.ndarray[Any, Any]],
    swaps: Sequence[Swap],
) -> dict[str, Any]:
    """Share and diversity of the metastable ones, and how many are those of the template method."""
    above = energies["e_above_hull_ev_per_atom"].to_list()
    low = [energy is not None and energy < METASTABLE_EV_PER_ATOM for energy in above]
    share, competing = rate(sum(low), len(low)), (energies["n_competing"] > 0).fill_null(False).to_list()
    both = rate(sum(a and b for a, b in zip(low, competing, strict=True)), sum(competing))
    row: dict[str, Any] = {
        "mutants": len(low),
        "metastable": sum(low),
        "share": share["value"],
        "low": share["interval_95"][0],
        "high": share["interval_95"][1],
        "with_competitors": sum(competing),
        "share_of_these": both["value"],
        "without_energy": sum(energy is None for energy in above),
        "elements": len({swap.new for swap in mutated}),
        "same_as_template": sum(a.new == b.new for a, b in zip(mutated, swaps, strict=True)),
    }
    own = fingerprints([swap.structure for swap, kept in zip(mutated, low, strict=True) if kept])
    for name, prints in own.items():
        usual = mean_distance(base[name]) or 1.0
        row[f"diversity_{name}"] = (mean_distance(prints) or 0.0) / usual
        ends = bootstrap(prints, usual)
        row[f"diversity_{name}_low"], row[f"diversity_{name}_high"] = ends
    return row


def fingerprints(structures: Sequence[Structure]) -> dict[str, np.ndarray[Any, Any]]:
    """Of structure and composition, those that have both."""
    crystals = [Crystal.from_structure(structure) for structure in structures]
    prints = structure_fingerprints(crystals, cache_dir() / "fingerprints")
    good = [(crystal, p) for crystal, p in zip(crystals, prints, strict=True) if not isinstance(p, str)]
    composition = scale_composition(np.array([composition_fingerprint(crystal) for crystal, _ in good]))
    return {"structure": np.array([p for _, p in good]), "composition": composition}


def bootstrap(prints: np.ndarray[Any, Any], usual: float) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean distance of two different ones over a usual one."""
    rng, n = np.random.default_rng(0), len(prints)
    apart = np.linalg.norm(prints[:, None] - prints[None], axis=2)
    values = []
    for _ in range(SAMPLES):
        chosen = rng.integers(n, size=n)
        different = chosen[:, None] != chosen[None]
        values.append(float(apart[np.ix_(chosen, chosen)][different].mean()) / usual)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
