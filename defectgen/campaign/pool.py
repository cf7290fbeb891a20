"""Which structures a campaign may propose: all that its rules allow, or random ones of them where they are too many."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from defectgen.core import Configuration, Host
from defectgen.core.classes import classes_up_to
from defectgen.core.counting import Demand, count_classes, sample_distinct
from defectgen.core.enumeration import enumerate_class
from defectgen.errors import UsageError

MAX_LISTED = 20_000
"""Most structures that are looked at in a round."""


@dataclass(frozen=True)
class Pool:
    """Structures to choose from.

    Attributes:
        configurations: canonical.
        total: how many symmetry-distinct ones the rules allow; None if that was not counted.
    """

    configurations: tuple[Configuration, ...]
    total: int | None

    def without(self, keys: Collection[str]) -> list[Configuration]:
        """Those that are not among some."""
        return [item for item in self.configurations if item.key not in keys]


def pool_of(host: Host, max_defects: int, seed: int) -> Pool:
    """All symmetry-distinct structures of up to so many defects, or `MAX_LISTED` of them.

    Whole numbers of defects are listed while they are few enough; the rest are random ones of the larger numbers.

    Args:
        host: what is decorated.
        max_defects: most defects.
        seed: of the random ones.
    """
    found: list[Configuration] = []
    total: int | None = 0
    for number in range(1, max_defects + 1):
        try:
            classes = list(classes_up_to(host, number, number))
            size = sum(count_classes(host, one) for one in classes)
        except UsageError:  # too many classes to be made
            classes, size = [], None
        total = None if total is None or size is None else total + size
        room = MAX_LISTED - len(found)
        if size is not None and size <= room:
            found += [item.configuration for one in classes for item in enumerate_class(host, one)]
        else:
            share = room // (max_defects - number + 1)
            rng = np.random.default_rng([seed, number])
            found += sample_distinct(Demand.of_size(host, number), share, rng)
    return Pool(tuple(found), total)
