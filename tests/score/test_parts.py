"""Scoring in parts: the same table, row for row, whoever makes the parts and whatever is killed; each is made once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from parsl_processes import processes_of
from polars.testing import assert_frame_equal

from defectgen.core import VACANCY, Configuration, Host
from defectgen.io.writers import cif_text
from defectgen.score import parts as parts_module
from defectgen_cli.app import main

SLOW_SCORER = '''
import os, time
from pathlib import Path
import polars as pl
from defectgen.score.scorers import ScorerEntry

NOTES = Path(os.environ["SLOW_SCORER_NOTES"])


class Slow:
    """The gap is the sum of the changed sites; a line in a log for each call that comes to its end."""

    def score(self, configurations):
        if (NOTES / "broken").exists():
            from defectgen.errors import DefectgenError

            raise DefectgenError("the scorer fell apart.")
        time.sleep(float((NOTES / "pause").read_text()))
        with (NOTES / "log").open("a") as file:
            file.write(f"{configurations[0].key}\\n")
        gaps = [float(sum(site for site, _ in item.edits)) for item in configurations]
        return pl.DataFrame({"band_gap_ev": gaps})


SLOW = ScorerEntry("slow", lambda options: Slow())
'''

CHUNK = 4


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scorer of another package, as an installer leaves it, which is slow and writes down what it did."""
    package = tmp_path / "package"
    (package / "slow_scorer-1.0.dist-info").mkdir(parents=True)
    (package / "slow_scorer.py").write_text(SLOW_SCORER)
    (package / "slow_scorer-1.0.dist-info" / "METADATA").write_text("Name: slow-scorer\nVersion: 1.0\n")
    (package / "slow_scorer-1.0.dist-info" / "entry_points.txt").write_text(
        "[defectgen.scorers]\nslow = slow_scorer:SLOW\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("SLOW_SCORER_NOTES", str(tmp_path))
    (tmp_path / "pause").write_text("0.7")
    return tmp_path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.parquet"
    assert main(["enumerate", "--host", "MoS2", "2v_S", "v_Mo+v_S", "2v_Mo", "-o", str(path)]) == 0
    return path


def command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "defectgen_cli.app", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def made(output: Path) -> int:
    return len(list(parts_module.parts_folder(output).glob("part-*.parquet")))


def wait_for(output: Path, count: int) -> None:
    deadline = time.monotonic() + 180
    while made(output) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert made(output) >= count


@pytest.mark.slow
def test_killed_workers_and_drivers_change_no_row_and_no_part_is_made_twice(
    notes: Path, table: Path, tmp_path: Path
) -> None:
    pytest.importorskip("parsl")
    cluster = tmp_path / "two.yaml"
    cluster.write_text("provider: local\nworkers_per_node: 2\nheartbeat_s: 4\npoll_s: 0.5\n")
    output = tmp_path / "parts.parquet"
    score = ("score", table, "--scorer", "slow", "--chunk", CHUNK)
    first = command(*score, "-o", output, "--executor", cluster)
    wait_for(output, 2)
    workers = processes_of(first.pid)[1][1:]  # the first one beside them keeps the manager's tables
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    wait_for(output, 4)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = made(output)
    second = command(*score, "-o", output, "--executor", cluster)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0, said
    n_rows = pl.read_parquet(table).height
    n_parts = -(-n_rows // CHUNK)
    assert before < n_parts
    log = Counter((notes / "log").read_text().split())
    assert len(log) == n_parts
    assert set(log.values()) == {1}
    assert not parts_module.parts_folder(output).exists()
    (notes / "pause").write_text("0")
    plain = tmp_path / "plain.parquet"
    third = command(*score, "-o", plain)
    assert third.wait(timeout=120) == 0
    assert_frame_equal(pl.read_parquet(output), pl.read_parquet(plain), check_exact=True)
    assert pl.read_parquet(output)["configuration"].to_list() == pl.read_parquet(table)["configuration"].to_list()


@pytest.mark.slow
def test_two_workers_give_the_rows_of_one_process(tmp_path: Path, table: Path) -> None:
    pytest.importorskip("parsl")
    score = ("score", str(table), "--chunk", "9", "-o")
    assert main([*score, str(tmp_path / "one.parquet")]) == 0
    there = command(*score, tmp_path / "two.parquet", "--executor", "two-workers")
    assert there.wait(timeout=240) == 0, there.communicate()[0]
    one, two = (pl.read_parquet(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert one.height == pl.read_parquet(table).height
    assert_frame_equal(one, two, check_exact=True)


def test_files_in_parts_are_the_files_at_once(
    tmp_path: Path, mos2: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = tmp_path / "cells"
    cells.mkdir()
    (cells / "a.cif").write_text("")
    for number, site in enumerate((0, 64, 65, 70)):
        (cells / f"b{number}.cif").write_text(cif_text(Configuration.of(mos2, {site: VACANCY})))
    (cells / "c.cif").write_text(cif_text(Configuration.of(mos2, {64: "Cu"})))
    assert main(["score", "cells", "-o", "plain.csv"]) == 3
    assert main(["score", "cells", "-o", "parts.csv", "--executor", "local", "--chunk", "1", "--json"]) == 3
    told = json.loads("{" + capsys.readouterr().out.partition("\n{")[2])
    assert (told["n"], told["scored"], told["output"]) == (6, 4, "parts.csv")
    assert (tmp_path / "plain.csv").read_text() == (tmp_path / "parts.csv").read_text()
    assert pl.read_csv("plain.csv")["file"].to_list()[1] == "cells/b0.cif"


def test_parts_of_another_request_are_not_mixed(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores.parquet"
    score = ["score", str(table), "-o", str(output), "--executor", "local", "--chunk", "20"]
    done = []
    real = parts_module.make_part

    def twice(task: parts_module.PartTask) -> parts_module.PartOutcome:
        if len(done) == 2:
            return parts_module.PartOutcome(parts_module.FAILED, "no space left on the disk")
        done.append(task.number)
        return real(task)

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "make_part", twice)
        assert main(score) == 1
    said = capsys.readouterr().err
    assert "error: structures 41 to 43 were not scored: no space left on the disk. What is done stays in" in said
    assert not output.exists()
    assert made(output) == 2
    assert main([*score[:-1], "10"]) == 2
    assert "holds parts of another request, or of files that have changed since" in capsys.readouterr().err
    stamp = {path: path.stat().st_mtime_ns for path in parts_module.parts_folder(output).glob("part-*")}
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "make_part", lambda task: again.append(task.number) or real(task))
        patch.setattr(parts_module, "remove_parts", lambda _: None)
        assert main(score) == 0
    assert again == [2]
    assert {path: path.stat().st_mtime_ns for path in stamp} == stamp
    assert "2 of 3 parts are there already" in capsys.readouterr().err


def test_a_part_that_another_process_makes_is_waited_for(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectgen.io.locks import Workplace

    output = tmp_path / "scores.parquet"
    folder = parts_module.parts_folder(output)
    folder.mkdir()
    held = Workplace.take(folder / ".part-000001")
    assert held is not None
    monkeypatch.setattr(parts_module.time, "sleep", lambda _: held.remove())
    assert main(["score", str(table), "-o", str(output), "--executor", "local", "--chunk", "20"]) == 0
    assert "waiting for 1 parts that workers of an earlier run are making" in capsys.readouterr().err
    assert pl.read_parquet(output).height == pl.read_parquet(table).height


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["t.parquet", "--executor", "local"], 2, "--executor needs -o FILE"),
        (["t.parquet", "a.cif"], 2, "got the table t.parquet and other files"),
        (["none.parquet"], 1, "none.parquet is not there. Expected a table that `defectgen enumerate -o` wrote."),
        (["no-keys.csv"], 2, "no-keys.csv has no column configuration; its columns are a."),
        (["no-host.csv"], 2, "no-host.csv does not say which host its rows decorate: it has no column host."),
        (["no-size.csv"], 2, "its rows decorate: it has no column supercell. Add --host NAME"),
        (["no-rows.csv"], 2, "no-rows.csv has no rows. Expected at least one structure."),
        (["no-rows.csv", "--executor", "local", "-o", "o.csv"], 2, "no-rows.csv has no rows."),
        (["noted.csv"], 2, "noted.csv has a column note, which the scores get."),
        (["numbers.csv"], 1, "row 1: host is 5, expected a text."),
        (["t.parquet", "--host", "hBN", "-o", "o.csv"], 1, "row 1: the row is of MoS2, and --host is hBN"),
        (["folder.csv"], 2, "the folders hold no structures."),
        (["broken.parquet"], 1, "broken.parquet cannot be read as a table"),
        (["t.parquet", "--executor", "nowhere", "-o", "o.csv"], 2, "no configuration 'nowhere'"),
    ],
)
def test_bad_calls(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"configuration": ["VAC@A00"], "host": ["MoS2"], "supercell": ["8x8"]}).write_parquet("t.parquet")
    Path("no-keys.csv").write_text("a\n1\n")
    Path("no-host.csv").write_text("configuration\nVAC@A00\n")
    Path("no-size.csv").write_text("configuration,host\nVAC@A00,MoS2\n")
    Path("no-rows.csv").write_text("configuration,host,supercell\n")
    Path("noted.csv").write_text("configuration,host,supercell,note\nVAC@A00,MoS2,8x8,mine\n")
    Path("numbers.csv").write_text("configuration,host,supercell\nVAC@A00,5,8\n")
    Path("folder.csv").mkdir()
    Path("broken.parquet").write_text("PAR1")
    assert main(["score", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "cannot be read as a table" not in captured.err or words == ["broken.parquet"]
    assert not Path("o.csv").exists(), "nothing is written where no row has a score"


def test_a_mended_table_is_scored_where_the_broken_one_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    score = ["score", "t.csv", "-o", "o.csv", "--executor", "local"]
    Path("t.csv").write_text("configuration,host,supercell,homo_ev\nVAC@B00,MoS2,8x8,1.0\n")
    assert main(score) == 1
    assert "the table has the columns homo_ev already. Leave them out of it." in capsys.readouterr().err
    Path("t.csv").write_text("configuration,host,supercell\nVAC@B00,MoS2,8x8\n")
    assert main(score) == 0
    assert pl.read_csv("o.csv")["homo_ev"].is_not_null().all()
    Path("o.csv").unlink()
    Path("o.csv.parts").mkdir()
    Path("o.csv.parts/plan.json").write_text("{}")
    assert main(score) == 2, "a file of somebody else"
    assert Path("o.csv.parts/plan.json").read_text() == "{}"


@pytest.mark.slow
@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_ends_a_run_through_parsl(stop: signal.Signals, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("parsl")
    output = tmp_path / "parts.parquet"
    run = command("score", table, "--scorer", "slow", "--chunk", CHUNK, "-o", output, "--executor", "two-workers")
    wait_for(output, 2)
    os.killpg(run.pid, stop)  # as a terminal's Ctrl-C
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 130
    assert "Traceback" not in said
    assert said.endswith("interrupted\n")
    assert made(output) >= 2
    assert processes_of(run.pid) == ([], [], [])
    assert not output.exists()


def test_rows_say_why_they_have_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    rows = [
        ("VAC@B00", "MoS2", "8x8"), ("VAC@Z99", "MoS2", "8x8"), ("VAC@B00", "MoS2", "5x5"), ("VAC@B00", "XyS2", "8x8"),
        ("", "MoS2", "8x8"),
    ]  # fmt: skip
    pl.DataFrame(rows, schema=["configuration", "host", "supercell"], orient="row").write_csv(path)
    assert main(["score", str(path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["structures"]
    assert [row["configuration"] for row in found] == [key for key, _, _ in rows]
    assert found[0]["note"] is None
    assert found[0]["band_gap_ev"] == pytest.approx(1.15, abs=0.05)
    assert "Z99" in found[1]["note"]
    assert "it does not cover this supercell" in found[2]["note"]
    assert "unknown host 'XyS2'" in found[3]["note"]
    assert found[4]["note"] == "the surrogate predicts cells with defects, got pristine MoS2."
    keyless = pl.DataFrame({"configuration": [None, "VAC@B00"], "host": "MoS2", "supercell": "8x8"})
    keyless.write_parquet(tmp_path / "keyless.parquet")
    assert main(["score", str(tmp_path / "keyless.parquet"), "--json"]) == 3
    note = json.loads(capsys.readouterr().out)["structures"][0]["note"]
    assert note == "configuration is None, expected e.g. VAC@A00+Se@B14."


def test_a_table_of_ones_own_host_carries_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphene = tmp_path / "graphene.vasp"
    graphene.write_text(
        "graphene\n1.0\n2.46 0 0\n-1.23 2.1304 0\n0 0 15\nC\n2\nDirect\n0.333333 0.666667 0.5\n0.666667 0.333333 0.5\n"
    )
    table = tmp_path / "t.parquet"
    assert main(["enumerate", "--host", str(graphene), "--supercell", "3x3", "v_C", "2v_C", "-o", str(table)]) == 0
    assert main(["score", str(table), "--json"]) == 1
    assert "row 1: " in (said := capsys.readouterr().err)
    assert "unknown host" not in said, "the host is known from the table, though not to the surrogate"
