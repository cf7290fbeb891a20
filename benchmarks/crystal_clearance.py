"""How near atoms of known crystals come, and which crystals the rules of distance keep from being written.

    python benchmarks/crystal_clearance.py train.csv

Shares of all crystals that keep a share of the sum of the atomic radii; the part of the cell that spheres of 0.75 of
the radii fill (percentiles); and of a random sample (seed 0) the share that grammars can write, without rules, with
those of `defectgen generate`, and with the formula asked for as well. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.core.elements import atomic_radius
from defectgen.data.mp20 import read_crystals
from defectgen.generate.sampling import MIN_DISTANCE_ANGSTROM, RADII_SHARE
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.metrics.atom_distances import radii_apart
from defectgen.tasks.bulk.bulk_task import BulkTask
from defectgen.tasks.bulk.crystal_text import write_crystal
from defectgen.tasks.grammar import END, Grammar

SHARES = (0.5, 0.66, 0.75, 1.0)
PERCENTILES = (1, 50, 95, 99, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CSV with a column cif, or a folder of CIFs")
    parser.add_argument("--sample", type=int, default=300, help="crystals that are written [300]")
    options = parser.parse_args()
    crystals = [crystal_from_cif(cif) for cif in read_crystals(options.data).frame["cif"]]
    picked = np.random.default_rng(0).permutation(len(crystals))[: options.sample]
    written = [crystals[k] for k in picked]
    packing = np.percentile([filled(crystal) for crystal in crystals], PERCENTILES)
    print(
        json.dumps(
            {
                "crystals": len(crystals),
                "keep_share_of_radii": {
                    str(share): float(np.mean([radii_apart(crystal, share) for crystal in crystals]))
                    for share in SHARES
                },
                "filled_percentiles": dict(zip(map(str, PERCENTILES), packing.tolist(), strict=True)),
                "written": len(written),
                "writable_without_rules": float(
                    np.mean([writable(crystal, rules=False, formula=False) for crystal in written])
                ),
                "writable": float(np.mean([writable(crystal, rules=True, formula=False) for crystal in written])),
                "writable_with_formula": float(
                    np.mean([writable(crystal, rules=True, formula=True) for crystal in written])
                ),
            },
            indent=1,
        )
    )


def filled(crystal: Crystal) -> float:
    """Part of the cell that spheres of `RADII_SHARE` of the atomic radii fill, overlaps counted twice."""
    return sum(4 / 3 * math.pi * (RADII_SHARE * atomic_radius(one)) ** 3 for one in crystal.species) / crystal.volume


def writable(crystal: Crystal, *, rules: bool, formula: bool) -> bool:
    """Whether the grammar can write a crystal."""
    grammar = BulkTask().grammar(
        max(20, len(crystal.species)),
        formula=crystal.formula if formula else None,
        min_distance=MIN_DISTANCE_ANGSTROM if rules else 0.0,
        radii=RADII_SHARE if rules else 0.0,
    )
    return follows(grammar, write_crystal(crystal))


def follows(grammar: Grammar, text: str) -> bool:
    """Whether a text is one of the grammar; the longest piece that fits is taken."""
    state = grammar.start
    while True:
        choices = grammar.choices(state)
        fitting = [piece for piece in choices if piece != END and text.startswith(piece)]
        if not fitting:
            return not text and END in choices
        piece = max(fitting, key=len)
        state, text = choices[piece], text[len(piece) :]


if __name__ == "__main__":
    main()
