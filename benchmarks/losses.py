"""Loss of adapters on the same validation records, and where they believe that a bulk crystal ends.

    python benchmarks/losses.py RECORDS ADAPTER [ADAPTER ...] --records 300

Prints one JSON document: for each adapter nats a token of the completions, their end included. For records of
`build-data --task bulk` (infill left out) also the mean probability of the end after the last atom of a crystal, and
after the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.likelihood import Text, log_likelihoods
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.llm.train.dataset import drawn
from defectgen.llm.train.record_folder import read_records

HEADER_LINES = 2
"""Lengths and angles."""
LINES_AN_ATOM = 2
"""Element and coordinates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of build-data")
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    records = [r for r in read_records(options.data / "validation.jsonl") if r.get("task", "generation") != "infill"]
    chosen = drawn(records, options.records, options.seed)
    texts = [Text(record["prompt"], record["completion"]) for record in chosen]
    found = {}
    for adapter in options.adapters:
        generator, card = TransformersGenerator.from_adapter(adapter, "float32")
        judged = list(log_likelihoods(generator.model, generator.tokenizer, texts))
        figures = {"nats_a_token": -sum(x.nats for x in judged) / sum(x.tokens for x in judged)}
        if card.encoding == "bulk":
            figures |= ends(generator, texts)
        found[str(adapter)] = figures
    print(json.dumps({"records": len(texts), "adapters": found}, indent=1))


@torch.inference_mode()
def ends(generator: TransformersGenerator, texts: list[Text]) -> dict[str, float]:
    """Mean probability of the end where crystals end, and after atoms that others follow."""
    last, before = [], []
    tokenizer = generator.tokenizer
    for text in texts:
        prompt, written = prompt_ids(tokenizer, text.prompt), piece_ids(tokenizer, text.completion)
        logits = generator.model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 :]
        chances = logits.float().softmax(-1)[:, tokenizer.eos_token_id]
        breaks = [k for k, token in enumerate(written) if "\n" in tokenizer.decode([token])]
        last.append(float(chances[-1]))
        before += chances[breaks[HEADER_LINES + 1 :: LINES_AN_ATOM]].tolist()  # in place of the line break
    return {"end_after_last_atom": float(np.mean(last)), "end_after_others": float(np.mean(before))}


if __name__ == "__main__":
    main()
