"""CSV files that a spreadsheet opens without running what is in them."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import polars as pl
import pytest

from defectgen.io.tables import FORMULA_STARTS, read_csv, read_parquet, safe_cell, write_csv, write_parquet

EVIL = ["=cmd|' /C calc'!A0", "+1+2", "-2+3", "@SUM(A1)", "\t=1", "=1,2", "-x"]
HARMLESS = ["-0.5", "+1e-3", "v_Mo+2Se_S", "8x8", "", "'=1", "a=b", "-inf"]


@pytest.mark.parametrize("text", EVIL)
def test_a_cell_that_begins_like_a_formula_gets_an_apostrophe(text: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"name": [text, None, "plain"], "x": [-1.5, None, 2.0], "n": [-3, 4, None]})
    write_csv(frame, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[0] == {"name": f"'{text}", "x": "-1.5", "n": "-3"}
    assert [row["name"] for row in rows[1:]] == ["", "plain"]
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_and_other_texts_stay_what_they_are(text: str, tmp_path: Path) -> None:
    write_csv(pl.DataFrame({"name": [text, "x"]}), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as lines:
        assert next(csv.DictReader(lines))["name"] == text
    assert safe_cell(text) == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a\nb.cif", r"a\nb.cif"), ("\r=1", r"\r=1"), ("x\x1b[31m", r"x\x1b[31m"), ("a\u202eb", r"a\u202eb"),
        ("tab\there", "tab\there"),
        ("=1\n", r"'=1\n"), ("a\udcffb", r"a\xffb"),
    ],
)  # fmt: skip
def test_a_row_is_one_line_and_says_nothing_to_a_terminal(text: str, cell: str, tmp_path: Path) -> None:
    assert safe_cell(text) == cell
    if not any("\ud800" <= c <= "\udfff" for c in text):  # polars takes none
        write_csv(pl.DataFrame({"file": [text, None, "Å"], text: [1, 2, 3]}), tmp_path / "t.csv")
        found = (tmp_path / "t.csv").read_bytes().decode()
        assert len(found.split("\n")) == 5
        rows = list(csv.reader(found.splitlines()))
        assert rows[0] == ["file", cell]
        assert [row[0] for row in rows[1:]] == [cell, "", "Å"]


def test_the_name_of_a_column_is_a_cell_too(tmp_path: Path) -> None:
    write_csv(pl.DataFrame({"=1": [1], "b": [2]}), tmp_path / "t.csv", float_precision=3)
    assert (tmp_path / "t.csv").read_text().startswith("'=1,b")


def test_every_writer_of_the_package_goes_through_it() -> None:
    """polars' own is called there, and where a text is only hashed."""
    import defectgen

    folder = Path(defectgen.__file__).parent
    callers = {
        file.name
        for root in (folder, folder.parent / "cli")
        for file in root.rglob("*.py")
        if ".write_csv(" in file.read_text() or "csv.writer" in file.read_text()
    }
    assert callers == {"tables.py", "records.py", "bulk_records.py", "hull.py", "materials_project.py"}
    assert len(FORMULA_STARTS) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"name,gap,note\na,0.5,x\nb,-1.25,y\n",
        b"\xef\xbb\xbfname,gap,note\r\na,0.5,x\r\nb,-1.25,y\r\n",
        b"name;gap;note\r\na;0,5;x\r\nb;-1,25;y\r\n",
        b"name;gap;note\na;0.5;x\nb;-1.25;y\n",
        b"name\tgap\tnote\na\t0.5\tx\nb\t-1.25\ty\n",
        "name\tgap\tnote\r\na\t0,5\tx\r\nb\t-1,25\ty\r\n".encode("utf-16"),
        "name,gap,note\na,0.5,x\nb,-1.25,y\n".encode("utf-16"),
    ],
)
def test_tables_of_other_editors_are_one_table(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    wanted = {"name": ["a", "b"], "gap": [0.5, -1.25], "note": ["x", "y"]}
    assert read_csv(tmp_path / "t.csv").to_dict(as_series=False) == wanted


def test_only_numbers_get_points(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id;gap;note\n1,2-a;0,5:0,8;"a, 1,5"\n2;0,1*2;x 1,5\n')
    rows = read_csv(tmp_path / "t.csv", infer_schema=False).rows()
    assert rows == [("1,2-a", "0.5:0.8", "a, 1,5"), ("2", "0.1*2", "x 1,5")]


def test_tables_in_folders_whose_names_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    frame = pl.DataFrame({"name": ["v_S"], "homo_ev": [0.06]})
    write_csv(frame, folder / "t.csv")
    write_parquet(frame, folder / "t.parquet")
    assert read_csv(folder / "t.csv").equals(frame)
    assert read_parquet(folder / "t.parquet").equals(frame)
