"""`defectgen build-data --task bulk`: from tables and CIFs to records, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crystal_files import cif_text, made_up_crystals, published_rows, write_csv

from defectgen_cli.app import main

CRYSTALS = made_up_crystals(20, seed=11)


@pytest.fixture(autouse=True)
def _surroundings(own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: ARG001
    monkeypatch.delenv("DEFECTGEN_MP20", raising=False)
    monkeypatch.setenv("DEFECTGEN_2DMD", str(tmp_path / "not-for-this-task"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "mp/some.csv", published_rows(CRYSTALS))


def build(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert main(["build-data", "--task", "bulk", *map(str, words), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["build-data", *map(str, words)])
    out, err = capsys.readouterr()
    assert out == ""
    *_, line = err.splitlines()
    assert line.startswith("error: ")
    return code, line


def lines(folder: Path, part: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]


def test_a_table_becomes_records_once(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    made = build(capsys, "--data", table, "-o", out, "--copies", 3, "--seed", 5)
    assert made["settings"] == {
        "encoding": "bulk", "copies": 3, "max_atoms": 30, "split": "formula", "seed": 5, "prompts": "defectgen",
        "permute": False, "absolute": False,
    }  # fmt: skip
    assert [len(lines(out, part)) for part in ("train", "validation", "test")] == [48, 2, 2]
    assert set(lines(out, "train")[0]) == {
        "id", "task", "split", "formula", "n_atoms", "conditions", "prompt", "completion",
    }  # fmt: skip
    assert build(capsys, "--data", table.parent, "-o", out, "--copies", 3, "--seed", 5)["skipped"]
    code, line = refused(capsys, "--task", "bulk", "--data", table, "-o", out)
    assert code == 2
    assert "holds records made with other settings or data. Choose another folder or add --overwrite." in line
    assert build(capsys, "--data", table, "-o", out, "--overwrite")["settings"]["copies"] == 1  # type: ignore[index]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").touch()
    assert "holds other files" in refused(capsys, "--task", "bulk", "--data", table, "-o", foreign)[1]


def test_published_parts_are_kept_unless_formulas_are_to_divide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = published_rows([*CRYSTALS, CRYSTALS[0]])
    for name, part in {"train": rows[:12], "val": rows[12:16], "test": rows[16:]}.items():
        write_csv(tmp_path / f"mp/{name}.csv", part)
    made = build(capsys, "--data", tmp_path / "mp", "-o", tmp_path / "own")
    assert made["structures"] == {"train": 12, "validation": 4, "test": 5}
    assert made["formulas_of_train"] == {"validation": 0, "test": 1}
    assert {record["id"] for record in lines(tmp_path / "own", "validation")} == {f"mp-{k}" for k in range(13, 17)}
    made = build(capsys, "--data", tmp_path / "mp", "-o", tmp_path / "formula", "--split", "formula")
    assert made["formulas_of_train"] == {"validation": 0, "test": 0}


def test_broken_crystals_are_named_counted_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = published_rows(CRYSTALS)
    for k in range(7):
        rows[2 * k]["cif"] = "broken"
    table = write_csv(tmp_path / "given/some.csv", [*rows, rows[-1]])
    (table.parent / "zz.csv").write_text("formula\nNaCl\n")
    (table.parent / "one.cif").touch()
    assert main(["build-data", "--task", "bulk", "--data", str(table.parent), "-o", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert err.count("skipped row ") == 5
    assert "skipped row 3 of some.csv (mp-3): not a CIF of one crystal" in err
    assert "skipped 8 of 21 crystals" in err
    assert "warning: row 21 of some.csv (mp-20): repeats row 20 of some.csv; each crystal is taken once." in err
    assert "skipped 1 file beside others that are read first: one.cif; name them to read them" in err
    assert "records written: " in out
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["unusable"]["count"] == len(manifest["unusable"]["first"]) == 8
    assert manifest["unusable"]["first"][-1].startswith("zz.csv: has no column 'cif'")
    assert (manifest["repeated"], sum(manifest["structures"].values())) == (1, 13)


def test_a_folder_of_cifs_and_the_fetched_table_will_do(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, crystal in enumerate(CRYSTALS):
        (tmp_path / f"cifs/{k}.cif").parent.mkdir(exist_ok=True)
        (tmp_path / f"cifs/{k}.cif").write_text(cif_text(crystal))
    (tmp_path / "cifs/notes.txt").touch()
    made = build(capsys, "--data", tmp_path / "cifs", "-o", tmp_path / "a")
    assert made["structures"] == {"train": 16, "validation": 2, "test": 2}
    assert (made["covered"], made["left_out"]) == ({}, [str(tmp_path / "cifs/notes.txt")])
    code, line = refused(capsys, "--task", "bulk", "-o", tmp_path / "b")
    assert (code, "Run: defectgen fetch mp20 --from PATH" in line) == (1, True)
    assert main(["fetch", "mp20", "--from", str(table)]) == 0
    capsys.readouterr()
    fetched = build(capsys, "-o", tmp_path / "b")
    assert fetched["covered"]["band_gap_ev"] == [0.0, 1.0]  # type: ignore[index]
    assert build(capsys, "--data", "mp20", "-o", tmp_path / "b")["skipped"]
    monkeypatch.setenv("DEFECTGEN_MP20", str(tmp_path / "cifs"))
    assert build(capsys, "-o", tmp_path / "a")["skipped"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--task", "both"], 2, "unknown task 'both'. Expected one of: defect, bulk."),
        (["--task", "bulk", "--encoding", "edits"], 2, "--encoding has no meaning for the task bulk. Leave it out."),
        (["--task", "bulk", "--canonical"], 2, "--rotations/--canonical has no meaning for the task bulk"),
        (["--task", "bulk", "--pilot"], 2, "--pilot has no meaning"),
        (["--task", "bulk", "--sets", "all"], 2, "--sets has no meaning"),
        (["--task", "bulk", "--cartesian"], 2, "--cartesian has no meaning"),
        (["--max-atoms", "20"], 2, "--max-atoms has no meaning for the task defect"),
        (["--task", "bulk", "--split", "density"], 2, "unknown split 'density' of bulk crystals"),
        (["--task", "bulk", "--split", "published", "--data", "TABLE"], 2, "the data states no parts"),
        (["--task", "bulk", "--data", "nowhere"], 2, "nowhere does not exist"),
        (["--task", "bulk", "--max-atoms", "1", "--data", "TABLE"], 1, "all crystals have more than 1 atoms"),
    ],
)
def test_a_wrong_call_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    large = [crystal for crystal in CRYSTALS if len(crystal.species) > 1]
    table = write_csv(tmp_path / "some.csv", published_rows(large))
    given = [str(table) if word == "TABLE" else word for word in words]
    got, line = refused(capsys, *given, "-o", tmp_path / "out")
    assert got == code
    assert said in line
    assert not (tmp_path / "out").exists()
