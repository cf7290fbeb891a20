"""What 2DMD's values are worth to a campaign by another code on one of its hosts: errors before and after the transfer.

    defectgen campaign new MoS2 --supercell 5x5 --max-defects 3 --engine gpaw --relax chgnet -o CAMPAIGN
    defectgen campaign add CAMPAIGN RESULTS
    python benchmarks/campaign_transfer.py CAMPAIGN

Errors are of structures that are left out one by one, also from the offset and the choice of the model; then of all
others where only some, drawn at random, are known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectgen.campaign.folder import Campaign
from defectgen.campaign.forms import Form, choose, fit
from defectgen.campaign.store import DONE, table_of
from defectgen.campaign.structure_features import Described, describe
from defectgen.campaign.transfer import COLUMNS, base_values, offsets

Array = NDArray[np.float64]

NUMBER_A_DEFECT = Form("base", True, False)


def predicted(
    column: str, form: Form | None, rows: Described, values: Array, base: Array | None, known: Array, new: Array
) -> Array:
    """Values of the new rows by a form, or the one that the known rows choose."""
    given = None if base is None else base[known]
    found = form or choose(column, rows.some(known), values[known], given)
    model = fit(found, column, rows.some(known), values[known], given)
    return model.predict(column, rows.some(new), None if base is None else base[new])[0]


def left_out(column: str, form: Form | None, rows: Described, values: Array, base: Array | None) -> Array:
    """Errors of rows left out one by one."""
    everything = np.arange(len(values))
    found = [
        predicted(column, form, rows, values, base, np.delete(everything, row), everything[row : row + 1])[0]
        for row in everything
    ]
    return np.array(found) - values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = [row for row in Campaign.open(options.campaign).store.rows() if row.state == DONE]
    items = [row.configuration for row in done]
    table, base, rows = table_of(done), base_values(items), describe(items[0].host, items)
    for offset in offsets(done):
        print(offset.text)
    vacancy = np.array(
        [any(new == "VAC" and item.host.site_element(site) == "Mo" for site, new in item.edits) for item in items]
    )
    print(f"\nmean errors of structures left out, meV ({len(done)} structures)")
    print(f"{'':<22} {'mean':>6} {'2DMD':>6} {'offset':>6} {'each':>6} {'chosen':>6} {'alone':>6}")
    for column in COLUMNS:
        values, other = table[column], base[column]
        raw = other - values
        n = len(values)
        one = raw - (raw.sum() - raw) / (n - 1)
        mean = values - (values.sum() - values) / (n - 1)
        each = left_out(column, NUMBER_A_DEFECT, rows, values, other)
        chosen, alone = left_out(column, None, rows, values, other), left_out(column, None, rows, values, None)
        cells = [1000 * np.abs(errors).mean() for errors in (mean, raw, one, each, chosen, alone)]
        print(f"{column:<22} " + " ".join(f"{cell:6.0f}" for cell in cells))
        for title, part in (("with v_Mo", vacancy), ("others", ~vacancy)):
            own = raw[part] - (raw[part].sum() - raw[part]) / (part.sum() - 1)
            mean_mev, left = 1000 * raw[part].mean(), 1000 * np.abs(own).mean()
            print(f"  {title:<20} 2DMD less computed {mean_mev:+.0f}, after an offset of these {left:.0f}")
    print(f"\nmean errors of all others where some are known, meV ({options.draws} draws): with 2DMD, without")
    rng = np.random.default_rng(options.seed)
    for size in (4, 6, 9, 12):
        draws = [rng.permutation(len(done)) for _ in range(options.draws)]
        cells = []
        for column in COLUMNS:
            values = table[column]
            pair = []
            for other in (base[column], None):
                errors = [
                    np.abs(predicted(column, None, rows, values, other, d[:size], d[size:]) - values[d[size:]]).mean()
                    for d in draws
                ]
                pair.append(1000 * float(np.mean(errors)))
            cells.append(f"{column} {pair[0]:.0f}, {pair[1]:.0f}")
        print(f"{size:>3} known: " + "; ".join(cells))


if __name__ == "__main__":
    main()
