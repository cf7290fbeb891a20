"""A surrogate is judged on what it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from defectgen.data.splits import split_by_class
from defectgen.data.twodmd import read_2dmd
from defectgen.errors import DefectgenError
from defectgen.score.surrogate import Surrogate
from defectgen.score.surrogate.evaluation import means, metrics
from defectgen.score.surrogate.judgement import judge_unseen
from defectgen.score.surrogate.training import train_surrogate
from defectgen.score.trees import TreeSettings

FEW_TREES = TreeSettings(iterations=10, depth=2, learning_rate=0.2)


@pytest.fixture(scope="module")
def frame(tiny_2dmd: Path) -> pl.DataFrame:
    return split_by_class(read_2dmd(tiny_2dmd, cache=False), (0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def surrogate(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    folder: Any = tmp_path_factory.mktemp("surrogate") / "model"
    return train_surrogate(frame.filter(host="MoS2"), folder, low_trees=FEW_TREES)


def test_rows_of_training_and_of_other_hosts_are_left_out(surrogate: Surrogate, frame: pl.DataFrame) -> None:
    found = judge_unseen(surrogate, frame, "mine")
    of_host = frame.filter(host="MoS2")
    test = of_host.filter(split="test")
    assert found.facts == {
        "model": "mine",
        "n_rows": len(frame),
        "n_unknown_host": len(frame) - len(of_host),
        "n_seen": len(of_host) - len(test),
        "n_evaluated": len(test),
    }
    assert set(found.predictions["id"]) == set(test["id"])
    assert found.sets == metrics(found.predictions)
    assert found.to_dict() == {**found.facts, "sets": found.sets, "means": means(found.sets)}


def test_nothing_unseen_is_an_error(surrogate: Surrogate, frame: pl.DataFrame) -> None:
    with pytest.raises(DefectgenError, match="has seen every structure of its hosts"):
        judge_unseen(surrogate, frame.filter(pl.col("split") != "test"))
