"""Runs: each structure once, whatever is killed, however many drivers; failures and a full disk are said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_dft import host

import defectgen as dg
from defectgen.campaign import store as store_module
from defectgen.campaign import task as task_module
from defectgen.campaign.folder import Campaign, new_campaign
from defectgen.campaign.proposing import propose
from defectgen.campaign.running import RunOptions, run_campaign, task_of
from defectgen.campaign.store import DONE, FAILED, PROPOSED, RUNNING
from defectgen.campaign.task import Task, run_task
from defectgen.dft.settings import AseSettings, DftSettings
from defectgen.errors import DefectgenError
from defectgen_cli.app import main

ENGINE = "counting_calculator:Counting"
N = 4
REFERENCES = 5  # the host and four elements


@pytest.fixture
def python(tools: Path) -> str:
    """The Python of calculations that need no process of their own kind: one that is warm."""
    return str(tools / "python")


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    return make(tmp_path, monkeypatch, N)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, max_defects: int = 2) -> Campaign:
    """A campaign whose calculator writes into a folder of the test, with n structures proposed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "notes").mkdir()
    arguments = {"folder": str(tmp_path / "notes"), "sigma": 2.2, "epsilon": 0.3, "rc": 6.0}
    settings = DftSettings(relax=False, ase=AseSettings(calculator=ENGINE, arguments=arguments))
    made = new_campaign(
        tmp_path / "lj", host(tmp_path), max_defects=max_defects, engine=ENGINE, settings=settings, start=False
    )
    propose(made, n)
    return made


def computed(campaign: Campaign) -> Counter[str]:
    """How often each structure was computed to its end."""
    log = campaign.folder.parent / "notes" / "log"
    lines = log.read_text().split("\n") if log.exists() else []
    return Counter(line.split()[0] for line in lines if line and not line.startswith("references"))


