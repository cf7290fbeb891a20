import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from defectgen.core import Configuration
from defectgen.core.properties import COLUMNS
from defectgen.design.candidates import DesignRun, Target
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.structures import read_configuration
from defectgen.report import export
from defectgen.report.export import claimed_run, write_run
from defectgen.report.rows import note_columns, rows_frame, run_rows, safe_name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")
def test_a_written_run_can_be_read_back(run: DesignRun, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    assert write_run(run, folder) == folder / "manifest.json"
    table = pl.read_parquet(folder / "candidates.parquet")
    assert table.columns == [
        "rank", "target_id", "target", "label", "n_defects", "formula",
        "homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev", "energy_per_atom_ev",
        "total_magnetization_mu_b",
        "homo_uncertainty_ev", "lumo_uncertainty_ev", "band_gap_uncertainty_ev", "formation_energy_uncertainty_ev",
        "fermi_level_uncertainty_ev", "energy_per_atom_uncertainty_ev", "total_magnetization_uncertainty_mu_b",
        "distance_ev", "expected_distance_ev", "novel", "configuration", "cif", "poscar",
        "origin", "similar",
        "dft_homo_ev", "dft_lumo_ev", "dft_band_gap_ev", "dft_formation_energy_ev", "dft_fermi_level_ev",
        "dft_energy_per_atom_ev", "dft_total_magnetization_mu_b", "dft_distance_ev",
        "nearest_defects_angstrom", "farthest_defects_angstrom", "site_symmetry", "multiplicity",
    ]  # fmt: skip
    assert table["novel"].to_list() == [True, False, True, False]
    text = pl.read_csv(folder / "candidates.csv", schema_overrides=table.schema)
    assert text.equals(table)
    for candidate, row in zip(run.candidates, table.iter_rows(named=True), strict=True):
        assert Configuration.from_key(run.host, row["configuration"]) == candidate.configuration
        assert row["target"] == "homo_ev=0.050 lumo_ev=1.150"
        for column in COLUMNS:
            assert row[column] == pytest.approx(candidate.predicted[column], abs=1e-6)
        for form in ("cif", "poscar"):
            assert read_configuration(run.host, folder / row[form]).canonical() == candidate.configuration


def test_the_manifest_lists_every_other_file(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out")
    files = contents(tmp_path / "out")
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert manifest["tool"] == "defectgen"
    assert manifest["complete"] is True
    assert manifest["targets"] == [
        {
            "id": "1",
            "values": {"homo_ev": 0.05, "lumo_ev": 1.15},
            "wishes": "homo_ev=0.050 lumo_ev=1.150",
            "notes": {},
        }
    ]
    assert manifest["counts"] == {"targets": 1, "candidates": 4, "distinct": 4, "novel": 2}
    assert manifest["settings"]["seconds"] == 1.25
    assert len(files) == 2 * 4 + 3
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_equal_runs_give_equal_files_apart_from_the_manifest(build: Callable[..., DesignRun], tmp_path: Path) -> None:
    write_run(build(settings={"seconds": 1.0}), tmp_path / "a")
    write_run(build(settings={"seconds": 2.0}), tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.pop("manifest.json") != second.pop("manifest.json")
    assert first == second


def test_only_what_was_asked_for_is_written(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out", ("csv", "poscar"))
    table = pl.read_csv(tmp_path / "out" / "candidates.csv")
    assert table["cif"].null_count() == 4
    assert sorted(contents(tmp_path / "out")) == sorted(["candidates.csv", "manifest.json", *table["poscar"]])
    with pytest.raises(UsageError, match="unknown format xyz"):
        write_run(run, tmp_path / "other", ("xyz",))


def test_file_names_are_safe_and_distinct(run: DesignRun, many_targets: DesignRun) -> None:
    names = [row.name for row in run_rows(many_targets)]
    assert len(set(names)) == len(names) == 15
    assert names[0].startswith("t01-r001-")
    assert run_rows(run)[0].name.startswith("r001-")
    for name in names:
        assert name.isascii()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert safe_name("v_Mo+2Se_S") == "v_Mo-2Se_S"
    assert safe_name("../$(rm)") == "rm"
    assert len(safe_name("x" * 500)) == 80


def test_settings_of_any_kind_reach_the_manifest(build: Callable[..., DesignRun], tmp_path: Path) -> None:
    settings = {"path": Path("a/b"), "kinds": ("x", "y"), "nested": {"nan": float("nan")}, "set": {"b", "a"}}
    write_run(build(settings=settings, complete=False, warnings=("careful",)), tmp_path / "out", ())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"] == {"path": "a/b", "kinds": ["x", "y"], "nested": {"nan": None}, "set": ["a", "b"]}
    assert manifest["complete"] is False
    assert manifest["warnings"] == ["careful"]


def test_a_run_without_candidates_is_written_too(build: Callable[..., DesignRun], tmp_path: Path) -> None:
    write_run(build(n=0), tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "candidates.parquet").height == 0
    assert "No candidate was found" in (tmp_path / "out" / "report.html").read_text()


def test_folders_that_are_refused(run: DesignRun, tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path / "empty"):
        with claimed_run(folder):
            folder.mkdir(exist_ok=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"), claimed_run(tmp_path / "file", overwrite=True):
        pass
    write_run(run, tmp_path / "run")
    with pytest.raises(UsageError, match="not empty") as caught, claimed_run(tmp_path / "run"):
        pass
    assert "\n" not in str(caught.value)
    with claimed_run(tmp_path / "run", overwrite=True):
        pass


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"tool": "other", "files": {}}', '{"tool": "defectgen"}'])
def test_a_foreign_folder_is_left_alone(run: DesignRun, tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="holds no manifest"):
        write_run(run, tmp_path, overwrite=True)
    assert contents(tmp_path) == before


def test_overwriting_replaces_the_run_and_keeps_what_the_user_added(
    run: DesignRun, build: Callable[..., DesignRun], tmp_path: Path
) -> None:
    write_run(run, tmp_path / "out")
    old = set(contents(tmp_path / "out"))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "structures" / "OUTCAR").write_text("mine as well")
    (tmp_path / "out" / "candidates.csv").write_text("edited by me")
    write_run(build(seed=8), tmp_path / "out", overwrite=True)
    after = contents(tmp_path / "out")
    assert after.pop("notes.txt") == b"mine"
    assert after.pop("structures/OUTCAR") == b"mine as well"
    assert after.pop("candidates.csv.kept-1") == b"edited by me"
    write_run(build(seed=8), tmp_path / "fresh")
    assert set(after) == set(contents(tmp_path / "fresh")) != old
    assert after["candidates.csv"] == contents(tmp_path / "fresh")["candidates.csv"]


def test_overwriting_removes_a_folder_that_became_empty(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out")
    write_run(run, tmp_path / "out", ("csv",), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["candidates.csv", "manifest.json"]


def test_a_manifest_cannot_reach_out_of_its_folder(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path / "out", ("csv",))
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    sha256 = hashlib.sha256(b"keep").hexdigest()
    manifest["files"] |= {"../outside.txt": {"sha256": sha256}, str(outside): {"sha256": sha256}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    write_run(run, tmp_path / "out", ("csv",), overwrite=True)
    assert outside.read_text() == "keep"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_nothing(
    run: DesignRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(export, "render_report", fail)
    with pytest.raises(error):
        write_run(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moves", [1, 5, 12, 15, 22])
def test_an_interrupted_overwrite_leaves_the_earlier_run(
    run: DesignRun,
    build: Callable[..., DesignRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: int,
) -> None:
    write_run(run, tmp_path / "out")
    (tmp_path / "out" / "report.html").write_text("edited")
    before = contents(tmp_path / "out")
    calls = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == moves:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DefectgenError, match="No space left"):
        write_run(build(seed=3), tmp_path / "out", overwrite=True)
    assert calls - moves >= (moves > 1)  # what was moved before is moved back
    assert contents(tmp_path / "out") == before


def test_an_empty_folder_that_exists_is_filled(run: DesignRun, tmp_path: Path) -> None:
    write_run(run, tmp_path, ("csv",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidates.csv", "manifest.json"]


def test_a_target_without_candidates_keeps_its_number(build: Callable[..., DesignRun]) -> None:
    run = build(n=1)
    other = Target("empty", (("lumo_ev", 1.0),))
    both = DesignRun(run.host, run.reference, run.candidates, {}, targets=(other, *run.targets))
    assert [row.name[:4] for row in run_rows(both)] == ["t02-"]


def test_notes_take_no_column_of_the_results(build: Callable[..., DesignRun]) -> None:
    names = ("homo_uncertainty_ev", "nearest_defects_angstrom", "dft_homo_ev", "geometry", "rank", "owner")
    target = Target("a", (("homo_ev", 0.05), ("lumo_ev", 1.15)), notes=tuple((name, "mine") for name in names))
    assert note_columns([target]) == [*(f"target_{name}" for name in names[:-1]), "owner"]
    frame = rows_frame(run_rows(build(targets=(target,))))
    assert frame["homo_uncertainty_ev"].dtype == pl.Float64
    assert frame["owner"].to_list()[:1] == ["mine"]
