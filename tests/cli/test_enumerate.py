"""`defectgen enumerate` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from defectgen.core import Configuration, get_host
from defectgen.io.structures import read_configuration
from defectgen_cli.app import main


def out(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["enumerate", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_count_prints_one_json_object_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    counted = json.loads(out(capsys, "--host", "WSe2", "--rules", "2dmd-low", "--count", "--json"))
    assert counted["V6"] == 1415
    assert sum(counted.values()) == 5933
    assert json.loads(out(capsys, "--host", "MoS2", "--max-defects", "1", "--count", "--json")) == {
        "W_Mo": 1, "v_Mo": 1, "Se_S": 1, "v_S": 1,
    }  # fmt: skip


def test_configurations_go_to_stdout_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "--host", "MoS2", "2v_S").splitlines()
    assert len(lines) == len(set(lines)) == 19
    kind, key = lines[0].split("\t")
    assert kind == "2v_S"
    assert Configuration.from_key(get_host("MoS2"), key).label == "2v_S"


def test_table_and_structures_hold_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, folder = tmp_path / "new" / "all.parquet", tmp_path / "cifs"
    words = ["--host", "BN", "--rules", "2dmd-low", "--limit", "30", "-o", str(table), "--cif-dir", str(folder)]
    out(capsys, *words)
    frame = pl.read_parquet(table)
    files = sorted(folder.glob("*.cif"))
    assert len(frame) == len(files) == 30
    host = get_host("BN")
    assert [read_configuration(host, f).canonical().key for f in files] == frame["configuration"].to_list()
    assert frame["defect_class"].unique(maintain_order=True).to_list() == ["X1", "X2", "X3", "X4", "X5"]
    files[7].unlink()  # as after a kill: the same call completes the folder
    files[8].write_text("junk")
    before = files[3].stat().st_mtime_ns
    assert "exists already" in out(capsys, *words, code=2)
    alone = [word for word in words if word not in ("-o", str(table))]
    assert f"{files[8].name} was changed since" in out(capsys, *alone, code=2)
    assert files[8].read_text() == "junk"
    out(capsys, *words, "--overwrite")
    assert files[7].is_file()
    assert read_configuration(host, files[8]).canonical().key == frame["configuration"][8]
    assert files[3].stat().st_mtime_ns == before
    assert "another request" in out(capsys, "--host", "BN", "v_B", "--cif-dir", str(folder), code=2)


def test_random_structures_come_from_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--host", "GaSe", "--concentration", "0.05", "--sample", "20")
    first = out(capsys, *words, "--seed", "3")
    assert first == out(capsys, *words, "--seed", "3")
    assert first != out(capsys, *words, "--seed", "4")
    assert all(line.count("@") == 7 for line in first.splitlines())  # 5 % of 144 sites


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say which structures in one way"),
        (("v_S", "--rules", "2dmd-low"), "say which structures in one way"),
        (("v_Te",), "no rule makes v_Te"),
        (("v_S", "--host", "MoS_2"), "Did you mean MoS2?"),
        (("v_S", "--supercell", "8"), "got supercell '8', expected two numbers from 1 to 99 such as 8x8"),
        (("--rules", "2dmd-high"), "Known: 2dmd-low"),
        (("--defects", "5"), "Add --sample N, or --count"),
        (("--defects", "5", "--sample", "2", "--uniform", "sites"), "expected classes or decorations"),
        (("v_S", "--uniform", "decorations"), "got --uniform without --sample"),
        (("v_S", "--count", "--limit", "3"), "--count only counts"),
        (("4v_S+4Se_S",), "--sample N for random ones, or --count"),
        (("0v_S",), "with none of a defect"),
        (("v_S", "--min-defects", "2"), "goes with --max-defects"),
        (("v_S", "--count", "-o", "table.csv"), "--count only counts"),
        (("--max-defects", "40", "--count"), "more than 10,000"),
        (("v_S", "-o", "table.xlsx"), "ends in .parquet or .csv"),
        (("v_S", "--allow", "S:Qq"), "'Qq' is no element"),
    ],
)
def test_wrong_calls_get_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = out(capsys, *words, code=2)
    assert message in said
    assert said.count("\n") == 1


def test_one_structure_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enumerate", "--host", "MoS2", "v_S", "-o", str(tmp_path / "one.csv")]) == 0
    assert "1 distinct structure of MoS2 8x8" in capsys.readouterr().out
