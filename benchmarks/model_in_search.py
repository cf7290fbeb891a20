"""How many structures a tree search of crowded cells needs, with and without the language model.

    python benchmarks/model_in_search.py --data DIR
    python benchmarks/model_in_search.py --data DIR --sets MoS2_500 --targets 5 --budget 1500 --model ADAPTER

HOMO and LUMO of structures of the test part are the targets. Each way looks until a structure is predicted within 10
meV or the budget is spent, as in search_methods.py. ``tree`` opens nodes below the nearest of 16 random cells or of 16
proposals of the model; ``prior``: the model says which edits are likely. Given are the share of the targets that were
reached, the median number of structures with its quartiles, and CPU seconds a target, drawing included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
from search_methods import CROWDED, Task, Watch, measured, report, space_of

from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.design.engine import Models, load_proposer, shipped_adapter
from defectgen.design.evaluate import held_out_targets
from defectgen.design.limits import Limits
from defectgen.design.model_guide import ModelGuide
from defectgen.design.model_notes import PRIOR_ENCODING
from defectgen.design.proposers import Ask


def compare(frame: pl.DataFrame, name: str, options: argparse.Namespace) -> dict[str, list[tuple[int, float]]]:
    """For each way the structures looked at and the CPU seconds of each target."""
    rows = frame.filter(set=name)
    space, scorer, edits = space_of(rows)
    adapter = options.model or shipped_adapter(space.host, space.least)
    proposer, _ = load_proposer(space.host, Models(adapter=adapter), Limits(space.least, space.most))
    guide = ModelGuide(proposer, has_prior=proposer.task.encoding == PRIOR_ENCODING)
    found: dict[str, list[tuple[int, float]]] = {}
    for k, target in enumerate(held_out_targets(rows, "test", options.targets, options.seed)):
        ask = Ask(dict(target.values), 16, options.seed + k)
        started = time.process_time()
        drawn = [kinds for item in guide.drawn(space.host, ask) if (kinds := edits.kinds_of(item)) is not None]
        drawing = time.process_time() - started
        ways: dict[str, Callable[[Task], None]] = {"random": Task.random}
        for prior in (None, guide.prior(ask, edits)) if guide.has_prior else (None,):
            more = ", prior" * (prior is not None)
            ways[f"tree below random{more}"] = partial(Task.tree, prior=prior)
            ways[f"tree below model's{more}"] = partial(Task.tree, drawn=drawn, prior=prior)
        for title, way in ways.items():
            task = Task(Watch(ask, options.budget), edits, scorer, space, options.seed + k)
            number, seconds = measured(way, task)
            found.setdefault(title, []).append((number, seconds + drawing * ("model" in title)))
    return found


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of 2DMD")
    parser.add_argument("--sets", nargs="+", default=CROWDED, choices=CROWDED, help="which sets")
    parser.add_argument("--targets", type=int, default=20, help="test structures of each set")
    parser.add_argument("--budget", type=int, default=2000, help="structures for each target, at most")
    parser.add_argument("--model", type=Path, help="adapter; else the shipped one")
    parser.add_argument("--seed", type=int, default=0, help="of targets and searches")
    options = parser.parse_args()
    frame = split_by_class(read_dataset(options.data), seed=42)
    together: dict[str, list[tuple[int, float]]] = {}
    print("| set | | reached | structures, median (quartiles) | CPU s |\n| --- | --- | ---: | ---: | ---: |")
    for name in options.sets:
        found = compare(frame, name, options)
        report(name, found, options.budget)
        for title, results in found.items():
            together.setdefault(title, []).extend(results)
    report("all", together, options.budget)


if __name__ == "__main__":
    main()
