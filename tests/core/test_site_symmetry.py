"""What is left of a host's symmetry around defects."""

from __future__ import annotations

import pytest

from defectgen.core import Configuration, get_host, site_permutations
from defectgen.core.site_symmetry import kept_symmetry


@pytest.mark.parametrize(
    ("name", "key", "group"),
    [
        ("MoS2", "VAC@A00", "-6m2"),
        ("MoS2", "VAC@B00", "3m"),
        ("MoS2", "VAC@B00+VAC@C00", "-6m2"),
        ("MoS2", "Se@B00+VAC@C00", "3m"),
        ("MoS2", "W@A00+VAC@B00", "m"),
        ("BN", "VAC@A00", "-6m2"),
        ("P", "VAC@A00", "m"),
        ("GaSe", "VAC@A00", "3m"),
    ],
)
def test_point_groups_of_textbooks_and_images_counted_one_by_one(name: str, key: str, group: str) -> None:
    item = Configuration.from_key(get_host(name), key)
    kept = kept_symmetry(item)
    assert kept.point_group == group
    assert kept.multiplicity == len({item.image(number).key for number in range(len(site_permutations(item.host)))})


def test_cells_that_are_too_small_tell_no_group() -> None:
    kept = kept_symmetry(Configuration.from_key(get_host("MoS2", (2, 2)), "VAC@B00"))
    assert kept.point_group == ""
    assert kept.multiplicity == 8
