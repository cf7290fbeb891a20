"""Tasks through Parsl's HighThroughputExecutor: workers on this machine, or in jobs of Slurm or PBS.

Babuji et al., Parsl: Pervasive Parallel Programming in Python, HPDC 2019, doi 10.1145/3307681.3325400.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from defectgen.campaign.task import LOST, Task, TaskOutcome, run_task
from defectgen.config import StageConfig, find_config, load_config
from defectgen.extras import import_extra

GROUP = "executors"

EXTRA = "scale"

LOST_TRIES = 5
"""How often a task whose worker was lost is given to another one."""


class ClusterConfig(StageConfig):
    """Where workers run, and how many.

    Attributes:
        description: one line for people.
        provider: this machine, Slurm, or PBS Pro.
        partition: of Slurm, or queue of PBS; None for the default one.
        account: that is charged; None for the default one.
        nodes_per_block: nodes of one job.
        max_blocks: most jobs at a time.
        workers_per_node: calculations at a time on a node.
        cores_per_node: that a job asks for; None for whole nodes.
        walltime: of one job, hours:minutes:seconds.
        scheduler_options: lines for the head of the job script.
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
    worker_init: str = ""
    heartbeat_s: int = Field(default=60, ge=4)
    poll_s: float = Field(default=5.0, gt=0.0)


def read_cluster(name: str) -> ClusterConfig:
    """A cluster from a YAML file, or a shipped one by name.

    Raises:
        UsageError: no such file, an unknown provider or key, or a senseless value.
    """
    return load_config(ClusterConfig, find_config(name, GROUP))


@dataclass
class ParslExecutor:
    """See `defectgen.campaign.executors.Executor`; workers stay until it is closed.

    Attributes:
        cluster: where workers run.
        run_folder: of Parsl's logs and job scripts.
    """

    cluster: ClusterConfig
    run_folder: Path

    def __post_init__(self) -> None:
        import_extra("parsl", EXTRA, f"an executor of provider {self.cluster.provider}")
        self._kernel: Any = None

    def close(self) -> None:
        """End the workers and their jobs."""
        if self._kernel is not None:
            self._kernel.cleanup()
            self._kernel = None

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[tuple[int, TaskOutcome]]:
        """See `Executor`; a task whose worker was lost is given to another one."""
        import parsl
        from parsl.dataflow.dflow import DataFlowKernel

        if self._kernel is None:
            self._kernel = DataFlowKernel(self._config())
        app: Any = parsl.python_app(run_task, data_flow_kernel=self._kernel)
        running: dict[Future[TaskOutcome], int] = {app(task): number for number, task in enumerate(tasks)}
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield running.pop(future), _outcome(future)

    def _config(self) -> Any:
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

        local = self.cluster.provider == "local"
        where: dict[str, Any] = {"address": "127.0.0.1", "loopback_address": "127.0.0.1"} if local else {}
        executor = HighThroughputExecutor(
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", _script("process_worker_pool.py"), 1),
            interchange_launch_cmd=[_script("interchange.py")],
            label=self.cluster.provider,
            provider=self._provider(),
            max_workers_per_node=self.cluster.workers_per_node,
            cores_per_worker=1e-3,
            heartbeat_period=max(1, self.cluster.heartbeat_s // 4),
            heartbeat_threshold=self.cluster.heartbeat_s,
            block_error_handler=False,  # a block that was killed is replaced, and does not end the run
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

    def _provider(self) -> Any:
        from parsl.launchers import SingleNodeLauncher, SrunLauncher
        from parsl.providers import LocalProvider, PBSProProvider, SlurmProvider

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
            return SlurmProvider(
                partition=cluster.partition,
                account=cluster.account,
                cores_per_node=cluster.cores_per_node,
                exclusive=cluster.cores_per_node is None,
                launcher=launcher,
                **shared,
            )
        cores = cluster.cores_per_node or 1
        return PBSProProvider(
            queue=cluster.partition, account=cluster.account, cpus_per_node=cores, launcher=single, **shared
        )


def _script(name: str) -> str:
    """A program of Parsl in this environment, which workers share; its bare name if it is elsewhere."""
    path = Path(sys.prefix) / "bin" / name
    return str(path) if path.is_file() else name


def _outcome(future: Future[TaskOutcome]) -> TaskOutcome:
    problem = future.exception()
    if problem is None:
        return future.result()
    return TaskOutcome(LOST, f"its worker was lost: {' '.join(str(problem).split())[:200]}")
