"""Parsl's interchange, which hands tasks to workers, as a program that ends after its driver.

Parsl's own waits forever when the driver is killed, and the jobs of a cluster wait with it until their time is over.
This one lets what computes come to its end, begins nothing more, and goes; the workers hear from nobody and follow.
Ctrl-C and SIGTERM to all of the driver's group are left to the driver, which asks it things until it ends it itself.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

if __name__ == "__main__":
    os.setpgrp()  # before Parsl is there, which takes its time

from parsl.executors.high_throughput.interchange import Interchange


class DrivenInterchange(Interchange):
    """See above; the driver is the process that started it."""

    def __init__(self, **config: Any) -> None:
        self._driver = os.getppid()
        super().__init__(**config)

    def expire_bad_managers(self, *arguments: Any) -> None:
        """Called at each turn of the loop."""
        super().expire_bad_managers(*arguments)
        if os.getppid() != self._driver:
            self.pending_task_queue.clear()
            if not any(manager["tasks"] for manager in self._ready_managers.values()):
                self.zmq_context.destroy(linger=0)  # what was meant for the driver is heard by nobody
                sys.exit(0)


if __name__ == "__main__":
    DrivenInterchange(**pickle.load(sys.stdin.buffer)).start()
