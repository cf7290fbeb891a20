"""Processes that are forked from one that has used tables."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import sys

import defectgen as dg

defect = next(dg.enumerate(dg.host("MoS2"), "v_S"))
if sys.argv[1] == "used":
    dg.score(defect)
else:
    dg.score  # imported alone


def homo(_):
    return dg.score(defect)["homo_ev"].item()


with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(homo, range(1)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the threads of a process")
@pytest.mark.parametrize(("tables", "said"), [("used", "Start processes by spawn"), ("unused", "[0.05")])
def test_a_forked_process_says_so_in_place_of_waiting_for_ever(tables: str, said: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, tables], capture_output=True, text=True, timeout=120, check=False
    )
    assert said in found.stdout + found.stderr
