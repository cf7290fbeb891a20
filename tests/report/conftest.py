"""Design runs that several tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sample_runs import make_run

from defectgen.design.candidates import DesignRun, Target


@pytest.fixture(scope="session")
def run() -> DesignRun:
    """Four MoS2 candidates for one target."""
    return make_run()


@pytest.fixture(scope="session")
def many_targets() -> DesignRun:
    """Five targets in GaSe with three candidates each."""
    return make_run("GaSe", tuple(Target(f"t{k}", (("homo_ev", 0.1 * k),)) for k in range(5)), n=3)


@pytest.fixture(scope="session")
def build() -> Callable[..., DesignRun]:
    """`make_run`, for runs of other hosts, targets and sizes."""
    return make_run
