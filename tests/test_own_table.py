"""Own tables of which nothing can be learnt in part, or of which the supercell is not known."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from test_own_host import WORDS, use_few_trees, values

import defectgen as dg
from defectgen.data.own_table import own_rows
from defectgen.data.splits import split_by_class
from defectgen.score.surrogate.table_notes import table_notes
from defectgen.score.trees import TreeSettings

CIF = Path(__file__).parents[1] / "docs" / "examples" / "WS2.cif"


@pytest.fixture(scope="module")
def host() -> dg.Host:
    return dg.read_host(CIF, supercell=(4, 4), allow={"W": ["Mo", "VAC"], "S": ["Te", "VAC"]})


def law_rows(host: dg.Host, n: int) -> pl.DataFrame:
    """Singles and pairs, and what the law says of them."""
    items = list(dg.enumerate(host, max_defects=2))[:n]
    return pl.DataFrame([{"configuration": item.key, **values(item)} for item in items])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "."], "got --data with --table"),
        (["--enlarge", "4"], "got --enlarge with --table: its structures need values like yours"),
    ],
)
def test_records_of_a_table_have_its_values_alone(
    host: dg.Host, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from defectgen_cli.app import main

    law_rows(host, 60).write_csv(tmp_path / "own.csv")
    call = [
        "build-data",
        "--table",
        str(tmp_path / "own.csv"),
        "--host",
        str(CIF),
        *WORDS,
        "-o",
        str(tmp_path / "records"),
    ]
    assert main([*call, *words]) == 2
    assert message in capsys.readouterr().err


def test_columns_that_nothing_is_learnt_of_are_told(
    host: dg.Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from defectgen_cli.app import main

    rows = law_rows(host, 60)
    rows.drop("band_gap_ev").with_columns(formation_energy_ev=pl.lit(2.5)).write_csv(tmp_path / "mine.csv")
    call = ["surrogate", "train", "--table", str(tmp_path / "mine.csv"), "--host", str(CIF), *WORDS]
    with pytest.MonkeyPatch.context() as patch:
        use_few_trees(patch, TreeSettings(iterations=20, depth=3, learning_rate=0.2))
        assert main([*call, "-o", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().err
    assert "formation_energy_ev is 2.5 eV in all rows of mine: it is left out, and not predicted" in said
    assert "no row has a band_gap_ev, so that no gap is predicted: add the column band_gap_ev, LUMO minus HOMO" in said
    assert "homo_ev is" not in said
    model = str(tmp_path / "model")
    design = ["design", "--host", model, "--surrogate", model, "--max-defects", "1", "-o", str(tmp_path / "run")]
    assert main([*design, "--band-gap", "1.2"]) == 2
    said = capsys.readouterr().err
    assert "has no gap for" in said
    assert "Ask for the levels in its place (--homo, --lumo), or train anew: add the column band_gap_ev" in said
    assert main([*design, "--formation-energy", "2.5"]) == 2
    assert "Leave that target out" in capsys.readouterr().err


def test_a_table_with_a_gap_has_no_notes(host: dg.Host) -> None:
    rows = split_by_class(own_rows(law_rows(host, 60), host), seed=1)
    assert table_notes(rows) == []


def test_keys_of_another_supercell_are_refused(
    host: dg.Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from defectgen_cli.app import main

    rows = law_rows(host, 3)
    assert len(own_rows(rows.with_columns(supercell=pl.lit("4x4")), host)) == 3
    with pytest.raises(dg.UsageError, match=r"rows of supercell 3x3, expected 4x4 as the host\. Give --supercell 3x3"):
        own_rows(rows.with_columns(supercell=pl.lit("3x3")), host)
    with pytest.raises(dg.UsageError, match="row 2 of the table says no supercell, others do"):
        own_rows(rows.with_columns(supercell=pl.Series(["4x4", None, "4x4"])), host)
    table = tmp_path / "keys.csv"
    pl.DataFrame({"configuration": ["VAC@A00", "VAC@B00"], "homo_ev": [0.1, 0.2]}).write_csv(table)
    call = ["surrogate", "train", "--table", str(table), "--host", "MoS2", "-o", str(tmp_path / "m")]
    assert main(call) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "does not say of which supercell its keys are, they are read as of MoS2 8x8" in err
    assert "rows of keys give" in err
    assert main([*call, "--supercell", "8x8"]) == 1
    assert "does not say of which supercell" not in capsys.readouterr().err
    scored = tmp_path / "some.csv"
    scored.write_text("configuration,host,supercell\nVAC@B00,MoS2,8x8\nVAC@A00,MoS2,\n")
    main(["score", str(scored), "-o", str(tmp_path / "scores.csv")])
    notes = pl.read_csv(tmp_path / "scores.csv")["note"].to_list()
    assert notes == [None, "the row says no supercell: the sites of its key are not known."]
