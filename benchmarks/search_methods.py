"""Structures that ways of searching crowded cells need to come within 10 meV of a target.

    pip install deap
    python benchmarks/search_methods.py --data DIR
    python benchmarks/search_methods.py --data DIR --sets MoS2_500 --targets 5 --budget 2000

HOMO and LUMO of structures of the test part are the targets; the processes of the shipped surrogate predict, for every
way alike. Each way looks at structures until one is predicted within 10 meV or the budget is spent:

- random: draws.
- genetic: DEAP's mu + lambda evolution, 50 + 50, tournaments of three; half of the children are crossings of the cell,
  half edits.
- delayed rewards: Monte Carlo tree search as of Banik et al. 2021 (doi 10.1021/acsami.1c07545): a node holds the first
  defects of a cell, random ones complete it, and what the whole cell is worth goes back to its nodes.
- tree: of edits, below the nearest of 16 random cells, which count.
- search: the proposer of `design`, with its usual budget, of which the first structures are counted.

Given are the share of the targets that were reached, the median number of structures (those not reached count as more
than the budget), its quartiles, and CPU seconds a target.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl

from defectgen.core import canonicalize
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS
from defectgen.design import search
from defectgen.design.edit_moves import Edits
from defectgen.design.engine import load_surrogate
from defectgen.design.evaluate import held_out_targets
from defectgen.design.landscape import Account, Archive, Landscape, crowded_model, edits_of
from defectgen.design.limits import Limits, Space
from defectgen.design.proposers import Ask, Budget
from defectgen.design.tree_search import SCALE_EV, Prior, tree_search
from defectgen.io.host_tables import host_of
from defectgen.models import shipped
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.incremental import State
from defectgen.score.threads import single_blas

CROWDED = tuple(info.name for info in SETS if info.density == "high")

COLUMNS = ("homo_ev", "lumo_ev")

NEAR_EV = 0.010

BATCH, POPULATION, STARTS = 50, 50, 16


class EndedError(Exception):
    """A structure is near enough, or the budget is spent."""


@dataclass
class Watch:
    """Counts what is looked at until a structure is near."""

    ask: Ask
    budget: int
    seen: int = 0
    reached: int | None = None

    def distances(self, values: dict[str, Any]) -> np.ndarray:
        """Of structures to the target, in eV.

        Raises:
            EndedError: one of them is near, or there were too many.
        """
        found = np.asarray(self.ask.objective.distances_ev({c: np.asarray(values[c], dtype=float) for c in COLUMNS}))
        near = np.flatnonzero(found <= NEAR_EV)
        if len(near) and self.seen + int(near[0]) < self.budget:
            self.reached = self.seen + int(near[0]) + 1
            raise EndedError
        self.seen += len(found)
        if self.seen >= self.budget:
            raise EndedError
        return found


@dataclass(frozen=True)
class Task:
    """One target in one host."""

    watch: Watch
    edits: Edits
    scorer: Surrogate
    space: Space
    seed: int

    def values(self, decorations: list[np.ndarray]) -> np.ndarray:
        """Distances of decorations (kind on each site) in eV."""
        scores = self.scorer.score(canonicalize([self.edits.configuration(kinds) for kinds in decorations]))
        return self.watch.distances({c: scores[c].to_numpy() for c in COLUMNS})

    def random(self) -> None:
        """Draws."""
        rng = np.random.default_rng(self.seed)
        while True:
            self.values([self.edits.draw(rng) for _ in range(BATCH)])

    def genetic(self) -> None:
        """By DEAP."""
        from deap import algorithms, base, creator, tools

        if not hasattr(creator, "Decoration"):
            creator.create("Nearness", base.Fitness, weights=(-1.0,))
            creator.create("Decoration", list, fitness=creator.Nearness)
        import random

        random.seed(self.seed)
        rng, box = np.random.default_rng(self.seed), base.Toolbox()

        def crossed(one: Any, other: Any) -> tuple[Any, Any]:
            image = self.edits.configuration(np.array(other)).random_image(rng)
            kinds = self.edits.kinds_of(image)
            for parent, partner in ((one, kinds), (other, np.array(one))):
                child = None if partner is None else self.edits.crossed(np.array(parent), partner, rng)
                if child is not None:
                    parent[:] = child.tolist()
            return one, other

        def edited(one: Any) -> tuple[Any]:
            moves = self.edits.block(np.array(one), rng, 1)
            if len(moves):
                one[:] = moves.applied(np.array(one), 0).tolist()
            return (one,)

        box.register("individual", lambda: creator.Decoration(self.edits.draw(rng).tolist()))
        box.register("mate", crossed)
        box.register("mutate", edited)
        box.register("select", tools.selTournament, tournsize=3)
        box.register("evaluate", lambda item: item)
        box.register("map", lambda _, items: [(d,) for d in self.values([np.array(item) for item in items])])
        population = [box.individual() for _ in range(POPULATION)]
        algorithms.eaMuPlusLambda(
            population, box, POPULATION, POPULATION, cxpb=0.5, mutpb=0.5, ngen=self.watch.budget, verbose=False
        )

    def delayed(self) -> None:
        """By playouts below partly decorated cells."""
        rng, root = np.random.default_rng(self.seed), Partial(())
        while True:
            paths, wholes = [], []
            for _ in range(BATCH // 5):
                path = root.path(self.edits, rng)
                paths.append(path)
                wholes.append(completed(path[-1].defects, self.edits, rng))
            for path, distance in zip(paths, self.values(wholes), strict=True):
                for node in path:
                    node.total += SCALE_EV / (SCALE_EV + distance)

    def tree(self, drawn: Sequence[np.ndarray] = (), prior: Prior | None = None) -> None:
        """Edits below the nearest of some cells, random ones where none are given; a prior says which are likely."""
        rng = np.random.default_rng(self.seed)
        starts = list(drawn) or [self.edits.draw(rng) for _ in range(STARTS)]
        found = self.values(starts)
        model = crowded_model(self.scorer, self.edits.host, COLUMNS)
        assert model is not None
        landscape = Landscape(self.watch.ask.objective, self.edits, self.scorer, model[0])
        account = Account(Budget(evaluations=10 * self.watch.budget))
        with self.watched():
            tree_search(landscape, starts[int(np.nanargmin(found))], 1.0, account, Archive(2048), rng, prior)

    def search(self) -> None:
        """The proposer of `design`."""
        with self.watched():
            search.SearchProposer(self.space, self.scorer).find(self.watch.ask)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Shows the watch all that trees and searches score."""
        propose, score_batch = State.propose, search.score_batch

        def proposed(state: State, moves: Any) -> Any:
            values = propose(state, moves)
            self.watch.distances(values)
            return values

        def scored(*args: Any, **kwargs: Any) -> Any:
            batch = score_batch(*args, **kwargs)
            self.watch.distances({c: batch.values[c] for c in COLUMNS})
            return batch

        with mock.patch.object(State, "propose", proposed), mock.patch.object(search, "score_batch", scored):
            yield


