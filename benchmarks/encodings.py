"""Learning curves of the encodings: validation loss and design metric against training tokens and seconds.

    defectgen build-data --data 2DMD --sets MoS2 --encoding edits -o records/edits     (the others likewise)
    python benchmarks/encodings.py records/edits records/symbols records/crystal -o curves --tokens 100000

Every run starts from the base model with the same LoRA settings and sees about the same number of tokens (at
least `MIN_STEPS` steps). Losses of the encodings differ in the number of tokens, so the table also gives nats a
structure: the loss of a whole completion. `--layers` keeps only the first layers of the base model, which makes
records of thousands of tokens affordable without a GPU. The design metric asks for the HOMO and LUMO of validation
structures (the test part is not read) and values the constrained proposals with the shipped surrogate; its error is
|dHOMO| + |dLUMO| in eV. Prompts of thousands of tokens make it dear: `--targets` and `--samples` may be set for
each folder. A folder that has its curve already is not trained again, an interrupted one from the start. Prints one
JSON document.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from defectgen.llm.loading import load_base, load_tokenizer
from defectgen.llm.train.dataset import CompletionDataset, drawn
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.finetune_config import DesignMetricSettings, FinetuneConfig, LoraSettings
from defectgen.llm.train.record_folder import read_records

BASE = "smollm2-135m"
MIN_STEPS = 6
SAMPLE = 200
"""Records whose mean length counts."""
LONG = 1000
"""From so many tokens a record on the forward pass is done twice to save memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", help="folders of build-data")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="of the base model that are kept [all]")
    parser.add_argument("--tokens", type=int, default=100_000, help="prompt and completion, of each run")
    parser.add_argument("--batch-tokens", type=int, default=1000, help="of one step, at least one record")
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--eval-records", type=int, default=64)
    parser.add_argument("--targets", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for folder in options.records:
        result = curve_file(folder, options)
        if not result.exists():
            curve = learn(folder, options)
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({f.name: json.loads(curve_file(f, options).read_text()) for f in options.records}))


def curve_file(folder: Path, options: argparse.Namespace) -> Path:
    """Where the curve of a folder of records is kept, beside its adapter."""
    return Path(f"{options.output / folder.name}{f'-{options.layers}-layers' if options.layers else ''}.json")


def learn(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Train on one folder of records and return its curve."""
    base = first_layers(options.layers, options.output / f"base-{options.layers}") if options.layers else BASE
    tokenizer = load_tokenizer(base)
    training, validation = (read_records(folder / f"{part}.jsonl") for part in ("train", "validation"))
    sample = CompletionDataset(drawn(training, SAMPLE, options.seed), tokenizer, 10**6)
    held = CompletionDataset(drawn(validation, options.eval_records, options.seed), tokenizer, 10**6)
    length = sum(len(x["input_ids"]) for x in sample) / len(sample)
    written = sum(sum(label >= 0 for label in x["labels"]) for x in held) / len(held)
    batch = max(1, round(options.batch_tokens / length))
    steps = max(MIN_STEPS, round(options.tokens / (batch * length)))
    config = FinetuneConfig(
        base_model=base,
        lora=LoraSettings(),
        learning_rate=options.learning_rate,
        max_steps=steps,
        batch_size=batch,
        max_length=max(max(len(x["input_ids"]) for x in data) for data in (sample, held)) + 200,
        gradient_checkpointing=length > LONG,
        eval_steps=max(1, steps // options.evaluations),
        eval_records=options.eval_records,
        design=DesignMetricSettings(targets=options.targets, samples=options.samples, scorer="surrogate"),
        save_steps=max(1, steps // 4),
        seed=options.seed,
    )
    points: list[dict[str, float]] = []
    spent = {"training": 0.0, "since": time.monotonic()}

    def report(step: int, _: int, figures: dict[str, float]) -> None:
        """Count the seconds of training steps only: what lies before a figure of validation is not one."""
        now = time.monotonic()
        if not figures:
            spent["training"] += now - spent["since"]
        elif "eval_loss" in figures:
            points.append({"step": step, "nats_a_token": figures["eval_loss"]})
        elif "eval_design_error_ev" in figures:
            points[-1] |= {
                "design_error_ev": figures["eval_design_error_ev"],
                "design_within_20mev": figures["eval_design_within_20mev"],
            }
        if points:
            points[-1].setdefault("seconds", spent["training"])
        spent["since"] = now

    adapter = curve_file(folder, options).with_suffix("")
    shutil.rmtree(adapter, ignore_errors=True)
    finetune(config, folder, adapter, report)
    for point in points:
        point["tokens"] = round(point["step"] * batch * length)
        point["nats_a_structure"] = point["nats_a_token"] * written
    return {
        "tokens_a_record": length,
        "tokens_a_completion": written,
        "records_a_step": batch,
        "learning_rate": options.learning_rate,
        "layers": options.layers,
        "targets": options.targets,
        "samples": options.samples,
        "curve": points,
    }


def first_layers(count: int, folder: Path) -> str:
    """A folder with the base model without all but its first layers."""
    if not folder.exists():
        model, tokenizer, _ = load_base(BASE, "float32")
        if not 1 <= count <= len(model.model.layers):
            raise SystemExit(f"got --layers {count}, expected 1 to {len(model.model.layers)}")
        del model.model.layers[count:]
        model.config.num_hidden_layers = count
        part = folder.with_suffix(".part")
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    return str(folder)


if __name__ == "__main__":
    main()
