"""Constrained decoding beside free decoding of the same adapter on the same prompts.

    python benchmarks/decoding.py --targets 8 --n 16

Free decoding is transformers' own `generate` with the same temperature, one batch a prompt, each completion parsed
and invalid ones counted; it is for the encoding `edits`. Prints one JSON document: structures a second, valid share
and tokens for each, and the ratio; and the same constrained decoding with transformers' own cache and attention and
without cutting long chunks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
from transformers import DynamicCache

import defectgen
from defectgen.core import get_host
from defectgen.llm.decode import transformers_engine as decoding
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.decode.unconstrained import write_freely
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.parsing import ParseError

TOKENS_A_DEFECT = 8
"""More than any edit has; free decoding is cut after so many for each defect that is allowed."""
SHIPPED = Path(defectgen.__file__).parent / "models" / "defect-smollm2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--host", default="MoS2")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-defects", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, card = TransformersGenerator.from_adapter(options.model)
    host, task = get_host(options.host), DefectTask(card.encoding)  # type: ignore[arg-type]
    rng = np.random.default_rng(options.seed)
    covered = card.covered_ev[host.name]
    prompts = [
        task.prompt(host, {column: float(rng.uniform(*covered[column])) for column in ("homo_ev", "lumo_ev")})
        for _ in range(options.targets)
    ]
    most = min(card.max_defects[host.name], options.max_defects)
    sampling = Sampling(options.temperature, batch_size=options.targets * options.n)
    requests = [Request(prompt, task.grammar(host, most), options.n, k) for k, prompt in enumerate(prompts)]
    list(generator.generate(requests[:1], sampling))  # warm-up

    start = time.perf_counter()
    made = list(generator.generate(requests, sampling))
    constrained = time.perf_counter() - start
    for completion in made:
        task.parse(host, completion.text)

    with_library(generator)
    start = time.perf_counter()
    again = list(generator.generate(requests, sampling))
    padded = time.perf_counter() - start
    same = sum(a.text == b.text for a, b in zip(made, again, strict=True))

    written: list[str] = []
    start = time.perf_counter()
    for k, prompt in enumerate(prompts):
        drawn = write_freely(
            generator.model, generator.tokenizer, prompt, options.n, k, sampling, max_tokens=TOKENS_A_DEFECT * most
        )
        written += [text for text, _ in drawn]
    free = time.perf_counter() - start
    valid, tokens = 0, sum(len(generator.tokenizer.encode(text)) for text in written)
    for text in written:
        with contextlib.suppress(ParseError):
            valid += 1 <= task.parse(host, text).n_defects <= most
    count = len(made)
    print(
        json.dumps(
            {
                "structures": count,
                "constrained": {
                    "structures_per_s": round(count / constrained, 2),
                    "valid_share": 1.0,
                    "decode_steps_per_structure": round(sum(c.decode_steps for c in made) / count, 2),
                },
                "free": {
                    "structures_per_s": round(count / free, 2),
                    "valid_per_s": round(valid / free, 2),
                    "valid_share": round(valid / count, 4),
                    "tokens_per_structure": round(tokens / count, 2),
                },
                "constrained_with_the_library": {
                    "structures_per_s": round(count / padded, 2),
                    "equal_texts": same,
                    "ratio": round(padded / constrained, 2),
                },
                "ratio_valid_per_s": round(count / constrained / (valid / free), 2) if valid else None,
            },
            indent=1,
        )
    )


def with_library(generator: TransformersGenerator) -> None:
    """Decode as transformers would: its cache and attention, and every chunk in one pass, padded to the longest."""
    decoding.growing_cache = lambda config: DynamicCache(config=config)
    generator.model.set_attn_implementation("sdpa")
    generator.step_cost = 10**9


if __name__ == "__main__":
    main()
