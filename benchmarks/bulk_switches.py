"""The switches of the appendices of Gruver et al. 2024 (arXiv:2402.04379) at a small scale, one run each.

    python benchmarks/bulk_switches.py run MP20 -o DIR [--arms NAME,NAME]     # adds to DIR/rows.jsonl what is not in it
    python benchmarks/bulk_switches.py table DIR

Every run trains `bulk/smollm2-cpu` for the same steps on the records of crystals of few atoms, and is judged
on the same crystals of the validation part and by free draws at temperature 0.7 without redraw. The validation loss is
that of a whole crystal in nats, so that encodings compare; positions in angstrom are finer than hundredths of the
cell, so that a density of probability compares only after the cell is taken out: N ln(V / cubic angstrom).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from defectgen.config import find_config, load_config
from defectgen.core.crystal import Crystal
from defectgen.data.bulk_records import BulkRecordSettings, build_bulk_data
from defectgen.data.mp20 import CrystalData, crystal_of, read_crystals, split_by_formula
from defectgen.generate.sampling import free, generation_job
from defectgen.llm.decode.generator import Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.loading import load_base
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.metrics.atom_distances import far_enough
from defectgen.metrics.charge_balance import smact_valid
from defectgen.metrics.crystal_metrics import rate
from defectgen.metrics.perplexity import increase_over_images
from defectgen.metrics.translations import translations
from defectgen.tasks.bulk.crystal_text import write_crystal, write_generation_prompt
from defectgen.tasks.bulk.prompts import OURS, PromptStyle, prompt_style
from defectgen.tasks.parsing import ParseError

BASE, SEED = "smollm2-135m", 42
TRAIN, BATCH = 200, 8
HELD, IPT_CRYSTALS, IPT_IMAGES, DRAWS = 40, 6, 4, 50


@dataclass(frozen=True)
class Arm:
    """One run: what differs from the usual."""

    permute: bool = False
    absolute: bool = False
    variant: str = ""
    train: int = TRAIN

    @property
    def style(self) -> PromptStyle:
        return prompt_style(OURS.name, absolute=self.absolute)


ARMS = {
    "usual": Arm(),
    "permuted": Arm(permute=True),
    "absolute": Arm(absolute=True),
    "crystal tokens": Arm(variant="@crystal-tokens"),
    "random weights": Arm(variant="@random-0"),
    "80 crystals": Arm(train=80),
    "24 crystals": Arm(train=24),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("data", type=Path)
    run.add_argument("-o", "--output", type=Path, required=True)
    run.add_argument("--arms", default=",".join(ARMS))
    run.add_argument("--steps", type=int, default=TRAIN // BATCH)
    run.add_argument("--layers", type=int, help="train the first layers of the base model alone: it is faster")
    run.add_argument("--max-atoms", type=int, default=4)
    run.add_argument("--loss-only", action="store_true", help="no IPT and no draws")
    table = commands.add_parser("table")
    table.add_argument("output", type=Path)
    options = parser.parse_args()
    rows = options.output / "rows.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    if options.command == "table":
        print_table(done)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    base = BASE if options.layers is None else first_layers(options.output.resolve() / "base", options.layers)
    frame = read_crystals(options.data).frame
    frame = split_by_formula(frame.filter(pl.col("n_atoms") <= options.max_atoms), seed=SEED)
    for name in options.arms.split(","):
        if name not in {row["arm"] for row in done}:
            row = measured(name, ARMS[name], frame, options.output / name.replace(" ", "-"), base, options)
            with rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps({"arm": name, "seconds": row["seconds"]}), flush=True)


def first_layers(folder: Path, n: int) -> str:
    """A base model of the first `n` layers of the usual one."""
    if not folder.exists():
        model, tokenizer, _ = load_base(BASE, "bfloat16")
        model.model.layers = model.model.layers[:n]
        model.config.num_hidden_layers = n
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def measured(
    name: str, arm: Arm, frame: pl.DataFrame, folder: Path, base: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One run and what came of it."""
    started, steps = time.monotonic(), options.steps
    train = frame.filter(pl.col("split") == "train").sort("id").sample(TRAIN, seed=SEED, shuffle=True).head(arm.train)
    parts = pl.concat([train, frame.filter(pl.col("split") != "train")])
    copies = math.ceil(steps * BATCH / arm.train)
    switches = {"permute": arm.permute, "absolute": arm.absolute}
    settings = BulkRecordSettings(copies, options.max_atoms, "published", SEED, **switches)
    build_bulk_data(CrystalData(parts, (), True), folder / "records", settings)
    config = load_config(
        FinetuneConfig,
        find_config("bulk/smollm2-cpu", "bulk"),
        base_model=base + arm.variant,
        max_steps=steps,
        batch_size=BATCH,
        eval_records=BATCH,
        eval_steps=10 * steps,
        save_steps=10 * steps,
        seed=SEED,
    )
    if not (folder / "adapter" / "defectgen.json").exists():
        finetune(config, folder / "records", folder / "adapter")
    trained = time.monotonic() - started
    generator, _ = TransformersGenerator.from_adapter(folder / "adapter")
    held = frame.filter(pl.col("split") == "validation").sort("id").sample(HELD, seed=SEED, shuffle=True)
    crystals = [crystal_of(row) for row in held.iter_rows(named=True)]
    more: dict[str, Any] = {}
    if not options.loss_only:
        more = dependence(generator, crystals, arm.style) | draws(generator, arm.style, options.max_atoms)
    return {
        "arm": name,
        **likelihoods(generator, crystals, arm.style),
        **more,
        "train_loss": [json.loads(line) for line in (folder / "adapter" / "losses.jsonl").read_text().splitlines()],
        "train_seconds": round(trained, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def likelihoods(generator: TransformersGenerator, crystals: list[Crystal], style: PromptStyle) -> dict[str, Any]:
    """Nats of each held-out crystal, asked for without conditions."""
    rng, prompt = np.random.default_rng(SEED), write_generation_prompt({}, style)
    moved = [crystal.translated(rng.random(3).tolist()) for crystal in crystals]
    texts = [Text(prompt, write_crystal(crystal, style)) for crystal in moved]
    found = list(log_likelihoods(generator.model, generator.tokenizer, texts, 8))
    finer = [len(c.species) * math.log(c.volume) if style.absolute else 0.0 for c in crystals]
    return {
        "nats": [-one.nats for one in found],
        "nats_at_equal_fineness": [-one.nats - more for one, more in zip(found, finer, strict=True)],
        "tokens": float(np.mean([one.tokens for one in found])),
    }


def dependence(generator: TransformersGenerator, crystals: list[Crystal], style: PromptStyle) -> dict[str, Any]:
    """IPT of some of them, normalized, over random places in the cell."""
    images = translations(crystals[:IPT_CRYSTALS], np.random.default_rng(SEED), IPT_IMAGES, style)

    def judge(pairs: Any) -> list[tuple[float, int]]:
        judged = log_likelihoods(generator.model, generator.tokenizer, [Text(*pair) for pair in pairs], 8)
        return [(one.nats, one.tokens) for one in judged]

    return {"ipt": [increase_over_images([pairs], judge).mean_normalized for pairs in images]}


def draws(generator: TransformersGenerator, style: PromptStyle, max_atoms: int) -> dict[str, Any]:
    """Free draws: how many are crystals, and valid ones."""
    job = replace(generation_job({}, max_atoms=max_atoms), style=style, prompt=write_generation_prompt({}, style))
    sampling = Sampling(temperature=0.7, batch_size=DRAWS)
    crystals, reasons = [], []
    for text, problem in free(generator.model, generator.tokenizer, job, sampling)(DRAWS, 0):
        crystal = None
        if not problem:
            try:
                crystal, problem = job.read(text)
            except ParseError as error:
                problem = str(error)
        reasons.append(problem)
        if crystal is not None:
            crystals.append(crystal)
    return {
        "draws": len(reasons),
        "parsed": len(crystals),
        "structural": sum(far_enough(crystal) for crystal in crystals),
        "compositional": sum(smact_valid(crystal) for crystal in crystals),
        "both": sum(far_enough(crystal) and smact_valid(crystal) for crystal in crystals),
        "formulas": len({crystal.formula for crystal in crystals}),
        "reasons": reasons,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """As Markdown, differences from the usual run with the standard error over the crystals."""
    usual = next(row for row in rows if row["arm"] == "usual")
    print("| | tokens | nats a crystal | against the usual | parse | structural | compositional | both | IPT |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        nats = np.array(row["nats_at_equal_fineness"])
        less = nats - np.array(usual["nats_at_equal_fineness"])
        counts = [row.get(key) for key in ("parsed", "structural", "compositional", "both")]
        shares = [None if n is None else rate(n, row["draws"]) for n in counts]
        cells = [
            row["arm"],
            f"{row['tokens']:.0f}",
            f"{nats.mean():.1f} ± {error(nats):.1f}",
            "" if row is usual else f"{less.mean():+.1f} ± {error(less):.1f}",
            *map(_share, shares),
            f"{np.mean(row['ipt']):.3f} ± {error(np.array(row['ipt'])):.3f}" if "ipt" in row else "",
        ]
        print("| " + " | ".join(cells) + " |")


def _share(share: Any) -> str:
    """A rate with its 95 % interval; empty where it was not measured."""
    if share is None:
        return ""
    low, high = share["interval_95"]
    return f"{share['value']:.0%} ({low:.0%} to {high:.0%})"


def error(values: np.ndarray[Any, Any]) -> float:
    """Standard error of a mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


if __name__ == "__main__":
    main()
