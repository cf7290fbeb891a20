"""2DMD as the start: the same defects in its larger cell, the offset of another code, what few rows are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_dft import host as ws2
from made_up_dft import write_levels

import defectgen as dg
from defectgen.campaign.adding import add_results
from defectgen.campaign.folder import new_campaign
from defectgen.campaign.learning import learn_campaign, load_model
from defectgen.campaign.proposing import propose
from defectgen.campaign.store import StructureRow
from defectgen.campaign.transfer import base_values, in_home, knows, offsets
from defectgen.core import Configuration
from defectgen.core.hosts import BUILT_IN
from defectgen.data.known_labels import labels_of
from defectgen.score.surrogate.features import displacements

SHIFT_EV = {"homo_ev": 0.03, "lumo_ev": -0.12}


def test_only_layers_and_defects_of_2dmd_start_from_it(tmp_path: Path) -> None:
    assert knows(dg.host("MoS2"))
    assert knows(dg.host("MoS2", "4x4"))
    assert not knows(dg.host("MoS2", "9x9"))  # 2DMD's cell is smaller
    assert not knows(ws2(tmp_path))
    with pytest.raises(dg.UsageError, match="2DMD does not know WS2 3x3"):
        new_campaign(tmp_path / "c", ws2(tmp_path), start=True)


@pytest.mark.parametrize("size", ["4x4", "5x5"])
def test_the_same_defects_keep_their_distances_in_the_larger_cell(size: str) -> None:
    small = dg.host("MoS2", size)
    rng = np.random.default_rng(3)
    for _ in range(40):
        first, second = (int(site) for site in rng.choice(small.n_sites, 2, replace=False))
        new = dict.fromkeys((first, second), "VAC")
        placed = in_home(Configuration.of(small, new))
        sites = [site for site, _ in placed.edits]
        assert [placed.host.site_element(site) for site in sites] == [small.site_element(s) for s in sorted(new)]
        own, theirs = (
            np.linalg.norm(displacements(cell, np.array([a]), np.array([b])))
            for cell, a, b in ((small, first, second), (placed.host, *sites))
        )
        assert theirs == pytest.approx(own, abs=1e-6)


def test_the_labels_of_2dmd_come_before_its_surrogate() -> None:
    home = BUILT_IN["MoS2"]
    labels = labels_of(home, fetched=False)
    key = next(key for key, values in labels.items() if key.count("@") == 2 and "homo_ev" in values)
    assert base_values([Configuration.from_key(home, key)])["homo_ev"][0] == labels[key]["homo_ev"]


def test_the_interval_of_an_offset_is_wide_for_few_structures() -> None:
    home = BUILT_IN["MoS2"]
    labels = labels_of(home, fetched=False)
    keys = [key for key, values in labels.items() if "homo_ev" in values][:2]
    rows = [
        StructureRow(0, Configuration.from_key(home, key), computed={"homo_ev": labels[key]["homo_ev"] + shift})
        for key, shift in zip(keys, (0.1, 0.3), strict=True)
    ]
    (two,) = offsets(rows)
    assert (two.mean_ev, two.n) == (pytest.approx(0.2), 2)
    assert two.error_ev == pytest.approx(6.3138 * 0.1, rel=1e-4)  # Student's t with one degree of freedom
    assert "+0.200 ± 0.631 eV" in two.text
    (one,) = offsets(rows[:1])
    assert one.text == "HOMO: computed less 2DMD +0.100 eV (one structure)"


def test_with_a_start_few_results_are_enough_and_the_offset_is_stated(tmp_path: Path) -> None:
    host = dg.host("MoS2")
    labels = labels_of(host, fetched=False)
    errors = {}
    for start in (True, False):
        campaign = new_campaign(tmp_path / str(start), host, max_defects=2, start=start)
        rows = [row for row in propose(campaign, 16).rows if "lumo_ev" in labels.get(row.key, {})]
        rng = np.random.default_rng(0)
        levels = [
            {
                column: labels[row.key][column] + shift + 0.005 * rng.standard_normal()
                for column, shift in SHIFT_EV.items()
            }
            for row in rows
        ]
        assert len(rows) >= 10
        add_results(campaign, [write_levels(tmp_path / "r.extxyz", [row.configuration for row in rows], levels)])
        learnt = learn_campaign(campaign)
        errors[start] = learnt.model.judged["lumo_ev"].mae
        assert bool(learnt.offsets) == start
    assert errors[True] < 0.5 * errors[False]
    campaign = new_campaign(tmp_path / "again", host, max_defects=2)
    assert campaign.config.start
    add_results(campaign, [tmp_path / "r.extxyz"])
    offsets = {offset.column: offset for offset in learn_campaign(campaign).offsets}
    for column, shift in SHIFT_EV.items():
        assert offsets[column].n == len(rows)
        assert abs(offsets[column].mean_ev - shift) < 2 * offsets[column].error_ev
        assert offsets[column].scatter_ev == pytest.approx(0.005, rel=0.6)
    model = load_model(campaign)
    assert model is not None
    assert model.models["lumo_ev"].form.mean == "base"
