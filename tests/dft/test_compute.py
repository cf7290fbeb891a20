"""Engines: what is run, tried again, stopped, left to others; with a code that does as its folder tells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import defectgen as dg
from defectgen.dft.calculation import Calculation
from defectgen.dft.codes import CODES, EngineOptions, Remedy, calculator_driver, gpaw_driver, register_dft_code
from defectgen.dft.codes.gpaw import Gpaw
from defectgen.dft.compute import DONE, FAILED, HELD, JobLimits, compute
from defectgen.dft.inputs import dft_inputs
from defectgen.dft.result import DftResult, Fingerprint
from defectgen.dft.results import dft_results
from defectgen.dft.settings import AseSettings, DftSettings
from defectgen_cli.app import main

SCRIPT = """
import json, pathlib, sys, time
plan = json.loads(pathlib.Path("plan.json").read_text())
starts = pathlib.Path("starts")
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
number = len(starts.read_text())
act = plan[min(number, len(plan)) - 1]
if act == "sleep":
    time.sleep(60)
if act == "nap":
    time.sleep(6)
if act == "crash":
    sys.exit("segmentation of some kind")
if act == "eat":
    x = bytearray(8 << 30)
if act != "nothing":
    task = json.loads(pathlib.Path("task.json").read_text())
    result = {**task, "scf": act != "diverge", "ionic": act != "steps"}
    pathlib.Path("fake.out").write_text(json.dumps(result))
"""


def _slower(folder: Path) -> None:
    (folder / "mixing").write_text("slow")


class Fake:
    """A code whose plan says what each of its starts does."""

    title = "Fake"
    remedies: Sequence[Remedy] = (Remedy("slower mixing", _slower),)
    resumed = 0

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        task = {"energy": -1.0 * len(calculation.structure), "cif": str(calculation.structure.to(fmt="cif"))}
        (folder / "task.json").write_text(json.dumps(task))
        (folder / "plan.json").write_text('["fine"]')
        (folder / "run.py").write_text(SCRIPT)
        return (f"{settings.functional} is made up",)

    def command(self, options: EngineOptions) -> Sequence[str]:
        return [options.python or sys.executable, "run.py"]

    def missing(self, folder: Path) -> str:
        return "no potentials" if (folder / "lacking").exists() else ""

    def resume(self, folder: Path) -> None:
        (folder / "resumed").write_text("yes")

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        (folder / "finished").write_text(command[-1])

    def claims(self, path: Path) -> int:
        return int(path.name == "fake.out")

    def outdated(self, path: Path) -> bool:
        return path.with_name("newer").exists()

    def read(self, path: Path) -> DftResult:
        from pymatgen.core import Structure

        values = json.loads(path.read_text())
        return DftResult(
            path, "fake", "1", Structure.from_str(values["cif"], fmt="cif"), Fingerprint("fake", "PBE"),
            values["energy"], values["scf"], values["ionic"],
        )  # fmt: skip


@pytest.fixture
def fake() -> Iterator[Fake]:
    code = Fake()
    register_dft_code("fake", code)
    yield code
    CODES.unregister("fake")


@pytest.fixture
def folder(fake: Fake, tmp_path: Path) -> Path:
    assert CODES["fake"] is fake
    host = dg.host("MoS2", "2x2")
    dft_inputs(dg.Configuration.from_key(host, "VAC@B00"), tmp_path / "in", "fake")
    return tmp_path / "in"


def plan(folder: Path, *acts: str, name: str = "001_v_S") -> None:
    (folder / name / "plan.json").write_text(json.dumps(acts))


def starts(folder: Path, name: str = "001_v_S") -> int:
    path = folder / name / "starts"
    return len(path.read_text()) if path.exists() else 0


def test_inputs_run_results(folder: Path) -> None:
    outcomes = compute(folder)
    assert [(item.name, item.status, item.fresh) for item in outcomes] == [
        ("001_v_S", DONE, True), ("host_MoS2_2x2", DONE, True), ("element_S", DONE, True),
    ]  # fmt: skip
    found = dft_results(folder).frame.row(0, named=True)
    assert found["label"] == "v_S"
    assert found["formation_energy_ev"] == pytest.approx(-11 + 12 - 1)


def test_what_is_done_is_not_done_again(folder: Path) -> None:
    compute(folder, only=["001_v_S"])
    again = compute(folder)
    assert [item.fresh for item in again] == [False, True, True]
    assert starts(folder) == 1


def test_a_cycle_that_does_not_converge_is_tried_with_the_remedy(folder: Path) -> None:
    plan(folder, "diverge", "fine")
    (outcome,) = compute(folder, only=["001_v_S"])
    assert outcome.status == DONE
    assert [(item.change, item.problem) for item in outcome.attempts] == [
        ("", "the self-consistent cycle did not converge"), ("slower mixing", ""),
    ]  # fmt: skip
    assert (folder / "001_v_S" / "mixing").read_text() == "slow"


@pytest.mark.parametrize(
    ("acts", "reason", "tries"),
    [
        (["diverge"], "self-consistent cycle did not converge", 2),
        (["steps"], "ran out of steps", 3),
        (["crash"], "segmentation of some kind", 1),
        (["nothing"], "left no results", 1),
        (["fine", "nothing"], "", 1),
    ],
)
def test_what_fails_says_why(acts: list[str], reason: str, tries: int, folder: Path) -> None:
    plan(folder, *acts)
    (outcome,) = compute(folder, only=["001_v_S"])
    assert outcome.status == (FAILED if reason else DONE)
    assert reason in outcome.reason
    assert starts(folder) == tries == len(outcome.attempts)
    (again,) = compute(folder, only=["001_v_S"])
    assert (again.status, again.reason, again.fresh) == (outcome.status, outcome.reason, False)
    assert starts(folder) == tries


def test_what_failed_is_tried_again_when_asked(folder: Path) -> None:
    plan(folder, "crash", "fine")
    assert compute(folder, only=["001_v_S"])[0].status == FAILED
    assert compute(folder, only=["001_v_S"], retry_failed=True)[0].status == DONE
    assert (folder / "001_v_S" / "resumed").is_file()


def test_time_and_memory_are_limited(folder: Path) -> None:
    plan(folder, "sleep")
    clock = time.monotonic()
    (outcome,) = compute(folder, only=["001_v_S"], limits=JobLimits(hours=1 / 3600))
    assert time.monotonic() - clock < 15
    assert outcome.reason == "ran past 0.000277778 h"
    plan(folder, "eat", name="host_MoS2_2x2")
    (outcome,) = compute(folder, only=["host_MoS2_2x2"], limits=JobLimits(memory_gib=1.0))
    assert outcome.status == FAILED
    assert "more memory than allowed" in outcome.reason
    with pytest.raises(dg.UsageError, match="hours"):
        JobLimits(hours=0)


def running(folder: Path) -> list[str]:
    """Processes that work in a calculation's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder.resolve():
                found.append(process.name)
        except OSError:  # it has ended, or is another user's
            continue
    return found


