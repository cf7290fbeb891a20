"""The labels that come with the package."""

from __future__ import annotations

import re

import polars as pl
import pytest

from defectgen.config import package_folder
from defectgen.core import Configuration, get_host
from defectgen.data.asset_cards import CARD_PACKAGE
from defectgen.data.known_labels import FILE, STEPS, labels_of, pack_labels, shipped_labels
from defectgen.llm.adapter import training_configurations
from defectgen.models import SHIPPED_ADAPTER, shipped
from defectgen.score.surrogate import Surrogate


def test_they_are_small_and_have_a_card() -> None:
    path = package_folder(CARD_PACKAGE) / FILE
    assert path.stat().st_size < 1_000_000
    card = path.with_suffix(".md").read_text()
    assert "CC BY 4.0" in card
    assert set(re.findall(r"doi (10\.\S+?)[;.]\s", card)) == {
        "10.1038/s41699-023-00369-1",
        "10.1038/s41524-023-01062-z",
    }
    assert f"{shipped_labels().height:,} structures" in card


def test_keys_are_canonical_and_every_host_is_there() -> None:
    rows = shipped_labels()
    assert set(rows["host"]) == {"MoS2", "WSe2", "BN", "GaSe", "InSe", "P"}
    for row in rows.sample(60, seed=1).iter_rows(named=True):
        item = Configuration.from_key(get_host(row["host"]), row["configuration"])
        assert item.canonical() == item
        assert item.follows_rules()


def test_the_parts_are_those_of_the_shipped_models() -> None:
    rows = shipped_labels()
    trained = training_configurations(shipped(SHIPPED_ADAPTER))
    surrogate = Surrogate.load()
    for host, part, key in rows.select("host", "split", "configuration").iter_rows():
        assert (part == "train") == (key in trained[f"{host} {get_host(host).size}"])
        assert (part != "test") == surrogate.has_seen(host, key)


def test_hidden_parts_are_hidden_and_other_cells_have_none() -> None:
    host = get_host("MoS2")
    every, some = labels_of(host, fetched=False), labels_of(host, hidden=("test",))
    hidden = shipped_labels().filter((pl.col("host") == "MoS2") & (pl.col("split") == "test"))["configuration"]
    assert set(every) - set(some) == set(hidden)
    assert labels_of(get_host("MoS2", (4, 4))) == {}


def test_values_are_those_of_the_data(twodmd: pl.DataFrame) -> None:
    assert pack_labels(twodmd).height >= shipped_labels().height
    shipped_rows = {(host, key) for host, key in shipped_labels().select("host", "configuration").iter_rows()}
    checked = 0
    known = {host: labels_of(get_host(host), fetched=False) for host in set(twodmd["host"])}
    for row in twodmd.sample(300, seed=0).iter_rows(named=True):
        if (row["host"], row["configuration"]) not in shipped_rows:
            continue
        found = known[row["host"]][row["configuration"]]
        for column, step in STEPS.items():
            if column in found:
                assert found[column] == pytest.approx(row[column], abs=step)
                checked += 1
            else:
                assert row["level_error_ev"] is None or row["level_error_ev"] > 0.03
    assert checked > 1500
