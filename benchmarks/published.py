"""The published way of generating beside ours: same weights, engine and machine, in one run.

    python benchmarks/published.py --crystals 4
    python benchmarks/published.py --adapter crystal=DIR --adapter symbols=DIR --crystals 4

The published way (slides of Al-Maeeni et al.) decodes a whole crystal freely, symbol and coordinates of every
site, with transformers' own `generate`; what does not parse is counted. Here it starts from the instruction
without the list of masked sites, which is to its favour, and always writes as many tokens as a crystal has, so
that weights that would end early cost as much as good ones. It has the weights of the encoding `crystal`. Ours is
`TransformersGenerator` under the grammar, in the encodings `edits`, `symbols` and `crystal`. A model that has never
seen its encoding spends the allowed defects on the first sites, and what follows is forced and cheap: rates of
`crystal` and `symbols` are upper bounds unless `--adapter` names one trained on them (`benchmarks/encodings.py`
leaves such behind). Prints one JSON document: crystals a second, valid share, tokens of the prompt and of a completion,
decoding steps (calls of the model that wait for a choice), and the ratio of the rates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import torch

import defectgen
from defectgen.core import Configuration, get_host
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator
from defectgen.llm.tokens import piece_ids, prompt_ids
from defectgen.tasks.defect.defect_task import DefectTask
from defectgen.tasks.defect.encodings import ENCODINGS
from defectgen.tasks.parsing import MASK, ParseError

SHIPPED = Path(defectgen.__file__).parent / "models" / "defect-smollm2"
VALUES = {"homo_ev": 0.05, "lumo_ev": 1.15}
TEMPERATURE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--adapter",
        metavar="ENCODING=DIR",
        action="append",
        default=[],
        help="trained on it [the shipped one, which knows edits]",
    )
    parser.add_argument("--host", default="MoS2")
    parser.add_argument("--crystals", type=int, default=4, help="of the published way and of the long encodings")
    parser.add_argument("--edits", type=int, default=256, help="crystals of the compact encoding")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    adapters = dict.fromkeys(ENCODINGS, str(SHIPPED)) | dict(text.split("=", 1) for text in options.adapter)
    host, found = get_host(options.host), {}
    for encoding in reversed(list(ENCODINGS)):
        generator, card = TransformersGenerator.from_adapter(Path(adapters[encoding]))
        count = options.edits if encoding == "edits" else options.crystals
        if encoding == "crystal":
            found["published way"] = published(generator, host, count, options.seed)
        found[encoding] = ours(generator, DefectTask(encoding), host, min(card.max_defects[host.name], 3), count)
    for values in found.values():
        values["ratio"] = values["crystals_per_s"] / next(iter(found.values()))["crystals_per_s"]
    print(json.dumps({name: {k: round(v, 4) for k, v in values.items()} for name, values in found.items()}, indent=1))


def ours(generator: TransformersGenerator, task: DefectTask, host, most: int, count: int) -> dict[str, float]:
    """Decoding under the grammar, `count` in one batch."""
    prompt, grammar = task.prompt(host, VALUES), task.grammar(host, most)
    if task.encoding == "edits":  # the first call costs more, which counts where it is all over in seconds
        list(generator.generate([Request(prompt, grammar, 1, 0)], Sampling(TEMPERATURE)))
    start = time.perf_counter()
    made = list(generator.generate([Request(prompt, grammar, count, 0)], Sampling(TEMPERATURE, batch_size=count)))
    seconds = time.perf_counter() - start
    for completion in made:
        task.parse(host, completion.text)
    return {
        "crystals_per_s": count / seconds,
        "valid_share": 1.0,
        "prompt_tokens": len(prompt_ids(generator.tokenizer, prompt)),
        "completion_tokens": sum(len(piece_ids(generator.tokenizer, c.text)) for c in made) / count,
        "decode_steps": sum(c.decode_steps for c in made) / count,
        "n": count,
    }


def published(generator: TransformersGenerator, host, count: int, seed: int) -> dict[str, float]:
    """Free decoding of whole crystals, `count` in one batch."""
    task, tokenizer = DefectTask("crystal"), generator.tokenizer
    prompt = "\n".join(line for line in task.prompt(host, VALUES).splitlines() if not line.startswith(MASK)) + "\n"
    length = len(piece_ids(tokenizer, task.completion(Configuration.of(host, {0: "VAC"}))))
    ids = torch.tensor([prompt_ids(tokenizer, prompt)] * count, device=generator.model.device)
    torch.manual_seed(seed)
    start = time.perf_counter()
    output = generator.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        min_new_tokens=length,
        max_new_tokens=length,
    )
    seconds = time.perf_counter() - start
    valid = 0
    for row in output[:, ids.shape[1] :]:
        with contextlib.suppress(ParseError):
            valid += task.parse(host, tokenizer.decode(row, skip_special_tokens=True)).n_defects >= 1
    return {
        "crystals_per_s": count / seconds,
        "valid_share": valid / count,
        "prompt_tokens": ids.shape[1],
        "completion_tokens": length,
        "decode_steps": length,
        "n": count,
    }


if __name__ == "__main__":
    main()
