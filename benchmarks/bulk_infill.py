"""The template method's crystals with elements that a model names instead of random ones.

    defectgen template mp20.csv -n 50 --seed 0 -o swapped
    python benchmarks/bulk_infill.py swapped --data mp20.csv --model ADAPTER -o mutants
    defectgen stability swapped --hull mp20.csv --m3gnet DIR -o swapped-stability
    defectgen stability mutants --hull mp20.csv --m3gnet DIR -o mutants-stability

Same known crystals, same element masked, same table of partners; only who chooses the partner differs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl

from defectgen.data.mp20 import read_crystals
from defectgen.generate.sampling import infill_job
from defectgen.generate.template import Swap, write_swaps
from defectgen.io.crystal_cif import crystal_from_cif
from defectgen.llm.decode.generator import Request, Sampling
from defectgen.llm.decode.transformers_engine import TransformersGenerator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("swapped", type=Path, help="folder of `defectgen template`")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known = read_crystals(options.data).frame
    cifs = dict(zip(known["id"], known["cif"], strict=True))
    swapped = pl.read_parquet(options.swapped / "samples.parquet")
    asked = [json.loads(text) for text in swapped["conditions"]]
    jobs = [infill_job(crystal_from_cif(cifs[one["template"]]), one["old"]) for one in asked]
    generator, _ = TransformersGenerator.from_adapter(options.model)
    requests = [Request(job.prompt, job.grammar, 1, options.seed) for job in jobs]
    swaps = []
    for completion in generator.generate(requests, Sampling(options.temperature, batch_size=16)):
        job, one = jobs[completion.request], asked[completion.request]
        crystal, reason = job.read(completion.text)
        assert crystal is not None, reason
        swaps.append(Swap(one["template"], one["old"], completion.text.strip(), crystal.to_structure()))
    write_swaps(swaps, options.output, options.seed, {"model": str(options.model), "temperature": options.temperature})
    same = sum(swap.new == one["new"] for swap, one in zip(swaps, asked, strict=True))
    print(json.dumps({"crystals": len(swaps), "same_as_random": same}))


if __name__ == "__main__":
    main()
