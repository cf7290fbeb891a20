"""Tokens of a record in each encoding, for each tokenizer: median over 50 structures of each set.

python benchmarks/tokens.py 2DMD NAME=tokenizer.json [NAME=tokenizer.json ...]
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import polars as pl
from tokenizers import Tokenizer

from defectgen.data.records import RecordSettings, make_records
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.tasks.defect.encodings import ENCODINGS


def main() -> None:
    data, *named = sys.argv[1:]
    tokenizers = {name: Tokenizer.from_file(path) for name, path in (text.split("=", 1) for text in named)}
    frame = split_by_class(read_2dmd(Path(data))).filter(split="train")
    few = pl.concat([part.sample(50, seed=0) for part in frame.partition_by("set", maintain_order=True)])
    print("| encoding | density | " + " | ".join(tokenizers) + " |")
    print("| --- | --- |" + " ---: |" * len(tokenizers))
    ways = [(encoding, False) for encoding in ENCODINGS] + [("symbols", True), ("crystal", True)]
    for encoding, cartesian in ways:
        for density in ("low", "high"):
            rows = few.filter(density=density)
            made = list(make_records(rows, "train", RecordSettings(encoding=encoding, cartesian=cartesian)))
            cells = []
            for tokenizer in tokenizers.values():
                sizes = [
                    [len(tokenizer.encode(record[part], add_special_tokens=False)) for record in made]
                    for part in ("prompt", "completion")
                ]
                cells.append(" + ".join(f"{statistics.median(part):.0f}" for part in sizes))
            title = f"`{encoding}`{', Cartesian' if cartesian else ''}"
            print(f"| {title} | {density} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
