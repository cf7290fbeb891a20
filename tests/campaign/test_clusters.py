"""Tasks through Parsl: workers and drivers that are killed, a scheduler that is made of three small programs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("parsl")
from parsl_processes import processes_of
from test_run import computed, driver, make, states

from defectgen.campaign.running import run_campaign
from defectgen.campaign.store import DONE, PROPOSED
from defectgen.errors import DefectgenError, UsageError
from defectgen.execution.clusters import ClusterConfig, ParslExecutor, read_cluster
from defectgen.execution.pbs import PbsProvider, for_whole_nodes

TASKS = 100

SLURM = {
    "sbatch": """#!/bin/sh
# starts the job script at once, and says a job's number as Slurm does
script=$(eval echo \\$$#)
setsid bash "$script" > "$script.out" 2>&1 < /dev/null &
echo $! >> "{log}"
echo "Submitted batch job $!"
""",
    "squeue": """#!/bin/sh
# jobs that run, as `squeue --noheader --format='%i %t' --job 1,2` shows them
while [ $# -gt 1 ]; do shift; done
for job in $(echo "$1" | tr ',' ' '); do kill -0 "$job" 2>/dev/null && echo "$job R"; done
exit 0
""",
    "scancel": """#!/bin/sh
for job in "$@"; do kill -- -"$job" 2>/dev/null; done
exit 0
""",
    "sacct": """#!/bin/sh
echo "Slurm accounting storage is disabled" >&2
exit 1
""",
}

PBS = {
    "qsub": """#!/bin/bash
# starts the job script in the home folder, with an environment of its own and output where `#PBS -o` says
script=${{@: -1}}
to() {{ sed -n "s/^#PBS -$1 //p" "$script"; }}
mkdir -p "{log}-home"
cd "{log}-home"
env -i HOME="{log}-home" PATH=/usr/bin:/bin PBS_ENVIRONMENT=PBS_BATCH \\
    setsid bash "$script" > "$(to o)" 2> "$(to e)" < /dev/null &
echo $! >> "{log}"
echo "$!.head.example.org"
""",
    "qstat": """#!/bin/bash
# the long form, from a server without a history of jobs
code=0
for word in "$@"; do
    case $word in
        -x) echo "qstat: PBS is not configured to maintain job history" >&2; exit 1 ;;
        -*) continue ;;
    esac
    if kill -0 "${{word%%.*}}" 2>/dev/null; then
        printf 'Job Id: %s\\n    Job_Name = parsl\\n    job_state = R\\n    queue = short\\n\\n' "${{word%%.*}}.head"
    else
        echo "qstat: Unknown Job Id $word" >&2; code=153
    fi
done
exit $code
""",
    "qdel": """#!/bin/bash
code=0
for job in "$@"; do
    kill -- -"${{job%%.*}}" 2>/dev/null || {{ echo "qdel: Unknown Job Id $job" >&2; code=153; }}
done
exit $code
""",
}


def scheduler(folder: Path, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs first on the path; the file that they write the jobs' numbers into."""
    tools, log = folder / "tools", folder / "jobs"
    tools.mkdir()
    for name, text in programs.items():
        (tools / name).write_text(text.format(log=log))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return log


