"""What qstat answers, as three programs write it."""

from __future__ import annotations

import pytest

pytest.importorskip("parsl")
from parsl.jobs.states import JobState, JobStatus

from defectgen.execution.pbs import PbsProvider

PBS_PRO = "Job Id: 7.head.example.org\n    Job_Name = parsl\n    job_state = R\n    queue = workq\n\n"
SLURM = "Job Id:\t7\n\tJob_Name = parsl\n\tJob_Owner = root@localhost\n\tjob_state = R\n\tqueue = workq\n\n"
"""Of slurm-wlm-torque 22.05."""


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((0, PBS_PRO, ""), [JobState.RUNNING, JobState.COMPLETED]),
        ((0, SLURM, ""), [JobState.RUNNING, JobState.COMPLETED]),
        ((0, SLURM.replace("= R", "= C"), ""), [JobState.COMPLETED, JobState.COMPLETED]),
        ((153, PBS_PRO, "qstat: Unknown Job Id 8"), [JobState.RUNNING, JobState.COMPLETED]),
        ((35, "", "qstat: 7.head Job has finished, use -x"), [JobState.COMPLETED, JobState.COMPLETED]),
        ((153, "", ""), [JobState.COMPLETED, JobState.COMPLETED]),
        ((255, "", "cannot connect to server head"), [JobState.PENDING, JobState.PENDING]),
        ((0, "a form that is not known\n", ""), [JobState.PENDING, JobState.PENDING]),
    ],
)
def test_states_of_jobs(
    answer: tuple[int, str, str], expected: list[JobState], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = PbsProvider(queue="workq")
    for job in ("7.head.example.org", "8.head.example.org"):
        provider.resources[job] = {
            "status": JobStatus(JobState.PENDING), "job_stdout_path": None, "job_stderr_path": None,
        }  # fmt: skip
    monkeypatch.setattr(provider, "execute_wait", lambda _: answer)
    provider._status()
    assert [record["status"].state for record in provider.resources.values()] == expected
