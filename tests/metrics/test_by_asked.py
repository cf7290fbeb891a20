"""Asked band gaps and energies above the hull beside what came out."""

import json

import numpy as np
import polars as pl
import pytest
from test_crystal_metrics import cif, counted, run, salt, write_samples

from defectgen.metrics.generated_entries import Crystals, Entry
from defectgen.metrics.met_conditions import meets


def asked(gap, found, crystal=True):
    problem = "" if crystal else "no CIF"
    return Entry("x", salt() if crystal else None, problem, conditions={"band_gap": gap}, band_gap_ev=found)


def test_a_gap_is_met_within_half_an_electronvolt():
    for wanted, found, hit in ((2, 1.5, True), (2.0, 2.51, False), ("0", 0.0, True), (2.0, None, False)):
        assert meets(asked(wanted, found), "band_gap") is hit
    assert meets(asked(2.0, None, crystal=False), "band_gap") is False
    for strange in (-1.0, "wide", "nan", None):
        assert meets(asked(strange, 1.0), "band_gap") is None


def test_figures_by_asked_value_stand_beside_those_of_crystals_not_asked():
    entries = [
        asked(0.0, 0.1), asked(0.0, 0.9), asked(0.0, None, crystal=False),
        asked(4.0, 3.8), asked(4.0, 3.0), asked(4.0, 4.2), asked(-2.0, 0.2), Entry("y", salt(), band_gap_ev=0.0),
    ]  # fmt: skip
    report = run(entries, gap_source="trees fitted to three crystals")
    metrics, table = report.metrics, report.by_asked["band_gap"]
    assert counted(metrics["hit_band_gap"]) == (3, 6)
    assert metrics["deviation_band_gap"]["value"] == pytest.approx(np.mean([0.1, 0.9, 0.2, 1.0, 0.2]))
    assert metrics["deviation_band_gap"]["of"] == 5, "a crystal that cannot be read has no gap, and is no hit"
    assert metrics["rank_band_gap"]["value"] == pytest.approx(np.sqrt(3) / 2)
    low, high = metrics["rank_band_gap"]["interval_95"]
    assert low <= metrics["rank_band_gap"]["value"] <= high
    assert list(table) == ["0", "4", "not asked"]
    assert counted(table["0"]["hit"]) == (1, 3)
    assert counted(table["4"]["hit"]) == (2, 3)
    assert counted(table["0"]["hit_not_asked"]) == (2, 2)
    assert counted(table["4"]["hit_not_asked"]) == (0, 2)
    assert table["4"]["median"]["value"] == 3.8
    assert table["4"]["deviation"]["value"] == pytest.approx(1.4 / 3)
    assert table["4"]["deviation_not_asked"]["value"] == pytest.approx(3.9)
    assert table["not asked"]["median"]["value"] == pytest.approx(0.1)
    assert "trees fitted to three crystals" in report.notes
    assert "1 asked values of band_gap cannot be read and count as not asked" in report.notes


def test_one_asked_value_has_no_rank_and_many_have_no_table():
    report = run([asked(1.0, 1.0), asked(1.0, 2.0)], gap_source="p")
    assert report.metrics["rank_band_gap"] == {"value": None, "of": 2, "why": "one value was asked for"}
    report = run([asked(float(n), 2.0) for n in range(13)], gap_source="p")
    assert report.metrics["rank_band_gap"]["why"] == "all of them have one value"
    assert report.by_asked == {}
    assert run([asked(1.0, None)]).by_asked == {}
    assert "hit_band_gap" not in run([asked(1.0, None)]).metrics, "nothing predicted gaps"
    assert "no crystal was asked for a band gap" in run([Entry("x", salt(), band_gap_ev=1.0)], gap_source="p").notes


