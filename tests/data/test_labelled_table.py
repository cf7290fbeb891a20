"""The table as a file: nothing lost, its provenance with it, nothing replaced by accident."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from defectgen import __version__
from defectgen.data.asset_cards import get_card
from defectgen.data.labelled_table import check_table_path, sidecar, write_table
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import write_whole

CARD = get_card("2dmd")


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return read_2dmd(tiny_2dmd, cache=False)


def test_parquet_holds_every_value_and_whose_it_is(frame: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "new" / "2dmd.parquet"
    assert write_table(frame, path, CARD) == [path]
    assert pl.read_parquet(path).equals(frame)
    about = pl.read_parquet_metadata(path)
    assert about["defectgen.licence"] == "CC-BY-4.0"
    assert about["defectgen.defectgen_version"] == __version__
    assert all(citation.doi in about["defectgen.citation"] for citation in CARD.citations)
    assert [file.name for file in path.parent.iterdir()] == ["2dmd.parquet"]


def test_csv_holds_every_value_and_the_file_beside_it_whose_it_is(frame: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "2dmd.csv"
    holes = frame.with_columns(homo_ev=pl.when(pl.col("n_defects") == 2).then(None).otherwise("homo_ev"))
    assert write_table(holes, path, CARD) == [path, sidecar(path)]
    assert pl.read_csv(path, schema=holes.schema).equals(holes)
    about = json.loads(sidecar(path).read_text(encoding="utf-8"))
    assert (about["url"], about["dc:license"]) == ("2dmd.csv", "CC-BY-4.0")
    assert __version__ in about["dc:description"]
    columns = about["tableSchema"]["columns"]
    assert [column["name"] for column in columns] == frame.columns
    kinds = {column["name"]: column["datatype"] for column in columns}
    assert (kinds["homo_ev"], kinds["n_defects"], kinds["label"]) == ("double", "integer", "string")
    first = path.read_bytes()
    write_table(holes, path, CARD, overwrite=True)
    assert path.read_bytes() == first


def test_nothing_is_replaced_without_being_asked(frame: pl.DataFrame, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.csv", "c.csv-metadata.json"):
        (tmp_path / name).write_text("mine")
    for name in ("a.parquet", "b.csv", "c.csv"):
        with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
            write_table(frame, tmp_path / name, CARD)
    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["mine"] * 3
    write_table(frame, tmp_path / "a.parquet", CARD, overwrite=True)
    assert len(pl.read_parquet(tmp_path / "a.parquet")) == len(frame)


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.parquet.gz", "csv"])
def test_an_unknown_suffix_says_which_are_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a file that ends in \.parquet or \.csv"):
        check_table_path(tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_table_path(tmp_path / "x.csv", overwrite=True)


def test_a_write_that_fails_leaves_all_as_it_was(frame: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("mine")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    def stop(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(DefectgenError, match=r"t\.parquet cannot be written: No space left on device\."):
        write_whole(path, fail)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, stop)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("t.parquet", "mine")]
    (tmp_path / "file").write_text("")
    with pytest.raises(DefectgenError, match="cannot be written"):
        write_table(frame, tmp_path / "file" / "t.csv", CARD)
