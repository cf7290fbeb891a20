"""LoRA of the base model on records of bulk crystals, as many passes as a wall-clock budget allows.

    python benchmarks/gpu/bulk.py --kit runs/gpu --base FOLDER -o runs/bulk-gpu --seconds 120

Each copy of the records is one pass, with prompts and translations of its own; after the last one they start again.
"""

from __future__ import annotations

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
    learning_rate: Annotated[float, typer.Option(help="peak")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="records in a step")] = 64,
    seed: int = 42,
) -> None:
    """Train, evaluate every twenty seconds, keep the best."""
    clock = Clock(seconds)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    causal, tokenizer, _ = load_base(str(base), "bfloat16" if device == "cuda" else "float32")
    causal.requires_grad_(False)
    eos = torch.tensor([int(tokenizer.eos_token_id)], device=causal.device)
    model = PlainLlama(causal, eos, 2 if toy else rank, alpha, seed)
    say(clock, f"base model on {device}")
    held_back = _examples(tokenizer, lines_of(kit / "bulk" / "validation.jsonl.gz")[: 8 if toy else None])
    records = lines_of(kit / "bulk" / "train.jsonl.gz")[: 40 if toy else None]
    train = _examples(tokenizer, records)
    crystals = len({record["id"] for record in records})
    say(clock, f"{len(train)} records of {crystals} crystals, {sum(len(p) + len(c) for p, c, _ in train)} tokens")
    longest = -(-max(len(p) + len(c) for p, c, _ in train) // 64) * 64
    pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
    passes = TextLosses(model, longest, 1024 if toy else 6_144, pool)
    optimizer = torch.optim.AdamW(model.trained, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    losses: list[tuple[int, float]] = []
    found = [(0, passes.evaluate(held_back))]
    best, kept = found[0][1], _state(model)
    rng, order = np.random.default_rng(seed), []
    start, end = clock.used, clock.seconds - RESERVED_S - (clock.used * 0.05)
    steps, tokens, next_look = 0, 0, start + EVALUATE_EVERY_S
    while clock.used < end and not (toy and steps >= 12):
        if len(order) < batch_size:
            order += _order(len(train), crystals, rng)
        batch = [train[k] for k in order[:batch_size]]
        del order[:batch_size]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * cosine((clock.used - start) / (end - start))
        loss = passes.backward(batch)
        torch.nn.utils.clip_grad_norm_(model.trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        steps += 1
        tokens += sum(len(p) + len(c) for p, c, _ in batch)
        if steps % 20 == 0 or toy:
            losses.append((steps, float(loss)))
        if clock.used > next_look and clock.used < end - EVALUATE_EVERY_S / 4:
            best, kept = _look(passes, held_back, found, steps, best, kept)
            say(clock, f"step {steps}, epoch {steps * batch_size / crystals:.1f}, loss {losses[-1:]}, {found[-1]}")
            next_look = clock.used + EVALUATE_EVERY_S
    spent = clock.used - start
    best, kept = _look(passes, held_back, found, steps, best, kept)
    with torch.no_grad():
        for weight, value in zip(model.trained, kept, strict=True):
            weight.copy_(value)
    best_step = min(found, key=lambda pair: pair[1])[0]
    figures = {
        "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed, "best_step": best_step, "steps": steps,
        "records_seen": steps * batch_size, "losses": losses, "validation_losses": found,
        "validation_records": len(held_back), "epochs": steps * batch_size / crystals, "training_seconds": spent,
        "tokens_a_second": tokens / spent, "steps_a_second": steps / spent, "device": _device_name(),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        "command": "python benchmarks/gpu/bulk.py",
    }  # fmt: skip
    model.save(output, figures)
    write_json(output / "figures.json", figures)
    say(clock, f"{steps} steps, {figures['epochs']:.1f} epochs, {tokens / spent:.0f} tokens/s, best {best:.4f} "
        f"nats a token after step {best_step}")  # fmt: skip


def _state(model: PlainLlama) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.trained]


def _examples(tokenizer: Any, records: list[dict[str, str]]) -> list[Example]:
    tokens = RecordTokens(tokenizer)
    prompts = tokens.prompts([record["prompt"] for record in records])
    completions = tokens.texts([record["completion"] for record in records])
    return [(prompt, completion, 1.0) for prompt, completion in zip(prompts, completions, strict=True)]


def _order(records: int, crystals: int, rng: np.random.Generator) -> list[int]:
    """Copy after copy, each in random order."""
    copies = [np.arange(first, min(first + crystals, records)) for first in range(0, records, crystals)]
    return [int(k) for copy in copies for k in rng.permutation(copy)]


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
