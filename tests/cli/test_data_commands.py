"""`defectgen data summary` and `defectgen data export`."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from defectgen.data.summary import PUBLISHED_ROWS, summarize
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError, UsageError
from defectgen_cli.data_commands import app

pytestmark = pytest.mark.usefixtures("own_cache")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> DefectgenError:
    """The one line that the user gets."""
    result = call(*words)
    assert isinstance(result.exception, DefectgenError), result.output
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    return result.exception


def test_summary_prints_a_table_of_80_columns(tiny_2dmd: Path) -> None:
    result = call("summary", "--data", tiny_2dmd)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["MoS2", "MoS2", "low", "8x8", "60", "5,933", "60"] in [line[:7] for line in words]
    assert any(line[:1] == ["MoS2"] and line[-1] == "none" for line in words)
    assert "CC-BY-4.0" in result.stdout


def test_summary_as_json_holds_the_numbers(tiny_2dmd: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    result = call("summary", "--data", tiny_2dmd, "--sets", "WSe2", "-o", page, "--json")
    shown = json.loads(result.stdout)
    assert (shown["n_rows"], shown["hosts"], shown["page"]) == (80, ["WSe2"], str(page))
    (item,) = shown["sets"]
    assert item["formation_energy_error_ev"] < 1e-9
    expected = summarize(read_2dmd(tiny_2dmd, ["WSe2"], cache=False)).sets[0]
    assert item["alignment"]["fitted_shift"] == expected.alignment.fitted_shift
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "WSe2" in text
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]


def test_a_page_is_not_replaced_without_being_asked(tiny_2dmd: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert "exists already" in str(refused("summary", "--data", tiny_2dmd, "-o", page))
    assert page.read_text() == "mine"
    assert call("summary", "--data", tiny_2dmd, "-o", page, "--overwrite").exit_code == 0
    assert "mine" not in page.read_text()[:4]


def test_export_writes_all_rows_and_columns(tiny_2dmd: Path, tmp_path: Path) -> None:
    expected = read_2dmd(tiny_2dmd, cache=False)
    whole, part = tmp_path / "t.parquet", tmp_path / "t.csv"
    result = call("export", "--data", tiny_2dmd, "-o", whole)
    assert f"140 rows of {len(expected.columns)} columns" in result.stdout
    assert pl.read_parquet(whole).equals(expected)
    shown = json.loads(call("export", "--data", tiny_2dmd, "-o", part, "--sets", "MoS2", "--json").stdout)
    assert (shown["n_rows"], shown["columns"]) == (60, expected.columns)
    assert shown["files"] == [str(part), f"{part}-metadata.json"]
    assert pl.read_csv(part, schema=expected.schema).equals(expected.filter(set="MoS2"))
    assert "exists already" in str(refused("export", "--data", tiny_2dmd, "-o", part))
    assert call("export", "--data", tiny_2dmd, "-o", part, "--overwrite").exit_code == 0


@pytest.mark.parametrize("command", ["summary", "export"])
@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("MoS2-500", "MoS2_500"),
        ("mos2", "MoS2"),
        ("BN", "hBN_spin_500"),
        ("P", "BP_spin_500"),
        ("gase", "GaSe_spin_500"),
    ],
)
def test_an_unknown_set_names_the_nearest(command: str, given: str, nearest: str, tmp_path: Path) -> None:
    error = refused(
        command, "--data", tmp_path, "--sets", given, "-o", tmp_path / f"x.{'html' if command == 'summary' else 'csv'}"
    )
    assert isinstance(error, UsageError)
    assert str(error).startswith(f"unknown set '{given}'. Did you mean {nearest}? ")


def test_bad_input_is_one_line(tiny_2dmd: Path, tmp_path: Path) -> None:
    assert "is not a folder" in str(refused("summary", "--data", tmp_path / "no"))
    assert "no data of a known source: 2dmd (csv_cif/ and processed/)" in str(refused("summary", "--data", tmp_path))
    assert "expected all or some of MoS2" in str(refused("summary", "--data", tiny_2dmd, "--sets", ","))
    assert "InSe_spin_500" in str(refused("summary", "--data", tiny_2dmd, "--sets", "MoS2,InSe_spin_500"))
    assert "ends in .html" in str(refused("summary", "--data", tiny_2dmd, "-o", tmp_path / "page.pdf"))
    assert ".parquet or .csv" in str(refused("export", "--data", tiny_2dmd, "-o", tmp_path / "t.xlsx"))
    assert "defectgen fetch 2dmd-pilot" in str(refused("summary", "--pilot"))
    assert "is a folder" in str(refused("summary", "--data", tiny_2dmd, "-o", folder(tmp_path / "x.html")))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_pilot_sample(pilot_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "pilot.html"
    result = call("summary", "--data", pilot_dir, "-o", page)
    assert result.exit_code == 0
    assert "91: HOMO LUMO gap" in result.stdout
    assert "no chemical potentials" in result.stdout
    assert "licence MIT" in result.stdout
    error = refused("summary", "--data", pilot_dir, "--sets", "WSe2")
    assert "holds no set WSe2. The pilot sample holds MoS2 only." in str(error)
    table = tmp_path / "pilot.parquet"
    assert call("export", "--data", pilot_dir, "-o", table).exit_code == 0
    assert len(pl.read_parquet(table)) == 200
    assert pl.read_parquet_metadata(table)["defectgen.licence"] == "MIT"


def test_sets_are_chosen_even_where_the_layout_has_all_in_one_file(
    tiny_2dmd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectgen.data import sources as reader

    both = read_2dmd(tiny_2dmd, cache=False)
    monkeypatch.setattr(reader, "read_dataset", lambda *_: both)
    (tmp_path / "data.csv.gz").touch()
    result = call("export", "--data", tmp_path, "--sets", "WSe2", "-o", tmp_path / "t.parquet")
    assert result.exit_code == 0
    assert pl.read_parquet(tmp_path / "t.parquet").equals(both.filter(set="WSe2"))


def test_the_real_data_fits_80_columns(twodmd_dir: Path, monkeypatch: pytest.MonkeyPatch, twodmd: pl.DataFrame) -> None:
    from defectgen.data import checks
    from defectgen.data import twodmd as reader

    for module in (reader, checks):  # it was read by the fixture
        monkeypatch.setattr(module, "read_2dmd", lambda *_, **__: twodmd)
    result = call("summary", "--data", twodmd_dir)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[4:12]] == list(PUBLISHED_ROWS)