def driver(campaign: Campaign, *words: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "defectgen_cli.app", "campaign", "run", str(campaign.folder), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def states(campaign: Campaign) -> Counter[str]:
    return Counter(row.state for row in campaign.store.rows())


def test_a_run_computes_what_is_proposed_once(
    campaign: Campaign, python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["campaign", "run", str(campaign.folder), "--python", python, "-n", "2"]) == 0
    assert states(campaign) == {DONE: 2, PROPOSED: N - 2}
    assert main(["campaign", "run", str(campaign.folder), "--python", python, "--json"]) == 0
    told = json.loads("{" + capsys.readouterr().out.partition("{")[2])
    assert (told["done"], told["failed"]) == (N - 2, {})
    assert states(campaign) == {DONE: N}
    assert main(["campaign", "run", str(campaign.folder), "--python", python]) == 0
    assert "nothing is proposed" in capsys.readouterr().out
    assert set(computed(campaign).values()) == {1}
    assert len(computed(campaign)) == N
    log = (campaign.folder.parent / "notes" / "log").read_text()
    assert log.count("references") == REFERENCES
    rows = campaign.store.rows()
    assert all("formation_energy_ev" in row.computed and row.settings for row in rows)
    assert len({row.settings for row in rows}) == 1


def test_what_fails_is_recorded_and_tried_again_when_asked(
    campaign: Campaign, python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = campaign.store.rows()[0].configuration
    formula = first.to_ase().get_chemical_formula()
    broken = campaign.folder.parent / "notes" / "broken"
    broken.write_text(formula)
    assert main(["campaign", "run", str(campaign.folder), "--python", python]) == 3
    said = capsys.readouterr().err
    assert "it fell apart" in said
    assert "warning: 1 structure failed." in said
    assert states(campaign) == {DONE: N - 1, FAILED: 1}
    broken.unlink()
    assert main(["campaign", "run", str(campaign.folder), "--python", python]) == 0
    assert states(campaign)[FAILED] == 1
    assert main(["campaign", "run", str(campaign.folder), "--python", python, "--retry-failed"]) == 0
    assert states(campaign) == {DONE: N}


def test_a_full_disk_ends_the_run_and_spoils_nothing(
    campaign: Campaign, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(python=python)
    run_campaign(campaign, options=replace(options, limit=1))
    full = campaign.folder.parent / "notes" / "full"
    full.touch()
    with pytest.raises(DefectgenError, match=r"no space left on the disk. Free some, then give the same command again"):
        run_campaign(campaign, options=options)
    assert states(campaign) == {DONE: 1, PROPOSED: N - 1}
    full.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(task_module, "LEAST_FREE_BYTES", 1 << 60)
        with pytest.raises(DefectgenError, match="no space left on the disk"):
            run_campaign(campaign, options=options)
    assert run_campaign(campaign, options=options).done == N - 1
    assert states(campaign) == {DONE: N}


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(campaign: Campaign) -> None:
    (campaign.folder.parent / "notes" / "pause").write_text("1")
    process = driver(campaign)
    deadline = time.monotonic() + 120
    while sum(computed(campaign).values()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert states(campaign)[RUNNING] >= 2
    assert run_campaign(campaign).failed == ()
    assert states(campaign) == {DONE: N}
    assert set(computed(campaign).values()) == {1}  # what was computing at the kill went on, and was waited for


@pytest.mark.slow
def test_a_terminated_driver_puts_back_what_it_had(campaign: Campaign) -> None:
    (campaign.folder.parent / "notes" / "pause").write_text("1")
    process = driver(campaign)
    deadline = time.monotonic() + 120
    while sum(computed(campaign).values()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 130
    assert RUNNING not in states(campaign)
    assert run_campaign(campaign).failed == ()
    assert states(campaign) == {DONE: N}


@pytest.mark.slow
def test_two_drivers_share_the_work(campaign: Campaign) -> None:
    (campaign.folder.parent / "notes" / "pause").write_text("0.5")
    drivers = [driver(campaign), driver(campaign)]
    outputs = [process.communicate(timeout=240)[0] for process in drivers]
    assert [process.returncode for process in drivers] == [0, 0], outputs
    assert states(campaign) == {DONE: N}
    assert set(computed(campaign).values()) == {1}
    log = (campaign.folder.parent / "notes" / "log").read_text()
    assert log.count("references") == REFERENCES


def test_a_database_that_another_run_holds_is_waited_for(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SAID_AFTER_S", 0.2)
    taken, freed, said = threading.Event(), threading.Event(), []

    def hold() -> None:
        with campaign.store.changed():
            taken.set()
            freed.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "PATIENCE_S", 0.5)
        with pytest.raises(DefectgenError, match=r"another run has held .*structures.db for"):
            propose(campaign, 1)
    threading.Timer(0.6, freed.set).start()
    assert len(propose(campaign, 1, say=said.append).rows) == 1
    other.join()
    assert said == [f"waiting for another run that holds {campaign.store.path} ..."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("provider: lsf\n", "provider: got 'lsf', input should be 'local', 'slurm' or 'pbs'."),
        ("provider: local\nworkers_a_node: 2\n", "unknown key 'workers_a_node'. Did you mean 'workers_per_node'?"),
        ("workers_per_node: 2\n", "the key 'provider' is missing"),
    ],
)
def test_a_wrong_executor_file_is_refused(
    text: str, message: str, campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    file = campaign.folder.parent / "mine.yaml"
    file.write_text(text)
    assert main(["campaign", "run", str(campaign.folder), "--executor", str(file)]) == 2
    assert message in capsys.readouterr().err
    assert states(campaign) == {PROPOSED: N}


@pytest.mark.parametrize(("name", "program"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_cluster_that_is_not_here_is_refused(
    name: str, program: str, campaign: Campaign, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(campaign.folder))
    assert main(["campaign", "run", str(campaign.folder), "--executor", name]) == 2
    assert f"of provider {name}, whose {program} is not on the path" in " ".join(capsys.readouterr().err.split())
    assert states(campaign) == {PROPOSED: N}


def test_a_run_without_its_code_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = new_campaign(tmp_path / "gp", host(tmp_path))
    propose(made, 2)
    assert main(["campaign", "run", str(made.folder), "--python", str(tmp_path / "python")]) == 1
    assert "apt-get install" in capsys.readouterr().err
    assert states(made) == {PROPOSED: 2}


def test_the_page_and_the_table_tell_of_rounds(
    campaign: Campaign, python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_campaign(campaign, options=RunOptions(python=python))
    assert main(["campaign", "learn", str(campaign.folder)]) == 0
    assert main(["campaign", "propose", str(campaign.folder), "-n", "3", "--formation-energy", "min"]) == 0
    run_campaign(campaign, options=RunOptions(python=python))
    capsys.readouterr()
    assert main(["campaign", "status", str(campaign.folder)]) == 0
    said = capsys.readouterr().out
    assert f"{N + 3} done of 40" in said
    least = min(campaign.store.rows(), key=lambda row: row.computed["formation_energy_ev"])
    found = f"{least.configuration.label}: E_form {least.computed['formation_energy_ev']:.3f} eV"
    assert f"{'E_form min':<26} {'0.000':>8}" in said
    assert f"{least.id} {found}" in said
    assert "3 results are not learnt from yet" in said
    assert max(len(line) for line in said.splitlines() if not line.startswith("open")) <= 80
    page = (campaign.folder / "campaign.html").read_text()
    assert page.count("<tr><td>") >= N + 3
    assert f"E_form min: 0.000 eV away, #{least.id} {found}" in page
    assert "gap foretold" not in page  # this calculator gives energies alone
    assert "energies alone, no levels" in page
    assert "2DMD was computed" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("words", [["--hours", "nan"], ["--hours", "-1"], ["--memory", "inf"]])
def test_a_limit_that_is_none_is_a_wrong_call(
    campaign: Campaign, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["campaign", "run", str(campaign.folder), *words]) == 2
    assert "expected more than 0 and less than a million" in capsys.readouterr().err
    assert states(campaign) == {PROPOSED: N}
    assert not (campaign.folder / "calculations").exists()


def test_inputs_that_nothing_was_started_with_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = dg.host("MoS2", "2x2")
    task = Task(
        str(tmp_path / "one"), "", host.to_dict(), ("VAC@B00",), False, "qe", DftSettings().model_dump(), command="true"
    )  # fmt: skip
    monkeypatch.setenv("ESPRESSO_PSEUDO", "/nowhere")
    assert "/nowhere is not there, which should hold Mo.UPF, S.UPF" in run_task(task).reason
    for name in ("Mo.UPF", "S.UPF"):
        (tmp_path / name).touch()
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(tmp_path))
    assert run_task(task).reason == "it left no results"
    assert f"'{tmp_path}'" in (tmp_path / "one" / "001_v_S" / "pw.in").read_text()


def test_workers_with_another_environment_are_told_the_folder_of_pseudopotentials(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = campaign.store.rows()[0]
    monkeypatch.delenv("ESPRESSO_PSEUDO", raising=False)
    assert task_of(campaign, row, RunOptions()).settings["qe"]["pseudo_dir"] is None
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(tmp_path))
    assert task_of(campaign, row, RunOptions()).settings["qe"]["pseudo_dir"] == str(tmp_path)
