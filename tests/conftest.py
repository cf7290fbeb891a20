"""Fixtures that several packages share, one thread for each process of a run, and a table of what was left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from synthetic import distinct_configurations, write_set
from warm_python import warm_tools

from defectgen.core import Host, get_host

DATA_VARIABLE = "DEFECTGEN_2DMD"


def pytest_configure(config: pytest.Config) -> None:
    """Before processes start (pytest-xdist): one thread each, in their own children too."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each reason for which tests were left out, with their number."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section(f"left out: {len(skipped)}")
        for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            terminalreporter.write_line(f"{number:5d}  {reason}")
    if config.option.markexpr:
        terminalreporter.write_line(f"tests chosen by -m {config.option.markexpr!r}; the others were not asked for")


@pytest.fixture(scope="session")
def mos2() -> Host:
    return get_host("MoS2")


@pytest.fixture(scope="session")
def wse2() -> Host:
    return get_host("WSe2")


@pytest.fixture(scope="session")
def twodmd_dir() -> Path:
    """2DMD in its published layout."""
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        pytest.skip(f"{DATA_VARIABLE} is not set: tests on the real 2DMD data left out")
    path = Path(name)
    if not (path / "csv_cif").is_dir():
        pytest.skip(f"{DATA_VARIABLE} names no folder with csv_cif/: tests on the real 2DMD data left out")
    return path


@pytest.fixture(scope="session")
def twodmd(twodmd_dir: Path) -> pl.DataFrame:
    """All labelled structures of 2DMD, see `read_2dmd`."""
    from defectgen.data.twodmd import read_2dmd

    return read_2dmd(twodmd_dir)


@pytest.fixture(scope="session")
def pilot_dir() -> Path:
    """The fetched pilot sample of 200 structures."""
    from defectgen.data.assets import asset_path
    from defectgen.errors import DefectgenError

    try:
        return asset_path("2dmd-pilot")
    except DefectgenError as error:
        pytest.skip(f"tests on the pilot sample left out: {error}")


@pytest.fixture(scope="session")
def tiny_2dmd(tmp_path_factory: pytest.TempPathFactory, mos2: Host, wse2: Host) -> Path:
    """60 MoS2 and 80 WSe2 structures with made-up labels, in the published layout."""
    root = tmp_path_factory.mktemp("tiny-2dmd")
    write_set(root, "MoS2", distinct_configurations(mos2, 60, 1, (1, 2, 3)))
    write_set(root, "WSe2", distinct_configurations(wse2, 80, 2, (1, 2, 3)))
    return root


@pytest.fixture(scope="session")
def tools() -> Iterator[Path]:
    """A folder with ``defectgen`` and ``python`` that need not import what is heavy, see `warm_python`."""
    with warm_tools() as folder:
        yield folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEFECTGEN_CACHE", str(folder))
    return folder
