"""Tasks through Parsl's HighThroughputExecutor: workers on this machine, or in jobs of Slurm or PBS.

Babuji et al., Parsl: Pervasive Parallel Programming in Python, HPDC 2019, doi 10.1145/3307681.3325400.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from defectgen.config import StageConfig, find_config, load_config
from defectgen.errors import DefectgenError, UsageError
from defectgen.execution.executors import Lost, R, T
from defectgen.extras import import_extra

GROUP = "executors"

EXTRA = "scale"

SUBMITS = {"slurm": "sbatch", "pbs": "qsub"}
"""The program that hands in jobs, by provider."""

LOST_TRIES = 5
"""How often a task whose worker was lost is given to another one."""

LISTEN_S = 0.5
"""Seconds of one wait for results: polars has the system go on with a longer one whatever Ctrl-C says."""

START_TRIES = 3
"""After so many jobs one after another from which no worker came the run ends."""


class ClusterConfig(StageConfig):
    """Where workers run, and how many.

    Attributes:
        description: one line for people.
        provider: this machine, Slurm, or PBS Pro.
        partition: of Slurm, or queue of PBS; None for the default one.
        account: that is charged; None for the default one.
        nodes_per_block: nodes of one job; one with PBS.
        max_blocks: most jobs at a time.
        workers_per_node: calculations at a time on a node.
        cores_per_node: that a job asks for; None for whole nodes.
        walltime: of one job, hours:minutes:seconds.
        scheduler_options: lines for the head of the job script.
        select_options: further words of PBS's select, such as mem=120gb:ngpus=1.
        worker_init: shell commands before the workers start, e.g. to enter the environment.
        heartbeat_s: after so long without a sign workers count as lost.
        poll_s: seconds between two looks at the jobs.
    """

    description: str = ""
    provider: Literal["local", "slurm", "pbs"]
    partition: str | None = None
    account: str | None = None
    nodes_per_block: int = Field(default=1, ge=1)
    max_blocks: int = Field(default=1, ge=1)
    workers_per_node: int = Field(default=1, ge=1, le=1024)
    cores_per_node: int | None = Field(default=None, ge=1)
    walltime: str = Field(default="24:00:00", pattern=r"^\d+:\d\d:\d\d$")
    scheduler_options: str = ""
    select_options: str = ""
    worker_init: str = ""
    heartbeat_s: int = Field(default=60, ge=4)
    poll_s: float = Field(default=5.0, gt=0.0)

    @model_validator(mode="after")
    def _fits_the_provider(self) -> ClusterConfig:
        if self.provider == "pbs" and self.nodes_per_block > 1:
            raise ValueError(
                "with PBS a job has one node: set nodes_per_block to 1 and max_blocks to the number of nodes"
            )
        if self.select_options and self.provider != "pbs":
            raise ValueError("select_options are of PBS; Slurm takes lines of scheduler_options")
        return self


def read_cluster(name: str) -> ClusterConfig:
    """A cluster from a YAML file, or a shipped one by name.

    Raises:
        UsageError: no such file, an unknown provider or key, or a senseless value.
    """
    return load_config(ClusterConfig, find_config(name, GROUP))


def require_scheduler(cluster: ClusterConfig) -> None:
    """Refuse a cluster whose jobs cannot be handed in from here.

    Raises:
        UsageError: the provider's program is not on the path.
    """
    program = SUBMITS.get(cluster.provider)
    if program is not None and shutil.which(program) is None:
        raise UsageError(
            f"the executor is of provider {cluster.provider}, whose {program} is not on the path.",
            "Run this on a login node of the cluster, or with --executor two-workers.",
        )


@dataclass
class ParslExecutor:
    """See `defectgen.execution.executors.Executor`; workers stay until it is closed.

    Attributes:
        cluster: where workers run.
        run_folder: of Parsl's logs and job scripts.
    """

    cluster: ClusterConfig
    run_folder: Path

    def __post_init__(self) -> None:
        import_extra("parsl", EXTRA, f"an executor of provider {self.cluster.provider}")
        self._kernel: Any = None
        self._problem = ""

    def close(self) -> None:
        """End the workers and their jobs."""
        if self._kernel is not None:
            self._kernel.cleanup()
            self._kernel = None

    def outcomes(self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R | Lost]]:
        """See `Executor`; a task whose worker was lost is given to another one.

        Raises:
            DefectgenError: jobs cannot be handed in, or end before a worker comes up.
        """
        import parsl
        from parsl.dataflow.dflow import DataFlowKernel

        if self._kernel is None:
            self._kernel = DataFlowKernel(self._config())
        app: Any = parsl.python_app(work, data_flow_kernel=self._kernel)
        running: dict[Future[R], int] = {app(task): number for number, task in enumerate(tasks)}
        while running:
            ended, _ = wait(running, LISTEN_S, FIRST_COMPLETED)
            if self._problem:
                raise DefectgenError(
                    self._problem, f"Mend the executor's file; job scripts and logs: {self.run_folder}."
                )
            for future in ended:
                problem = future.exception()
                yield running.pop(future), future.result() if problem is None else _lost(problem)

    def _config(self) -> Any:
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

        local = self.cluster.provider == "local"
        where: dict[str, Any] = {"address": "127.0.0.1", "loopback_address": "127.0.0.1"} if local else {}
        executor = HighThroughputExecutor(
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", _script("process_worker_pool.py"), 1),
            interchange_launch_cmd=[sys.executable, "-m", "defectgen.execution.interchange"],
            label=self.cluster.provider,
            provider=self._provider(),
            max_workers_per_node=self.cluster.workers_per_node,
            cores_per_worker=1e-3,
            heartbeat_period=max(1, self.cluster.heartbeat_s // 4),
            heartbeat_threshold=self.cluster.heartbeat_s,
            block_error_handler=self._look_at_jobs,
            **where,
        )
        return Config(
            executors=[executor],
            retries=LOST_TRIES,
            run_dir=str(self.run_folder),
            strategy="simple",
            strategy_period=self.cluster.poll_s,
            initialize_logging=True,
            usage_tracking=0,
            exit_mode="cleanup",
        )

    def _look_at_jobs(self, executor: Any, status: dict[str, Any]) -> None:
        """End the run when no job brings up workers; one that was killed later is replaced, and does not."""
        from parsl.jobs.states import JobState

        last = sorted(status, key=int)[-START_TRIES:]
        bad = [status[block] for block in last if status[block].state in (JobState.FAILED, JobState.MISSING)]
        if len(bad) == START_TRIES and all(job.terminal for job in status.values()):
            self._problem = (
                f"{self.cluster.provider}: {START_TRIES} jobs in a row brought up no worker: {_said(bad[-1])}."
            )
            executor.set_bad_state_and_fail_all(RuntimeError(self._problem))

    def _provider(self) -> Any:
        from parsl.launchers import SingleNodeLauncher, SrunLauncher
        from parsl.providers import LocalProvider, SlurmProvider

        from defectgen.execution.pbs import PbsProvider, for_whole_nodes

        cluster = self.cluster
        shared: dict[str, Any] = {
            "nodes_per_block": cluster.nodes_per_block,
            "init_blocks": 1,
            "min_blocks": 1,
            "max_blocks": cluster.max_blocks,
            "worker_init": cluster.worker_init,
        }
        if cluster.provider == "local":
            return LocalProvider(**shared)
        shared |= {"walltime": cluster.walltime, "scheduler_options": cluster.scheduler_options}
        single = SingleNodeLauncher()
        if cluster.provider == "slurm":
            launcher = single if cluster.nodes_per_block == 1 else SrunLauncher()
            return _polled(SlurmProvider, cluster.poll_s)(
                partition=cluster.partition,
                account=cluster.account,
                cores_per_node=cluster.cores_per_node,
                exclusive=cluster.cores_per_node is None,
                launcher=launcher,
                **shared,
            )
        if cluster.cores_per_node is None:
            shared["scheduler_options"] = for_whole_nodes(cluster.scheduler_options)
        return _polled(PbsProvider, cluster.poll_s)(
            queue=cluster.partition,
            account=cluster.account,
            cpus_per_node=cluster.cores_per_node or 1,
            select_options=cluster.select_options,
            launcher=single,
            **shared,
        )


def _polled(provider: type[Any], seconds: float) -> type[Any]:
    """The provider, which looks at its jobs so often."""
    return type(provider.__name__, (provider,), {"status_polling_interval": seconds})


def _said(job: Any) -> str:
    """What a job, or the program that hands it in, complained of."""
    text = job.stderr_summary or job.message or "it said nothing"
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")[:300].rstrip(
        "."
    )


def _script(name: str) -> str:
    """A program of Parsl in this environment, which workers share; its bare name if it is elsewhere."""
    path = Path(sys.prefix) / "bin" / name
    return str(path) if path.is_file() else name


def _lost(problem: BaseException) -> Lost:
    return Lost(f"its worker was lost: {' '.join(str(problem).split())[:200]}")
