"""A campaign that was run, judged by random structures of the same pool that were computed apart from it.

    defectgen campaign status DIR
    python benchmarks/campaign_live.py DIR RANDOM

RANDOM is a folder of `inputs` and `compute`. After each round the model learns anew from what was computed by then:
its errors by cross-validation stand beside those on the random structures that it had not seen. For each wish of the
campaign: the least distance after each round, and the exact mean of that of as many of the random ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from campaign_replay import Pool

from defectgen.campaign.campaign_model import learn
from defectgen.campaign.folder import Campaign
from defectgen.campaign.status import expected_least, status_of, target_of, wish_title
from defectgen.campaign.store import DONE, StructureRow, table_of
from defectgen.core import Configuration

COLUMNS = {"band_gap_ev": "gap", "homo_ev": "HOMO", "lumo_ev": "LUMO", "formation_energy_ev": "E_form"}


def errors(done: list[StructureRow], pool: Pool, seed: int) -> str:
    """Of a model of these rows, in meV: by cross-validation, and of random structures that are not among them."""
    model = learn([row.configuration for row in done], table_of(done), seed=seed)
    seen = {row.key for row in done}
    rest = [key for key in pool.truth if key not in seen]
    scores = model.score([Configuration.from_key(pool.host, key) for key in rest])
    cells = []
    for column in COLUMNS:
        true = np.array([pool.truth[key][column] for key in rest])
        error = np.abs(scores[column].to_numpy() - true)
        inside = error <= scores[column.replace("_ev", "_uncertainty_ev")].to_numpy()
        mean = np.abs(true - np.mean([row.computed[column] for row in done])).mean()
        judged = model.judged[column]
        cells.append(
            f"{1e3 * judged.mae:.0f} / {1e3 * error.mean():.0f} ({1e3 * mean:.0f}), {inside.sum()} of {len(rest)}"
        )
    return " | ".join(cells)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("random", type=Path)
    options = parser.parse_args()
    campaign, pool = Campaign.open(options.campaign), Pool(options.random)
    rows = [row for row in campaign.store.rows() if row.state == DONE]
    print(
        f"{len(pool.truth)} random structures; CPU s of the campaign's, median {np.median([r.cpu_s for r in rows]):.0f}"
    )
    print("by cross-validation / of random ones (with the mean alone), inside the 90 % interval")
    print("| computed | CPU h | " + " | ".join(COLUMNS.values()) + " |")
    for number in sorted({row.round for row in rows}):
        done = [row for row in rows if row.round <= number]
        hours = sum(row.cpu_s for row in done) / 3600
        print(f"| {len(done)} | {hours:.2f} | {errors(done, pool, campaign.config.seed)} |", flush=True)
    for wish in status_of(campaign).wishes:
        distances = pool.distances_ev(target_of(wish.text, rows))
        path = ", ".join(
            f"{n}: {1e3 * found:.0f} (random {1e3 * expected_least(distances, n):.0f})"
            for n, found in wish.path
            if n <= len(distances)
        )
        last = f"{wish.path[-1][0]}: {1e3 * wish.path[-1][1]:.0f}"
        print(f"{wish_title(wish.text)}: {path}, {last}; nearest of all random {1e3 * distances[0]:.0f}")


if __name__ == "__main__":
    main()
