"""Speed of enumeration, canonical form and reading, beside what else does the same, in one run.

    python benchmarks/data.py enumerate [--bsym PYTHON]
    python benchmarks/data.py canonical
    python benchmarks/data.py read 2DMD

`PYTHON` is the interpreter of an environment of its own with bsym 2.2 (pip install bsym==2.2). Each figure
is the best of three.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from defectgen.core import Configuration, canonicalize, get_host
from defectgen.core.classes import class_from_label, rule_set
from defectgen.core.counting import count_classes
from defectgen.core.enumeration import enumerate_class
from defectgen.core.symmetry import site_group

BSYM = """
import sys, time, warnings
warnings.simplefilter("ignore")
from pymatgen.core import Structure
from bsym.interface.pymatgen import unique_structure_substitutions
cell = Structure.from_file(sys.argv[1])
start = time.perf_counter()
found = unique_structure_substitutions(cell, "S", {"Xe": 3, "S": 125})
print(len(found), time.perf_counter() - start)
"""


def best(task: Callable[[], object], repeats: int = 3) -> float:
    """Shortest wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times)


def enumerate_(bsym: str | None) -> None:
    host = get_host("MoS2")
    site_group(host)
    classes = rule_set(host, "2dmd-low")
    found = sum(1 for c in classes for _ in enumerate_class(host, c))
    seconds = best(lambda: [list(enumerate_class(host, c)) for c in classes])
    print(f"2dmd-low, MoS2 8x8: {found:,} structures in {seconds:.3f} s")
    print(f"  counted by Burnside's lemma in {best(lambda: [count_classes(host, c) for c in classes]):.3f} s")
    three = class_from_label(host, "3v_S")
    ours = best(lambda: list(enumerate_class(host, three)))
    print(f"3 S vacancies: {len(list(enumerate_class(host, three)))} structures in {ours:.4f} s")
    if bsym:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "POSCAR"
            Configuration.of(host, {}).to_structure().to(str(path), fmt="poscar")
            run = subprocess.run([bsym, "-c", BSYM, path], capture_output=True, text=True, check=True)
        number, theirs = run.stdout.split()
        print(f"  bsym unique_structure_substitutions: {number} in {float(theirs):.2f} s, {float(theirs) / ours:.0f} x")


def canonical() -> None:
    host, rng = get_host("MoS2"), np.random.default_rng(0)
    for n_defects in (1, 2, 3, 24):
        items = []
        for _ in range(5_000):
            sites = sorted(rng.choice(host.n_sites, n_defects, replace=False).tolist())
            allowed = [host.allowed[host.site_cell(site)[0]] for site in sites]
            items.append(Configuration.of(host, [(s, a[rng.integers(2)]) for s, a in zip(sites, allowed, strict=True)]))
        many = len(items) / best(lambda items=items: canonicalize(items))
        one = 300 / best(lambda items=items: [item.canonical() for item in items[:300]])
        print(f"{n_defects:>2} defects in {host.n_sites} sites: {many:,.0f} a second at once, {one:,.0f} one by one")


def read(data: Path) -> None:
    from pymatgen.core import Structure

    from defectgen.data.twodmd import read_2dmd

    with tempfile.TemporaryDirectory() as cache:
        os.environ["DEFECTGEN_CACHE"] = cache
        cold = best(lambda: read_2dmd(data), repeats=1)
        warm = best(lambda: read_2dmd(data))
    frame = read_2dmd(data)
    print(f"{len(frame):,} structures to one table: {cold:.1f} s cold, {warm:.3f} s warm")
    archive = data / "csv_cif" / "low_density_defects" / "MoS2" / "initial.tar.gz"
    with tarfile.open(archive, "r:gz") as tar:
        handles = (tar.extractfile(member) for member in tar if member.name.endswith(".cif"))
        texts = [handle.read().decode() for handle in handles if handle is not None][:60]
    pymatgen = best(lambda: [Structure.from_str(text, fmt="cif") for text in texts], repeats=1) / len(texts)
    ours = cold / len(frame)
    print(f"a structure: {1e3 * ours:.2f} ms here (labels, matching and canonical form included), "
          f"{1e3 * pymatgen:.1f} ms for pymatgen to read its CIF: {pymatgen / ours:.0f} times")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["enumerate", "canonical", "read"])
    parser.add_argument("data", nargs="?", type=Path, help="2DMD in its published layout, to read")
    parser.add_argument("--bsym", metavar="PYTHON")
    options = parser.parse_args()
    if options.what == "read":
        if options.data is None:
            parser.error("read needs the folder of 2DMD")
        read(options.data)
    elif options.what == "enumerate":
        enumerate_(options.bsym)
    else:
        canonical()


if __name__ == "__main__":
    main()
