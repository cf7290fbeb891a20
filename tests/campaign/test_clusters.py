"""Tasks through Parsl: workers and drivers that are killed, a scheduler that is made of three small programs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("parsl")
from test_run import computed, driver, make, states

from defectgen.campaign.clusters import ClusterConfig, ParslExecutor, read_cluster
from defectgen.campaign.running import run_campaign
from defectgen.campaign.store import DONE

TASKS = 100

STUBS = {
    "sbatch": """#!/bin/sh
# starts the job script at once, and says a job's number as Slurm does
script=$(eval echo \\$$#)
setsid sh "$script" > "$script.out" 2>&1 < /dev/null &
echo $! >> "{log}"
echo "Submitted batch job $!"
""",
    "squeue": """#!/bin/sh
# jobs that run, as `squeue --noheader --format='%i %t' --jobs=1,2` shows them
for word in "$@"; do case $word in --job=*|--jobs=*) jobs=${{word#*=}};; esac; done
for job in $(echo "$jobs" | tr ',' ' '); do kill -0 "$job" 2>/dev/null && echo "$job R"; done
exit 0
""",
    "scancel": """#!/bin/sh
for job in "$@"; do kill -- -"$job" 2>/dev/null; done
exit 0
""",
    "sacct": """#!/bin/sh
exit 0
""",
}


def processes_of(driver: int) -> tuple[list[int], list[int]]:
    """Parsl's managers in a driver's session, and their workers."""
    found: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(fields[3]) == driver:
            found[int(entry.name)] = (int(fields[1]), words)
    managers = sorted(pid for pid, (_, words) in found.items() if "process_worker_pool" in words)
    workers = [pid for pid, (parent, words) in found.items() if parent in managers and "multiprocessing.spawn" in words]
    return managers, sorted(workers)


def wait_for(campaign: object, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while sum(computed(campaign).values()) < count and time.monotonic() < deadline:  # type: ignore[arg-type]
        time.sleep(0.1)


def test_shipped_clusters_become_configurations_of_parsl(tmp_path: Path) -> None:
    from parsl.providers import LocalProvider, PBSProProvider, SlurmProvider

    for name, kind, blocks in (
        ("two-workers", LocalProvider, 1),
        ("slurm", SlurmProvider, 4),
        ("pbs", PBSProProvider, 4),
    ):
        config = ParslExecutor(read_cluster(name), tmp_path)._config()
        (executor,) = config.executors
        assert type(executor.provider) is kind
        assert executor.provider.max_blocks == blocks
        assert executor.max_workers_per_node == read_cluster(name).workers_per_node
        assert config.usage_tracking == 0


@pytest.mark.slow
def test_slurm_runs_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = make(tmp_path, monkeypatch, 3)
    tools, log = tmp_path / "tools", tmp_path / "jobs"
    tools.mkdir()
    for name, text in STUBS.items():
        (tools / name).write_text(text.format(log=log))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    cluster = ClusterConfig(
        provider="slurm", partition="short", cores_per_node=1, max_blocks=1, walltime="00:10:00", poll_s=1.0,
        worker_init=f"export PYTHONPATH={Path(__file__).parent}",
    )  # fmt: skip
    found = run_campaign(campaign, ParslExecutor(cluster, tmp_path / "parsl"))
    assert (found.done, found.failed) == (3, ())
    assert states(campaign) == {DONE: 3}
    assert set(computed(campaign).values()) == {1}
    scripts = [path for path in (tmp_path / "parsl").rglob("parsl.slurm.block-0*") if path.suffix != ".out"]
    script = scripts[0].read_text()
    assert "#SBATCH --partition=short" in script
    assert "#SBATCH --time=10" in script
    jobs = log.read_text().split()
    assert jobs
    deadline = time.monotonic() + 20
    while any(alive(int(job)) for job in jobs) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(int(job)) for job in jobs)  # cancelled in the end


def alive(process: int) -> bool:
    """Whether a process runs, and is not only waiting to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.job
def test_of_a_hundred_tasks_none_is_lost_and_none_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = make(tmp_path, monkeypatch, TASKS, max_defects=3)
    (tmp_path / "notes" / "pause").write_text("0.3")
    file = tmp_path / "two.yaml"
    file.write_text("provider: local\nworkers_per_node: 2\nheartbeat_s: 8\npoll_s: 1\n")
    kills: list[str] = []
    first = driver(campaign, "--executor", str(file))
    for goal, which, name in ((10, 1, "worker"), (25, 0, "manager")):
        wait_for(campaign, goal, 600)
        processes = processes_of(first.pid)[which]
        assert processes, f"no {name} to kill"
        os.kill(processes[-1], signal.SIGKILL)  # the first one beside the workers keeps the manager's tables
        kills.append(name)
    wait_for(campaign, 40, 600)
    os.kill(first.pid, signal.SIGKILL)
    kills.append("driver")
    first.wait()
    second = driver(campaign, "--executor", str(file))
    wait_for(campaign, 60, 600)
    for group in (first.pid, second.pid):  # as a machine ends: all at once
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    kills.append("machine")
    second.wait()
    last = driver(campaign, "--executor", str(file))
    output = last.communicate(timeout=1200)[0]
    assert last.returncode == 0, output
    assert states(campaign) == {DONE: TASKS}
    counts = computed(campaign)
    assert len(counts) == TASKS
    logs = list((campaign.folder / "calculations").glob("*/*/run.log"))
    starts = sum(path.read_text().count("== ") for path in logs if "references" not in path.parts)
    print(f"{kills}: {sum(counts.values())} computations of {TASKS} structures, {starts} starts")
    assert set(counts.values()) == {1}
