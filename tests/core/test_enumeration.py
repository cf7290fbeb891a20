"""Enumeration, counting and sampling of decorations: against 2DMD, brute force and each other."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectgen.core import Configuration, Host, canonicalize, get_host, host_names, site_permutations
from defectgen.core.classes import class_from_label, classes_up_to, rule_set
from defectgen.core.counting import Demand, count_classes, sample_distinct
from defectgen.core.enumeration import enumerate_class
from defectgen.core.symmetry import site_group
from defectgen.errors import UsageError

PUBLISHED = {
    "X1": 1, "X2": 19, "X3": 1, "X4": 19, "X5": 29,
    "V1": 1, "V2": 15, "V3": 743, "V4": 15, "V5": 743, "V6": 1415,
    "S1": 1, "S2": 15, "S3": 743, "S4": 15, "S5": 743, "S6": 1415,
}  # fmt: skip
"""Structures in each class of the low-density part, Huang et al. 2023, doi 10.1038/s41699-023-00369-1."""


def brute_force(host: Host, label: str) -> set[Configuration]:
    """Canonical forms of every decoration with this label."""
    kinds = [kind for kind, n in class_from_label(host, label).counts for _ in range(n)]
    found = set()
    for sites in itertools.permutations(range(host.n_sites), len(kinds)):
        if all(host.site_element(site) == kind.element for site, kind in zip(sites, kinds, strict=True)):
            edits = zip(sites, (kind.replacement for kind in kinds), strict=True)
            found.add(min(image_edits(host, dict(edits))))
    return {Configuration(host, edits) for edits in found}


def image_edits(host: Host, edits: dict[int, str]) -> list[tuple[tuple[int, str], ...]]:
    return [tuple(sorted((int(p[s]), new) for s, new in edits.items())) for p in site_permutations(host)]


@pytest.mark.parametrize("name", ["MoS2", "WSe2"])
def test_the_low_density_classes_have_the_published_numbers(name: str) -> None:
    host = get_host(name)
    classes = rule_set(host, "2dmd-low")
    assert {c.name: len({d.configuration for d in enumerate_class(host, c)}) for c in classes} == PUBLISHED
    assert {c.name: count_classes(host, c) for c in classes} == PUBLISHED


def test_metal_and_chalcogen_are_told_apart_in_any_order_of_the_file() -> None:
    host = get_host("MoS2")
    turned = replace(host, name="mine", species=host.species[::-1], frac_coords=host.frac_coords[::-1])
    assert {c.name: count_classes(turned, c) for c in rule_set(turned, "2dmd-low")} == PUBLISHED


@pytest.mark.parametrize("name", ["MoS2", "WSe2"])
def test_every_structure_of_the_data_is_enumerated(name: str, twodmd: pl.DataFrame) -> None:
    host = get_host(name)
    mine = {(c.name, d.configuration.key) for c in rule_set(host, "2dmd-low") for d in enumerate_class(host, c)}
    rows = twodmd.filter(pl.col("set") == name)
    assert set(rows.select("defect_class", "configuration").iter_rows()) <= mine


@pytest.mark.parametrize(
    ("name", "label"), [("MoS2", "3v_S"), ("MoS2", "v_Mo+v_S+Se_S"), ("BN", "2v_B+C_N"), ("P", "2v_P+N_P")]
)
def test_enumeration_finds_what_brute_force_finds(name: str, label: str) -> None:
    host = get_host(name, (2, 2))
    found = [d.configuration for d in enumerate_class(host, class_from_label(host, label))]
    assert len(found) == len(set(found))
    assert set(found) == brute_force(host, label)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(host_names()), st.sampled_from([(2, 2), (3, 2), (3, 3)]), st.integers(1, 3), st.data())
def test_numbers_by_burnside_enumeration_and_multiplicity_agree(
    name: str, supercell: tuple[int, int], n_defects: int, data: st.DataObject
) -> None:
    host = get_host(name, supercell)
    defects = data.draw(st.sampled_from(list(classes_up_to(host, n_defects, n_defects))))
    found = list(enumerate_class(host, defects))
    demand = Demand.of_class(host, defects)
    assert len({d.configuration for d in found}) == len(found) == demand.n_classes
    assert all(d.configuration.canonical() == d.configuration for d in found)
    decorations = math.prod(
        math.comb(host.species.count(element) * supercell[0] * supercell[1], sum(n for _, n in new))
        * math.factorial(sum(n for _, n in new))
        // math.prod(math.factorial(n) for _, n in new)
        for element, new in defects.by_element.items()
    )
    assert sum(d.multiplicity for d in found) == demand.n_decorations == decorations


def test_the_order_never_changes(mos2: Host) -> None:
    defects = class_from_label(mos2, "v_Mo+Se_S")
    first = [d.configuration.key for d in enumerate_class(mos2, defects)]
    assert first == [d.configuration.key for d in enumerate_class(mos2, defects)]
    assert first[:2] == ["VAC@A00+Se@B00", "VAC@A00+Se@B02"]


def test_enumeration_is_streamed(mos2: Host) -> None:
    """Three of 43 million million structures, at once."""
    many = enumerate_class(mos2, class_from_label(mos2, "5v_S+5Se_S"))
    assert len({next(many).configuration for _ in range(3)}) == 3


@pytest.mark.parametrize("uniform", ["classes", "decorations"])
def test_random_draws_are_uniform(uniform: str) -> None:
    host = get_host("MoS2", (2, 2))
    demand = Demand.of_size(host, 3)
    draws = demand.draw(np.random.default_rng(5), uniform)  # type: ignore[arg-type]
    n = 20_000
    counts = Counter(canonicalize([next(draws) for _ in range(n)]))
    listed = [d for c in classes_up_to(host, 3, 3) for d in enumerate_class(host, c)]
    assert len(listed) == demand.n_classes == 76
    weights = {d.configuration: d.multiplicity if uniform == "decorations" else 1 for d in listed}
    expected = {item: n * weight / sum(weights.values()) for item, weight in weights.items()}
    chi2 = sum((counts[item] - e) ** 2 / e for item, e in expected.items())
    assert 40 < chi2 < 120  # 75 degrees of freedom: outside with a probability below 0.001
    assert set(counts) <= set(expected)


def test_samples_are_distinct_and_limited_by_what_there_is(mos2: Host) -> None:
    found = sample_distinct(Demand.of_size(mos2, 12), 200, np.random.default_rng(0))
    assert len(set(found)) == 200
    assert all(c.n_defects == 12 and c.follows_rules() and c.canonical() == c for c in found)
    assert found == sample_distinct(Demand.of_size(mos2, 12), 200, np.random.default_rng(0))
    with pytest.raises(UsageError, match="has only 19 distinct ones"):
        sample_distinct(Demand.of_class(mos2, class_from_label(mos2, "2v_S")), 20, np.random.default_rng(0))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(host_names()), st.integers(1, 10), st.integers(0, 10**6))
def test_stabilizer_orders_are_those_of_the_definition(name: str, n_defects: int, seed: int) -> None:
    host = get_host(name, (4, 4))
    item = next(Demand.of_size(host, min(n_defects, host.n_sites)).draw(np.random.default_rng(seed)))
    sites = np.array([[site for site, _ in item.edits]])
    codes = np.array([[host.rules.index(r) for s, new in item.edits for r in host.rules
                       if (r.element, r.replacement) == (host.site_element(s), new)]])  # fmt: skip
    order = site_group(host).smallest_images(sites, codes).stabilizer_orders[0]
    assert order == sum(edits == item.edits for edits in image_edits(host, dict(item.edits)))


def test_classes_that_cannot_be_are_refused(mos2: Host) -> None:
    with pytest.raises(UsageError, match="no rule makes Te_S"):
        class_from_label(mos2, "Te_S")
    with pytest.raises(UsageError, match="got defect 'vS'"):
        class_from_label(mos2, "vS")
    with pytest.raises(UsageError, match="P is none"):
        rule_set(get_host("P"), "2dmd-low")
    with pytest.raises(UsageError, match="expected 1 to 192"):
        Demand.of_size(mos2, 193)
    assert count_classes(mos2, class_from_label(mos2, "65v_Mo")) == 0
    assert list(enumerate_class(mos2, class_from_label(mos2, "65v_Mo"))) == []
