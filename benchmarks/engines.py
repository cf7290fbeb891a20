"""Both engines on the same prompts, weights and machine, in one run; and vLLM without the constraint.

    python benchmarks/engines.py --targets 8 --n 16

Free decoding is the published way: vLLM's own sampling of the same adapter at the same temperature, each completion
parsed and invalid ones counted. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import defectgen
from defectgen.core import get_host
from defectgen.llm.decode.engines import load_generator
from defectgen.llm.decode.generator import Completion, Generator, Request, Sampling
from defectgen.llm.tokens import prompt_ids
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS
from defectgen.tasks.parsing import ParseError

SHIPPED = Path(defectgen.__file__).parent / "models" / "defect-smollm2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--host", default="MoS2")
    parser.add_argument("--encoding", choices=ENCODINGS, help="[the adapter's]; another one measures speed only")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--max-defects", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    host, report, made = get_host(options.host), {}, {}
    sampling = Sampling(options.temperature, batch_size=options.batch_size)
    for engine in ("transformers", "vllm"):
        start = time.perf_counter()
        generator = None  # the memory of one engine is free before the next one starts
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        generator, card = load_generator(engine, options.model, options.dtype)
        loaded = time.perf_counter() - start
        task = DefectTask(options.encoding or card.encoding)  # type: ignore[arg-type]
        rng, most = np.random.default_rng(options.seed), min(card.max_defects[host.name], options.max_defects)
        covered = [(column, card.covered_ev[host.name][column]) for column in ("homo_ev", "lumo_ev")]
        prompts = [
            task.prompt(host, {column: float(rng.uniform(*interval)) for column, interval in covered})
            for _ in range(options.targets)
        ]
        requests = [Request(text, task.grammar(host, most), options.n, k) for k, text in enumerate(prompts)]
        made[engine], seconds = timed(generator, requests, sampling)
        for completion in made[engine]:
            task.parse(host, completion.text)
        steps = [completion.decode_steps for completion in made[engine]]
        report[engine] = {
            "load_s": round(loaded, 1),
            "structures_per_s": round(len(steps) / seconds, 2),
            "valid_share": 1.0,
            "decode_steps_per_structure": round(float(np.mean(steps)), 2),
        }
        print(engine, json.dumps(report[engine]), file=sys.stderr)
    # The loop ends with vLLM.
    report["vllm_free"] = free(generator, host, task, most, requests, options)
    pairs = list(zip(made["transformers"], made["vllm"], strict=True))
    same = [(a, b) for a, b in pairs if a.text == b.text]
    report["comparison"] = {
        "structures": len(pairs),
        "equal_texts": len(same),
        "largest_log_likelihood_difference": round(
            max((abs(a.log_likelihood - b.log_likelihood) for a, b in same), default=0.0), 4
        ),
        "vllm_over_transformers": round(
            report["vllm"]["structures_per_s"] / report["transformers"]["structures_per_s"], 2
        ),
    }
    print(json.dumps(report, indent=1))


def timed(generator: Generator, requests: list[Request], sampling: Sampling) -> tuple[list[Completion], float]:
    """Completions and seconds, after a first prompt that nothing counts."""
    list(generator.generate([Request(requests[0].prompt, requests[0].grammar, 1, 0)], sampling))
    start = time.perf_counter()
    made = list(generator.generate(requests, sampling))
    return made, time.perf_counter() - start


def free(generator: Any, host: Any, task: DefectTask, most: int, requests: list[Request], options: Any) -> Any:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    prompts = [{"prompt_token_ids": prompt_ids(generator.tokenizer, request.prompt)} for request in requests]
    room = 8 * most if task.encoding == "edits" else 4000
    parameters = SamplingParams(n=options.n, temperature=options.temperature, max_tokens=room, seed=options.seed)
    start = time.perf_counter()
    outputs = generator.llm.generate(
        prompts, parameters, lora_request=LoRARequest("adapter", 1, str(options.model)), use_tqdm=False
    )
    seconds = time.perf_counter() - start
    valid, tokens, count = 0, 0, 0
    for completion in (completion for output in outputs for completion in output.outputs):
        count += 1
        tokens += len(completion.token_ids)
        with contextlib.suppress(ParseError):
            valid += 1 <= task.parse(host, completion.text).n_defects <= most
    return {
        "structures_per_s": round(count / seconds, 2),
        "valid_share": round(valid / count, 4),
        "valid_per_s": round(valid / seconds, 2),
        "tokens_per_structure": round(tokens / count, 2),
    }


if __name__ == "__main__":
    main()
