"""SLICES strings beside the reference package's, and the published surrogate that learns from them.

    python benchmarks/slices.py encode --data 2DMD --python ENVIRONMENT/bin/python
    python benchmarks/slices.py surrogate --data 2DMD -o MODEL

`encode` takes structures of each set, as configurations and as the published CIFs, compares the strings with those
of the reference package, and takes the CPU time of both in one run. `surrogate` trains on 60 % of each set, calibrates
on 20 % and reports mean absolute errors on 20 %. Both print one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from defectgen.core import Configuration
from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import SETS, read_2dmd
from defectgen.score.slices_catboost import COLUMNS, train
from defectgen.score.surrogate.evaluation import PER_SITE, evaluate
from defectgen.slices import ReferencePackage, encode_configuration, encode_structure


def cifs(archive: Path, number: int) -> Iterator[Structure]:
    """The first structures of an archive of CIFs."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.name.endswith(".cif") else None
            if handle is not None:
                yield Structure.from_str(handle.read().decode(), "cif")
                number -= 1
            if number == 0:
                return


def encode(options: argparse.Namespace) -> dict[str, Any]:
    reference = ReferencePackage(options.python)
    frame = read_2dmd(options.data)
    result: dict[str, Any] = {}
    times: dict[str, list[float]] = {"reference": [], "configuration": [], "structure": []}
    for info in SETS:
        rows = frame.filter(set=info.name)
        rows = rows.sample(min(options.n, len(rows)), seed=options.seed)
        items = [Configuration.from_key(info.core_host, key) for key in rows["configuration"]]
        structures = [item.to_structure() for item in items]
        folder = options.data / "csv_cif" / f"{info.density}_density_defects" / info.name
        originals = list(cifs(folder / "initial.tar.gz", options.cifs))
        expected = reference.encode([*structures, *originals])
        encode_configuration(items[0])  # the host's shells are made once
        equal = {"configurations": 0, "general_path": 0, "cifs": 0}
        for item, (text, seconds) in zip(items, expected, strict=False):
            start = time.process_time()
            found = encode_configuration(item)
            times["configuration"].append(time.process_time() - start)
            times["reference"].append(seconds)
            equal["configurations"] += found == text
        for kind, chosen, texts in (
            ("general_path", structures[: options.cifs], expected),
            ("cifs", originals, expected[len(items) :]),
        ):
            for structure, (text, _) in zip(chosen, texts, strict=False):
                start = time.process_time()
                found = encode_structure(structure)
                times["structure"].append(time.process_time() - start)
                equal[kind] += found == text
        result[info.name] = {"configurations": len(items), "cifs": len(originals), "equal": equal}
    medians = {name: statistics.median(values) for name, values in times.items()}
    result["median_cpu_ms"] = {name: round(1e3 * value, 3) for name, value in medians.items()}
    result["ratio_median"] = round(medians["reference"] / medians["configuration"], 1)
    result["ratio_sum"] = round(sum(times["reference"]) / sum(times["configuration"]), 1)
    return result


def surrogate(options: argparse.Namespace) -> dict[str, Any]:
    sets = options.sets.split(",") if options.sets else None
    frame = split_by_class(read_2dmd(options.data, sets), (0.6, 0.2, 0.2), options.seed)
    start = time.perf_counter()
    scorer = train(frame, options.output, options.seed, threads=options.threads)
    trained = time.perf_counter()
    errors = evaluate(scorer, frame.filter(split="test"))
    keys = (*COLUMNS, PER_SITE)
    table = {
        name: {
            column: {key: round(found[column][key], 3) for key in ("n", "mae_mev", "coverage_90")}
            for column in keys
            if column in found
        }
        for name, found in errors.items()
    }
    return {
        "train_s": round(trained - start, 1),
        "evaluate_s": round(time.perf_counter() - trained, 1),
        "test": table,
    }


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("encode")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--python", type=Path, required=True, help="interpreter of the reference package's environment")
    one.add_argument("--n", type=int, default=75, help="configurations of each set")
    one.add_argument("--cifs", type=int, default=15, help="published CIFs of each set")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=encode)
    two = commands.add_parser("surrogate")
    two.add_argument("--data", type=Path, required=True)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.add_argument("--sets", default="")
    two.add_argument("--seed", type=int, default=42)
    two.add_argument("--threads", type=int, default=1)
    two.set_defaults(run=surrogate)
    options = parser.parse_args()
    print(json.dumps(options.run(options), indent=1))


if __name__ == "__main__":
    main()
