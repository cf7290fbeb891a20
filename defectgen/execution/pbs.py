"""PBS by qsub, qstat and qdel, also where the server keeps no history of jobs, which is its default.

Parsl asks ``qstat -x``; such a server answers with an error, and a job that ended would count as running forever.
"""

from __future__ import annotations

import re

from parsl.jobs.states import JobState, JobStatus
from parsl.providers import PBSProProvider
from parsl.providers.torque.torque import translate_table

_JOB = re.compile(r"^Job Id:[ \t]*(\S+)[ \t]*$|^[ \t]*job_state[ \t]*=[ \t]*(\w)", re.MULTILINE)

_GONE = re.compile(r"Unknown Job Id|has finished", re.IGNORECASE)
"""What qstat says of a job that it knows no more, and..."""

_UNKNOWN = 15001 % 256
"""...how it ends then (PBSE_UNKJOBID), with or without a word."""


class PbsProvider(PBSProProvider):
    """See above."""

    def _status(self) -> None:
        waiting = [str(job) for job, record in self.resources.items() if not record["status"].terminal]
        if not waiting:
            return
        code, output, problem = self.execute_wait(f"qstat -f {' '.join(waiting)}")
        if code not in (0, _UNKNOWN) and not _GONE.search(problem):  # the server cannot be reached: nothing is known
            return
        states = _states(output)
        if code == 0 and not states:  # a form of the answer that is not read here: nothing is known either
            return
        for job in waiting:
            letter = next((state for name, state in states.items() if _same(name, job)), "F")
            record = self.resources[job]
            record["status"] = JobStatus(
                translate_table.get(letter, JobState.UNKNOWN),
                stdout_path=record["job_stdout_path"],
                stderr_path=record["job_stderr_path"],
            )


def _states(text: str) -> dict[str, str]:
    """Letters of states by job, out of the long form of qstat."""
    found: dict[str, str] = {}
    name = ""
    for match in _JOB.finditer(text):
        if match[1]:
            name = match[1]
        elif name:
            found.setdefault(name, match[2])
    return found


def _same(one: str, other: str) -> bool:
    """Whether two names are of one job: the server's name may be cut off."""
    return one.partition(".")[0] == other.partition(".")[0]


def for_whole_nodes(given: str) -> str:
    """Lines for the head of a job script that ask for whole nodes, unless one of them says where to run."""
    return given if re.search(r"-l\s*place=", given) else f"{given}\n#PBS -l place=exclhost".lstrip("\n")
