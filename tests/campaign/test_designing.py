"""Designs with what a campaign knows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from made_up_dft import host, write_results

from defectgen.campaign.adding import add_results
from defectgen.campaign.folder import new_campaign
from defectgen.campaign.learning import learn_campaign
from defectgen.campaign.proposing import propose
from defectgen_cli.app import main


@pytest.mark.parametrize(
    ("engine", "code", "functional", "named"),
    [
        ("chgnet", "ase", "chgnet", "chgnet"),
        ("ase.calculators.emt:EMT", "ase", "ase.calculators.emt:EMT", "EMT"),
        ("gpaw", "gpaw", "PBE", "DFT"),
    ],
)
def test_values_are_named_by_what_computed_them(
    tmp_path: Path, engine: str, code: str, functional: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = new_campaign(tmp_path / "c", host(tmp_path), max_defects=1, engine=engine, start=False)
    items = [row.configuration for row in propose(campaign, 4).rows]
    add_results(campaign, [write_results(tmp_path / "r.extxyz", items, code=code, functional=functional)])
    learn_campaign(campaign)
    folder = tmp_path / "run"
    call = ["design", "--campaign", str(campaign.folder), "--formation-energy", "2.6", "-n", "2", "-o", str(folder)]
    assert main(call) == 0
    table = capsys.readouterr().out
    assert f"{named}: not new; \u0394 and what was asked for" in table
    assert re.search(rf"v_S .* {named}\b", table)
    page = (folder / "report.html").read_text()
    assert f'decide its rank">{named}</span>' in page
    assert main([*call, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels_by"] == named
    assert found["fronts"][0]["structures"][0]["values_by"] == named.lower()
    assert found["settings"]["labels_by"] == named
    if named != "DFT":
        assert "DFT" not in table
        assert not re.search(r">DFT<|by DFT|marked DFT", page)
