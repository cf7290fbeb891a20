"""A campaign replayed on structures that are all computed: errors after each round, and wishes against chance.

    defectgen inputs CELLS -o POOL --host WS2.cif --supercell 4x4 --allow W:Mo,VAC --allow S:Se,VAC \\
        --code gpaw --settings lcao --relax chgnet
    defectgen compute POOL
    python benchmarks/campaign_replay.py POOL -o OUT

The rounds go through `propose`, `add` and `learn` as a user's do; only the computing is left out. Chance is exact: the
mean over all choices of as many structures from the pool, and the share of them that is as near.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.campaign.adding import add_results
from defectgen.campaign.folder import Campaign, new_campaign
from defectgen.campaign.learning import learn_campaign
from defectgen.campaign.proposing import best_distance_ev, propose
from defectgen.campaign.status import expected_least
from defectgen.campaign.store import DONE
from defectgen.core import Configuration, Host
from defectgen.design.candidates import Target
from defectgen.design.targets import single_target
from defectgen.dft.compute import read_names
from defectgen.dft.inputs import read_manifest
from defectgen.dft.results import dft_results

COLUMNS = ("band_gap_ev", "homo_ev", "lumo_ev", "formation_energy_ev")


class Pool:
    """The computed structures of a folder of inputs."""

    def __init__(self, folder: Path) -> None:
        self.host: Host = read_manifest(folder)[0]
        frame = dft_results(folder).frame
        self.truth: dict[str, dict[str, float]] = {}
        self.places: dict[str, Path] = {}
        self.references: list[Path] = []
        for row in frame.to_dicts():
            place = folder / row["name"]
            if row["role"] != "defect":
                self.references.append(place)
                continue
            if row["converged"]:
                self.places[row["configuration"]] = place
                self.truth[row["configuration"]] = {c: row[c] for c in COLUMNS if row[c] is not None}
        self.cpu_s = {name: _cpu_s(folder / name) for name in read_names(folder)}

    def distances_ev(self, target: Target) -> np.ndarray:
        """Of all structures to a wish, ascending."""
        return np.sort([target.distance_ev(values) for values in self.truth.values()])


def _cpu_s(folder: Path) -> float:
    state = json.loads((folder / "state.json").read_text())
    return sum(attempt["cpu_s"] for attempt in state["attempts"])


def round_of(campaign: Campaign, pool: Pool, n: int, targets: Sequence[Target], references: bool) -> int:
    """Propose n structures and add their results; how many it became."""
    rows = propose(campaign, n, targets).rows
    places = [pool.places[row.key] for row in rows if row.key in pool.places]
    add_results(campaign, [*places, *(pool.references if references else [])])
    return len(places)


def error_curve(pool: Pool, folder: Path, rounds: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Cross-validated errors after each round of exploration, beside those on the structures still unknown."""
    campaign = new_campaign(folder, pool.host, max_defects=2, engine="gpaw", relax="chgnet", seed=seed)
    found = []
    for number, n in enumerate(rounds):
        round_of(campaign, pool, n, (), number == 0)
        started = time.process_time()
        model = learn_campaign(campaign).model
        learning_s = time.process_time() - started
        known = set(model.keys)
        rest = [key for key in pool.truth if key not in known]
        entry: dict[str, Any] = {"computed": len(known), "learning_s": round(learning_s, 1), "unknown": len(rest)}
        if rest:
            scores = model.score([Configuration.from_key(pool.host, key) for key in rest])
        for column, judged in model.judged.items():
            if column not in COLUMNS:
                continue
            entry[column] = {
                "mae": judged.mae,
                "of_mean": judged.spread,
                "form": judged.form,
                "covered": judged.covered,
            }
            if rest:
                true = np.array([pool.truth[key][column] for key in rest])
                error = np.abs(scores[column].to_numpy() - true)
                width = scores[column.replace("_ev", "_uncertainty_ev")].to_numpy()
                entry[column] |= {"mae_of_unknown": float(error.mean()), "inside": float((error <= width).mean())}
        print(json.dumps(entry), flush=True)
        found.append(entry)
    return found


def wishes(pool: Pool, count: int, seed: int) -> list[Target]:
    """Half of them gaps, half HOMO and LUMO: those of random structures of the pool, moved by up to 50 meV."""
    rng = np.random.default_rng(seed)
    keys = sorted(pool.truth)
    found = []
    for number in range(count):
        values = pool.truth[keys[int(rng.integers(len(keys)))]]
        columns = ("band_gap_ev",) if number % 2 == 0 else ("homo_ev", "lumo_ev")
        moved = {column: round(values[column] + float(rng.uniform(-0.05, 0.05)), 3) for column in columns}
        found.append(single_target(moved))
    return found


def pursue(pool: Pool, folder: Path, target: Target, rounds: Sequence[int], seed: int) -> list[tuple[int, float]]:
    """Least distance after each round of a campaign for one wish."""
    campaign = new_campaign(folder, pool.host, max_defects=2, engine="gpaw", relax="chgnet", seed=seed)
    found = []
    for number, n in enumerate(rounds):
        round_of(campaign, pool, n, [target] if number else (), number == 0)
        done = [row for row in campaign.store.rows() if row.state == DONE]
        found.append((len(done), best_distance_ev(target, done)))
        if number + 1 < len(rounds):
            learn_campaign(campaign)
    return found


def compared(pool: Pool, target: Target, path: Sequence[tuple[int, float]]) -> list[Mapping[str, float]]:
    """A path beside chance and the best that there is."""
    distances = pool.distances_ev(target)
    best = float(distances[0])
    return [
        {"n": n, "distance": d, "chance": expected_least(distances, n), "best": best, "found": float(d <= best + 1e-9)}
        for n, d in path
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--wishes", type=int, default=20)
    parser.add_argument("--rounds", type=int, nargs="+", default=[12, 16, 16, 13])
    parser.add_argument("--wish-rounds", type=int, nargs="+", default=[8, 4, 4, 4])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pool = Pool(options.pool)
    options.output.mkdir()
    result: dict[str, Any] = {
        "structures": len(pool.truth),
        "cpu_hours": sum(pool.cpu_s.values()) / 3600,
        "cpu_s_of_a_structure": float(np.median([pool.cpu_s[place.name] for place in pool.places.values()])),
        "curve": error_curve(pool, options.output / "explored", options.rounds, options.seed),
        "wishes": [],
    }
    for number, target in enumerate(wishes(pool, options.wishes, options.seed)):
        path = pursue(pool, options.output / f"wish-{number:02d}", target, options.wish_rounds, options.seed)
        result["wishes"].append({"wish": target.text, "path": compared(pool, target, path)})
        print(json.dumps(result["wishes"][-1]), flush=True)
        (options.output / "replay.json").write_text(json.dumps(result, indent=1) + "\n")
    for place in range(len(options.wish_rounds)):
        entries = [item["path"][place] for item in result["wishes"]]
        means = {
            key: float(np.mean([entry[key] for entry in entries]))
            for key in ("n", "distance", "chance", "best", "found")
        }
        print(json.dumps(means))


if __name__ == "__main__":
    main()
