"""The reader of structures on spoiled files: finite atoms, or one clear line; memory and time are limited.

The full number is a job (`-m job`); docs/reliability.md has its figures. The same seed spoils the same way.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate

from defectgen.core import get_host, host_names
from defectgen.core.matching import recognize
from defectgen.core.slab import NotADecorationError
from defectgen.io.structures import UNFORESEEN, read_structures
from defectgen.one_line import CONTROL

INPUTS = Path(__file__).parents[1] / "cases" / "inputs"
MEMORY_BYTES = 3 << 30
"""Beyond what the process has that forks the children: other tests leave caches and libraries there."""
SECONDS = 20
WORKERS = 2


def bases() -> list[Path]:
    files = (path for name in ("fmt", "score2", "enum", "pot") for path in sorted((INPUTS / name).iterdir()))
    return [path for path in files if path.is_file() and path.stat().st_size]


def judge(folder: Path, numbers: range, seed: int) -> dict[str, int]:
    """Read spoiled files; how many gave what.

    Raises:
        AssertionError: what must not happen.
    """
    hosts, files = [get_host(name) for name in host_names()], bases()
    counts: Counter[str] = Counter()
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        base = files[int(rng.integers(len(files)))]
        file = folder / base.name
        file.write_bytes(mutate(base.read_bytes(), rng, most=2))
        what = f"number {number} of seed {seed}, {base.name}"
        signal.alarm(SECONDS)
        for item in read_structures(file):
            if item.structure is None:
                assert item.note, what
                assert not CONTROL.search(item.note), what
                assert "\n" not in item.note, what
                assert len(item.note) < 1000, what
                assert UNFORESEEN not in item.note, f"{what}: {item.note}"
                counts["refused"] += 1
                continue
            assert np.isfinite(item.structure.cart_coords).all(), what
            assert np.isfinite(item.structure.lattice.matrix).all(), what
            counts["read"] += 1
            try:
                recognize(item.structure, hosts)
                counts["recognized"] += 1
            except NotADecorationError:
                counts["another layer"] += 1
        signal.alarm(0)
        file.unlink()
    return dict(counts)


def in_children(folder: Path, n: int, seed: int) -> Counter[str]:
    """The counts of several children, each with a share of the numbers."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    children = []
    for worker in range(WORKERS):
        own = folder / str(worker)
        own.mkdir()
        child = os.fork()
        if not child:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a reader that hangs in C ends the child
                counts = judge(own, range(worker, n, WORKERS), seed)
                (folder / f"{worker}.json").write_text(json.dumps(counts))
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert ends == [0] * WORKERS, f"children ended with {ends}"
    total: Counter[str] = Counter()
    for worker in range(WORKERS):
        total.update(json.loads((folder / f"{worker}.json").read_text()))
    return total


@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.job])])
def test_spoiled_structure_files(n: int, tmp_path: Path) -> None:
    counts = in_children(tmp_path, n, seed=20)
    print(dict(counts))
    assert sum(counts[name] for name in ("read", "refused")) >= n
    assert counts["read"] > 0.05 * n
    assert counts["refused"] > 0.3 * n
    assert counts["recognized"] > 0.01 * n
