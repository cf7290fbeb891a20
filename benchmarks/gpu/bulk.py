"""LoRA of the base model on records of bulk crystals, as many passes as a wall-clock budget allows.

    python benchmarks/gpu/bulk.py --kit runs/gpu --base FOLDER -o runs/bulk-gpu --seconds 120

Each copy of the records is one epoch, with prompts and translations of its own; after the last one they start again.
Records of like length share a pass, so that little of it is padding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from kit import (
    BaseOption,
    Clock,
    KitOption,
    OutputOption,
    SecondsOption,
    ToyOption,
    lines_of,
    run_step,
    say,
    write_json,
)
from lora import Example, RecordTokens, cosine
from passes import TextLosses
from plain_llama import PlainLlama

from defectgen.llm.loading import load_base

SHIPPED = Path(__file__).parents[2] / "defectgen" / "models" / "bulk-smollm2"
END = "<|im_end|>"
"""Of a text, where the base model has such a token."""
EVALUATE_EVERY_S = 20.0
RESERVED_S = 5.0
"""For the last evaluation and the files."""


def main(
    kit: KitOption,
    base: BaseOption,
    output: OutputOption,
    seconds: SecondsOption = 120.0,
    toy: ToyOption = False,
    rank: Annotated[int, typer.Option(help="of the updates")] = 16,
    alpha: Annotated[float, typer.Option(help="scale of the updates, over the rank")] = 32.0,
    initial: Annotated[str, typer.Option(help="adapter to go on from; none: from the base model")] = str(SHIPPED),
    learning_rate: Annotated[
        float | None, typer.Option(help="peak [5e-4 from an adapter, 1e-3 from the base model]")
    ] = None,
    pass_tokens: Annotated[int, typer.Option(help="tokens of a pass, padding included")] = 15_360,
    passes_a_step: Annotated[int, typer.Option(help="passes before an optimizer step")] = 2,
    seed: int = 42,
) -> None:
    """Train, evaluate every twenty seconds, keep the best."""
    clock = Clock(seconds)
    start_from = None if toy or initial == "none" else Path(initial)
    peak = learning_rate or (5e-4 if start_from else 1e-3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    causal, tokenizer, _ = load_base(str(base), "bfloat16" if device == "cuda" else "float32")
    causal.requires_grad_(False)
    eos = torch.tensor([int(tokenizer.eos_token_id)], device=causal.device)
    model = PlainLlama(causal, eos, 2 if toy else rank, alpha, seed)
    if start_from:
        model.load(start_from)
    say(clock, f"base model on {device}, from {start_from.name if start_from else 'the base model'}")
    _check_end(tokenizer, clock)
    held_back = _examples(tokenizer, lines_of(kit / "bulk" / "validation.jsonl.gz")[: 4 if toy else None])
    records = lines_of(kit / "bulk" / "train.jsonl.gz")[: 40 if toy else None]
    train = _examples(tokenizer, records)
    crystals = len({record["id"] for record in records})
    say(clock, f"{len(train)} records of {crystals} crystals, {sum(len(p) + len(c) for p, c, _ in train)} tokens")
    assert all(completion[-1] == int(eos) for _, completion, _ in train + held_back)
    lengths = np.array([len(p) + len(c) for p, c, _ in train])
    pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
    longest = max(int(lengths.max()), *(len(p) + len(c) for p, c, _ in held_back))
    passes = TextLosses(model, longest, 512 if toy else pass_tokens, pool)
    widths = np.asarray(passes.widths)[np.searchsorted(passes.widths, lengths)]
    at_once = 1 if toy else passes_a_step
    passes.prepare(np.unique(widths).tolist())
    written = sum(len(completion) for _, completion, _ in train)
    usual = at_once * passes.tokens * written / int(widths.sum())
    say(clock, f"passes of {passes.tokens} tokens at widths {np.unique(widths).tolist()}, "
        f"{lengths.sum() / widths.sum():.0%} full, {usual:.0f} tokens of completions a step")  # fmt: skip
    optimizer = torch.optim.AdamW(model.trained, lr=peak, weight_decay=0.0, betas=(0.9, 0.98))
    losses: list[tuple[int, float]] = []
    found = [(0, passes.evaluate(held_back))]
    best, kept = found[0][1], _state(model)
    batches = _batches(widths, crystals, passes, at_once, np.random.default_rng(seed))
    start, end = clock.used, clock.seconds - RESERVED_S - (clock.used * 0.05)
    steps, records_seen, tokens, next_look = 0, 0, 0, start + EVALUATE_EVERY_S
    while clock.used < end and not (toy and steps >= 12):
        batch = [train[k] for k in next(batches)]
        for group in optimizer.param_groups:
            group["lr"] = peak * cosine((clock.used - start) / (end - start))
        loss = passes.backward(batch, usual)
        torch.nn.utils.clip_grad_norm_(model.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        steps += 1
        records_seen += len(batch)
        tokens += sum(len(p) + len(c) for p, c, _ in batch)
        if steps % 20 == 0 or toy:
            losses.append((steps, float(loss)))
        if clock.used > next_look and clock.used < end - EVALUATE_EVERY_S / 4:
            best, kept = _look(passes, held_back, found, steps, best, kept)
            say(clock, f"step {steps}, epoch {records_seen / crystals:.1f}, loss {losses[-1:]}, {found[-1]}")
            next_look = clock.used + EVALUATE_EVERY_S
    spent = clock.used - start
    best, kept = _look(passes, held_back, found, steps, best, kept)
    with torch.no_grad():
        for weight, value in zip(model.trained, kept, strict=True):
            weight.copy_(value)
    best_step = min(found, key=lambda pair: pair[1])[0]
    figures = {
        "initial": start_from.name if start_from else None, "initial_training": _training(start_from),
        "learning_rate": peak,
        "batch_size": max(1, round(records_seen / max(steps, 1))), "seed": seed, "best_step": best_step, "steps": steps,
        "records_seen": records_seen, "losses": losses, "validation_losses": found,
        "validation_records": len(held_back), "epochs": records_seen / crystals, "training_seconds": spent,
        "tokens_a_second": tokens / spent, "steps_a_second": steps / spent, "device": _device_name(),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        "compiled": model.pieces.compiled, "command": "python benchmarks/gpu/bulk.py",
    }  # fmt: skip
    model.save(output, figures)
    write_json(output / "figures.json", figures)
    say(clock, f"{steps} steps, {figures['epochs']:.1f} epochs, {tokens / spent:.0f} tokens/s, best {best:.4f} "
        f"nats a token after step {best_step}")  # fmt: skip


def _training(adapter: Path | None) -> dict[str, Any] | None:
    """How the adapter was trained that this run goes on from, as its card says."""
    return json.loads((adapter / "defectgen.json").read_text(encoding="utf-8"))["training"] if adapter else None


def _state(model: PlainLlama) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.trained]


def _examples(tokenizer: Any, records: list[dict[str, str]]) -> list[Example]:
    tokens = RecordTokens(tokenizer)
    prompts = tokens.prompts([record["prompt"] for record in records])
    completions = tokens.texts([record["completion"] for record in records])
    return [(prompt, completion, 1.0) for prompt, completion in zip(prompts, completions, strict=True)]


def _check_end(tokenizer: Any, clock: Clock) -> None:
    """Stop where texts would end with another token than those that the shipped adapter was trained on."""
    end, known = int(tokenizer.eos_token_id), tokenizer.get_vocab().get(END)
    say(clock, f"texts end with {tokenizer.eos_token!r}, token {end}")
    if known not in (None, end):
        raise SystemExit(f"the base model ends texts with {tokenizer.eos_token!r} ({end}), expected {END} ({known})")


def _batches(
    widths: np.ndarray, crystals: int, passes: TextLosses, at_once: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Copy after copy, each in random order, as records that fill some passes; what fills none waits for the next."""
    waiting: dict[int, list[int]] = {width: [] for width in passes.widths}
    groups: list[list[int]] = []
    while True:
        for first in range(0, len(widths), crystals):
            for k in rng.permutation(np.arange(first, min(first + crystals, len(widths)))).tolist():
                mine = waiting[int(widths[k])]
                mine.append(k)
                if len(mine) == passes.rows(int(widths[k])):
                    groups.append(mine[:])
                    mine.clear()
            groups = [groups[k] for k in rng.permutation(len(groups))]
            while len(groups) >= at_once:
                yield [k for group in groups[:at_once] for k in group]
                del groups[:at_once]


def _look(
    passes: TextLosses,
    held_back: list[Example],
    found: list[tuple[int, float]],
    steps: int,
    best: float,
    kept: list[torch.Tensor],
) -> tuple[float, list[torch.Tensor]]:
    """Evaluate; the least loss and its weights."""
    found.append((steps, passes.evaluate(held_back)))
    return (found[-1][1], _state(passes.model)) if found[-1][1] <= best else (best, kept)


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    run_step(main)
