import pytest

from defectgen.core import get_host
from defectgen.design.candidates import Target
from defectgen.design.limits import Limits
from defectgen.design.request import DesignRequest, Ranking
from defectgen.design.run import prepare_design
from defectgen.report.settings_list import TITLES, setting_lines

UNSHOWN = {"generation_seconds"}


@pytest.mark.parametrize("proposer", ["exhaustive,random", "llm"])
def test_every_setting_of_a_run_has_a_title(proposer: str) -> None:
    limits = Limits(1, 2, ("vacancy",), only=("v_S",), concentration=(0, 0.1), side="top", least_distance_angstrom=3.0)
    request = DesignRequest(
        get_host("MoS2"), (Target("a", (("homo_ev", 0.1),)),), Ranking(n=1), limits, proposer=proposer,
        conditions="S-rich",
    )  # fmt: skip
    prepared = prepare_design(request)
    assert set(prepared.facts) <= set(TITLES)
    assert ("model" in prepared.facts) == (proposer == "llm")
    if proposer != "llm":  # which takes its base model
        settings = prepared.run().settings
        assert {"proposed_by", "distinct", "rank_by"} <= set(settings) <= set(TITLES) | UNSHOWN
        lines = dict(setting_lines(settings))
        assert not set(lines) & set(settings), "no names of settings"
        assert float(lines["Formation enthalpy of the host, eV per formula unit"]) == pytest.approx(-2.6583)
        assert lines["Chemical potentials relative to the elements, eV"].startswith("Mo -2.6583, S 0")
        assert lines["Least distance of two defects, \u00c5"] == "3"
        assert lines["Ranked by"] == "deviation to be expected, uncertainty counted"
        assert lines["Predictions by"] == "the shipped surrogate"


def test_counts_have_thousands_and_what_was_not_asked_for_is_left_out() -> None:
    given = {"seed": 12345, "proposed": 12345, "proposed_by": {"known": 1234}, "random": None, "novel_only": False}
    assert setting_lines(given) == [
        ("Proposals", "12,345"),
        ("Proposals by origin", "known 1,234"),
        ("Only structures without a label", "no"),
        ("Seed", "12345"),
    ]


def test_settings_of_other_packages_follow_by_their_names() -> None:
    given = {"z": {"b": [1, 2], "generation_seconds": 3.5}, "supercell": "8x8", "a": None}
    assert setting_lines(given) == [("Supercell", "8x8"), ("a", "\u2013"), ("z.b", "1, 2")]
