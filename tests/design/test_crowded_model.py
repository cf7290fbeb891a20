"""The shipped adapter for crowded cells: where it is taken, and that what it proposes is nearer than random cells."""

from __future__ import annotations

import numpy as np
import pytest

import defectgen as dg
from defectgen.design.engine import Drawing, load_engine, shipped_adapter
from defectgen.design.limits import Limits
from defectgen.design.proposers import Ask, RandomProposer
from defectgen.errors import DefectgenError
from defectgen.llm.adapter import read_adapter
from defectgen.llm.base import base_model_path
from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, shipped

WISHES = ({"homo_ev": 0.2, "lumo_ev": 1.2}, {"homo_ev": 0.8, "lumo_ev": 1.1}, {"homo_ev": 0.05, "lumo_ev": 1.7})


@pytest.mark.parametrize(
    ("host", "least", "name"),
    [
        ("MoS2", 1, SHIPPED_ADAPTER),
        ("WSe2", 3, SHIPPED_ADAPTER),
        ("MoS2", 4, SHIPPED_CROWDED_ADAPTER),
        ("BN", 1, SHIPPED_CROWDED_ADAPTER),
        ("P", 12, SHIPPED_CROWDED_ADAPTER),
    ],
)
def test_it_is_taken_where_cells_are_crowded(host: str, least: int, name: str) -> None:
    assert shipped_adapter(dg.host(host), least) == shipped(name)
    assert dg.host(host).name in read_adapter(shipped(name)).hosts


@pytest.mark.slow
def test_its_proposals_in_mos2_are_nearer_than_half_of_random_cells() -> None:
    try:
        base_model_path("smollm2-135m")
    except DefectgenError as error:
        pytest.skip(f"the base model is not on this machine: {error}")
    host, limits = dg.host("MoS2"), Limits(4, 24)
    engine = load_engine(host, limits=limits, drawing=Drawing(temperature=0.7))
    assert engine.facts["model"] == SHIPPED_CROWDED_ADAPTER
    asks = [Ask(wish, 8, seed) for seed, wish in enumerate(WISHES)]
    medians = []
    for proposer in (engine.proposer, RandomProposer(24, 4)):
        made = list(proposer.propose(host, asks))
        found = [item.configuration for item in made]
        assert all(item is not None and 4 <= item.n_defects <= 24 for item in found)
        scores = engine.scorer.score([item for item in found if item is not None])
        off = [
            abs(row["homo_ev"] - WISHES[item.ask]["homo_ev"]) + abs(row["lumo_ev"] - WISHES[item.ask]["lumo_ev"])
            for item, row in zip(made, scores.iter_rows(named=True), strict=True)
        ]
        medians.append(float(np.median(off)))
    assert medians[0] < 0.5 * medians[1], medians
