"""A model of Llama-3-8B's shape with random weights: training and decoding of `edits`, and the published decoding.

    python benchmarks/gpu/llama.py --kit runs/gpu --base FOLDER -o runs/llama-gpu --seconds 75

In this order: training, crowded cells, few defects, the published way; a part that does not fit into what is left
is not begun.

The weights do not matter for times. Texts are split by the tokenizer of `--base`, whose ids are all within the
vocabulary of the shape. The published way writes a whole crystal freely: 2,593 tokens after a prompt of 204 (means
of the log on the slides, 1,935 tokens a second at 0.75 crystals a second); it is measured at two lengths of the
context and integrated along a straight line, prompt included. Both ways are decoded without CUDA graphs.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import torch
from kit import BaseOption, Clock, KitOption, OutputOption, SecondsOption, ToyOption, run_step, say, write_json
from lora import Example, LoraRun, RecordTokens
from transformers import LlamaConfig, LlamaForCausalLM

from defectgen.core.host import Host
from defectgen.core.hosts import get_host
from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.decode.tensor_sampler import Samples, TensorSampler, roomy_cache
from defectgen.llm.loading import load_tokenizer, out_of_memory
from defectgen.llm.output_layer import OutputLayer
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.site_grammar import EditsGrammar

PUBLISHED_PROMPT, PUBLISHED_COMPLETION, LATER_CONTEXT = 204, 2593, 1400
"""Tokens; the third is the second length at which decoding is measured."""

SHAPE = {
    "vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14_336, "max_position_embeddings": 8192, "rope_theta": 500_000.0,
}  # fmt: skip
TOY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
       "intermediate_size": 128}  # fmt: skip
RANK, ALPHA = 16, 32.0
RECORDS, TOKENS_AT_ONCE = 64, 4096
"""Of a training step; and of one forward pass."""
DENSITIES = {"low": (1, 3), "crowded": (5, 24)}
"""Fewest and most defects of 8x8 MoS2."""
LEVELS = {"homo_ev": 0.052, "lumo_ev": 1.150}
"""Asked for in all prompts."""
TRAINING_SHARE = 0.22
"""Of the budget, for steps of training after the first two."""
NEEDED_S = {"crowded": 18.0, "low": 6.0, "published": 12.0}
"""What must be left for a part to begin."""


def main(
    kit: KitOption, base: BaseOption, output: OutputOption, seconds: SecondsOption = 75.0, toy: ToyOption = False
) -> None:
    """Measure, writing what there is after each part."""
    del kit
    clock = Clock(seconds)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(str(base))
    model = _random_model(device, toy, len(tokenizer))
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "shape": {key: getattr(model.config, key) for key in SHAPE if hasattr(model.config, key)},
        "tokenizer": "of the base model of the kit",
    }
    say(clock, f"{found['parameters'] / 1e9:.2f}e9 parameters on {device}")
    host, file = get_host("MoS2", (2, 2) if toy else (8, 8)), output / "figures.json"
    found["training"] = training(model, tokenizer, _examples(host, tokenizer, 8 if toy else RECORDS), toy, clock)
    write_json(file, found)
    say(clock, f"training: {found['training']}")
    model.requires_grad_(False).eval()
    _tidy()
    found["edits"] = {}
    tables = {
        name: GrammarTables.of(
            [EditsGrammar(host, min(most, 8) if toy else most, least, host.allowed)], tokenizer, device
        )
        for name, (least, most) in DENSITIES.items()
    }
    edits_way(model, tokenizer, host, tables["low"], 8)  # warms up
    for name in ("crowded", "low"):
        if toy or clock.left > NEEDED_S[name]:
            found["edits"][name] = edits_way(model, tokenizer, host, tables[name], 8 if toy else 1024)
            write_json(file, found)
            say(clock, f"{name}: {found['edits'][name]}")
    if toy or clock.left > NEEDED_S["published"]:
        found["published"] = published_way(model, 4 if toy else 128, toy)
        whole = found["published"]["crystals_a_second"]
        found["ratio"] = {name: way["crystals_a_second"] / whole for name, way in found["edits"].items()}
        write_json(file, found)
        say(clock, f"published: {found['published']}, ratios {found['ratio']}")


def _random_model(device: str, toy: bool, vocabulary: int) -> Any:
    shape = SHAPE | (TOY | {"vocab_size": vocabulary} if toy else {})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(LlamaConfig(**shape))
    finally:
        torch.set_default_dtype(before)
    model.requires_grad_(False)
    return model.eval()


def published_way(model: Any, rows: int, toy: bool) -> dict[str, float]:
    """Crystals a second of free decoding."""
    prompt, completion, later = (4, 40, 20) if toy else (PUBLISHED_PROMPT, PUBLISHED_COMPLETION, LATER_CONTEXT)
    prefill, early, late = _free_decoding(model, rows, prompt, later, prompt + completion, 4 if toy else 24)
    middle = early + (late - early) * (completion / 2) / (later - prompt)  # mean of a straight line
    seconds = prefill + completion * middle
    return {"rows": rows, "prefill_s": prefill, "step_s_at_prompt": early, "step_s_at_1400": late,
            "seconds": seconds, "crystals_a_second": rows / seconds}  # fmt: skip


@torch.inference_mode()
def _free_decoding(model: Any, rows: int, prompt: int, later: int, room: int, steps: int) -> tuple[float, float, float]:
    """Seconds of the prompt, and of a step after it and at the later length of the context."""
    head, config, device = OutputLayer(model), model.config, model.device
    cache = roomy_cache(config, room)
    ids = torch.randint(100, (rows, prompt), device=device)

    def step(ids: torch.Tensor, place: int) -> torch.Tensor:
        positions = torch.arange(place, place + ids.shape[1], device=device)[None].expand(rows, -1)
        hidden = model.base_model(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return torch.multinomial(head(hidden[:, -1]).float().softmax(-1), 1)

    def timed(place: int) -> float:
        token = torch.zeros((rows, 1), dtype=torch.long, device=device)
        for k in range(steps):
            if k == steps // 8:  # the first ones warm up
                start = _now()
            token = step(token, place + k)
        return (_now() - start) / (steps - steps // 8)

    start = _now()
    step(ids, 0)
    prefill = _now() - start
    early = timed(prompt)
    shape = (rows, config.num_key_value_heads, later - prompt - steps, config.hidden_size // config.num_attention_heads)
    for layer in cache.layers:
        made = torch.randn(shape, device=device, dtype=model.dtype)
        layer.update(made, made)
    return prefill, early, timed(later)


def edits_way(model: Any, tokenizer: Any, host: Host, tables: GrammarTables, rows: int) -> dict[str, float]:
    """Crystals a second of constrained decoding, all rows at once; fewer where they do not fit into the memory."""
    prompt, sampler = DefectTask().prompt(host, LEVELS), TensorSampler(model, tokenizer, tables)
    generator = torch.Generator(device=model.device).manual_seed(0)
    start = _now()
    try:
        samples = sampler.sample([prompt] * rows, [0] * rows, generator=generator, batch_size=rows)
    except RuntimeError as error:
        if not out_of_memory(error) or rows < 16:
            raise
    else:
        return _figures(samples, rows, _now() - start)
    _tidy()
    return edits_way(model, tokenizer, host, tables, rows // 2)


def _figures(samples: Samples, rows: int, seconds: float) -> dict[str, float]:
    return {
        "rows": rows,
        "seconds": seconds,
        "crystals_a_second": rows / seconds,
        "mean_defects": sum(len(edits) for edits in samples.edits) / rows,
        "mean_tokens": float((samples.tokens != PAD).sum()) / rows,
    }


def _examples(host: Host, tokenizer: Any, n: int) -> list[Example]:
    """Random crowded cells as records."""
    rng, tokens, elements = np.random.default_rng(0), RecordTokens(tokenizer), [e for _, e in host.sites()]
    species = {e: sorted(rule.replacement for rule in host.rules if rule.element == e) for e in set(elements)}
    least, most = DENSITIES["crowded"]
    texts = []
    for _ in range(n):
        count = rng.integers(least, min(most, len(elements)) + 1)
        chosen = np.sort(rng.choice(len(elements), count, replace=False)).tolist()
        texts.append("".join(f" {rng.choice(species[elements[k]])} {host.site_name(k)}" for k in chosen))
    prompt = tokens.prompts([DefectTask().prompt(host, LEVELS)])[0]
    return [(prompt, completion, 1.0) for completion in tokens.texts(texts)]


def training(model: Any, tokenizer: Any, batch: list[Example], toy: bool, clock: Clock) -> dict[str, float]:
    """Steps of LoRA on lists of edits; the model has no updates afterwards."""
    run = LoraRun(model, tokenizer, RANK, ALPHA, learning_rate=1e-4, tokens_at_once=256 if toy else TOKENS_AT_ONCE)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        run.step(batch)
    start, steps, losses = _now(), 0, []
    until = clock.used + TRAINING_SHARE * clock.seconds
    while steps < 3 if toy else (clock.used < until and steps < 100):
        losses.append(float(run.step(batch)))
        steps += 1
    seconds = _now() - start
    run.model.unload()
    tokens = sum(len(prompt) + len(completion) for prompt, completion, _ in batch)
    return {
        "rank": RANK,
        "trained_parameters": sum(weight.numel() for weight in run.weights.values()),
        "records_a_step": len(batch),
        "tokens_a_step": tokens,
        "tokens_at_once": run.tokens_at_once,
        "steps": steps,
        "steps_a_second": steps / seconds,
        "records_a_second": steps * len(batch) / seconds,
        "tokens_a_second": steps * tokens / seconds,
        "first_loss": losses[0] if losses else float("nan"),
        "last_loss": losses[-1] if losses else float("nan"),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
    }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def _tidy() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    run_step(main)
