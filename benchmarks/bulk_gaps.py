"""Error of the predictor of band gaps that `defectgen evaluate bulk --gaps` fits, on crystals that it never saw.

    python benchmarks/bulk_gaps.py mp20.csv

Fits to the training part (80/10/10 by formula, seed 42, as `build-data`) and prints one JSON document: errors for
formulas left out in its five folds, for the validation and for the test part, beside those of the mean and the median
label (`defectgen.score.bulk_gap.GapError`), Spearman's correlation and the share within 0.5 eV.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from defectgen.data.mp20 import crystal_of, read_crystals, split_by_formula
from defectgen.data.splits import PARTS
from defectgen.metrics.met_conditions import NEAR_GAP_EV
from defectgen.score.bulk_gap import fit_gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CSV with columns cif and band_gap")
    options = parser.parse_args()
    frame = split_by_formula(read_crystals(options.data).frame).drop_nulls("band_gap_ev")
    parts = {}
    for part in PARTS:
        rows = frame.filter(split=part)
        parts[part] = [crystal_of(row) for row in rows.iter_rows(named=True)], rows["band_gap_ev"].to_numpy()
    started = time.process_time()
    model = fit_gaps(*parts["train"], str(options.data))
    found = {"cpu_seconds": round(time.process_time() - started, 1), "left_out": asdict(model.left_out)}
    for part in PARTS[1:]:
        crystals, labels = parts[part]
        predicted = model.predict(crystals)
        found[part] = asdict(model.error(crystals, labels)) | {
            "spearman": float(spearmanr(predicted, labels).statistic),
            "within": float((np.abs(predicted - labels) <= NEAR_GAP_EV).mean()),
            "median_within": float((np.abs(np.median(model.labels_ev) - labels) <= NEAR_GAP_EV).mean()),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
