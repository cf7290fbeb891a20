"""What decides between structures that are equally near, and what a row with some labels only is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from counting_scorer import CountingScorer

from defectgen.core import Configuration, Host
from defectgen.design.candidates import DesignRun, Target
from defectgen.design.limits import Limits
from defectgen.design.ranking import Shortlist, score_batch
from defectgen.design.request import DesignRequest, Ranking
from defectgen.design.run import prepare_design
from defectgen.design.targets import targets_of, wanted_values
from defectgen.design.wishes import Wish
from defectgen.errors import UsageError
from defectgen.report.design_page import render_report
from defectgen.report.front_plot import front_svgs
from defectgen.report.table import candidate_table


def wishing(*wishes: Wish) -> Target:
    return Target("1", tuple((wish.column, wish.point) for wish in wishes), wishes)


ANY = wishing(Wish("band_gap_ev", 0.5, 1.5))


class EnergyBySite(CountingScorer):
    """Each structure has the gap that is wanted; the formation energy falls with the number of the site."""

    def score(self, configurations: Sequence[Configuration]) -> pl.DataFrame:
        energies = [2.0 - 0.01 * item.edits[-1][0] for item in configurations]
        return super().score(configurations).with_columns(formation_energy_ev=pl.Series(energies))


def pairs(host: Host) -> list[Configuration]:
    return [Configuration.of(host, {0: "W", site: "W"}) for site in range(1, 64)]


def test_of_equally_near_ones_a_full_list_keeps_the_most_stable(mos2: Host) -> None:
    items = pairs(mos2)
    for batches in ([items], [items[:40], items[40:]], [items[40:], items[:40]]):
        shortlist = Shortlist(ANY, 3)
        for batch in batches:
            shortlist.offer(score_batch(batch, EnergyBySite()))
        kept = [candidate.configuration for candidate in shortlist.candidates(3, ())]
        assert [item.edits[-1][0] for item in kept] == [63, 62, 61]


def test_a_known_formation_energy_breaks_ties_in_place_of_the_predicted_one(mos2: Host) -> None:
    items = pairs(mos2)[:3]
    labels = {items[0].key: {"band_gap_ev": 1.0, "formation_energy_ev": 0.1}}
    shortlist = Shortlist(Target("1", (("band_gap_ev", 1.0),)), by="distance")
    shortlist.offer(score_batch(items, EnergyBySite(), labels))
    assert shortlist.candidates(1, ())[0].configuration == items[0]


def test_half_widths_count_as_their_distances_do(mos2: Host) -> None:
    wishes = (Wish("homo_ev", 0.2, 0.2, weight=3.0), Wish("formation_energy_ev", 0.5, 0.5, "min", 0.01))
    shortlist = Shortlist(wishing(*wishes))
    shortlist.offer(score_batch(pairs(mos2)[:1], CountingScorer()))
    assert shortlist.nearest.half_width_ev == pytest.approx(0.02 * 3.0 + 0.02 * 0.01)


def labelled(mos2: Host, labels: Mapping[str, float]) -> DesignRun:
    item = Configuration.of(mos2, {0: "W"}).canonical()
    request = DesignRequest(
        mos2, (Target("1", (("homo_ev", 0.1), ("lumo_ev", 1.0))),), Ranking(n=2), Limits(max_defects=1),
        proposer="exhaustive", scorer=CountingScorer(), labels={item.key: labels},
    )  # fmt: skip
    return prepare_design(request).run()


@pytest.mark.parametrize(
    ("labels", "word"), [({"homo_ev": 0.1, "lumo_ev": 1.0}, "DFT"), ({"formation_energy_ev": 0.2}, "part")]
)
def test_labels_of_other_properties_do_not_make_a_prediction_a_label(
    mos2: Host, labels: dict[str, float], word: str
) -> None:
    run = labelled(mos2, labels)
    (target,) = run.targets
    first = next(candidate for candidate in run.candidates if candidate.dft)
    assert first.is_labelled == (word == "DFT")
    assert not first.novel
    table = candidate_table(run, target)
    (place,) = [k for k, candidate in enumerate(run.candidates) if candidate is first]
    assert list(table.columns[-1].cells)[place + 1] == word
    (drawn,) = front_svgs(run, target, [first])
    assert ("ranked dft" in drawn) == (word == "DFT")
    assert np.isfinite(first.expected_ev)
    assert ("of rows marked DFT in part some" in render_report(run)) == (word == "part")


def test_a_wish_is_of_its_own_property() -> None:
    with pytest.raises(UsageError, match="got a wish of lumo_ev for homo"):
        targets_of(None, {"homo": Wish.value("lumo_ev", 1.2)})
    for given in (("0.1", 0.2), ([1], 2)):
        with pytest.raises(UsageError, match="expected two numbers or None"):
            targets_of(None, {"homo": given})
    assert wanted_values({"homo": (0.1, None)}) == {"homo_ev": (0.1, None)}
    assert [target.id for target in targets_of([{"id": 0, "homo": 0.1}, {"id": 1, "homo": 0.2}], {})] == ["0", "1"]
