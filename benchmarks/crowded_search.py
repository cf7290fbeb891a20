"""Searches of crowded cells, judged by a surrogate that was fitted on other rows.

    python benchmarks/crowded_search.py --data DIR
    python benchmarks/crowded_search.py --data DIR --sets MoS2_500 --targets 5 --seconds 1 10
    python benchmarks/crowded_search.py --data DIR --halves A B

The rows that are learnt from are divided into two halves by symmetry class, and a surrogate is fitted on each. HOMO
and LUMO of structures of the test part, which neither has seen, are the targets. Each half searches, the other judges,
and both ways count. Random structures (so many, or for as long as a search is given, drawing and scoring counted) and
``search`` with a budget in CPU seconds a target hand over the structure that comes first as a design ranks them (by the
expected distance), and the one of least predicted distance. For both: the median distance in meV by the surrogate that
searched and by the judge; the share within 5 meV by the former; the optimism, the mean of the judge's less its own.
Below each search: for how many targets its first is nearer by the judge than that of the random structures, with the
two-sided p of the sign test. ``--proposals N`` adds ``model``: so many proposals of the language model for
each target, ranked like the others; ``--model-seconds`` as many as it makes in CPU seconds a target. ``--alternate``
has the halves take turns: each target is searched by one of them and judged by the other. ``--halves A B`` takes two
trained surrogates (`defectgen surrogate train --half a --networks 2 -o A`, likewise b) instead of fitting them;
``--processes`` has them search and rank without their networks, while distances count with them in any case.
``--write FILE`` adds the distances of each target to a file, ``--against FILE`` compares with what is in one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binomtest

from defectgen.core import Configuration, canonicalize
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS
from defectgen.design.candidates import Target
from defectgen.design.engine import Drawing, Models, load_engine
from defectgen.design.evaluate import held_out_targets
from defectgen.design.limits import Limits, Space
from defectgen.design.proposers import Ask, Budget
from defectgen.design.ranking import RankBy, Shortlist, score_batch
from defectgen.design.search import SearchProposer
from defectgen.io.host_tables import host_of
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.cross_validation import HALVES, half_of
from defectgen.score.surrogate.training import fit_surrogate
from defectgen.score.trees import TreeSettings

CROWDED = tuple(info.name for info in SETS if info.density == "high")

KEPT = 256
"""Structures that a search hands over."""

NEAR_MEV = 5.0

AT_ONCE = 8
"""Proposals of the model for a target before the time is looked at."""

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


def given(folders: Sequence[Path], frame: pl.DataFrame) -> tuple[dict[str, Surrogate], pl.DataFrame]:
    """Two trained surrogates, and the structures that neither has seen as test part of their split."""
    found = dict(zip(HALVES, map(Surrogate.load, folders), strict=True))
    split = split_by_class(frame, seed=42)
    test = split.filter(split="test")
    for folder, surrogate in zip(folders, found.values(), strict=True):
        if any(surrogate.has_seen(*row) for row in test.select("host", "configuration").iter_rows()):
            raise SystemExit(f"{folder} has seen structures of the test part.")
    if found["a"].seen & found["b"].seen:
        raise SystemExit("both surrogates have seen the same structures: train them with --half a and --half b.")
    return found, split


class Firsts:
    """For each target the structure that a design puts first, and the one of least predicted distance."""

    def __init__(self, targets: Sequence[Target], scorer: Surrogate, seed: int) -> None:
        """None so far."""
        self.shortlists = [[Shortlist(target, 1, by) for by in RANKINGS] for target in targets]
        self.scorer, self.cpu_s, self.scored, self.rng = scorer, 0.0, 0, np.random.default_rng(seed)

    def offer(self, items: Sequence[Configuration]) -> None:
        """Take structures into account for all targets; the time to score them counts."""
        started = time.process_time()
        batch = score_batch(items, self.scorer)
        self.cpu_s, self.scored = self.cpu_s + time.process_time() - started, self.scored + len(items)
        for pair in self.shortlists:
            for shortlist in pair:
                shortlist.offer(batch)

    def add(self, items: Sequence[Configuration], target: int) -> None:
        """Take structures into account for one target."""
        self.scored += len(items)
        for shortlist in self.shortlists[target]:
            shortlist.offer(score_batch(items, self.scorer))

    def draw(self, space: Space, number: int, seconds: float) -> None:
        """Go on until there are so many random structures, or so many CPU seconds are spent on drawing and scoring."""
        while self.scored < number and self.cpu_s < seconds:
            started = time.process_time()
            items = canonicalize([space.draw(self.rng) for _ in range(min(250, number - self.scored))])
            self.cpu_s += time.process_time() - started
            self.offer(items)

    def found(self) -> list[list[Configuration]]:
        """Of each target the two."""
        return [[shortlist.candidates(1, ())[0].configuration for shortlist in pair] for pair in self.shortlists]


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
    print(f"{name:<14} {title:<21}{text}  {cpu_s:>7.2f} {n:>8.0f}", flush=True)


def compare(frame: pl.DataFrame, name: str, options: argparse.Namespace) -> None:
    """The lines of one set."""
    started = time.process_time()
    if options.halves:
        halves, split = given(options.halves, frame)
        rows = split.filter(set=name)
    else:
        halves, rows = fitted(frame, name, options.seed)
    print(f"{name}: {time.process_time() - started:.0f} s for the surrogates", flush=True)
    targets = dict(enumerate(held_out_targets(rows, "test", options.targets, options.seed)))
    sizes = rows.filter(pl.col("split") == "train")["n_defects"].to_list()
    host = host_of(rows)
    space = Space.of(host, Limits(min(sizes), max(sizes)), max(sizes))
    turns = [dict(list(targets.items())[k::2]) for k in range(2)] if options.alternate else [targets, targets]
    ways = [(halves["a"], halves["b"], turns[0]), (halves["b"], halves["a"], turns[1])]
    shares = sum(map(len, turns))

    ids = [target.id for _, _, some in ways for target in some.values()]

    def firsts_of_ways() -> list[Firsts]:
        pairs = [(own.quick if options.processes else own, list(some.values())) for own, _, some in ways]
        return [Firsts(some, own, options.seed) for own, some in pairs]

    def judged(title: str, both: Sequence[Firsts], cpu_s: float, n: float) -> dict[str, np.ndarray]:
        found, figures = [firsts.found() for firsts in both], []
        for kind in range(2):
            pairs = [
                [distances_mev([pair[kind] for pair in way], list(some.values()), scorer) for scorer in (own, judge)]
                for way, (own, judge, some) in zip(found, ways, strict=True)
            ]
            figures.append((np.concatenate([own for own, _ in pairs]), np.concatenate([other for _, other in pairs])))
        report(name, title, figures, cpu_s, n)
        if options.write:
            row = {"set": name, "title": title, "targets": ids, "cpu_s": cpu_s, "scored": n}
            row |= {kind: [x.tolist() for x in pair] for kind, pair in zip(("first", "nearest"), figures, strict=True)}
            with options.write.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return {title: figures[0][1]}

    def random(title: str, both: Sequence[Firsts], number: int, seconds: float) -> dict[str, np.ndarray]:
        for firsts in both:
            firsts.draw(space, number, seconds)
        means = [float(np.mean([getattr(x, field) for x in both])) for field in ("cpu_s", "scored")]
        return judged(title, both, *means)

    def proposed() -> Iterator[dict[str, np.ndarray]]:
        """After each number of proposals, and each time a target, what ranks first of those so far."""
        models, limits = Models(adapter=options.model), Limits(min(sizes), max(sizes))
        engine = load_engine(host, models, limits, Drawing(temperature=options.temperature))

        def some(k: int, target: Target, firsts: Sequence[tuple[Firsts, int]], n: int, seed: int) -> float:
            began = time.process_time()
            made = engine.proposer.propose(host, [Ask(dict(target.values), n, seed + k)])
            items = canonicalize([item.configuration for item in made if item.configuration is not None])
            for one, place in firsts:
                one.add(items, place)
            return time.process_time() - began

        def of_target(both: Sequence[Firsts], k: int) -> list[tuple[Firsts, int]]:
            return [(one, list(way).index(k)) for one, way in zip(both, turns, strict=True) if k in way]

        def scored(both: Sequence[Firsts]) -> float:
            return sum(one.scored for one in both) / shares

        for number in options.proposals:
            both = firsts_of_ways()
            cpu_s = [some(k, target, of_target(both, k), number, options.seed) for k, target in targets.items()]
            yield judged(f"model, {number}", both, float(np.mean(cpu_s)), scored(both))
        both, spent, round_ = firsts_of_ways(), dict.fromkeys(targets, 0.0), 0
        for seconds in sorted(options.model_seconds):
            while min(spent.values()) < seconds:
                for k, target in targets.items():
                    if spent[k] < seconds:
                        seed = options.seed + 1000 * round_
                        spent[k] += some(k, target, of_target(both, k), AT_ONCE, seed)
                round_ += 1
            yield judged(f"model {seconds:g} s", both, float(np.mean(list(spent.values()))), scored(both))

    def compared(title: str, values: np.ndarray, others: dict[str, np.ndarray]) -> None:
        for other, baseline in others.items():
            nearer, differ = int((values < baseline).sum()), int((values != baseline).sum())
            p = binomtest(nearer, differ).pvalue if differ else 1.0
            print(f"{name:<14}   {title} nearer than {other}: {nearer} of {differ}, p = {p:.2g}", flush=True)

    baselines = earlier(options.against, name, ids)
    for n in options.random:
        baselines |= random(f"{n} random", firsts_of_ways(), n, np.inf)
    drawn = firsts_of_ways()
    for seconds in sorted({*options.seconds, *options.random_seconds}):
        baselines |= random(f"random {seconds:g} s", drawn, 10**9, seconds)
    for asked in proposed() if options.proposals or options.model_seconds else ():
        for title, values in asked.items():
            compared(title, values, baselines)
        baselines |= asked
    for seconds in options.seconds:
        started, evaluated = time.process_time(), 0
        both = firsts_of_ways()
        for firsts, (_, _, some) in zip(both, ways, strict=True):
            for place, (k, target) in enumerate(some.items()):
                proposer = SearchProposer(space, firsts.scorer, Budget(seconds=seconds), clock=time.process_time)
                result = proposer.find(Ask(dict(target.values), KEPT, options.seed + k))
                evaluated += result.evaluated
                firsts.add(result.configurations, place)
        title, spent = f"search {seconds:g} s", (time.process_time() - started) / shares
        compared(title, judged(title, both, spent, evaluated / shares)[title], baselines)


def earlier(files: Sequence[Path], name: str, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """The judge's distances of what ranked first in other runs, for the same targets of a set, by title."""
    rows = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        f"{row['title']} before": np.array(row["first"][1])
        for row in rows
        if row["set"] == name and row["targets"] == list(ids)
    }


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of 2DMD")
    parser.add_argument("--sets", nargs="+", default=CROWDED, choices=CROWDED, help="which sets")
    parser.add_argument("--targets", type=int, default=20, help="test structures of each set")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 10.0], help="CPU time for each target")
    parser.add_argument("--random-seconds", type=float, nargs="*", default=[], help="the same of random ones, besides")
    parser.add_argument("--model-seconds", type=float, nargs="*", default=[], help="the same of the model")
    parser.add_argument("--alternate", action="store_true", help="each target searched by one half alone, in turns")
    parser.add_argument("--processes", action="store_true", help="search and rank without networks")
    parser.add_argument("--write", type=Path, help="file for the distances of each target")
    parser.add_argument("--against", type=Path, nargs="*", default=(), help="files of other runs to compare with")
    parser.add_argument("--random", type=int, nargs="+", default=[1000], help="sizes of the random pools")
    parser.add_argument("--halves", type=Path, nargs=2, help="trained surrogates of both halves [fit them]")
    parser.add_argument("--proposals", type=int, nargs="*", default=[], help="numbers of proposals of the model")
    parser.add_argument("--model", type=Path, help="adapter; else the shipped one")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the model")
    parser.add_argument("--seed", type=int, default=0, help="of halves, targets, pools and searches")
    options = parser.parse_args()
    frame = read_dataset(options.data)
    titles = f"{'own':>7} {'<5':>5} {'judge':>7} {'optim.':>7}"
    print(f"{'':<36}  {'first-ranked':>29}  {'of least distance':>29}")
    print(f"{'':<36}  {titles}  {titles}  {'CPU s':>7} {'scored':>8}")
    for name in options.sets:
        compare(frame, name, options)


if __name__ == "__main__":
    main()
