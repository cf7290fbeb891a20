"""How time and memory of the commands grow with the size of what they are given.

    python benchmarks/scale.py --data DIR -o scale.json            # all measures
    python benchmarks/scale.py targets score                       # some of them

Each size is a process of its own, so that the memory is that of the size alone. The last column is the cost of one more
item between the middle and the largest size, in that between the smallest and the middle one: 1 on a straight line,
3 or more where costs grow with the square.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

CALL = "import sys; from defectgen_cli.app import main; sys.exit(main(sys.argv[1:]))"
READ_TARGETS = (
    "import sys, pathlib; from defectgen.design.targets import read_targets; read_targets(pathlib.Path(sys.argv[1]))"
)


@dataclass(frozen=True)
class Cost:
    """What one process took.

    Attributes:
        size: of what it was given.
        seconds: of the processor, which other work on the machine does not change much.
        megabytes: largest resident memory.
    """

    size: int
    seconds: float
    megabytes: float


def run(size: int, code: str, *words: object) -> Cost:
    """The cost of a Python process.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, words))}: {said.read().decode(errors='replace')[-600:]}")
    return Cost(size, round(usage.ru_utime + usage.ru_stime, 2), round(usage.ru_maxrss / 1000, 1))


def targets(work: Path, sizes: tuple[int, ...], _: Path | None) -> list[Cost]:
    costs = []
    for size in sizes:
        rows = "".join(f"t{k},{0.05 + k * 1e-7:.7f},1.15\n" for k in range(size))
        (work / "targets.csv").write_text(f"id,homo,lumo\n{rows}")
        costs.append(run(size, READ_TARGETS, work / "targets.csv"))
    return costs


def score(work: Path, sizes: tuple[int, ...], _: Path | None) -> list[Cost]:
    cells = work / "cells"
    run(0, CALL, "enumerate", "--host", "MoS2", "--rules", "2dmd-low", "--limit", max(sizes), "--cif-dir", cells)
    files = sorted(cells.glob("*.cif"))
    costs = []
    for size in sizes:
        some = work / f"cells-{size}"
        some.mkdir()
        for file in files[:size]:
            (some / file.name).hardlink_to(file)
        costs.append(run(size, CALL, "score", some, "-o", work / f"scores-{size}.csv"))
    return costs


def build_data(work: Path, sizes: tuple[int, ...], data: Path | None) -> list[Cost]:
    if data is None:
        sys.exit("build-data needs --data DIR (2DMD).")
    call = ("build-data", "--data", data, "--sets", "MoS2,WSe2")
    return [run(size, CALL, *call, "--copies", size, "-o", work / f"records-{size}") for size in sizes]


def enumerate_structures(work: Path, sizes: tuple[int, ...], _: Path | None) -> list[Cost]:
    call = ("enumerate", "--host", "MoS2", "--max-defects", 4)
    return [run(size, CALL, *call, "--limit", size, "-o", work / f"list-{size}.parquet") for size in sizes]


def design(work: Path, sizes: tuple[int, ...], _: Path | None) -> list[Cost]:
    costs = []
    for size in sizes:
        rows = "".join(f"t{k},{0.05 + 0.1 * k / size:.7f},1.15\n" for k in range(size))
        (work / "wanted.csv").write_text(f"id,homo,lumo\n{rows}")
        call = ("design", "--host", "MoS2", "--max-defects", 2, "--proposer", "exhaustive", "-n", 4)
        costs.append(run(size, CALL, *call, "--targets", work / "wanted.csv", "-o", work / f"designs-{size}"))
    return costs


Measure = Callable[[Path, tuple[int, ...], Path | None], list[Cost]]
MEASURES: Mapping[str, tuple[str, str, Measure, tuple[int, ...]]] = {
    "targets": ("reading a table of targets", "rows", targets, (1_000, 4_000, 16_000)),
    "score": ("`score`, surrogate, 8x8 MoS2", "files", score, (500, 1_500, 5_000)),
    "build-data": ("`build-data --copies`, MoS2 and WSe2", "copies", build_data, (2, 7, 20)),
    "enumerate": (
        "`enumerate -o .parquet`, 8x8 MoS2",
        "structures",
        enumerate_structures,
        (100_000, 300_000, 1_000_000),
    ),
    "design": ("`design --targets`, all of up to two defects", "targets", design, (100, 300, 1_000)),
}


def straightness(costs: list[Cost]) -> float:
    """Cost of one more item between middle and largest size, in that between smallest and middle."""
    small, middle, large = costs
    first = (middle.seconds - small.seconds) / (middle.size - small.size)
    second = (large.seconds - middle.seconds) / (large.size - middle.size)
    return second / first if first > 0 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measures", nargs="*", help=f"some of {', '.join(MEASURES)} [all]")
    parser.add_argument("--data", type=Path, help="2DMD in its published layout, for build-data")
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes, for a quick look")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    found = {}
    print("| what | sizes | CPU seconds | MB | slope above / below |\n|---|---|---|---|---|")
    for name in options.measures or MEASURES:
        title, unit, measure, sizes = MEASURES[name]
        with tempfile.TemporaryDirectory(prefix="defectgen-scale-") as folder:
            scaled = tuple(max(int(size * options.share), k + 1) for k, size in enumerate(sizes))
            costs = measure(Path(folder), scaled, options.data)
        found[name] = [asdict(cost) for cost in costs]
        cells = (
            f"{' / '.join(f'{cost.size:,}' for cost in costs)} {unit}",
            " / ".join(f"{cost.seconds:.1f}" for cost in costs),
            " / ".join(f"{cost.megabytes:.0f}" for cost in costs),
        )
        print(f"| {title} | {' | '.join(cells)} | {straightness(costs):.2f} |", flush=True)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