def driver_of(folder: Path) -> subprocess.Popen[bytes]:
    """Another process that runs the folder, as soon as its first calculation has started."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_compute as t;"
        f"t.register_dft_code('fake', t.Fake()); t.compute({str(folder)!r})"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while starts(folder) == 0:
        time.sleep(0.1)
        assert driver.poll() is None
    return driver


def test_a_run_that_is_interrupted_stops_its_code_and_goes_on(folder: Path) -> None:
    plan(folder, "sleep", "fine")
    driver = driver_of(folder)
    held = compute(folder, only=["001_v_S"])[0]
    assert (held.status, starts(folder)) == (HELD, 1)
    assert running(folder / "001_v_S")
    driver.send_signal(signal.SIGINT)
    driver.wait(30)
    assert not running(folder / "001_v_S")
    assert [item.status for item in compute(folder)] == [DONE, DONE, DONE]
    assert starts(folder) == 2


def test_what_a_killed_run_left_computing_is_not_computed_twice(folder: Path) -> None:
    plan(folder, "nap")
    driver = driver_of(folder)
    driver.kill()
    driver.wait(30)
    assert compute(folder, only=["001_v_S"])[0].status == HELD  # its code goes on alone
    while running(folder / "001_v_S"):
        time.sleep(0.1)
    assert compute(folder, only=["001_v_S"])[0].status == DONE
    assert starts(folder) == 1


def test_a_potential_relaxes(tmp_path: Path) -> None:
    host = dg.host("MoS2", "2x2")
    settings = DftSettings(
        ase=AseSettings(calculator="ase.calculators.lj:LennardJones", arguments={"sigma": 2.1, "epsilon": 0.3}),
        force_ev_angstrom=0.05,
    )
    dft_inputs(dg.Configuration.from_key(host, "VAC@B00"), tmp_path / "in", "ase", settings=settings)
    outcomes = compute(tmp_path / "in", only=["001_v_S", "host_MoS2_2x2"])
    assert [item.status for item in outcomes] == [DONE, DONE], [item.reason for item in outcomes]
    values = json.loads((tmp_path / "in" / "001_v_S" / "ase-results.json").read_text())
    assert values["max_force_ev_angstrom"] < 0.05
    assert (tmp_path / "in" / "001_v_S" / "relaxed.cif").is_file()
    frame = dft_results(tmp_path / "in").frame
    assert frame["energy_ev"].null_count() == 0
    assert frame["band_gap_ev"].null_count() == frame.height


@pytest.mark.parametrize("code", ["ase", "gpaw"])
def test_a_relaxation_goes_on_where_its_trajectory_ends_or_anew(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed while it wrote its first frame would else fail for ever."""
    from ase import Atoms
    from ase.io import write

    monkeypatch.chdir(tmp_path)
    path = Path("relax.traj")
    task = {"symbols": ["C", "O"], "positions": [[0, 0, 0], [0, 0, 1.1]], "cell": [[8, 0, 0], [0, 8, 0], [0, 0, 8]]}
    task |= {"periodic": [True, True, True], "moments": []}

    def length() -> float:
        found = gpaw_driver.start(task) if code == "gpaw" else calculator_driver.start(task, path)
        return float(found.get_distance(0, 1))

    write(path, Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=task["cell"], pbc=True))
    whole = path.read_bytes()
    assert length() == pytest.approx(1.2)
    for size in (0, 20, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert length() == pytest.approx(1.1)
        assert not path.exists()


def test_bad_calls_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", str(tmp_path)]) == 1
    assert "holds no inputs.json" in capsys.readouterr().err
    assert main(["compute", str(folder), "--only", "none"]) == 2
    assert "has no calculation none" in capsys.readouterr().err
    assert main(["compute", str(folder), "--hours", "-1"]) == 2
    assert "more than 0" in capsys.readouterr().err
    assert main(["compute", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 3


@pytest.mark.parametrize(("code", "words"), [("vasp", "licensed software"), ("qe", "apt-get install quantum-espresso")])
def test_a_code_that_is_not_there_says_how_to_get_it(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dg.DefectgenError, match=words):
        CODES[code].command(EngineOptions())
    with pytest.raises(dg.DefectgenError, match="nowhere/vasp was not found" if code == "vasp" else "nowhere/vasp"):
        CODES[code].command(EngineOptions(command="nowhere/vasp -x"))


ESPRESSO_SAYS = """
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine readpp (1):
     file Mo.UPF not found
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%

     stopping ...
ORTE_ERROR_LOG: Data unpack would read past end of buffer
"""


def test_what_a_code_frames_is_the_reason(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(ESPRESSO_SAYS)
    (folder / "001_v_S" / "run.py").write_text(
        f"import sys; print(open({str(tmp_path / 'said')!r}).read()); sys.exit(1)"
    )
    (outcome,) = compute(folder, only=["001_v_S"])
    assert outcome.reason.endswith("ended with exit code 1: Error in routine readpp (1): file Mo.UPF not found")


def test_nothing_starts_without_what_it_needs(folder: Path) -> None:
    (folder / "001_v_S" / "lacking").touch()
    (outcome,) = compute(folder, only=["001_v_S"])
    assert (outcome.status, outcome.reason, starts(folder)) == (FAILED, "no potentials", 0)
    (folder / "001_v_S" / "lacking").unlink()
    (outcome,) = compute(folder, only=["001_v_S"])  # it is no failure that has to be asked for again
    assert outcome.status == DONE


def test_gpaw_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(dg.DefectgenError, match="apt-get install --no-install-recommends gpaw gpaw-data"):
        Gpaw().command(EngineOptions(python=str(python)))
    assert os.access(python, os.X_OK)


def test_a_program_by_a_relative_path_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vasp.sh").touch()
    found = EngineOptions("./vasp.sh -x ./y", "bin/python").placed()
    assert found == EngineOptions(f"{tmp_path / 'vasp.sh'} -x ./y", "bin/python")
    for same in (EngineOptions(), EngineOptions("mpirun -n 8 pw.x", "python3")):
        assert same.placed() == same
