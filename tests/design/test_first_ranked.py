"""First-ranked candidates of designs, judged by labels that they do not see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from counting_scorer import CountingScorer

from defectgen.core import Host
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_by_class
from defectgen.design import first_ranked
from defectgen.design.candidates import Target
from defectgen.design.first_ranked import first_ranked_lines, first_ranked_sets, measure_first
from defectgen.design.held_out import EvaluationRequest
from defectgen.design.limits import Limits
from defectgen.design.request import DesignRequest, Ranking
from defectgen.llm.adapter import METADATA
from defectgen.models import SHIPPED_ADAPTER, shipped
from defectgen.watch import unwatched
from defectgen_cli.app import main


def test_the_first_is_judged_by_its_label(mos2: Host) -> None:
    targets = tuple(Target(str(n), (("homo_ev", 0.1 * n), ("lumo_ev", 1.0))) for n in (1, 2))
    request = DesignRequest(
        mos2, targets, Ranking(n=1), Limits(max_defects=2, only=("v_Mo",)),
        proposer="exhaustive", scorer=CountingScorer(), labels={},
    )  # fmt: skip
    found = measure_first(mos2, request, {"VAC@A00": {"homo_ev": 0.15, "lumo_ev": 1.0}})
    assert found.samples["dft_distance_ev"].to_list() == [pytest.approx(0.05), None]
    assert found.samples["key"][0] == "VAC@A00"
    assert found.metrics["labelled_share"] == 0.5
    assert found.metrics["dft"]["median_mev"] == pytest.approx(50.0)
    assert found.metrics["evaluated_per_target"] == 10  # v_Mo and the pairs of it
    (line,) = first_ranked_lines("MoS2", {"exhaustive": found})
    assert line.split()[:6] == ["MoS2", "exhaustive", "2", "50%", "100%", "50.0"]


def test_the_named_model_is_measured_without_the_labels_of_its_own_test_part(
    tmp_path: Path, twodmd_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shipped(SHIPPED_ADAPTER), tmp_path / "mine")
    card = json.loads((tmp_path / "mine" / METADATA).read_text())
    card["data"]["settings"]["seed"] = 7
    (tmp_path / "mine" / METADATA).write_text(json.dumps(card))
    asked: list[DesignRequest] = []
    monkeypatch.setattr(first_ranked, "measure_first", lambda _, design, *__: asked.append(design))
    request = EvaluationRequest(("WSe2",), 4, adapters=(tmp_path / "mine",))
    for hide in ("part", "targets", "nothing"):
        list(first_ranked_sets(request, ["llm"], False, hide, twodmd_dir, unwatched))
    part, of_targets, nothing = (design.labels or {} for design in asked)
    assert {design.models.adapter for design in asked} == {tmp_path / "mine"}
    frame = split_by_class(read_dataset(twodmd_dir, ("WSe2",)), seed=7)
    held_back = set(frame.filter(split="test")["configuration"])
    assert not held_back & set(part)
    assert len(held_back & set(of_targets)) == len(held_back & set(nothing)) - 4
    assert request.settings["models"] == ["mine"]


def test_held_out_targets_are_met_without_their_labels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, twodmd_dir: Path
) -> None:
    words = ["evaluate", "defect", "--data", str(twodmd_dir), "--sets", "MoS2", "--targets", "16"]
    assert main([*words, "--proposers", "default,exhaustive", "--novel", "-o", str(tmp_path / "m.json")]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    found = json.loads((tmp_path / "m.json").read_text())["sets"]["MoS2"]
    assert list(found) == ["default", "exhaustive"]
    for metrics in found.values():
        assert metrics["novel_share"] == 1.0
        assert metrics["dft"]["median_mev"] < 10
        assert metrics["cpu_s_per_target"] < 1.5 * metrics["cpu_s_alone"]  # targets share little
    assert main([*words, "--proposers", "default", "--hide", "all"]) == 2
    assert "expected one of part, targets, nothing" in capsys.readouterr().err
