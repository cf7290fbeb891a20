"""Rows, notes and intervals of structures that several scorers judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest

from defectgen.core import VACANCY, Configuration, Host, get_host
from defectgen.errors import DefectgenError
from defectgen.score.protocol import Sample
from defectgen.score.samples import NamedSample
from defectgen.score.structure_table import EXTRAPOLATED, FACTS, structure_facts, structure_table

MOS2 = get_host("MoS2", (2, 2))
VACANT = Configuration.of(MOS2, {4: VACANCY})
MIXED = Configuration.of(MOS2, {0: "W"})
SAMPLES = [
    NamedSample("a", Sample(VACANT.to_structure(), VACANT)),
    NamedSample("b", None, "b: cannot be read."),
    NamedSample("c", Sample(MIXED.to_structure(), None), "is no decoration of MoS2 2x2: by this test."),
    NamedSample("d", Sample(MIXED.to_structure(), MIXED)),
]


class Counter:
    """The number of defects as HOMO; sure of vacancies only."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        sure = [VACANCY in str(item.edits) for item in configurations]
        homo = [float(item.n_defects) for item in configurations]
        return pl.DataFrame({"homo_ev": homo, "homo_uncertainty_ev": [0.1] * len(homo), "in_domain": sure})


def test_notes_tell_why_a_value_or_an_interval_is_missing() -> None:
    found = structure_table(SAMPLES, {"counter": Counter()}, {})
    assert found.n_scored == 2
    assert found.frame.columns == [*FACTS, "homo_ev", "homo_uncertainty_ev", "in_domain", "note"]
    assert found.frame["homo_ev"].to_list() == [1.0, None, None, 1.0]
    assert found.frame["homo_uncertainty_ev"].to_list() == [0.1, None, None, None]
    assert found.frame["note"].to_list() == [
        None,
        "b: cannot be read.",
        "is no decoration of MoS2 2x2: by this test.",
        EXTRAPOLATED,
    ]
    found.require_scored()


def test_what_the_reader_took_for_granted_is_in_the_note() -> None:
    sure = replace(SAMPLES[0], warnings=("coordinates were rounded",))
    stranger = replace(SAMPLES[2], warnings=("a group was guessed",))
    frame = structure_table([sure, stranger], {"counter": Counter()}, {}).frame
    assert frame["note"].to_list() == [
        "the reader says: coordinates were rounded",
        "is no decoration of MoS2 2x2: by this test.; the reader says: a group was guessed",
    ]


def test_several_scorers_have_columns_and_notes_of_their_own() -> None:
    frame = structure_table(SAMPLES[2:], {"one": Counter(), "two": Counter()}, {}).frame
    assert {"one_homo_ev", "two_homo_ev"} < set(frame.columns)
    assert frame["note"][1] == f"one: {EXTRAPOLATED}; two: {EXTRAPOLATED}"


def test_novel_is_told_for_the_cells_of_the_model_only() -> None:
    known = {"MoS2 2x2": [VACANT.canonical().key]}
    assert structure_facts(SAMPLES, known, [MOS2])["novel"].to_list() == [False, None, None, True]
    assert structure_facts(SAMPLES, {"MoS2 8x8": []}, [get_host("MoS2")])["novel"].to_list() == [None] * 4
    moved = Host.from_dict(MOS2.to_dict() | {"frac_coords": MOS2.to_dict()["frac_coords"][::-1]})
    assert structure_facts(SAMPLES, known, [moved])["novel"].to_list() == [None] * 4, "keys of other sites"


def test_what_a_scorer_says_of_a_missing_value_is_in_the_note() -> None:
    class Silent:
        def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
            why = [None if "VAC" in item.key else "no value of W" for item in configurations]
            return pl.DataFrame({"homo_ev": [1.0] * len(why), "missing": pl.Series(why, dtype=pl.String)})

    frame = structure_table(SAMPLES, {"silent": Silent()}, {}).frame
    assert "missing" not in frame.columns
    assert frame["note"].to_list()[::3] == [None, "no value of W"]


def test_nothing_scored_is_an_error_that_names_the_first() -> None:
    with pytest.raises(DefectgenError, match=r"^c is no decoration of MoS2 2x2: by this test\.$"):
        structure_table(SAMPLES[2:3], {"counter": Counter()}, {}).require_scored()
    with pytest.raises(DefectgenError, match=r"^b: cannot be read\. \(1 more cannot be read\.\)$"):
        structure_table([SAMPLES[1]] * 2, {"counter": Counter()}, {}).require_scored()
