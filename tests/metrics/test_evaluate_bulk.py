"""The command: tables of energies, folders of samples, names, and the published rows beside."""

import json

import polars as pl
import pytest
from test_crystal_metrics import Silent, cif, counted, crowded, salt, write_samples

from defectgen.errors import UsageError
from defectgen.metrics.crystal_metrics import measure
from defectgen.metrics.generated_entries import Crystals, Entry
from defectgen.report.bulk_page import method_rows


def stability_table(path, rows):
    pl.DataFrame(rows, schema=["formula", "e_above_hull_ev_per_atom"], orient="row").write_csv(path)
    return path


def test_energies_of_the_stability_command_are_joined_by_row(tmp_path):
    crystals = Crystals((Entry("a", salt()), Entry("b", None, "no CIF"), Entry("c", salt(4.2, "Mg", "O"))))
    joined = crystals.with_stability(stability_table(tmp_path / "s.csv", [("NaCl", 0.02), (None, None), ("MgO", None)]))
    assert [entry.e_above_hull_ev for entry in joined.entries] == [0.02, None, None]
    unknown = [("NaCl", float("nan")), (None, None), ("MgO", float("inf"))]
    joined_none = crystals.with_stability(stability_table(tmp_path / "i.csv", unknown))
    assert all(entry.e_above_hull_ev is None for entry in joined_none.entries), "no numbers"
    assert joined.stability_column == "e_above_hull_ev_per_atom of s.csv"
    with pytest.raises(UsageError, match=r"row 3: CaO, but c is MgO"):
        crystals.with_stability(stability_table(tmp_path / "o.csv", [("NaCl", 0.0), (None, None), ("CaO", 0.0)]))
    with pytest.raises(UsageError, match="has 1 rows, the input 3 crystals"):
        crystals.with_stability(stability_table(tmp_path / "n.csv", [("NaCl", 0.0)]))
    with pytest.raises(UsageError, match="row 1: e_above_hull_ev_per_atom is 'low', expected a number"):
        Crystals((Entry("a", salt()),)).with_stability(stability_table(tmp_path / "w.csv", [("NaCl", "low")]))
    pl.DataFrame({"formula": ["NaCl"]}).write_csv(tmp_path / "x.csv")
    with pytest.raises(UsageError, match="no column e_above_hull_ev_per_atom"):
        crystals.with_stability(tmp_path / "x.csv")


def test_partial_hulls_and_known_competitors_stand_beside_stability(tmp_path):
    """The table says how many compounds compete, the manifest beside it whether the hull is the whole one."""
    crystals = Crystals((Entry("a", salt()), Entry("b", salt(4.2, "Mg", "O")), Entry("c", salt(cation="K"))))
    rows = {
        "formula": ["NaCl", "MgO", "KCl"],
        "e_above_hull_ev_per_atom": [0.02, 0.0, None],
        "n_competing": [0, 3, None],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "s.csv")
    assert crystals.with_stability(tmp_path / "s.csv").partial_hull == ""
    (tmp_path / "manifest.json").write_text(json.dumps({"hull": {"partial": "only the crystals of the file"}}))
    joined = crystals.with_stability(tmp_path / "s.csv")
    report = measure(joined, None, None, None, Silent)
    assert (report.metrics["competitors_known"]["n"], report.metrics["competitors_known"]["of"]) == (1, 2)
    [note] = [note for note in report.notes if "partial" in note]
    assert note.endswith("(only the crystals of the file): shares of metastable crystals are upper bounds")


