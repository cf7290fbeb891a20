"""Searches of crowded cells, judged by a surrogate that was fitted on other rows.

    python benchmarks/crowded_search.py --data DIR
    python benchmarks/crowded_search.py --data DIR --sets MoS2_500 --targets 5 --seconds 1 10

The rows that are learnt from are divided into two halves by symmetry class, and a surrogate is fitted on each. HOMO
and LUMO of structures of the test part, which neither has seen, are the targets. Each half searches, the other judges,
and both ways count. ``best of`` random structures and ``search`` with a budget in CPU seconds a target hand over the
structure that comes first as a design ranks them (by the expected distance), and the one of least predicted distance.
For both: the median distance in meV by the surrogate that searched and by the judge; the share within 5 meV by the
former; the optimism, the mean of the judge's less its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.core import Configuration, get_host
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS
from defectgen.design.candidates import Target
from defectgen.design.evaluate import held_out_targets
from defectgen.design.limits import Limits, Space
from defectgen.design.proposers import Ask, Budget
from defectgen.design.ranking import RankBy, Shortlist, score_batch
from defectgen.design.search import SearchProposer
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.cross_validation import HALVES, half_of
from defectgen.score.surrogate.training import fit_surrogate
from defectgen.score.trees import TreeSettings

CROWDED = tuple(info.name for info in SETS if info.density == "high")

KEPT = 256
"""Structures of which the first is judged, as in a design."""

NEAR_MEV = 5.0

RANKINGS: tuple[RankBy, ...] = ("expected", "distance")


def fitted(frame: pl.DataFrame, name: str, seed: int) -> tuple[dict[str, Surrogate], pl.DataFrame]:
    """A surrogate of the crowded part of a set for each half, and the set's rows."""
    split = split_by_class(frame, seed=42)
    rows = split.filter(set=name)
    host, supercell = rows.select("host", "supercell").row(0)
    # low-density rows of the same host help crowded models; low-density models are not wanted, so one tree will do
    beside = split.filter(host=host, supercell=supercell)
    found = {}
    for half in HALVES:
        whole = fit_surrogate(half_of(beside, half, seed), seed, low_trees=TreeSettings(1, 1, 0.1))
        found[half] = Surrogate(tuple(part for part in whole.parts if part.density == "high"), {}, whole.seen)
    return found, rows


def firsts(items: Sequence[Configuration], targets: Sequence[Target], scorer: Surrogate) -> list[list[Configuration]]:
    """For each target the one that a design puts first, and the one of least predicted distance."""
    scored, found = score_batch(items, scorer), []
    for target in targets:
        shortlists = [Shortlist(target, KEPT, by) for by in RANKINGS]
        for shortlist in shortlists:
            shortlist.offer(scored)
        found.append([shortlist.candidates(1, ())[0].configuration for shortlist in shortlists])
    return found


def distances_mev(items: Sequence[Configuration], targets: Sequence[Target], scorer: Surrogate) -> np.ndarray:
    """Of each structure to its target, by the predicted values."""
    scores = scorer.score(items)
    rows = zip(targets, scores.iter_rows(named=True), strict=True)
    return np.array([1e3 * target.distance_ev(row) for target, row in rows])


def report(name: str, title: str, figures: Sequence[tuple[np.ndarray, np.ndarray]], cpu_s: float, n: float) -> None:
    """A line: for the first-ranked and for the nearest the figures of the module's text."""
    text = ""
    for own, judged in figures:
        text += f"  {np.median(own):>7.2f} {np.mean(own < NEAR_MEV):>5.0%} {np.median(judged):>7.1f} "
        text += f"{np.mean(judged - own):>7.1f}"
    print(f"{name:<14} {title:<14}{text}  {cpu_s:>7.2f} {n:>8.0f}", flush=True)


def compare(frame: pl.DataFrame, name: str, options: argparse.Namespace) -> None:
    """The lines of one set."""
    started = time.process_time()
    halves, rows = fitted(frame, name, options.seed)
    print(f"{name}: fitted in {time.process_time() - started:.0f} s", flush=True)
    targets = held_out_targets(rows, "test", options.targets, options.seed)
    sizes = rows.filter(pl.col("split") == "train")["n_defects"].to_list()
    host = get_host(rows["host"][0], rows["supercell"][0])
    space = Space.of(host, Limits(min(sizes), max(sizes)), max(sizes))
    ways = [(halves["a"], halves["b"]), (halves["b"], halves["a"])]

    def judged(title: str, found: list[list[list[Configuration]]], cpu_s: float, n: float) -> None:
        figures = []
        for kind in range(2):
            pairs = [
                [distances_mev([pair[kind] for pair in way], targets, scorer) for scorer in scorers]
                for way, scorers in zip(found, ways, strict=True)
            ]
            figures.append((np.concatenate([own for own, _ in pairs]), np.concatenate([other for _, other in pairs])))
        report(name, title, figures, cpu_s / (2 * len(targets)), n)

    for number in options.random:
        rng = np.random.default_rng(options.seed)
        pool = [space.draw(rng).canonical() for _ in range(number)]
        started = time.process_time()
        found = [firsts(pool, targets, own) for own, _ in ways]
        judged(f"{number} random", found, time.process_time() - started, number)
    for seconds in options.seconds:
        started, found, evaluated = time.process_time(), [], 0
        for own, _ in ways:
            found.append([])
            for k, target in enumerate(targets):
                proposer = SearchProposer(space, own, Budget(seconds=seconds), clock=time.process_time)
                result = proposer.find(Ask(dict(target.values), KEPT, options.seed + k))
                evaluated += result.evaluated
                found[-1] += firsts(result.configurations, [target], own)
        judged(f"search {seconds:g} s", found, time.process_time() - started, evaluated / (2 * len(targets)))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of 2DMD")
    parser.add_argument("--sets", nargs="+", default=CROWDED, choices=CROWDED, help="which sets")
    parser.add_argument("--targets", type=int, default=20, help="test structures of each set")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 10.0], help="CPU time for each target")
    parser.add_argument("--random", type=int, nargs="+", default=[1000], help="sizes of the random pools")
    parser.add_argument("--seed", type=int, default=0, help="of halves, targets, pools and searches")
    options = parser.parse_args()
    frame = read_dataset(options.data)
    titles = f"{'own':>7} {'<5':>5} {'judge':>7} {'optim.':>7}"
    print(f"{'':<29}  {'first-ranked':>29}  {'of least distance':>29}")
    print(f"{'':<29}  {titles}  {titles}  {'CPU s':>7} {'scored':>8}")
    for name in options.sets:
        compare(frame, name, options)


if __name__ == "__main__":
    main()