@dataclass(eq=False)
class Partial:
    """The first defects of cells, as (site, kind)."""

    defects: tuple[tuple[int, int], ...]
    visits: int = 0
    total: float = 0.0
    children: dict[tuple[int, int], Partial] = field(default_factory=dict)

    def path(self, edits: Edits, rng: np.random.Generator) -> list[Partial]:
        """From here to a new node, by the upper confidence bound; a node has at most 2 sqrt(visits) children."""
        path = [self]
        while True:
            node = path[-1]
            node.visits += 1
            if len(node.defects) >= edits.most:
                return path
            if len(node.children) <= 2 * math.sqrt(node.visits):
                grown = addable(node.defects, edits, rng)
                if grown is None:
                    return path
                child = node.children.setdefault(grown, Partial((*node.defects, grown)))
                child.visits += 1
                return [*path, child]
            path.append(
                max(
                    node.children.values(),
                    key=lambda one: one.total / one.visits + 0.5 * math.sqrt(math.log(node.visits) / one.visits),
                )
            )


def addable(defects: tuple[tuple[int, int], ...], edits: Edits, rng: np.random.Generator) -> tuple[int, int] | None:
    """One more defect that the limits leave, at random."""
    sites, kinds = edits.options
    taken = np.array([site for site, _ in defects], dtype=np.int64)
    counts = np.bincount([kind for _, kind in defects], minlength=len(edits.highs)) if defects else 0 * edits.highs
    free = np.flatnonzero(~np.isin(sites, taken) & (counts < edits.highs)[kinds])
    if not len(free):
        return None
    chosen = int(rng.choice(free))
    return int(sites[chosen]), int(kinds[chosen])


