"""Whether a bulk adapter hears its conditions: how much likelier a held-out crystal is with its own values asked for.

    python benchmarks/bulk_heard.py mp20.csv --crystals 60

For crystals of the validation part (80/10/10 by formula, seed 42; drawn with seed 0) the log-likelihood of the text
with each condition alone, its value that of the crystal or of another crystal that has a different one, and without
any. Prints one JSON document: by condition the mean gain in nats a crystal over no condition (`own`, `other`) and of
its own value over the other one (`told_apart`), with 95 % intervals of 1,000 resamples, and the share of crystals that
are likelier with their own value, with Wilson's. A condition that is not heard gains nothing and tells half apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.core.crystal import Crystal
from defectgen.data.bulk_records import CONDITIONS
from defectgen.data.mp20 import crystal_of, read_crystals, split_by_formula
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.metrics.crystal_metrics import rate
from defectgen.models import adapter_folder
from defectgen.tasks.bulk.crystal_text import write_crystal, write_generation_prompt

SHOWN_DIGITS = 3
"""Values that a prompt writes alike are the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CSV with columns cif, band_gap, e_above_hull, spacegroup.number")
    parser.add_argument("--model", type=Path, default=Path("bulk-smollm2"))
    parser.add_argument("--crystals", type=int, default=60)
    options = parser.parse_args()
    frame = split_by_formula(read_crystals(options.data).frame).filter(split="validation").drop_nulls()
    rng = np.random.default_rng(0)
    rows = list(frame.iter_rows(named=True))
    chosen = rng.choice(len(rows), min(options.crystals, len(rows)), replace=False)
    generator, _ = TransformersGenerator.from_adapter(adapter_folder(options.model), "float32")
    gains: dict[str, list[tuple[float, float]]] = {name: [] for name in CONDITIONS}
    for number, place in enumerate(chosen, 1):
        prompts = prompts_of(rows[place], rows, rng)
        text = write_crystal(moved(crystal_of(rows[place]), rng))
        judged = log_likelihoods(generator.model, generator.tokenizer, [Text(p, text) for p in prompts], 11)
        none, *rest = [item.nats for item in judged]
        for name, own, other in zip(CONDITIONS, rest[::2], rest[1::2], strict=True):
            gains[name].append((own - none, other - none))
        print(f"{number} of {len(chosen)}", file=sys.stderr, flush=True)
    print(json.dumps({"crystals": len(chosen), "gains": {n: figures(np.array(g)) for n, g in gains.items()}}, indent=1))


def prompts_of(row: dict[str, Any], rows: list[dict[str, Any]], rng: np.random.Generator) -> list[str]:
    """No condition, then for each of `CONDITIONS` the own value and one of another crystal."""
    prompts = [write_generation_prompt({})]
    for name, column in CONDITIONS.items():
        others = [one[column] for one in rows if shown(one[column]) != shown(row[column])]
        values = (row[column], others[int(rng.integers(len(others)))])
        prompts += [write_generation_prompt({name: value}) for value in values]
    return prompts


def moved(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """In a random translation, as in training."""
    return crystal.translated(rng.random(3).tolist())


def shown(value: Any) -> Any:
    return round(value, SHOWN_DIGITS) if isinstance(value, float) else value


def figures(gains: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Means with intervals, and the share that is told apart; `gains` has shape (crystals, 2)."""
    told = gains[:, 0] - gains[:, 1]
    means = {
        name: mean(values) for name, values in (("own", gains[:, 0]), ("other", gains[:, 1]), ("told_apart", told))
    }
    return means | {"likelier_with_own": rate(int((told > 0).sum()), len(told))}


def mean(values: np.ndarray[Any, Any]) -> list[float]:
    """Mean in nats and the ends of its 95 % interval."""
    picks = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    return [float(x) for x in (values.mean(), *np.percentile(values[picks].mean(axis=1), (2.5, 97.5)))]


if __name__ == "__main__":
    main()