def test_asked_stability_is_compared_where_energies_are_known():
    entries = [
        Entry("x", salt(), conditions={"e_above_hull": wanted}, e_above_hull_ev=found)
        for wanted, found in ((0.0, 0.01), (0.0, 0.3), (0.08, 0.05), (0.08, 0.07))
    ]
    report = run(entries, stability_column="e")
    table = report.by_asked["e_above_hull"]
    assert [row["median"]["value"] for row in table.values()] == pytest.approx([0.155, 0.06])
    assert counted(table["0"]["hit"]) == (1, 2)
    assert report.metrics["deviation_e_above_hull"]["value"] == pytest.approx(0.35 / 4)


class Thirds:
    """Gaps that are a third of the volume of the cell."""

    def predict(self, crystals):
        return [crystal.volume / 3 for crystal in crystals]

    def describe(self, crystals):
        return f"thirds of {len(crystals)}"


def test_predicted_gaps_go_to_the_crystals_that_can_be_read():
    found = Crystals((Entry("a", salt()), Entry("b", None, "no CIF"), Entry("c", salt(4.2, "Mg", "O"))))
    joined = found.with_gaps(Thirds())
    assert [entry.band_gap_ev for entry in joined.entries] == pytest.approx([5.64**3 / 12, None, 4.2**3 / 12])
    assert joined.gap_source == "thirds of 2"


@pytest.fixture
def labels(tmp_path):
    """Salts with the gap that their anion decides, as a CSV file."""
    rows = [
        {"material_id": f"mp-{cation}{anion}", "cif": cif(salt(5.6, cation, anion)), "band_gap": gap}
        for cation in ("Li", "Na", "K", "Rb", "Cs", "Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Tl")
        for anion, gap in (("F", 8.0), ("Cl", 6.0), ("Br", 4.0), ("I", 2.0), ("As", 0.0))
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "labels.csv")
    return tmp_path / "labels.csv"


def test_the_command_judges_asked_gaps(tmp_path, monkeypatch, capsys, labels):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    row = {"raw_text": "x", "reason": "", "task": "generation", "valid": True}
    rows = [row | {"cif": cif(salt(5.6, "Na", a)), "conditions": json.dumps({"band_gap": 8.0})} for a in ("F", "As")]
    write_samples(tmp_path / "asked", [*rows, row | {"cif": cif(salt(5.6, "K", "As")), "conditions": "{}"}])
    words = ["evaluate", "bulk", str(tmp_path / "asked"), "--gaps", str(labels)]
    assert main([*words, "-o", str(tmp_path / "m.json")]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "asked band gap hit (within 0.5 eV)" in shown
    assert "60 labelled crystals" in " ".join(shown.split())
    result = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert counted(result["metrics"]["hit_band_gap"]) == (1, 2)
    assert counted(result["by_asked"]["band_gap"]["8"]["hit_not_asked"]) == (0, 1)
    assert "By asked value: asked band gap, eV" in (tmp_path / "m.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("formula,band_gap\nNaCl,5\n", "has no column 'cif'"),
        ("cif,band_gap\nno crystal,5\n", "none of 1 crystals can be used"),
        ("cif\n{cif}\n", "0 crystals of 0 formulas with a band gap, expected 50 formulas or more"),
        ("cif,band_gap\n{cif},-1\n", "band_gap is -1, expected 0 or more"),
        ("cif,band_gap\n{cif},wide\n", "band_gap is 'wide', expected a number"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(tmp_path, monkeypatch, capsys, text, message):
    from defectgen_cli.app import main

    monkeypatch.setenv("DEFECTGEN_CACHE", str(tmp_path / "cache"))
    pl.DataFrame({"cif": [cif(salt())]}).write_csv(tmp_path / "mine.csv")
    if text is not None:
        quoted = '"' + cif(salt()).replace('"', '""') + '"'
        (tmp_path / "labels.csv").write_text(text.format(cif=quoted), encoding="utf-8")
    assert main(["evaluate", "bulk", str(tmp_path / "mine.csv"), "--gaps", str(tmp_path / "labels.csv")]) in (1, 2)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line