def wait_for(campaign: object, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while sum(computed(campaign).values()) < count and time.monotonic() < deadline:  # type: ignore[arg-type]
        time.sleep(0.1)


def test_shipped_clusters_become_configurations_of_parsl(tmp_path: Path) -> None:
    from parsl.providers import LocalProvider, SlurmProvider

    for name, kind, blocks in (
        ("two-workers", LocalProvider, 1),
        ("slurm", SlurmProvider, 4),
        ("pbs", PbsProvider, 4),
    ):
        config = ParslExecutor(read_cluster(name), tmp_path)._config()
        (executor,) = config.executors
        assert isinstance(executor.provider, kind)
        assert executor.status_polling_interval == read_cluster(name).poll_s
        assert executor.provider.max_blocks == blocks
        assert executor.max_workers_per_node == read_cluster(name).workers_per_node
        assert config.usage_tracking == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "programs", "lines"),
    [
        ("slurm", SLURM, ["#SBATCH --partition=short", "#SBATCH --time=10"]),
        ("pbs", PBS, ["#PBS -l walltime=00:10:00", "#PBS -l select=1:ncpus=1:mem=2gb"]),
    ],
)
def test_a_scheduler_runs_the_tasks_and_a_job_that_ends_is_replaced(
    provider: str, programs: dict[str, str], lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(tmp_path, monkeypatch, 4)
    log = scheduler(tmp_path, programs, monkeypatch)
    (tmp_path / "notes" / "pause").write_text("0.5")
    cluster = ClusterConfig.model_validate(
        {
            "provider": provider, "partition": "short", "cores_per_node": 1, "walltime": "00:10:00", "poll_s": 0.5,
            "heartbeat_s": 4, "worker_init": f"export PYTHONPATH={Path(__file__).parent}",
        } | ({"select_options": "mem=2gb"} if provider == "pbs" else {})
    )  # fmt: skip

    def end_a_job() -> None:
        wait_for(campaign, 2, 120)
        os.killpg(int(log.read_text().split()[0]), signal.SIGKILL)

    ending = threading.Thread(target=end_a_job)
    ending.start()
    found = run_campaign(campaign, ParslExecutor(cluster, tmp_path / "parsl"))
    ending.join()
    assert (found.done, found.failed) == (4, ())
    assert states(campaign) == {DONE: 4}
    assert set(computed(campaign).values()) == {1}
    scripts = list((tmp_path / "parsl").rglob(f"parsl.{provider}.block-0*"))
    script = next(path for path in scripts if path.suffix not in (".out", ".stdout", ".stderr")).read_text()
    assert [line for line in lines if line not in script] == []
    jobs = log.read_text().split()
    assert len(jobs) >= 2
    deadline = time.monotonic() + 20
    while any(alive(int(job)) for job in jobs) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(int(job)) for job in jobs)  # cancelled in the end


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "programs", "start", "said"),
    [
        (
            "slurm",
            {"sbatch": "#!/bin/sh\necho 'sbatch: error: invalid partition' >&2; exit 1"},
            "",
            "invalid partition",
        ),
        ("pbs", PBS, "source ~/nothing/bin/activate || exit 3", "nothing/bin/activate: No such file"),
    ],
)
def test_jobs_that_never_bring_up_a_worker_end_the_run(
    provider: str, programs: dict[str, str], start: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(tmp_path, monkeypatch, 1)
    scheduler(tmp_path, programs, monkeypatch)
    cluster = ClusterConfig.model_validate({"provider": provider, "worker_init": start, "poll_s": 0.3})
    with pytest.raises(DefectgenError, match=rf"{provider}: 3 jobs in a row brought up no worker: .*{said}.*logs: "):
        run_campaign(campaign, ParslExecutor(cluster, tmp_path / "parsl"))
    assert states(campaign) == {PROPOSED: 1}


@pytest.mark.slow
def test_after_a_killed_driver_what_computes_ends_and_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(tmp_path, monkeypatch, 5)
    (tmp_path / "notes" / "pause").write_text("1")
    file = tmp_path / "one.yaml"
    file.write_text("provider: local\nheartbeat_s: 4\npoll_s: 0.5\n")
    first = driver(campaign, "--executor", str(file))
    wait_for(campaign, 2, 120)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = sum(computed(campaign).values())
    deadline = time.monotonic() + 60
    while any(processes_of(first.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(processes_of(first.pid))
    assert sum(computed(campaign).values()) <= before + 1
    last = driver(campaign, "--executor", str(file))
    output = last.communicate(timeout=240)[0]
    assert last.returncode == 0, output
    assert set(computed(campaign).values()) == {1}
    assert states(campaign) == {DONE: 5}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            "provider: pbs\nnodes_per_block: 2\n",
            r"with PBS a job has one node: set nodes_per_block to 1 and max_blocks",
        ),
        ("provider: slurm\nselect_options: mem=2gb\n", r"yaml: select_options are of PBS; Slurm takes lines"),
    ],
)
def test_what_does_not_go_together_is_said(values: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(values)
    with pytest.raises(UsageError, match=said):
        read_cluster(str(file))


def test_whole_nodes_are_asked_for_unless_a_place_is_given() -> None:
    assert for_whole_nodes("") == "#PBS -l place=exclhost"
    assert for_whole_nodes("#PBS -m n").splitlines() == ["#PBS -m n", "#PBS -l place=exclhost"]
    assert for_whole_nodes("#PBS -l place=scatter:excl") == "#PBS -l place=scatter:excl"


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
