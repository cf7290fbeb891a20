"""How fast crowded cells are scored: in batches, one by one, and as neighbours of one cell.

    python benchmarks/crowded_speed.py
    python benchmarks/crowded_speed.py --hosts MoS2 --n 4096

For each host structures a second of wall time and of CPU time (all threads together); ``OMP_NUM_THREADS`` says how
many threads there are. ``batch`` and ``one by one`` give all properties with intervals by the processes, as searches
take them, ``full`` by processes and networks, as what is handed over. ``levels``, ``energy`` and ``all`` are
moves a second of one state with half the largest number of defects: the means of HOMO, LUMO and gap, of the formation
energy, of all. The ratio is that of ``levels`` to ``one by one``. The largest difference between both ways is shown
beside it, in eV or mu_B.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from defectgen.core import Configuration, host_names
from defectgen.design.landscape import edits_of
from defectgen.design.limits import Limits, Space
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.host_models import HostModels
from defectgen.score.surrogate.incremental import Moves, State
from defectgen.score.surrogate.mean_values import MeanModel
from defectgen.score.threads import n_workers, single_blas

ALONE = 64
"""Structures that are scored one by one."""

BLOCKS, WIDTH = 30, 96
"""Blocks of neighbours, and moves in each; after each block one is accepted."""

LEVELS = ("homo_ev", "lumo_ev", "band_gap_ev")
ENERGY = ("formation_energy_ev",)


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Things a second of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    n = work()
    return n / (time.perf_counter() - wall), n / (time.process_time() - cpu)


def walk(part: HostModels, columns: tuple[str, ...], seed: int) -> tuple[tuple[float, float], float]:
    """Moves a second, and the largest difference from the full score in the last block."""
    host, rng = part.core_host, np.random.default_rng(seed)
    number = part.defects_range[1] // 2
    edits = edits_of(Space.of(host, Limits(), 2 * number), None)
    start = Space.of(host, Limits(number, number), number).draw(rng)
    state = State(MeanModel(part, columns), start)
    state.values()
    last = Moves.of([])

    def step() -> int:
        nonlocal last
        done = 0
        with single_blas():
            for _ in range(BLOCKS):
                if len(last):
                    state.accept(last, int(rng.integers(len(last))))
                last = edits.block(state.kind_of, rng, WIDTH)
                state.propose(last)
                done += len(last)
        return done

    speed = timed(step)
    found = state.propose(last)
    after = [edits.configuration(last.applied(state.kind_of, row)) for row in range(len(last))]
    full, _, _ = part.score(after, [""] * len(after))
    return speed, max(float(np.abs(found[column] - full[column]).max()) for column in columns)


def speeds(surrogate: Surrogate, part: HostModels, n: int, seed: int) -> None:
    """One line of the table."""
    space, rng = (
        Space.of(part.core_host, Limits(part.defects_range[0]), part.defects_range[1]),
        np.random.default_rng(seed),
    )
    items: list[Configuration] = [space.draw(rng) for _ in range(n)]
    part.score(items[:8], [""] * 8)

    def batch() -> int:
        part.score(items, [""] * n)
        return n

    def alone() -> int:
        for item in items[:ALONE]:
            part.score([item], [""])
        return ALONE

    def full() -> int:
        surrogate.score(items)
        return n

    surrogate.score(items[:8])
    together, single, both = timed(batch), timed(alone), timed(full)
    everything = tuple(part.models.models)
    walks = [walk(part, columns, seed) for columns in (LEVELS, ENERGY, everything)]
    rates = [f"{wall:>7.0f} {cpu:>7.0f}" for wall, cpu in (together, both, single, *(speed for speed, _ in walks))]
    difference = max(away for _, away in walks)
    print(f"{part.host:<6}", *rates, f"{walks[0][0][1] / single[1]:>7.1f}", f"{difference:>9.0e}", sep="  ")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", nargs="+", default=host_names(), help="hosts of crowded sets")
    parser.add_argument("--n", type=int, default=2048, help="structures in a batch")
    parser.add_argument("--seed", type=int, default=0, help="of structures and moves")
    options = parser.parse_args()
    print(f"{n_workers()} threads; structures or moves a second of wall and CPU time")
    titles = ("batch", "full", "one by one", "levels", "energy", "all")
    print(f"{'host':<6}", *(f"{title:>15}" for title in titles), f"{'ratio':>7}", f"{'apart':>9}", sep="  ")
    surrogate = Surrogate.load()
    for part in surrogate.parts:
        if part.density == "high" and part.host in options.hosts:
            speeds(surrogate, part, options.n, options.seed)


if __name__ == "__main__":
    main()
