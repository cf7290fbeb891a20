"""The surrogate against published models, and its speed.

    python benchmarks/surrogate.py protocol --data DIR
    python benchmarks/surrogate.py speed

``protocol`` repeats the protocol of Kazeev et al., npj Comput Mater 9, 113 (2023): a random 60/20/20 split,
stratified by set. The surrogate is fitted twice: on the 60 % alone (the 20 % validation rows only choose the
kind of the low-density models and their intervals), and on both after that. What is random are the trees and
which low-density rows the high-density models see; ``--runs 12`` does all of it with twelve seeds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from defectgen.core import Configuration
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.evaluation import PER_SITE, evaluate
from defectgen.score.surrogate.training import fit_surrogate

SPARSE_MEGNET_MEV = {
    "MoS2": (2.6, 5.0), "WSe2": (4.8, 6.8), "MoS2_500": (18.0, 45.0), "WSe2_500": (24.0, 43.0),
    "hBN_spin_500": (95.0, 208.0), "BP_spin_500": (70.0, 183.0), "GaSe_spin_500": (41.0, 196.0),
    "InSe_spin_500": (36.0, 154.0),
}  # fmt: skip
"""Mean absolute errors of formation energy per site and gap, values of the authors' repository, August 2023."""

PROPERTIES = (PER_SITE, "band_gap_ev")

SIZES = (1, 2, 3)
"""Numbers of defects at low density."""


def protocol(data: Path, fractions: tuple[float, float, float], seed: int, runs: int) -> None:
    """Errors on the test part, beside the published ones: mean and standard deviation over the runs."""
    frame = split_by_class(read_dataset(data), fractions, seed)
    test = frame.filter(split="test")
    errors = np.zeros((2, runs, len(PROPERTIES), len(SPARSE_MEGNET_MEV)))
    for run in range(runs):
        for refit in (False, True):
            started = time.monotonic()
            found = evaluate(fit_surrogate(frame, seed + run, refit=refit), test)
            errors[int(refit), run] = [[found[name][c]["mae_mev"] for name in SPARSE_MEGNET_MEV] for c in PROPERTIES]
            print(
                f"fitted {'on both parts' if refit else 'on the training part'} in {time.monotonic() - started:.0f} s"
            )
    print(f"\nmean absolute error on the test part, meV; split {fractions}, seed {seed}, {runs} runs")
    for k, column in enumerate(PROPERTIES):
        print(f"\n{column:<30} {'training':>14} {'both':>14} {'sparse MEGNet':>14}")
        for j, name in enumerate(SPARSE_MEGNET_MEV):
            print(f"{name:<30} {_spread(errors[0, :, k, j])} {_spread(errors[1, :, k, j])} ", end="")
            print(f"{SPARSE_MEGNET_MEV[name][k]:>13.1f}")
        means = errors.mean(axis=3)
        published = np.mean([values[k] for values in SPARSE_MEGNET_MEV.values()])
        print(f"{'mean of the sets':<30} {_spread(means[0, :, k])} {_spread(means[1, :, k])} {published:>13.1f}")


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():>14.2f}" if len(values) == 1 else f"{values.mean():>7.2f} +- {values.std(ddof=1):.2f}"


def speed(n: int, seed: int) -> None:
    """Structures scored per second of CPU time (set OMP_NUM_THREADS=1), loading and the first use apart."""
    started = time.monotonic()
    surrogate = Surrogate.load()
    print(f"loaded in {time.monotonic() - started:.2f} s")
    rng = np.random.default_rng(seed)
    for name in surrogate.hosts:
        host = next(part.core_host for part in surrogate.parts if part.host == name)
        for density, sizes, number in (("low", SIZES, n), ("high", range(4, 13), n // 10)):
            if density == "low" and not any(part.host == name and part.density == "low" for part in surrogate.parts):
                continue
            items = []
            while len(items) < number:
                sites = rng.choice(host.n_sites, int(rng.choice(list(sizes))), replace=False)
                allowed = [host.allowed[host.site_cell(int(site))[0]] for site in sites]
                edits = [(int(site), str(rng.choice(species))) for site, species in zip(sites, allowed, strict=True)]
                item = Configuration.of(host, edits)
                if surrogate.part_for(item).density == density:
                    items.append(item)
            started = time.process_time()
            surrogate.score(items[:1])
            first = time.process_time() - started
            started = time.process_time()
            surrogate.score(items)
            rate = len(items) / (time.process_time() - started)
            print(
                f"{name:<5} {density:<4} {len(items):>6} structures, {rate:>8.0f} per second; first one {first:.1f} s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("protocol")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--seed", type=int, default=42)
    one.add_argument("--runs", type=int, default=1)
    other = commands.add_parser("speed")
    other.add_argument("-n", type=int, default=5000)
    other.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.command == "protocol":
        protocol(arguments.data, (0.6, 0.2, 0.2), arguments.seed, arguments.runs)
    else:
        speed(arguments.n, arguments.seed)


if __name__ == "__main__":
    main()
