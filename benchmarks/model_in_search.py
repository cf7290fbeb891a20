"""How many structures a tree search of crowded cells needs, with and without the language model.

    python benchmarks/model_in_search.py --data DIR
    python benchmarks/model_in_search.py --data DIR --sets MoS2_500 --targets 5 --budget 2000 --model ADAPTER

HOMO and LUMO of structures of the test part are the targets. Each way looks until a structure is predicted within 10
meV or the budget is spent; the shipped surrogate predicts, or that of ``--surrogate``. ``tree`` opens nodes below the
nearest of 16 random decorations or of 16 proposals of the model; ``prior``: the model says which edits are likely.
``random`` draws. Given are the share of the targets that were reached, the median number of structures (those not
reached count as more than the budget) and CPU seconds a target, drawing included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.core import Configuration, canonicalize
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS
from defectgen.design.edit_moves import Edits
from defectgen.design.engine import Models, load_engine
from defectgen.design.evaluate import held_out_targets
from defectgen.design.landscape import Account, Archive, Landscape, crowded_model, edits_of
from defectgen.design.limits import Limits, Space
from defectgen.design.model_guide import STARTS, ModelGuide
from defectgen.design.model_notes import PRIOR_ENCODING
from defectgen.design.proposers import Ask, Budget
from defectgen.design.tree_search import tree_search
from defectgen.io.host_tables import host_of
from defectgen.score.surrogate.incremental import Moves
from defectgen.score.threads import single_blas

CROWDED = tuple(info.name for info in SETS if info.density == "high")

COLUMNS = ("homo_ev", "lumo_ev")

NEAR_EV = 0.010


class ReachedError(Exception):
    """A structure is near enough."""


@dataclass(frozen=True, eq=False)
class Watched(Landscape):
    """A landscape that ends the search at the first structure that is near."""

    def distances(self, walker: object, moves: Moves, account: Account, archive: Archive) -> np.ndarray:
        """See `Landscape`; of the last block only what came before the near one counts."""
        found = super().distances(walker, moves, account, archive)  # type: ignore[arg-type]
        near = np.flatnonzero(found <= NEAR_EV)
        if len(near):
            account.evaluated -= len(found) - int(near[0]) - 1
            raise ReachedError
        return found


@dataclass(frozen=True)
class Task:
    """One target in one host."""

    ask: Ask
    landscape: Watched
    guide: ModelGuide
    budget: int
    seed: int

    @property
    def edits(self) -> Edits:
        """Of the host."""
        return self.landscape.edits

    def values(self, items: list[Configuration]) -> np.ndarray:
        """Distances of whole structures in eV."""
        scores = self.landscape.scorer.score(items)
        return np.asarray(self.ask.objective.distances_ev({c: scores[c].to_numpy() for c in COLUMNS}))

    def tree(self, drawn: Sequence[Configuration], *, prior: bool) -> int:
        """Structures looked at by a tree below the nearest of some, which count."""
        account, rng = Account(Budget(evaluations=self.budget)), np.random.default_rng(self.seed)
        starts = [kinds for item in drawn if (kinds := self.edits.kinds_of(item)) is not None]
        starts = starts or [self.edits.draw(rng)]  # none within the compositions that the surrogate was fitted to
        found = self.values([self.edits.configuration(kinds) for kinds in starts])
        if (found <= NEAR_EV).any():
            return int(np.argmax(found <= NEAR_EV)) + 1
        account.evaluated = len(starts)
        given = self.guide.prior(self.ask, self.edits) if prior else None
        try:
            tree_search(self.landscape, starts[int(np.nanargmin(found))], 1.0, account, Archive(2048), rng, given)
        except ReachedError:
            return account.evaluated
        return self.budget + 1

    def random(self) -> int:
        """Structures drawn."""
        rng = np.random.default_rng(self.seed)
        for first in range(0, self.budget, 250):
            found = self.values(canonicalize([self.edits.configuration(self.edits.draw(rng)) for _ in range(250)]))
            if (found <= NEAR_EV).any():
                return first + int(np.argmax(found <= NEAR_EV)) + 1
        return self.budget + 1


def compare(frame: pl.DataFrame, name: str, options: argparse.Namespace) -> dict[str, list[tuple[int, float]]]:
    """For each way the structures looked at and the CPU seconds of each target."""
    rows = frame.filter(set=name)
    host, sizes = host_of(rows), rows.filter(split="train")["n_defects"].to_list()
    limits = Limits(min(sizes), max(sizes))
    engine = load_engine(host, Models(adapter=options.model, surrogate=options.surrogate), limits)
    crowded = crowded_model(engine.scorer, host, COLUMNS)
    assert crowded is not None
    edits = edits_of(Space.of(host, limits, max(sizes)), crowded)
    guide = ModelGuide(engine.proposer, has_prior=engine.proposer.task.encoding == PRIOR_ENCODING)
    found: dict[str, list[tuple[int, float]]] = {}
    for k, target in enumerate(held_out_targets(rows, "test", options.targets, options.seed)):
        ask = Ask(dict(target.values), 16, options.seed + k)
        landscape = Watched(ask.objective, edits, engine.scorer, crowded[0])
        task = Task(ask, landscape, guide, options.budget, options.seed + k)
        started = time.process_time()
        drawn = guide.drawn(host, ask)
        drawing = time.process_time() - started
        rng = np.random.default_rng(options.seed + k)
        others = [edits.configuration(edits.draw(rng)) for _ in range(STARTS)]
        ways = {"random": task.random} | {
            f"tree below {whose}{', prior' * prior}": partial(task.tree, items, prior=prior)
            for whose, items in (("random", others), ("model's", drawn))
            for prior in ((False, True) if guide.has_prior else (False,))
        }
        for title, way in ways.items():
            started = time.process_time()
            with single_blas():
                number = way()
            seconds = time.process_time() - started + (drawing if "model" in title else 0)
            found.setdefault(title, []).append((number, seconds))
    return found


def report(name: str, found: dict[str, list[tuple[int, float]]], budget: int) -> None:
    """A line for each way."""
    for title, results in found.items():
        numbers = np.array([number for number, _ in results])
        median = np.median(numbers)
        shown = f"{median:,.0f}" if median <= budget else f"> {budget:,}"
        seconds = np.mean([seconds for _, seconds in results])
        print(f"{name:<14} {title:<27} {np.mean(numbers <= budget):>6.0%} {shown:>9} {seconds:>8.1f}", flush=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of 2DMD")
    parser.add_argument("--sets", nargs="+", default=CROWDED, choices=CROWDED, help="which sets")
    parser.add_argument("--targets", type=int, default=20, help="test structures of each set")
    parser.add_argument("--budget", type=int, default=2000, help="structures for each target, at most")
    parser.add_argument("--model", type=Path, help="adapter; else the shipped one")
    parser.add_argument("--surrogate", type=Path, help="folder; else the shipped one")
    parser.add_argument("--seed", type=int, default=0, help="of targets and searches")
    options = parser.parse_args()
    frame = split_by_class(read_dataset(options.data), seed=42)
    together: dict[str, list[tuple[int, float]]] = {}
    print(f"{'':<42} {'reached':>7} {'median':>8} {'CPU s':>8}")
    for name in options.sets:
        found = compare(frame, name, options)
        report(name, found, options.budget)
        for title, results in found.items():
            together.setdefault(title, []).extend(results)
    report("all", together, options.budget)


if __name__ == "__main__":
    main()
