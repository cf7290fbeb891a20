"""Kill commands at every kind of moment, run them again as documented, and compare with a run that was not killed.

python tests/faults/job.py --kills 40        # for each command; a JSON report on stdout, a table on stderr
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "data"), str(HERE.parent / "llm")]
os.environ.update(OMP_NUM_THREADS="1", POLARS_MAX_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")


LIGHT = {"build-data", "enumerate", "fetch", "score", "inputs", "compute"}
"""Commands that need no language model."""


def warm_up(light: bool) -> None:
    """Import what the commands import, and start no thread: the children are forked from here."""
    import ase.calculators.lj
    import ase.io.trajectory
    import ase.optimize  # noqa: F401
    import catboost  # noqa: F401
    import gemmi  # noqa: F401
    import httpcore  # noqa: F401
    import pymatgen.io.cif  # noqa: F401

    from defectgen.core import get_host, site_permutations
    from defectgen_cli.app import main

    for package in ("core", "data", "dft", "io", "report", "tasks"):
        top = importlib.import_module(f"defectgen.{package}")
        for found in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
            importlib.import_module(found.name)
    for name in ("design.run", "design.pseudo_labels", "score.scorers", "score.structure_table", "score.surrogate"):
        importlib.import_module(f"defectgen.{name}")
    site_permutations(get_host("MoS2"))
    with contextlib.redirect_stdout(io.StringIO()):
        main(["--version"])  # the tree of commands
    if not light:
        import peft  # noqa: F401
        import torch
        import transformers.models.llama.modeling_llama  # noqa: F401

        torch.set_num_threads(1)
    gc.freeze()  # the children share the memory of what is imported


def half_sizes(sizes: list[int], n: int) -> list[int]:
    """At most `n` of the halves of some sizes of files, spread evenly."""
    from children import chosen

    halves = sorted({size // 2 for size in sizes if size > 1})
    return [halves[k - 1] for k in chosen(halves, n)] if halves and n else []


def faults_of(operations: tuple[str, ...], sizes: list[int], n: int) -> list[Any]:
    """Kills before operations and, a third of them, half-way through the writing of a file."""
    from children import Fault, chosen

    halves = [Fault("half", size) for size in half_sizes(sizes, max(n // 3, 1))]
    return [Fault("kill", k) for k in chosen(operations, n - len(halves))] + halves


def judge(command: Any, fault: Any, root: Path, whole: dict[str, str]) -> dict[str, Any]:
    """One kill and the rerun."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    first = command.run(root, fault)
    again = command.run(root, again=True)
    finished = bool(command.done) and again.code == 2 and command.done in again.said
    state = command.state(root)
    different = sorted(name for name in {*state, *whole} if state.get(name) != whole.get(name))
    if fault.kind == "full":
        ended = first.code in (0, 1, *command.ends) and "Traceback" not in first.said and "Error:" not in first.said
    else:
        ended = first.code in (0, -signal.SIGKILL, -signal.SIGXFSZ, -signal.SIGTERM, 130, *command.ends)
    good = ended and (again.code == 0 or finished) and not different
    row = {"kind": fault.kind, "number": fault.number, "signal": int(fault.signal), "code": first.code}
    row |= {"rerun": again.code, "finished": finished, "good": good}
    if not good:
        row |= {"different": different[:6], "said": first.said[-300:], "rerun_said": again.said[-300:]}
    return row


def main() -> int:
    """Run the job; the exit code is 1 if anything was lost."""
    from children import Fault, chosen
    from commands import commands, inputs, store

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="for each command")
    parser.add_argument("--signals", type=int, default=3, help="SIGTERM and SIGINT, each so many, for each command")
    parser.add_argument("--full", type=int, default=2, help="writes that fail half-way, for each command")
    parser.add_argument("--only", default="", help="names of commands, separated by commas")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="faults-")).resolve()
    os.environ["DEFECTGEN_CACHE"] = str(work / "cache")
    os.environ.pop("DEFECTGEN_2DMD", None)
    light = bool(options.only) and set(options.only.split(",")) <= LIGHT
    warm_up(light)
    report: dict[str, Any] = {}
    try:
        with store():
            (work / "in").mkdir()
            inputs(work / "in", trained=not light)
            for command in commands(work / "in", work / "fit.pickle"):
                if options.only and command.name not in options.only.split(","):
                    continue
                started = time.monotonic()
                root = work / "out" / "root"
                for _ in range(2):  # the second run is compared with: what the first computed once is there
                    shutil.rmtree(root, ignore_errors=True)
                    root.mkdir(parents=True)
                    ended = command.run(root)
                    if ended.code:
                        raise RuntimeError(f"{command.name} ended with {ended.code}: {ended.said[-800:]}")
                whole = command.state(root)
                sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
                operations = ended.operations
                faults = faults_of(operations, sizes, options.kills)
                for number in (signal.SIGTERM, signal.SIGINT):
                    faults += [Fault("signal", k, number) for k in chosen(operations, options.signals)]
                faults += [Fault("full", size) for size in half_sizes(sizes, options.full)]
                rows = [judge(command, fault, root, whole) for fault in faults]
                kinds = Counter(row["kind"] for row in rows if row["code"] != 0)
                bad = [row for row in rows if not row["good"]]
                report[command.name] = {
                    "operations": len(operations),
                    "kills": kinds["kill"] + kinds["half"],
                    "half_way": kinds["half"],
                    "signals": kinds["signal"],
                    "full": kinds["full"],
                    "bad": bad,
                    "seconds": round(time.monotonic() - started, 1),
                }
                about = report[command.name]
                print(
                    f"{command.name:<16}{len(operations):>5} operations, {about['kills']:>3} kills "
                    f"({about['half_way']} half-way), {about['signals']} signals, {about['full']} full: "
                    f"{len(bad)} bad, {about['seconds']} s",
                    file=sys.stderr,
                    flush=True,
                )
                for row in bad[:4]:
                    print("   ", json.dumps(row), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(report))
    return int(any(found["bad"] for found in report.values()))


if __name__ == "__main__":
    sys.exit(main())