def test_a_folder_of_samples_is_compared_without_its_refused_draws(tmp_path, monkeypatch, capsys):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    row = {"raw_text": "x", "conditions": "{}", "task": "generation", "cif": cif(salt())}
    pl.DataFrame({"cif": [cif(salt())]}).write_csv(tmp_path / "mine.csv")
    for name, verdicts in (("some", (True, False)), ("none", (False,))):
        write_samples(tmp_path / name, [row | {"valid": ok, "reason": "" if ok else "charge"} for ok in verdicts])
    words = ["evaluate", "bulk", str(tmp_path / "mine.csv"), "--json"]
    assert main([*words, "--reference", str(tmp_path / "some"), "--training", str(tmp_path / "some")]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert (counts["reference"], counts["training"]) == (1, 1)
    assert main([*words, "--training", str(tmp_path / "none")]) == 2
    assert "holds refused draws only" in capsys.readouterr().err


def test_names_are_those_of_folders_and_occur_once(tmp_path, monkeypatch, capsys):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    files = []
    for name in ("llama-T0.7", "llama-T0.9"):
        write_samples(tmp_path / name, [{"cif": cif(salt())}])
        files.append(tmp_path / f"{name}.json")
        assert main(["evaluate", "bulk", str(tmp_path / name), "-o", str(files[-1])]) == 0
        assert json.loads(files[-1].read_text(encoding="utf-8"))["name"] == name
    capsys.readouterr()
    words = ["evaluate", "bulk", str(tmp_path / "llama-T0.7"), "--compare", str(files[0])]
    assert main(words) == 2
    assert "two rows are named 'llama-T0.7'" in capsys.readouterr().err
    assert main([*words, "--name", "other", "--compare", str(files[0])]) == 2
    assert "its own --name" in capsys.readouterr().err
    assert main([*words, "--name", "other", "--compare", str(files[1])]) == 0


def test_the_command_takes_energies_above_the_hull(tmp_path, monkeypatch, capsys):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    pl.DataFrame({"cif": [cif(salt()), cif(salt(4.2, "Mg", "O"))]}).write_csv(tmp_path / "mine.csv")
    table = stability_table(tmp_path / "stability.csv", [("NaCl", 0.02), ("MgO", 0.3)])
    words = ["evaluate", "bulk", str(tmp_path / "mine.csv"), "--stability", str(table), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert counted(result["metrics"]["metastable"]) == (1, 2)
    assert main([*words, "--limit", "1"]) == 0, "rows are joined before a sample is taken"
    assert json.loads(capsys.readouterr().out)["metrics"]["metastable"]["of"] == 1


def test_command(tmp_path, monkeypatch, capsys):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    pl.DataFrame({"cif": [cif(salt()), "broken", cif(crowded())]}).write_csv(tmp_path / "mine" / "mine.csv")
    (tmp_path / "mine" / "bare.csv").write_text("formula\nNaCl\n")
    (tmp_path / "mine" / "cells.zip").touch()
    (tmp_path / "mine" / "notes.txt").touch()
    pl.DataFrame({"cif": [cif(salt(4.2, "Mg", "O"))]}).write_csv(tmp_path / "test.csv")
    words = ["evaluate", "bulk", str(tmp_path / "mine"), "--reference", str(tmp_path / "test.csv")]
    assert main([*words, "-o", str(tmp_path / "m.json")]) == 0
    shown = capsys.readouterr()
    assert "LLaMA-2 70B, T 0.7" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "mine.csv row 2: not a CIF of one crystal (" in shown.err
    assert "bare.csv: no column cif, got formula. Expected the text of a CIF in each row; skipped." in shown.err
    assert "2 of 4 crystals cannot be read." in shown.err
    assert "skipped 1 file that is no crystal by its name: notes.txt" in shown.err
    assert "skipped 1 file beside others that are read first: cells.zip; name them to read them" in shown.err
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "CDVAE" in page
    assert "src=" not in page
    assert "href=" not in page
    assert "<script" not in page
    assert main([*words, "-o", str(tmp_path / "m.json")]) == 2  # nothing is overwritten
    capsys.readouterr()
    assert main([*words, "--name", "again", "--compare", str(tmp_path / "m.json"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    structural = result["metrics"]["structural"]
    assert (structural["value"], structural["n"], structural["of"]) == (1 / 4, 1, 4)
    assert main([*words, "--compare", str(tmp_path / "mine.csv")]) == 2


def test_refused_draws_count_where_a_set_stands_beside_the_published_ones():
    values = {"structural": 1.0, "compositional": 0.8, "cov_recall": 0.5}
    raw = {"raw_structural": 0.1, "raw_compositional": 0.7}
    published = {"rows": {"CDVAE": {"structural": 1.0}}}
    own = {"name": "mine", "metrics": {k: {"value": v} for k, v in (values | raw).items()}, "published": published}
    rows = method_rows(own, {"plain": values})
    assert [title for title, _ in rows] == ["all draws: mine", "kept: mine", "plain", "CDVAE"]
    assert rows[0][1] == {"structural": 0.1, "compositional": 0.7}
    assert rows[1][1]["structural"] == 1.0
