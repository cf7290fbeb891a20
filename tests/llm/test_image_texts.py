"""Images of held-out structures: never of the training part, each the same structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from crystal_files import made_up_crystals, published_rows, write_csv

from defectgen.core import Configuration, get_host
from defectgen.data.mp20 import read_crystals
from defectgen.data.sources import read_dataset
from defectgen.data.splits import split_rows
from defectgen.llm.adapter import AdapterCard
from defectgen.llm.image_texts import crystal_images, defect_images, trained_sets
from defectgen.tasks.defect.defect_task import DefectTask

CARD = AdapterCard(
    "base", "edits", 1, ("MoS2",), {}, {},
    {"settings": {"seed": 3, "split": "symmetry-class"}, "records": {"train/MoS2": 9, "test/MoS2": 1, "train/WSe2": 9}},
)  # fmt: skip


@pytest.mark.usefixtures("own_cache")
def test_defects_are_shown_in_images_of_the_test_part(tiny_2dmd: Path) -> None:
    assert trained_sets(CARD) == ["MoS2", "WSe2"]
    frame = read_dataset(tiny_2dmd, ["MoS2"])
    task = DefectTask("edits")
    shown = defect_images(frame, CARD, task, 3, 5, np.random.default_rng(0))
    assert [len(images) for images in shown] == [5] * 3
    test = set(split_rows(frame, seed=3).filter(pl.col("split") == "test")["configuration"])
    host = get_host("MoS2")
    for images in shown:
        assert len({prompt for prompt, _ in images}) == 1
        completions = {completion for _, completion in images}
        assert len(completions) > 1, "images differ"
        parsed = [task.parse(host, completion) for completion in completions]
        keys = {item.canonical().key for item in parsed if isinstance(item, Configuration)}
        assert len(keys) == 1
        assert keys < test


def test_crystals_that_were_trained_on_are_left_out(tmp_path: Path) -> None:
    frame = read_crystals(write_csv(tmp_path / "some.csv", published_rows(made_up_crystals(6, seed=12)))).frame
    ids = sorted(frame["id"])
    assert len(crystal_images(frame, (), 10, 2, np.random.default_rng(0))) == len(ids)
    assert len(crystal_images(frame, ids[:-2], 10, 4, np.random.default_rng(0))) == 2
    assert crystal_images(frame, ids, 10, 4, np.random.default_rng(0)) == []