def completed(defects: tuple[tuple[int, int], ...], edits: Edits, rng: np.random.Generator) -> np.ndarray:
    """A whole decoration with these defects and random others."""
    for _ in range(200):
        wanted = int(rng.integers(max(edits.least, len(defects)), edits.most + 1))
        whole = defects
        while len(whole) < wanted and (more := addable(whole, edits, rng)) is not None:
            whole = (*whole, more)
        kinds = np.full(edits.host.n_sites, -1, dtype=np.int64)
        for site, kind in whole:
            kinds[site] = kind
        if edits.within(kinds):
            return kinds
    return edits.draw(rng)


WAYS: dict[str, Callable[[Task], None]] = {
    "random": Task.random,
    "genetic": Task.genetic,
    "delayed rewards": Task.delayed,
    "tree": Task.tree,
    "search": Task.search,
}


def space_of(rows: pl.DataFrame) -> tuple[Space, Surrogate, Edits]:
    """What a set of labelled rows leaves to search, and the processes of the shipped surrogate."""
    host, sizes = host_of(rows), rows.filter(split="train")["n_defects"].to_list()
    space, scorer = (
        Space.of(host, Limits(min(sizes), max(sizes)), max(sizes)),
        load_surrogate(shipped("surrogate")).quick,
    )
    return space, scorer, edits_of(space, crowded_model(scorer, host, COLUMNS))


def measured(way: Callable[[Task], None], task: Task) -> tuple[int, float]:
    """Structures that a way looks at, one more than the budget if none is near, and CPU seconds."""
    started = time.process_time()
    with single_blas(), suppress(EndedError):
        way(task)
    reached = task.watch.reached
    return task.watch.budget + 1 if reached is None else reached, time.process_time() - started


def compare(frame: pl.DataFrame, name: str, options: argparse.Namespace) -> dict[str, list[tuple[int, float]]]:
    """For each way the structures looked at and the CPU seconds of each target."""
    rows = frame.filter(set=name)
    space, scorer, edits = space_of(rows)
    found: dict[str, list[tuple[int, float]]] = {}
    for k, target in enumerate(held_out_targets(rows, options.split, options.targets, options.seed)):
        for title in options.ways:
            watch = Watch(Ask(dict(target.values), 16, options.seed + k), options.budget)
            task = Task(watch, edits, scorer, space, options.seed + k)
            found.setdefault(title, []).append(measured(WAYS[title], task))
    return found


def report(name: str, found: dict[str, list[tuple[int, float]]], budget: int) -> None:
    """A line for each way."""
    for title, results in found.items():
        numbers = np.array([number for number, _ in results])
        low, median, high = (
            f"{q:,.0f}" if q <= budget else f"> {budget:,}" for q in np.quantile(numbers, (0.25, 0.5, 0.75))
        )
        seconds = np.mean([seconds for _, seconds in results])
        print(
            f"| {name} | {title} | {np.mean(numbers <= budget):.0%} | {median} ({low} to {high}) | {seconds:.1f} |",
            flush=True,
        )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of 2DMD")
    parser.add_argument("--sets", nargs="+", default=CROWDED, choices=CROWDED, help="which sets")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="of searching")
    parser.add_argument("--split", default="test", help="part of the data that the targets are of")
    parser.add_argument("--targets", type=int, default=20, help="structures of each set")
    parser.add_argument("--budget", type=int, default=5000, help="structures for each target, at most")
    parser.add_argument("--seed", type=int, default=0, help="of targets and searches")
    parser.add_argument("-o", "--output", type=Path, help="JSON of all numbers")
    options = parser.parse_args()
    frame = split_by_class(read_dataset(options.data), seed=42)
    together: dict[str, list[tuple[int, float]]] = {}
    whole: dict[str, Any] = {}
    print("| set | | reached | structures, median (quartiles) | CPU s |\n| --- | --- | ---: | ---: | ---: |")
    for name in options.sets:
        whole[name] = found = compare(frame, name, options)
        report(name, found, options.budget)
        for title, results in found.items():
            together.setdefault(title, []).extend(results)
        if options.output is not None:
            options.output.write_text(json.dumps(whole))
    report("all", together, options.budget)


if __name__ == "__main__":
    main()
