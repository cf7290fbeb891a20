"""Splits: no symmetry class in two parts, fractions a set, no dependence on the order of rows."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.data.splits import PARTS, split_by_class, split_rows
from defectgen.errors import UsageError


def table(n: int = 400) -> pl.DataFrame:
    sets = ["MoS2", "WSe2", "MoS2_500"]
    return pl.DataFrame(
        {
            "id": [f"{k}" for k in range(n)],
            "host": [sets[k % 3][:4] for k in range(n)],
            "set": [sets[k % 3] for k in range(n)],
            "configuration": [f"VAC@B{k // 6:03d}" for k in range(n)],
        }
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_no_class_crosses_and_the_order_of_rows_does_not_matter(seed: int, random: object) -> None:
    frame = table()
    parts = split_by_class(frame, seed=seed)
    assert parts["id"].to_list() == frame["id"].to_list(), "rows stay where they are"
    assert set(parts["split"]) == set(PARTS)
    per_class = parts.group_by("host", "configuration").agg(pl.col("split").n_unique())
    assert per_class["split"].max() == 1
    order = list(range(len(frame)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = split_by_class(frame[order], seed=seed)
    assert dict(shuffled.select("id", "split").iter_rows()) == dict(parts.select("id", "split").iter_rows())


def test_every_set_has_the_fractions() -> None:
    frame = table(3000).with_columns(configuration=pl.col("id"))
    counts = split_by_class(frame, (0.6, 0.2, 0.2), seed=1).group_by("set", "split").len()
    assert {(s, p): n for s, p, n in counts.iter_rows()} == {
        (name, part): n for name in ("MoS2", "WSe2", "MoS2_500") for part, n in zip(PARTS, (600, 200, 200), strict=True)
    }


def test_a_set_is_divided_the_same_way_without_the_others() -> None:
    frame = table(3000).with_columns(configuration=pl.col("id"))
    alone = split_by_class(frame.filter(set="WSe2"))
    together = split_by_class(frame).filter(set="WSe2")
    assert alone.equals(together)


def test_seeds_differ_and_an_old_split_is_replaced() -> None:
    first = split_by_class(table(), seed=1)
    assert not first["split"].equals(split_by_class(table(), seed=2)["split"])
    assert split_by_class(split_by_class(table(), seed=2), seed=1).equals(first)


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="expected three that sum to 1"):
        split_by_class(table(), fractions)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UsageError, match="no column 'configuration'"):
        split_by_class(table().drop("configuration"))


def test_real_data_splits_by_set(twodmd: pl.DataFrame) -> None:
    frame = split_by_class(twodmd)
    shares = frame.group_by("set").agg((pl.col("split") == "test").mean())
    assert shares["split"].min() > 0.095  # type: ignore[operator]
    assert shares["split"].max() < 0.105  # type: ignore[operator]


def labelled() -> pl.DataFrame:
    classes = ["V3", "V6", "S6", "X2", None]
    rows = [(f"{k}", classes[k % 5], "high" if k % 5 == 4 else "low") for k in range(200)]
    return pl.DataFrame(
        {
            "id": [name for name, _, _ in rows],
            "host": ["MoS2" if k % 2 else "BN" for k in range(200)],
            "set": ["MoS2" if density == "low" else "MoS2_500" for _, _, density in rows],
            "configuration": [f"VAC@B{k:03d}" for k in range(200)],
            "defect_class": [name for _, name, _ in rows],
            "density": [density for _, _, density in rows],
        }
    )


def test_split_by_defect_class_tests_on_v6_and_s6_only() -> None:
    parts = split_rows(labelled(), "defect-class")
    assert set(parts.filter(split="test")["defect_class"]) == {"V6", "S6"}
    assert set(parts.filter(pl.col("split") != "test")["defect_class"]) == {"V3", "X2"}
    assert len(parts) == 160
    assert parts.filter(split="validation").height == pytest.approx(80 / 9, abs=1)


def test_split_by_density_tests_on_high_density_of_hosts_that_have_both() -> None:
    frame = labelled().filter((pl.col("host") == "MoS2") | (pl.col("density") == "high"))
    parts = split_rows(frame, "density")
    assert set(parts["host"]) == {"MoS2"}
    assert set(parts.filter(split="test")["density"]) == {"high"}
    assert set(parts.filter(pl.col("split") != "test")["density"]) == {"low"}
    with pytest.raises(UsageError, match="nothing to test on"):
        split_rows(frame.filter(density="low"), "density")
    with pytest.raises(UsageError, match="Known: symmetry-class"):
        split_rows(frame, "random")
