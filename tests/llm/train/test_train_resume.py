"""Runs that are killed, stopped or spread over processes end where an unbroken one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_runs import config, largest_difference

from defectgen.errors import DefectgenError, UsageError
from defectgen.llm.adapter import METADATA, read_adapter
from defectgen.llm.train.callbacks import LOG
from defectgen.llm.train.checkpoints import COMPLETE, best_step, complete, complete_checkpoints, evaluations_since_best
from defectgen.llm.train.finetune import finetune
from defectgen.llm.train.history import FinetuneResult
from defectgen.llm.train.trainer import LengthOrder, share_out

TOLERANCE = 1e-6
"""Largest difference of a float32 weight after resuming: the arithmetic is the same."""
TOLERANCE_PROCESSES = 1e-5
"""Two processes add the same numbers in another order; Adam scales what is left of it up."""
STEPS = 32
"""Of 8 records: two passes over the 112 and a part of a third."""

CHILD = """
import json, os, signal, sys, time
import transformers
from pathlib import Path
from defectgen.llm.train.finetune_config import FinetuneConfig
from defectgen.llm.train.finetune import finetune

values, data, output, how = json.loads(sys.argv[1])
if how == "kill, then wait":  # two processes, with libraries imported once
    process = os.fork()
    how = "wait" if process else "kill"
    if process:
        print("KILLED", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        sys.stdin.readline()
if how == "kill":  # -9 in the middle of writing a checkpoint
    write = transformers.TrainerState.save_to_json
    def die(state, path):
        if state.global_step == 20:
            Path(path).write_text("{")
            os.kill(os.getpid(), signal.SIGKILL)
        write(state, path)
    transformers.TrainerState.save_to_json = die
if os.environ.get("RANK", "0") != "0":
    def watch(event, about):
        if event == "open" and str(about[0]).startswith(output) and about[2] & (os.O_WRONLY | os.O_RDWR):
            print("WRITES", about[0])
    sys.addaudithook(watch)
def slow(step, total, figures):
    if how == "wait" and step > 24 and not figures:
        time.sleep(0.25)
result = finetune(FinetuneConfig(**values), Path(data), Path(output), slow)
os.write(1, f"ENDED {result.steps} {result.adapter is not None}\\n".encode())  # whole, also beside another process
"""


@pytest.fixture(scope="module")
def unbroken(tiny_model_dir: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert finetune(config(tiny_model_dir, max_steps=STEPS), records, folder).steps == STEPS
    return folder


def child(how: str, model: Path, records: Path, output: Path, *launcher: str) -> list[str]:
    """The command that trains in a process of its own."""
    script = output.with_suffix(".py")
    script.write_text(CHILD)
    values = (
        config(model, max_steps=STEPS, batch_size=4, accumulation=2) if launcher else config(model, max_steps=STEPS)
    )
    return [sys.executable, *launcher, str(script), json.dumps([values.model_dump(), str(records), str(output), how])]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_killed_and_a_stopped_run_end_where_an_unbroken_one_does(
    tiny_model_dir: Path, records: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "broken"
    checkpoints = run / "checkpoints"
    with subprocess.Popen(
        child("kill, then wait", tiny_model_dir, records, run),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "KILLED -9\n"
        assert (checkpoints / "checkpoint-20" / "trainer_state.json").read_text() == "{"  # half-written
        assert [path.name for path in complete_checkpoints(checkpoints)] == ["checkpoint-12", "checkpoint-16"]
        process.stdin.write("go on\n")
        process.stdin.flush()
        wait_for(checkpoints / "checkpoint-24" / COMPLETE, process)
        process.terminate()
        out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    _, steps, finished = out.split()
    assert 24 <= int(steps) < STEPS
    assert finished == "False"
    assert not (run / METADATA).exists()
    seen: list[int] = []
    resumed = finetune(config(tiny_model_dir, max_steps=STEPS), records, run, lambda step, *_: seen.append(step))
    assert seen[0] == int(steps) + 1
    assert resumed.steps == STEPS
    last = f"checkpoint-{STEPS}"
    assert largest_difference(unbroken / "checkpoints" / last, checkpoints / last) <= TOLERANCE
    losses = [dict(read_adapter(folder).training["validation_losses"]) for folder in (unbroken, run)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    assert [row["step"] for row in lines if "eval_loss" in row] == [6, 12, 18, 24, 30, 32]


@pytest.mark.slow
def test_two_processes_end_where_one_does(tiny_model_dir: Path, records: Path, unbroken: Path, tmp_path: Path) -> None:
    run = tmp_path / "two"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = child("", tiny_model_dir, records, run, *launcher)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"ENDED {STEPS} True") == 2
    assert "WRITES" not in ended.stdout
    last = f"checkpoint-{STEPS}"
    ours, theirs = unbroken / "checkpoints" / last, run / "checkpoints" / last
    assert largest_difference(ours, theirs) <= TOLERANCE_PROCESSES
    assert read_adapter(run).training["processes"] == 2
    rows = [[json.loads(line) for line in (folder / LOG).read_text().splitlines()] for folder in (unbroken, run)]
    for name in ("loss", "grad_norm"):
        one, two = ([row[name] for row in side if name in row] for side in rows)
        assert one == pytest.approx(two, rel=1e-3), name


def test_the_order_of_records_depends_on_seed_and_epoch_alone() -> None:
    lengths = [20 + k % 7 for k in range(100)]
    order = LengthOrder(lengths, 8, 3)
    first = list(order)
    assert sorted(first) == list(range(100))
    assert list(LengthOrder(lengths, 8, 3)) == first
    assert list(LengthOrder(lengths, 8, 4)) != first
    order.set_epoch(1)
    assert list(order) != first
    spread = [max(lengths[i] for i in first[k : k + 8]) - min(lengths[i] for i in first[k : k + 8]) for k in (24, 40)]
    assert max(spread) <= 3  # batches hold records of similar length


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "world", "expected"),
    [(8, 1, 1, (8, 1)), (8, 4, 2, (8, 2)), (8, 1, 2, (4, 1)), (6, 2, 4, (3, 1)), (4, 3, 2, (3, 2)), (1, 8, 8, (1, 1))],
)
def test_a_step_sees_the_same_records_whatever_the_number_of_processes(
    batch_size: int, accumulation: int, world: int, expected: tuple[int, int]
) -> None:
    rows, passes = share_out(batch_size, accumulation, world)
    assert (rows, passes) == expected
    assert rows * passes * world == batch_size * accumulation
    assert rows <= batch_size


def test_steps_of_similar_records_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 1003).tolist()
    order = list(LengthOrder(lengths, 8, seed=3))
    assert sorted(order) == list(range(1003))
    steps = [[lengths[k] for k in order[first : first + 8]] for first in range(0, 1003, 8)]
    assert [len(step) for step in steps] == [8] * 125 + [3]
    assert np.mean([np.ptp(step) for step in steps]) < 0.15 * np.ptp(lengths)
    means = [np.mean(step) for step in steps]
    follows = np.corrcoef(means[:-1], means[1:])[0, 1]  # sorted from long to short it is near 1
    assert abs(follows) < 0.3


def test_a_step_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UsageError, match="3 x accumulation 1 records cannot be shared among 2"):
        share_out(3, 1, 2)


def test_the_best_checkpoint_and_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        complete(tmp_path, step, best=4)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-8", "checkpoint-10"]
    history = [{"step": 2, "loss": 1.0}, {"step": 2, "m": 0.4}, {"step": 4, "m": 0.2}, {"step": 6, "m": 0.2}]
    assert best_step(history, "m") == 4
    assert best_step(history, "absent") is None
    assert evaluations_since_best(history, "m") == 1
    assert evaluations_since_best(history, "absent") == 0


def test_a_folder_of_a_run_with_other_passes_is_the_same_run(
    tiny_model_dir: Path, records: Path, tmp_path: Path
) -> None:
    def stopped(**changes: object) -> FinetuneResult:
        def full(step: int, _total: int, _figures: dict[str, float]) -> None:
            if step == 3:
                raise DefectgenError("stopped")

        return finetune(config(tiny_model_dir, save_steps=2, **changes), records, tmp_path / "run", full)

    with pytest.raises(DefectgenError, match="stopped"):
        stopped()
    old = json.loads((tmp_path / "run" / "run.json").read_text())
    del old["config"]["patience"]  # as an older version wrote it
    (tmp_path / "run" / "run.json").write_text(json.dumps(old))
    with pytest.raises(UsageError, match="holds another run"):
        stopped(batch_size=4)
    halved = config(tiny_model_dir, batch_size=4, accumulation=2)
    assert finetune(halved, records, tmp_path / "run").steps == 12
