"""Targets from options and tables, and what is said about those outside the data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from defectgen.design.candidates import Target
from defectgen.design.targets import coverage_warnings, read_targets, single_target
from defectgen.errors import UsageError


def test_options_become_one_target_in_the_order_of_the_columns() -> None:
    target = single_target({"lumo_ev": 1.15, "homo_ev": 0.05, "band_gap_ev": None})
    assert target.values == (("homo_ev", 0.05), ("lumo_ev", 1.15))
    assert target.text == "homo_ev=0.050 lumo_ev=1.150"


def test_no_target_and_no_number_are_refused() -> None:
    with pytest.raises(UsageError, match="no target given"):
        single_target({"homo_ev": None})
    with pytest.raises(UsageError, match="finite"):
        single_target({"homo_ev": float("nan")})


def test_a_table_may_use_either_name_and_leave_cells_empty(tmp_path: Path) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("id,homo,lumo_ev,formation-energy\na,0.1,,5\nb,,1.2,\n")
    assert read_targets(table) == (
        Target("a", (("homo_ev", 0.1), ("formation_energy_ev", 5.0))),
        Target("b", (("lumo_ev", 1.2),)),
    )
    table.write_text("homo\n0.1\n0.2\n")
    assert [target.id for target in read_targets(table)] == ["1", "2"]
    table.write_text("homo,lumo\n0.1,1\n,\n\n0.2,\n \n")
    assert [target.id for target in read_targets(table)] == ["1", "2"], "empty rows of a spreadsheet are no targets"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hommo\n1\n", "unknown column 'hommo'"),
        ("homo\nhigh\n", "homo is 'high', expected a number"),
        ("id,homo\na,\n", "target a asks for nothing"),
        ("id,homo\na,1\na,2\n", "'a' occurs more than once"),
        ("homo\n", "holds no targets"),
        ("", "cannot be read as CSV"),
        ("homo,homo_ev\n0.1,0.2\n", "stands for a property that another one gives too"),
        ("homo\n1150\n", "expected electronvolts"),
        ("band_gap\n-1\n", "got a gap of -1 eV"),
        ("homo,lumo\n1,0.5\n", "LUMO asked for lies below the HOMO"),
    ],
)
def test_broken_tables_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "targets.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_targets(table)
    assert "\n" not in str(caught.value)


def test_values_outside_the_data_are_warned_of_with_the_range() -> None:
    covered = {"homo_ev": [0.0, 0.9]}
    inside, outside = Target("1", (("homo_ev", 0.9),)), Target("2", (("homo_ev", 2.0), ("lumo_ev", 1.0)))
    lines = coverage_warnings("MoS2", (inside, outside), covered)
    assert len(lines) == 2
    assert "target 2: HOMO 2.000 eV is outside" in lines[0]
    assert "0.000 to 0.900 eV" in lines[0]
    assert "not trained on LUMO" in lines[1]


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ("0.9:1.1", ""),
        ("0.5", r"gap asked for, 0\.500 eV, is smaller than the 0\.950 eV between .*: no structure has all three"),
        ("1.4:", r"gap asked for, 1\.400: eV, is larger than the 1\.050 eV .*: at most cells with spin"),
        ("min", ""),
    ],
)
def test_a_gap_that_is_not_between_the_levels_is_warned_of(gap: str, said: str) -> None:
    covered = {"homo_ev": [0.0, 0.9], "lumo_ev": [0.7, 1.9], "band_gap_ev": [0.0, 1.9]}
    target = single_target({"homo_ev": 0.1, "lumo_ev": "1.05:1.15", "band_gap_ev": gap})
    lines = coverage_warnings("MoS2", (target,), covered)
    assert len(lines) == bool(said)
    assert all(re.search(said, line) for line in lines)


def test_reading_takes_a_time_in_proportion_to_the_rows(tmp_path: Path) -> None:
    """By the number of lines that Python runs, which no other work on the machine changes."""
    import sys

    def lines_run(rows: int) -> int:
        lines = [f"t{k},{0.1 + k * 1e-6:.6f},1.2" for k in range(rows)]
        (tmp_path / "t.csv").write_text("\n".join(["id,homo,lumo", *lines]) + "\n")
        count = 0

        def trace(_frame: object, event: str, _argument: object) -> Any:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            found = read_targets(tmp_path / "t.csv")
        finally:
            sys.settrace(before)
        assert len(found) == rows
        return count

    few, many = lines_run(100), lines_run(800)
    assert many < 9 * few


@pytest.mark.parametrize(
    "content", [b"homo\n0.1\xe9\n", b"\xff\xfeh\x00", b"homo\n\x00\n", b'homo\n"0.1\n', b"homo\n1e309\n"]
)
def test_a_table_of_bytes_that_are_no_table_gets_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_targets(tmp_path / "t.csv")
    assert "\n" not in str(error.value)
    assert "t.csv" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"id;homo;lumo\r\na;0,05;1,1:1,2\r\n",
        "id\thomo\tlumo\na\t0.05\t1.1:1.2\n".encode("utf-16"),
        b"\xef\xbb\xbfid,homo,lumo\na,0.05,1.1:1.2\n",
    ],
)
def test_tables_of_other_editors_are_targets_too(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    (tmp_path / "plain.csv").write_text("id,homo,lumo\na,0.05,1.1:1.2\n")
    assert read_targets(tmp_path / "t.csv") == read_targets(tmp_path / "plain.csv")
