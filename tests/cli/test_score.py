"""`defectgen score` on any files: hosts mixed, broken ones among them, and potentials that are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest
from pymatgen.core import Lattice, Structure

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.io.writers import cif_text, poscar_text
from defectgen.score import scorers as registry
from defectgen_cli.app import main
from defectgen_cli.score import _text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mos2: Host) -> Path:
    """Three hosts, a foreign element, a stray atom, two broken files and one that is no structure file."""
    made = tmp_path_factory.mktemp("files")
    (made / "a.cif").write_text(cif_text(Configuration.of(mos2, {64: VACANCY})))
    (made / "b.vasp").write_text(poscar_text(Configuration.of(get_host("WSe2"), {0: "Mo", 64: VACANCY})))
    (made / "c.cif").write_text(cif_text(Configuration.of(get_host("BN"), {64: "C"})))
    (made / "copper.cif").write_text(cif_text(Configuration.of(mos2, {64: "Cu"})))
    shifted = Configuration.of(mos2, {}).to_structure()
    shifted.translate_sites([7], [0.0, 0.0, 2.5], frac_coords=False)
    shifted.to(made / "shifted.cif")
    (made / "empty.cif").write_text("")
    lines = poscar_text(Configuration.of(mos2, {})).splitlines()
    lines[8] = "nan nan nan"
    (made / "POSCAR-nan").write_text("\n".join(lines) + "\n")
    (made / "notes.txt").write_text("no structure")
    return made


def test_a_folder_of_several_hosts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "scores.csv"
    assert main(["score", str(folder), "-o", str(output), "--json"]) == 3
    captured = capsys.readouterr()
    rows = {Path(row["file"]).name: row for row in json.loads(captured.out)["structures"]}
    assert set(rows) == {"a.cif", "b.vasp", "c.cif", "copper.cif", "shifted.cif", "empty.cif", "POSCAR-nan"}
    hosts = {name: row["host"] for name, row in rows.items()}
    assert (hosts["a.cif"], hosts["b.vasp"], hosts["c.cif"]) == ("MoS2", "WSe2", "BN")
    for name in ("a.cif", "b.vasp", "c.cif"):
        assert (rows[name]["valid"], rows[name]["reasons"]) == (True, "")
        assert rows[name]["formation_energy_ev"] is not None
        assert (rows[name]["note"] is None) == (rows[name]["formation_energy_uncertainty_ev"] is not None)
    assert rows["a.cif"]["note"] is None
    assert "extrapolated" in rows["c.cif"]["note"], "one defect in BN is fewer than any training row has"
    assert rows["a.cif"]["label"] == "v_S"
    assert rows["a.cif"]["novel"] in (True, False)
    assert rows["c.cif"]["novel"] is True, "no training row of BN has one defect"
    assert rows["copper.cif"]["homo_ev"] is None
    assert "Cu" in rows["copper.cif"]["note"]
    assert rows["copper.cif"]["reasons"] == "Cu on a site of S, which MoS2 does not allow"
    assert rows["shifted.cif"]["note"].startswith("is no decoration of MoS2 8x8: atom 7 lies")
    assert rows["shifted.cif"]["formula"] == "MoS2"
    assert rows["shifted.cif"]["novel"] is None
    assert "is empty, expected a structure" in rows["empty.cif"]["note"]
    assert rows["POSCAR-nan"]["note"].endswith("has coordinates that are no finite numbers.")
    assert "4 of 7 structures have no score" in captured.err
    table = pl.read_csv(output)
    assert table.height == 7
    assert set(table.columns) == set(rows["a.cif"])


def test_several_scorers_have_their_columns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_scorer import CountingPotential

    entry = registry.ScorerEntry("fake", lambda _: CountingPotential.scorer(), is_potential=True)
    monkeypatch.setitem(registry.SCORERS._items, "m3gnet", entry)
    assert main(["score", str(folder), "--scorer", "surrogate,m3gnet", "--json"]) == 3
    rows = {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)["structures"]}
    assert rows["a.cif"]["m3gnet_energy_ev"] == pytest.approx(-191.0)
    assert rows["a.cif"]["m3gnet_formation_energy_ev"] == pytest.approx(-4.127 + 1.0)
    assert rows["a.cif"]["surrogate_formation_energy_ev"] == pytest.approx(2.65, abs=0.2)
    assert rows["shifted.cif"]["m3gnet_energy_ev"] == pytest.approx(-192.0), "a potential takes any atoms"
    assert rows["shifted.cif"]["note"].startswith("surrogate: is no decoration of MoS2")
    assert rows["c.cif"]["note"].endswith("m3gnet: counting never saw B, C, N.")
    assert rows["c.cif"]["surrogate_homo_ev"] is not None
    assert rows["copper.cif"]["m3gnet_formation_energy_ev"] is None


def test_only_when_every_file_has_a_value_is_the_exit_code_zero(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(folder / "a.cif"), str(folder / "b.vasp")]) == 0
    assert main(["score", str(folder / "a.cif"), str(folder / "empty.cif")]) == 3
    assert "1 of 2 structures have no score" in capsys.readouterr().err
    assert main(["score", str(folder / "empty.cif")]) == 1


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, captured.err
    return code, lines[0]


def test_nothing_scored_is_a_failure_that_keeps_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.csv"
    code, line = refused(capsys, "score", folder / "a.cif", "-o", tmp_path / "scores.xlsx")
    assert (code, line.endswith("expected a file that ends in .csv or .parquet.")) == (2, True)
    code, line = refused(capsys, "score", folder / "copper.cif", folder / "shifted.cif", "-o", output)
    assert code == 1
    assert "copper.cif: " in line
    assert line.endswith("(1 more could not be scored.)")
    assert pl.read_csv(output)["note"].null_count() == 0
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    salt.to(str(tmp_path / "salt.cif"))
    code, line = refused(capsys, "score", tmp_path / "salt.cif")
    assert (code, "salt.cif is a bulk crystal, not a layer: the widest empty slab" in line) == (1, True), line
    code, line = refused(capsys, "score", folder / "a.cif", "--host", "WSe2")
    assert code == 1
    assert "is no decoration of WSe2 8x8: Mo64S127 is another compound." in line


@pytest.mark.usefixtures("own_cache")
def test_wrong_calls(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEFECTGEN_M3GNET", raising=False)
    file = folder / "a.cif"
    for words, expected, message in (
        (("--scorer", "surogate"), 2, "Did you mean surrogate?"),
        (("--scorer", "m3gnet"), 2, "no M3GNet model is named"),
        (("--scorer", "m3gnet", "--m3gnet", tmp_path / "none"), 2, "is not a folder"),
        (("--surrogate", tmp_path), 1, "holds no trained surrogate"),
        (("--host", "MoS3"), 2, "unknown host 'MoS3'"),
    ):
        code, line = refused(capsys, "score", file, *words)
        assert (code, message in line) == (expected, True), line
    code, line = refused(capsys, "score", file, tmp_path / "none.cif")
    assert (code, "none.cif is not a file" in line) == (1, True)
    (tmp_path / "void").mkdir()
    code, line = refused(capsys, "score", tmp_path / "void")
    assert (code, "hold no structures" in line) == (2, True)
    code, line = refused(capsys, "score", folder / "empty.cif", folder / "POSCAR-nan")
    assert code == 1
    assert "empty.cif: is empty, expected a structure" in line
    assert "(1 more cannot be read.)" in line


def test_extended_xyz(tmp_path: Path, mos2: Host, capsys: pytest.CaptureFixture[str]) -> None:
    from ase import Atoms, io

    frames = []
    for edits in ({64: VACANCY}, {0: VACANCY, 1: "W"}):
        cell = Configuration.of(mos2, edits).to_structure()
        frames.append(
            Atoms([s.specie.symbol for s in cell], positions=cell.cart_coords, cell=cell.lattice.matrix, pbc=True)
        )
    io.write(tmp_path / "two.extxyz", frames)
    (tmp_path / "free.xyz").write_text("1\nno cell\nMo 0 0 0\n")
    assert main(["score", str(tmp_path), "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["structures"]
    assert [row["label"] for row in rows] == [None, "v_S", "v_Mo+W_Mo"]
    assert rows[1]["file"].endswith("two.extxyz#1")
    assert "has no cell" in rows[0]["note"]


def test_a_file_name_that_is_no_utf8(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.cif"))
    odd.write_bytes((folder / "a.cif").read_bytes())
    assert main(["score", str(odd), "-o", str(tmp_path / "scores.csv"), "--json"]) == 0
    shown = f"{tmp_path}/a\\xff.cif"
    assert json.loads(capsys.readouterr().out)["structures"][0]["file"] == shown
    assert pl.read_csv(tmp_path / "scores.csv")["file"].to_list() == [shown]
    assert main(["slices", str(odd), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structures"][0]["file"] == shown


def test_a_run_has_a_row_a_structure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    wish = ("--homo", "0.1", "--max-defects", "1", "-n", "3", "-o", str(run))
    assert main(["design", "--host", "MoS2", *wish]) == 0
    capsys.readouterr()
    assert main(["score", str(run), "--json"]) == 0
    found = [row["configuration"] for row in json.loads(capsys.readouterr().out)["structures"]]
    assert sorted(found) == sorted(pl.read_csv(run / "candidates.csv")["configuration"])


def test_values_have_their_units_and_zero_no_sign() -> None:
    row = {
        "file": "a.cif", "host": "BN", "supercell": "8x8", "label": "v_B", "formula": "B63N64", "reasons": "",
        "transformation": None, "note": None, "homo_ev": -0.0001, "homo_uncertainty_ev": 0.05,
        "energy_per_atom_ev": -8.12344, "total_magnetization_mu_b": 1.0,
    }  # fmt: skip
    shown = _text(pl.DataFrame([row]), ["surrogate"], {"BN": "hBN"})
    assert shown == "a.cif: v_B in hBN 8x8; HOMO 0.000 ± 0.050, E/atom -8.1234 eV, moment 1.00 μB"


def test_a_file_name_of_two_lines_stays_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\nb.cif").write_text("garbage")
    (tmp_path / "good.cif").write_text(cif_text(Configuration.of(get_host("MoS2"), {64: VACANCY})))
    assert main(["score", str(tmp_path)]) == 3
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith(f"{tmp_path}/a\\nb.cif: not read; no score; cannot be read as CIF")
    assert main(["score", str(tmp_path / "a\nb.cif")]) == 1
    assert f"error: {tmp_path}/a\\nb.cif: cannot be read as CIF" in capsys.readouterr().err
    assert main(["results", str(tmp_path / "no\nfile")]) == 1
    assert "/no\\nfile is not there" in capsys.readouterr().err
