"""A host that is not built in, from a CIF and a table of own values to designs, in everything that carries it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pymatgen.core import Lattice, Structure
from synthetic import distinct_configurations

import defectgen as dg
from defectgen.core.stored_hosts import host_title, record_hosts
from defectgen.core.symmetry import site_permutations
from defectgen.data.known_labels import labels_of
from defectgen.data.own_table import contradiction, own_rows, read_own_table
from defectgen.data.splits import split_by_class
from defectgen.design.engine import Models
from defectgen.design.growth_conditions import formation_enthalpy_ev
from defectgen.design.limits import Limits
from defectgen.design.request import Ranking
from defectgen.io.host_files import stored_hosts
from defectgen.llm.adapter import read_adapter
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_SURROGATE, shipped
from defectgen.score.surrogate import Surrogate, fitting
from defectgen.score.trees import TreeSettings, fit_trees

WORDS = ["--supercell", "4x4", "--allow", "W:Mo,VAC", "--allow", "S:Te,VAC"]


def values(item: dg.Configuration) -> dict[str, float | None]:
    """A law of its own: levels by the counts of defects and whether a vacancy lies beside another defect."""
    count = {f"{new}_{old}": n for (old, new), n in item.kinds.items()}
    sites = item.host.site_cart_coords
    near = 0
    for k, (a, _) in enumerate(item.edits):
        for b, _ in item.edits[:k]:
            step = (item.host.site_frac_coords[a] - item.host.site_frac_coords[b])[:2]
            step -= np.rint(step)
            flat = step @ item.host.supercell_lattice[:2, :2]
            near += float(np.hypot(np.linalg.norm(flat), sites[a, 2] - sites[b, 2])) < 3.3
    homo = 0.1 * count.get("VAC_S", 0) + 0.35 * count.get("VAC_W", 0) - 0.02 * count.get("Te_S", 0) + 0.05 * near
    lumo = 1.6 - 0.25 * count.get("VAC_S", 0) - 0.1 * count.get("Mo_W", 0) - 0.03 * near
    return {
        "homo_ev": homo,
        "lumo_ev": lumo,
        "band_gap_ev": lumo - homo,
        "formation_energy_ev": 3.0 * count.get("VAC_S", 0) + 5.0 * count.get("VAC_W", 0) + 0.4 * near,
    }


def use_few_trees(patch: pytest.MonkeyPatch, few: TreeSettings) -> None:
    """Train with these trees: the law is simple, and the usual 1,500 take most of the time of these tests."""
    patch.setattr(fitting, "fit_trees", lambda *given: fit_trees(*given[:2], few, *given[3:]))


@pytest.fixture(scope="module")
def cif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "WS2.cif"
    cell = Lattice.from_parameters(3.186, 3.186, 18.0, 90, 90, 120)
    heights = (0.5, 0.5 + 1.572 / 18, 0.5 - 1.572 / 18)
    coords = [[1 / 3, 2 / 3, heights[0]], [2 / 3, 1 / 3, heights[1]], [2 / 3, 1 / 3, heights[2]]]
    Structure(cell, ["W", "S", "S"], coords).to(filename=str(path), fmt="cif")
    return path


@pytest.fixture(scope="module")
def host(cif: Path) -> dg.Host:
    return dg.read_host(cif, supercell=(4, 4), allow={"W": ["Mo", "VAC"], "S": ["Te", "VAC"]})


@pytest.fixture(scope="module")
def table(cif: Path, host: dg.Host) -> Path:
    """Singles, pairs, a part of the triples and some crowded cells, and what the law says of them."""
    triples = itertools.islice(dg.enumerate(host, max_defects=3, min_defects=3), 0, None, 6)
    items = [*dg.enumerate(host, max_defects=2), *triples]
    items += distinct_configurations(host, 45, 1, (6, 7))
    path = cif.with_name("mine.parquet")
    pl.DataFrame([{"configuration": item.key, **values(item)} for item in items]).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def model(cif: Path, table: Path) -> Path:
    from defectgen_cli.app import main

    folder = cif.with_name("model")
    with pytest.MonkeyPatch.context() as patch:
        use_few_trees(patch, TreeSettings(iterations=200, depth=4, learning_rate=0.2))
        assert main(["surrogate", "train", "--table", str(table), "--host", str(cif), *WORDS, "-o", str(folder)]) == 0
    return folder


def test_a_table_too_small_for_intervals_is_told(
    cif: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from defectgen_cli.app import main

    pl.read_parquet(table).head(40).write_parquet(tmp_path / "few.parquet")
    with pytest.MonkeyPatch.context() as patch:
        use_few_trees(patch, TreeSettings(iterations=20, depth=3, learning_rate=0.2))
        call = ["surrogate", "train", "--table", str(tmp_path / "few.parquet"), "--host", str(cif), *WORDS]
        assert main([*call, "-o", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().err
    assert "no 90 % intervals, which need 9 rows to choose on, some 90 in all; there are: few 4" in said


def test_the_model_carries_its_host(model: Path, host: dg.Host) -> None:
    assert stored_hosts(model) == {"WS2 4x4": host}
    assert dg.read_host(model) == host
    parts = Surrogate.load(model).parts
    assert [(part.core_host, part.density, part.energy_weights_ev) for part in parts] == [
        (host, "low", None),
        (host, "high", None),
    ]
    card = (model / "README.md").read_text()
    assert "Sets: mine (WS2 4x4), mine-high (WS2 4x4)" in card
    assert "--allow W:Mo,VAC" in card
    assert "2DMD" not in card, "the values are the user's"


def test_what_it_learnt_is_the_law(model: Path, host: dg.Host) -> None:
    loaded = Surrogate.load(model)
    tested = loaded.metadata["errors"]["test"]["mine"]
    assert tested["formation_energy_ev"]["r2"] > 0.98
    assert tested["homo_ev"]["mae_mev"] < 20
    assert tested["homo_ev"]["n"] >= 10
    items = [item for item in dg.enumerate(host, max_defects=2) if not loaded.has_seen("WS2", item.key)]
    scored = dg.score(items, surrogate=model)
    assert scored["in_domain"].all()
    assert np.abs(scored["lumo_ev"] - pl.Series([values(item)["lumo_ev"] for item in items])).mean() < 0.02
    assert scored["energy_per_atom_ev"].null_count() == len(items), "no total energies, no energy per atom"
    assert scored["fermi_level_ev"].null_count() == len(items)


def test_a_fresh_process_scores_the_same(model: Path, host: dg.Host, table: Path) -> None:
    keys = pl.read_parquet(table)["configuration"].to_list()[::7]
    code = (
        "import sys, json, defectgen as dg\n"
        "folder, keys = sys.argv[1], json.loads(sys.argv[2])\n"
        "host = dg.read_host(folder)\n"
        "items = [dg.Configuration.from_key(host, key) for key in keys]\n"
        "print(json.dumps(dg.score(items, surrogate=folder)['homo_ev'].to_list()))\n"
    )
    words = [sys.executable, "-c", code, str(model), json.dumps(keys)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    here = dg.score([dg.Configuration.from_key(host, key) for key in keys], surrogate=model)
    assert json.loads(done.stdout) == here["homo_ev"].to_list()


def test_a_design_finds_what_the_law_allows(model: Path, host: dg.Host, tmp_path: Path) -> None:
    run = dg.design(
        dg.read_host(model),
        homo=0.2,
        lumo=1.1,
        n=3,
        max_defects=2,
        proposer="random",
        models=Models(surrogate=str(model)),  # type: ignore[arg-type]
    )
    best = run.candidates[0].configuration
    assert best.host == host
    assert values(best)["homo_ev"] == pytest.approx(0.2, abs=0.06)
    assert best.label == "2v_S"
    run.write(tmp_path / "run")
    assert dg.read_host(tmp_path / "run") == host, "the folder of the run carries it too"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["host"]["rules"][0] == ["W", "Mo"]


def test_without_a_proposer_all_structures_are_looked_at(model: Path) -> None:
    host = dg.read_host(model)
    run = dg.design(host, homo=0.2, lumo=1.1, n=2, max_defects=2, models=Models(surrogate=model))
    assert run.candidates[0].configuration.label == "2v_S"
    assert "llm" not in str(run.settings["proposers"]), "no language model knows this host"


def test_what_is_new_and_covered_goes_by_the_own_table(model: Path, table: Path) -> None:
    host, models = dg.read_host(model), Models(surrogate=model)
    split = split_by_class(read_own_table(table, host), seed=42)
    seen = set(split.filter(pl.col("split") != "test")["configuration"])
    run = dg.design(host, homo=0.2, lumo=1.1, models=models, limits=Limits(max_defects=2), ranking=Ranking(n=40))
    for candidate in run.candidates:
        assert candidate.novel == (candidate.configuration.key not in seen)
    new = dg.design(host, homo=0.2, lumo=1.1, max_defects=3, models=models, ranking=Ranking(n=8, novel=True))
    assert new.candidates
    assert not {candidate.configuration.key for candidate in new.candidates} & seen
    lowest = dg.design(host, lumo="min", n=1, models=models)
    assert "eV is outside" not in " ".join(lowest.warnings)
    assert lowest.verdicts[0].nearest_ev is not None
    assert abs(lowest.verdicts[0].nearest_ev) < 0.5, "from the lowest value of the table"


def test_a_design_by_the_command(model: Path, host: dg.Host, tmp_path: Path) -> None:
    from defectgen_cli.app import main

    words = ["--homo", "0.2", "--lumo", "1.1", "--max-defects", "2", "-n", "2", "-o", str(tmp_path / "run")]
    assert main(["design", "--host", str(model), "--surrogate", str(model), *words]) == 0
    rows = pl.read_csv(tmp_path / "run" / "candidates.csv")
    assert rows["label"][0] == "2v_S"
    assert dg.read_host(tmp_path / "run") == host


def test_a_host_of_a_known_name_with_other_sites_is_not_that_host() -> None:
    mos2 = dg.host("MoS2")
    record = mos2.to_dict()
    turned = dg.Host.from_dict(record | {"frac_coords": record["frac_coords"][::-1], "species": ["S", "S", "Mo"]})
    card = read_adapter(shipped(SHIPPED_ADAPTER))
    assert card.knows(mos2)
    assert not card.knows(turned)
    assert not card.knows(dg.host("MoS2", (4, 4)))
    assert labels_of(mos2, fetched=False)
    assert not labels_of(turned, fetched=False), "its keys name other sites"
    with pytest.raises(dg.UsageError, match="sites in another order or place"):
        dg.design(turned, homo=0.1, max_defects=1)


def test_structures_are_scored_by_the_command(model: Path, host: dg.Host, tmp_path: Path) -> None:
    from defectgen_cli.app import main

    item = next(
        item for item in dg.enumerate(host, max_defects=2) if item.label == "Te_S+v_S" or item.label == "v_S+Te_S"
    )
    item.to_structure().to(filename=str(tmp_path / "a.cif"), fmt="cif")
    out = tmp_path / "scores.csv"
    assert main(["score", str(tmp_path / "a.cif"), "--surrogate", str(model), "-o", str(out)]) == 0
    row = pl.read_csv(out).row(0, named=True)
    assert (row["host"], row["label"]) == ("WS2", item.label)
    assert row["homo_ev"] == pytest.approx(values(item)["homo_ev"], abs=0.05)


def test_records_carry_the_host(cif: Path, table: Path, host: dg.Host, tmp_path: Path) -> None:
    from defectgen_cli.app import main

    folder = tmp_path / "records"
    assert main(["build-data", "--table", str(table), "--host", str(cif), *WORDS, "-o", str(folder)]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert record_hosts(manifest) == stored_hosts(folder) == {"WS2 4x4": host}
    assert manifest["settings"]["properties"] == ["homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev"]
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    shown = dg.Configuration.from_key(record_hosts(manifest)[host_title(records[0])], records[0]["configuration"])
    for column, value in records[0]["values"].items():
        assert value == pytest.approx(values(shown)[column], abs=1e-6)


def test_a_host_with_other_rules_is_scored_and_another_cell_is_not(model: Path, cif: Path, host: dg.Host) -> None:
    bare = dg.read_host(cif, supercell=(4, 4))
    mine = dg.Configuration.from_key(host, "VAC@B00")
    other = dg.Configuration.from_key(bare, "VAC@B00")
    assert dg.score(other, surrogate=model)["homo_ev"][0] == dg.score(mine, surrogate=model)["homo_ev"][0]
    with pytest.raises(dg.UsageError, match="knows WS2 in cells of 4x4, got 5x5"):
        dg.score(dg.Configuration.from_key(dg.read_host(cif, (5, 5)), "VAC@B00"), surrogate=model)
    turned = dg.Host.from_dict(
        host.to_dict() | {"frac_coords": host.to_dict()["frac_coords"][::-1], "species": ["S", "S", "W"]}
    )
    with pytest.raises(dg.UsageError, match=r"trained on WS2 4x4 with its sites in another order.*read_host\(FOLDER\)"):
        dg.score(dg.Configuration.from_key(turned, "VAC@B00"), surrogate=model)
    with pytest.raises(dg.UsageError, match="trained for WS2"):
        dg.score(dg.Configuration.from_key(dg.host("MoS2"), "VAC@B00"), surrogate=model)


def test_energies_of_kinds_that_no_row_holds_are_not_made_up(
    host: dg.Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_few_trees(monkeypatch, TreeSettings(iterations=40, depth=3, learning_rate=0.2))
    items = [item for item in dg.enumerate(host, max_defects=3) if ("W", "VAC") not in item.kinds][::12]
    rows = [{"configuration": item.key, **values(item)} for item in items]
    for row, item in zip(rows, items, strict=True):  # the pristine cell has -400 eV, sulfur a chemical potential of -4
        row["energy_ev"] = row["formation_energy_ev"] - 400.0 + 4.0 * item.kinds["S", "VAC"]
    trained = dg.train_surrogate(pl.DataFrame(rows), tmp_path / "model", host)
    asked = [dg.Configuration.from_key(host, key) for key in ("VAC@B00", "VAC@A00")]
    scored = dg.score(asked, trained)
    assert scored["energy_per_atom_ev"].is_null().to_list() == [False, True]
    assert scored["energy_per_atom_ev"][0] == pytest.approx((scored["formation_energy_ev"][0] - 396.0) / 47)
    with pytest.raises(dg.UsageError, match="the chemical potential of W behind WS2 is not known"):
        formation_enthalpy_ev(host, trained)


def test_structures_and_labels_say_what_a_row_is_of(host: dg.Host, tmp_path: Path) -> None:
    single = next(dg.enumerate(host, "v_S"))
    single.to_structure().to(filename=str(tmp_path / "one.cif"), fmt="cif")
    (tmp_path / "by_file.csv").write_text("structure,homo_ev,lumo_ev,note\none.cif,0.1,,mine\n")
    rows = read_own_table(tmp_path / "by_file.csv", host)
    assert rows.select("configuration", "homo_ev", "lumo_ev", "set").row(0) == (single.key, 0.1, None, "by_file")
    by_label = own_rows(pl.DataFrame({"label": ["v_S", "Te_S"], "homo_ev": [0.1, 0.2]}), host)
    assert by_label["configuration"].to_list() == [single.key, next(dg.enumerate(host, "Te_S")).key]
    crowded = own_rows(pl.DataFrame({"configuration": ["VAC@B00+VAC@B01+VAC@B02+VAC@B03"], "homo_ev": [1.0]}), host)
    assert crowded.select("set", "density", "n_defects").row(0) == ("own-high", "high", 4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["VAC@B00"], "homo_ev": [0.1]}, "none of the columns configuration, structure, label"),
        ({"configuration": ["VAC@B00"], "homo": [0.1]}, "a column 'homo', expected 'homo_ev', which says the unit"),
        ({"configuration": ["VAC@B00"], "note": ["x"]}, "the table has no property"),
        (
            {"configuration": ["VAC@B00"], "homo_ev": ["high"]},
            "row 1 of the table: homo_ev is 'high'",
        ),
        ({"configuration": ["VAC@B00"], "homo_ev": [float("inf")]}, "homo_ev is inf, expected a finite number"),
        ({"configuration": ["VAC@Z00"], "homo_ev": [0.1]}, "row own-0: site 'Z00' does not exist in WS2 4x4"),
        ({"configuration": ["VAC@B00+VAC@B00"], "homo_ev": [0.1]}, "row own-0: edits must be sorted"),
        ({"configuration": ["Vac@B00"], "homo_ev": [0.1]}, r"expected an element or VAC\. Expected a key such as"),
        ({"configuration": [None], "homo_ev": [0.1]}, "row own-0: configuration is None, expected text"),
        ({"configuration": [""], "homo_ev": [0.1]}, "row own-0: got pristine WS2 4x4"),
        (
            {"configuration": ["Se@B00"], "homo_ev": [0.1]},
            r"does not allow Se_S. Add --allow S:Se,Te,VAC --allow W",
        ),
        ({"label": ["2v_S"], "homo_ev": [0.1]}, "'2v_S' stands for several decorations of WS2 4x4"),
        ({"id": ["a", "a"], "label": ["v_S", "v_W"], "homo_ev": [0.1, 0.2]}, "an id twice"),
        ({"structure": ["none.cif"], "homo_ev": [0.1]}, "row own-0: .*none.cif"),
        (
            {"configuration": ["VAC@B00"] * 2, "homo_ev": [0.0, 59.2]},
            "row 2 of the table: homo_ev is 59.2, expected electronvolts. If it is 59.2 meV, divide the column by 1000",
        ),
        ({"configuration": ["VAC@B00"], "band_gap_ev": [1800.0]}, "band_gap_ev is 1800, expected electronvolts"),
        (
            {"configuration": ["VAC@B00"], "homo_eV": [0.1], "lumo_ev": [1.0]},
            "a column 'homo_eV', which looks like 'homo_ev'. Rename it to homo_ev if its values are in eV, else to",
        ),
        ({"configuration": ["VAC@B00"], "homo_mev": [59.2], "lumo_ev": [1.0]}, "looks like 'homo_ev'"),
    ],
)
def test_bad_tables_are_refused_in_one_line(
    host: dg.Host, tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(dg.DefectgenError, match=message) as caught:
        own_rows(pl.DataFrame(columns), host, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_may_have_any_file_name(host: dg.Host, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"mi\nne\xe9.csv")
    path.write_text("configuration,homo_ev\nVAC@B00,0.1\n")
    assert read_own_table(path, host)["set"].to_list() == [r"mi\nne\xe9"]


def test_rows_that_a_spreadsheet_left_empty_are_none(host: dg.Host, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("configuration,homo_ev\r\nVAC@B00,0.1\r\n,\r\n\r\nVAC@A00,0.2\r\n,\r\n")
    assert read_own_table(tmp_path / "mine.csv", host)["label"].to_list() == ["v_S", "v_W"]


def test_what_is_missing_is_said(host: dg.Host, table: Path, tmp_path: Path) -> None:
    with pytest.raises(dg.UsageError, match="does not say which host its rows decorate"):
        dg.train_surrogate(table, tmp_path / "model")
    few = own_rows(pl.read_parquet(table).head(20), host)
    with pytest.raises(dg.DefectgenError, match="20 rows of own give 16 to train on, expected 20 or more"):
        dg.train_surrogate(few, tmp_path / "model")
    with pytest.raises(dg.UsageError, match=r"expected a table that ends in \.parquet or \.csv"):
        read_own_table(tmp_path / "a.xlsx", host)
    with pytest.raises(dg.DefectgenError, match=r"none\.csv is not there\. Name a table of your values"):
        read_own_table(tmp_path / "none.csv", host)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "surrogate.json").write_text('{"format": 2, "parts": [{"host": "MoS2"}]}')
    with pytest.raises(dg.DefectgenError, match="carries no host: an earlier version wrote it, or another program"):
        dg.read_host(tmp_path / "old")
    with pytest.raises(dg.DefectgenError, match=r"carries no host\. Expected one of surrogate\.json"):
        dg.read_host(tmp_path)
    with pytest.raises(dg.UsageError, match=r"carries 6 hosts: BN 8x8, GaSe 6x6.*give its name"):
        dg.read_host(shipped(SHIPPED_SURROGATE))
    with pytest.raises(dg.UsageError, match=r"carries BN 8x8, GaSe 6x6.*, not 3x3\. Leave --supercell out"):
        dg.read_host(shipped(SHIPPED_SURROGATE), "3x3")


def test_one_structure_with_two_values_is_told(host: dg.Host) -> None:
    one, other = list(dg.enumerate(host, "v_S+Mo_W"))[:2]
    image = next(key for key in images_of(one) if key != one.key)
    keys = [one.key, image, other.key, other.key]

    def told(*levels: float | None) -> str:
        return contradiction(own_rows(pl.DataFrame({"configuration": keys, "homo_ev": levels}), host, "mine"))

    assert told(0.1, 0.11, 0.5, 0.5) == ""
    assert told(0.1, None, 0.5, None) == ""
    said = f"rows mine-0, mine-1 are one structure ({one.canonical().key}) and differ by 0.300 eV in homo_ev"
    assert told(0.1, 0.4, 0.5, 0.51) == said
    assert told(0.1, 0.4, 0.5, 0.6) == f"{said}; 1 more like that"


def images_of(item: dg.Configuration) -> set[str]:
    """Keys of its images under the symmetry of the supercell."""
    return {
        dg.Configuration.of(item.host, {int(p[site]): new for site, new in item.edits}).key
        for p in site_permutations(item.host)
    }
