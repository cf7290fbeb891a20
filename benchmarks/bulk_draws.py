"""How drawn crystals differ from known ones in what shows first: sizes, elements, densities, charges, room.

    python benchmarks/bulk_draws.py validation.csv SAMPLES [SAMPLES ...]

Each a CSV file with a column cif or a folder of `defectgen generate`, of which what was not refused counts. Prints one
JSON document: for each the number of crystals, mean numbers of atoms and elements, shares of crystals with H, O and F,
percentiles of the density in g/cm3 and its Wasserstein distance from the first one's, the share whose charges do not
balance (`defectgen.core.charge`), and the share that fills more of its cell than `DENSEST_PACKING`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from crystal_clearance import filled
from scipy.stats import wasserstein_distance

from defectgen.core.charge import balanced
from defectgen.core.crystal import Crystal
from defectgen.metrics.generated_entries import read_entries
from defectgen.tasks.bulk.crystal_grammar import DENSEST_PACKING

ELEMENTS = ("H", "O", "F")
PERCENTILES = (5, 25, 50, 75, 95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("known", type=Path, help="crystals to compare with")
    parser.add_argument("samples", type=Path, nargs="*")
    options = parser.parse_args()
    found, known = {}, np.array([])
    for path in (options.known, *options.samples):
        crystals = [entry.crystal for entry in read_entries([path]).accepted().entries if entry.crystal]
        densities = np.array([crystal.to_structure().density for crystal in crystals])
        known = known if known.size else densities
        found[str(path)] = figures(crystals) | {
            "density_percentiles": dict(zip(map(str, PERCENTILES), np.percentile(densities, PERCENTILES), strict=True)),
            "density_distance": wasserstein_distance(densities, known),
        }
    print(json.dumps(found, indent=1))


def figures(crystals: list[Crystal]) -> dict[str, Any]:
    """All but the densities."""
    charges = [balanced(tuple(Counter(crystal.species).items())) for crystal in crystals]
    return {
        "crystals": len(crystals),
        "mean_atoms": float(np.mean([len(crystal.species) for crystal in crystals])),
        "mean_elements": float(np.mean([len(crystal.elements) for crystal in crystals])),
        "share_with": {symbol: float(np.mean([symbol in c.species for c in crystals])) for symbol in ELEMENTS},
        "share_unbalanced": float(np.mean([charge is False for charge in charges])),
        "share_overfull": float(np.mean([filled(crystal) > DENSEST_PACKING for crystal in crystals])),
    }


if __name__ == "__main__":
    main()
