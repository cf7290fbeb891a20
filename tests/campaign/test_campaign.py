"""A campaign from its first round to its model, with results of a made-up code; and what is refused."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up_dft import host, host_file, truth, write_results

from defectgen.campaign.adding import add_results
from defectgen.campaign.campaign_model import learn
from defectgen.campaign.folder import Campaign, new_campaign
from defectgen.campaign.learning import learn_campaign, load_model
from defectgen.campaign.pool import pool_of
from defectgen.campaign.proposing import best_distance_ev, propose
from defectgen.campaign.status import status_of
from defectgen.campaign.store import DONE, PROPOSED, StructureRow
from defectgen.core import Configuration
from defectgen.core.symmetry import site_permutations
from defectgen.design.targets import single_target
from defectgen.errors import DefectgenError, UsageError
from defectgen_cli.app import main


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return new_campaign(tmp_path / "ws2", host(tmp_path), max_defects=2)


def _compute(campaign: Campaign, tmp_path: Path, rows: tuple[StructureRow, ...] | list[StructureRow]) -> None:
    add_results(campaign, [write_results(tmp_path / "results.extxyz", [row.configuration for row in rows])])


def test_first_round_holds_each_defect_alone_and_fills_the_space(campaign: Campaign) -> None:
    found = propose(campaign, 12)
    labels = [row.configuration.label for row in found.rows]
    assert set(labels[:4]) == {"Mo_W", "v_W", "Se_S", "v_S"}
    assert len(set(labels)) == 12  # the farthest ones are of other kinds, not other distances
    pool = pool_of(campaign.host, 2, 0)
    assert pool.total == len(pool.configurations) == len({item.key for item in pool.configurations})
    assert found.left == pool.total - 12
    again = new_campaign(campaign.folder.parent / "again", campaign.host, max_defects=2)
    assert [row.key for row in propose(again, 12).rows] == [row.key for row in found.rows]


def test_nothing_is_proposed_twice_and_the_end_is_said(campaign: Campaign) -> None:
    total = len(pool_of(campaign.host, 2, 0).configurations)
    first, second = propose(campaign, 20), propose(campaign, total)
    keys = [row.key for row in (*first.rows, *second.rows)]
    assert len(keys) == len(set(keys)) == total
    assert (second.number, second.left) == (2, 0)
    with pytest.raises(DefectgenError, match=f"all {total} structures are proposed"):
        propose(campaign, 1)


def test_results_find_their_structures(campaign: Campaign, tmp_path: Path) -> None:
    rows = propose(campaign, 8).rows
    image = site_permutations(campaign.host)[5]
    moved = [
        Configuration.of(campaign.host, {int(image[site]): new for site, new in row.configuration.edits})
        for row in rows[:6]
    ]
    added = add_results(campaign, [write_results(tmp_path / "r.extxyz", moved)])
    assert (len(added.new), added.refused) == (6, ())
    assert "host" in added.references
    stored = {row.key: row for row in campaign.store.rows()}
    for row in rows[:6]:
        done = stored[row.key]
        assert (done.state, done.round) == (DONE, 1)
        for column, value in truth(row.configuration).items():
            assert done.computed[column] == pytest.approx(value, abs=1e-6), (row, column)
    assert [stored[row.key].state for row in rows[6:]] == [PROPOSED] * 2
    (tmp_path / "r.extxyz").unlink()  # the references were kept: those that come later count against them
    late = write_results(tmp_path / "late.extxyz", [rows[7].configuration])
    text = late.read_text().split("\n")
    n = int(text[0]) + 2
    late.write_text("\n".join(text[n : n + 2 + int(text[n])]) + "\n")
    assert [row.key for row in add_results(campaign, [late]).new] == [rows[7].key]
    assert campaign.store.rows()[7].computed["formation_energy_ev"] == pytest.approx(
        truth(rows[7].configuration)["formation_energy_ev"], abs=1e-6
    )
    assert add_results(campaign, [late]).known == 1


def test_learning_judges_itself_by_what_it_has_not_seen(campaign: Campaign, tmp_path: Path) -> None:
    _compute(campaign, tmp_path, propose(campaign, 24).rows)
    learnt = learn_campaign(campaign)
    model = load_model(campaign)
    assert model is not None
    rest = pool_of(campaign.host, 2, 0).without(set(model.keys))
    scores = model.score(rest)
    for column in ("band_gap_ev", "homo_ev", "formation_energy_ev"):
        true = np.array([truth(item)[column] for item in rest])
        error = np.abs(scores[column].to_numpy() - true)
        judged = learnt.model.judged[column]
        assert judged.mae < 0.5 * judged.spread
        assert error.mean() < 2 * judged.mae + 0.01, column
        assert (error <= scores[column.replace("_ev", "_uncertainty_ev")].to_numpy()).mean() > 0.8, column
    assert np.allclose(scores["lumo_ev"] - scores["homo_ev"], scores["band_gap_ev"])
    assert scores["in_domain"].all()


def test_a_model_of_four_rows_says_how_little_it_knows(campaign: Campaign) -> None:
    alone = [row.configuration for row in propose(campaign, 4).rows]
    values = {"formation_energy_ev": np.array([truth(item)["formation_energy_ev"] for item in alone])}
    model = learn(alone, values)
    assert not model.judged["formation_energy_ev"].calibrated
    pairs = [item for item in pool_of(campaign.host, 2, 0).configurations if item.n_defects == 2]
    scores = model.score(pairs)
    assert not scores["in_domain"].any()
    true = np.array([truth(item)["formation_energy_ev"] for item in pairs])
    assert np.isfinite(scores["formation_energy_ev"].to_numpy()).all()
    widths = scores["formation_energy_uncertainty_ev"].to_numpy()
    inside = np.abs(scores["formation_energy_ev"].to_numpy() - true) <= widths
    assert inside.mean() > 0.8
    assert widths.max() < 50  # wide, but of this world: no row has a pair
    with pytest.raises(DefectgenError, match="3 results with values, expected 4"):
        learn(alone[:3], {"band_gap_ev": np.array([1.0, 1.1, 1.2])})


def test_later_rounds_come_nearer_to_a_wish_than_chance(campaign: Campaign, tmp_path: Path) -> None:
    _compute(campaign, tmp_path, propose(campaign, 12).rows)
    learn_campaign(campaign)
    known = {row.key for row in campaign.store.rows()}
    pool = pool_of(campaign.host, 2, 0).without(known)
    gaps = sorted({round(truth(item)["band_gap_ev"], 2) for item in pool})
    targets = [single_target({"band_gap_ev": gaps[len(gaps) * k // 6]}) for k in range(6)]
    chosen = propose(campaign, 18, targets).rows
    assert len({row.key for row in chosen}) == 18
    assert all(row.widths["band_gap_ev"] > 0 for row in chosen)
    ours, chance = [], []
    for target in targets:
        mine = [row for row in chosen if row.origin == target.text]
        assert len(mine) == 3
        ours.append(min(target.distance_ev(truth(row.configuration)) for row in mine))
        away = np.array([target.distance_ev(truth(item)) for item in pool])
        chance.append(np.mean([away[np.random.default_rng(k).permutation(len(pool))[:3]].min() for k in range(200)]))
    assert np.mean(ours) < 0.5 * np.mean(chance)
    assert best_distance_ev(targets[0], campaign.store.rows()) > 0


def test_exploration_takes_what_is_least_known(campaign: Campaign, tmp_path: Path) -> None:
    _compute(campaign, tmp_path, propose(campaign, 12).rows)
    model = learn_campaign(campaign).model
    left = pool_of(campaign.host, 2, 0).without({row.key for row in campaign.store.rows()})
    widths = model.score(left)["formation_energy_uncertainty_ev"].to_numpy()
    chosen = propose(campaign, 5, exploring=True).rows
    assert np.mean([row.widths["formation_energy_ev"] for row in chosen]) > np.mean(widths)


def test_results_of_other_hosts_and_settings_are_stored_apart(campaign: Campaign, tmp_path: Path) -> None:
    rows = propose(campaign, 4).rows
    items = [row.configuration for row in rows]
    _compute(campaign, tmp_path, rows[:1])
    with pytest.raises(
        DefectgenError, match=r"none of 2 results can be used.*computed by vasp, this campaign is of gpaw"
    ):
        add_results(campaign, [write_results(tmp_path / "v.extxyz", items[1:3], code="vasp")])
    coarse = write_results(tmp_path / "b.extxyz", items[2:3], cutoff_ev=300)
    found = add_results(campaign, [write_results(tmp_path / "a.extxyz", items[1:2]), coarse])
    assert [row.key for row in found.new] == [items[1].key]
    assert "other settings" in found.refused[0][1]
    apart = [json.loads(line) for line in (campaign.folder / "apart.jsonl").read_text().splitlines()]
    assert [row["code"] for row in apart] == ["vasp", "vasp", "gpaw"]
    assert {row.key for row in campaign.store.rows() if row.state == DONE} == {items[0].key, items[1].key}


def test_references_of_other_codes_and_settings_are_not_kept(campaign: Campaign, tmp_path: Path) -> None:
    items = [row.configuration for row in propose(campaign, 3).rows]
    _compute(campaign, tmp_path, propose(campaign, 1).rows)
    shutil.rmtree(campaign.folder / "references")
    with pytest.raises(DefectgenError, match="other settings"):
        add_results(campaign, [write_results(tmp_path / "b.extxyz", items[1:2], cutoff_ev=300)])
    with pytest.raises(DefectgenError, match="computed by vasp"):
        add_results(campaign, [write_results(tmp_path / "v.extxyz", items[1:2], code="vasp")])
    with pytest.raises(DefectgenError, match=r"it does not name its code \(in files of ASE: code=gpaw\)"):
        add_results(campaign, [write_results(tmp_path / "u.extxyz", items[1:2], code="unknown")])
    assert not (campaign.folder / "references").exists()
    found = add_results(campaign, [write_results(tmp_path / "a.extxyz", items[1:2])])
    assert ("host" in found.references, found.notes) == (True, ())


def test_fewer_than_asked_for_is_exit_code_3(
    campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, total = str(campaign.folder), len(pool_of(campaign.host, 2, 0).configurations)
    assert main(["campaign", "propose", place, "-n", "2"]) == 0
    assert main(["campaign", "propose", place, "-n", "1000"]) == 3
    assert f"warning: {total - 2} of 1000 structures: no others are left." in capsys.readouterr().err
    assert main(["campaign", "propose", place]) == 1
    items = [row.configuration for row in campaign.store.rows()]
    good = write_results(tmp_path / "a.extxyz", items[:2])
    assert main(["campaign", "add", place, str(good)]) == 0
    coarse = write_results(tmp_path / "b.extxyz", items[2:3], cutoff_ev=300)
    capsys.readouterr()
    assert main(["campaign", "add", place, str(good), str(coarse)]) == 3
    assert "warning: 1 result refused; listed in" in capsys.readouterr().err


def test_wrong_calls_from_python_are_refused_in_one_line(campaign: Campaign, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown host 'WS2'"):
        new_campaign(tmp_path / "a", "WS2", engine="chgnet")
    with pytest.raises(UsageError, match=r"got max_defects=2\.0, expected a whole number"):
        new_campaign(tmp_path / "a", "MoS2", max_defects=2.0, engine="chgnet")  # type: ignore[arg-type]
    made = new_campaign(tmp_path / "a", "MoS2", max_defects=np.int64(1), engine="chgnet")
    assert Campaign.open(made.folder).config.max_defects == 1
    with pytest.raises(UsageError, match=r"got n=2\.5, expected a whole number of 1 or more"):
        propose(campaign, 2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"got targets \[3\], expected one or more of type Target"):
        propose(campaign, 2, [3])  # type: ignore[list-item]
    _compute(campaign, tmp_path, propose(campaign, 9).rows)
    learn_campaign(campaign)
    (row,) = propose(campaign, 1, [{"id": "narrow", "band_gap": 1.0}]).rows
    assert row.origin == "band_gap_ev=1.000"


def test_an_engine_that_is_not_here_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["campaign", "new", "BP", "--supercell", "3x3", "--max-defects", "1", "--engine"]
    assert main([*call, "nowhere.calculators:Own", "-o", str(tmp_path / "a")]) == 0
    assert "note: there is no package nowhere here, which campaign run needs" in capsys.readouterr().out
    assert main([*call, "ase.calculators.emt:EMT", "-o", str(tmp_path / "b")]) == 0
    assert "no package" not in capsys.readouterr().out
    assert main(["campaign", "propose", str(tmp_path / "b"), "-n", "1"]) == 0
    assert "1 structure proposed" in capsys.readouterr().out


def test_intervals_are_left_out_until_there_are_rows_enough(
    campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(campaign.folder)
    _compute(campaign, tmp_path, propose(campaign, 8).rows)
    learn_campaign(campaign)
    assert main(["campaign", "propose", place, "-n", "1"]) == 0
    said = capsys.readouterr()
    assert "E_form " in said.out
    assert "±" not in said.out
    assert "note: no intervals of HOMO, LUMO, gap, E_form: 8 rows, intervals need 9" in said.err
    design = ["design", "--campaign", place, "--band-gap", "1", "-n", "2", "--overwrite", "-o", str(tmp_path / "run")]
    assert main(design) == 0
    said = capsys.readouterr()
    assert "intervals need 9; the half-widths shown are 1.5 times the largest" in " ".join(said.err.split())
    assert "intervals need 9" in (tmp_path / "run" / "report.html").read_text()
    row = campaign.store.rows()[-1]
    assert row.predicted
    assert not row.widths
    _compute(campaign, tmp_path, [row])
    foretold = status_of(campaign).rounds[1].foretold["band_gap_ev"]
    assert (foretold.n, foretold.inside) == (1, None)
    learn_campaign(campaign)
    assert main(["campaign", "propose", place, "-n", "1"]) == 0
    said = capsys.readouterr()
    assert "±" in said.out
    assert "no intervals" not in said.err
    assert main(design) == 0
    assert "intervals need" not in capsys.readouterr().err


def test_a_potential_has_no_settings_of_electrons(tmp_path: Path) -> None:
    made = new_campaign(tmp_path / "c", host(tmp_path), engine="chgnet")
    text = (made.folder / "campaign.yaml").read_text()
    for word in ("2DMD", "cutoff", "kpoint", "functional", "spin", "vasp", "gpaw", "qe"):
        assert word not in text, word
    assert Campaign.open(made.folder).config == made.config
    dft = new_campaign(tmp_path / "d", host(tmp_path), engine="vasp")
    text = (dft.folder / "campaign.yaml").read_text()
    assert ("cutoff_ev: 500" in text, "gpaw:" in text) == (True, False)
    assert Campaign.open(dft.folder).config.settings.vasp == dft.config.settings.vasp


def test_many_results_that_nobody_proposed(campaign: Campaign, tmp_path: Path) -> None:
    items = pool_of(campaign.host, 2, 0).configurations[:6]
    assert campaign.store.settings() == []
    found = add_results(campaign, [write_results(tmp_path / "r.extxyz", items)])
    rows = campaign.store.rows()
    assert [row.id for row in found.new] == [row.id for row in rows]
    assert {(row.state, row.origin) for row in rows} == {(DONE, "added")}
    assert set(campaign.store.settings()) == {row.settings for row in rows}


NEW = ["new", "WS2.cif", "-o", "c"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*NEW, "--supercell", "3x3", "--engine", "siesta"], "got engine 'siesta', expected one of"),
        ([*NEW, "--supercell", "3x3", "--engine", ":"], "got engine ':', expected one of"),
        (["new", "WS2.cif", "-o", "WS2.cif/c", "--supercell", "3x3"], "WS2.cif is a file, expected a folder"),
        (NEW, "needs the size of its supercell"),
        ([*NEW, "--supercell", "3x3", "--relax", "emt"], "got --relax 'emt', expected m3gnet or"),
        (["propose", "nothing"], "nothing holds no campaign.yaml. Expected a folder that defectgen campaign new made."),
    ],
)
def test_wrong_calls_are_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["campaign", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_wishes_before_learning_an_older_folder_and_a_damaged_database(
    campaign: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(campaign.folder)
    with pytest.raises(UsageError, match="has learnt nothing yet"):
        propose(campaign, 2, [single_target({"band_gap_ev": 1.0})])
    assert main(["campaign", "learn", place]) == 1
    assert "0 results with values, expected 4" in capsys.readouterr().err
    (campaign.folder / "structures.db").write_bytes(b"no database at all, but long enough to be one" * 30)
    assert main(["campaign", "propose", place]) == 1
    assert "structures.db cannot be used" in capsys.readouterr().err
    (campaign.folder / "structures.db").write_bytes(b"")
    assert main(["campaign", "status", place]) == 1
    assert "structures.db is empty. Put it back" in capsys.readouterr().err
    yaml = campaign.folder / "campaign.yaml"
    whole = yaml.read_text()
    yaml.write_text(whole.replace("rules:", "rulez:"))
    assert main(["campaign", "status", place]) == 1
    assert "campaign.yaml: the host is damaged (not the record of a host" in capsys.readouterr().err
    yaml.write_text("")
    assert main(["campaign", "status", place]) == 1
    assert "campaign.yaml is empty or damaged" in capsys.readouterr().err
    yaml.write_text(whole)
    yaml.write_text(yaml.read_text().replace("format: 1", "format: 0"))
    assert main(["campaign", "propose", place]) == 1
    assert "is a campaign of format 0, this defectgen" in capsys.readouterr().err


def test_a_folder_without_results_is_said_to_have_none(campaign: Campaign, tmp_path: Path) -> None:
    _compute(campaign, tmp_path, propose(campaign, 4).rows)
    (tmp_path / "structures").mkdir()
    with pytest.raises(UsageError, match="structures: no results of a DFT code found"):
        add_results(campaign, [tmp_path / "structures"])


def test_a_campaign_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("defectgen.campaign.folder.write_text", full)
        with pytest.raises(OSError, match="No space left"):
            new_campaign(tmp_path / "ws2", host(tmp_path))
    assert not (tmp_path / "ws2").exists()
    new_campaign(tmp_path / "ws2", host(tmp_path))
