"""Every symmetry-distinct decoration of a host, each exactly once, in a fixed order.

A class with several kinds of defects is enumerated one kind after the other: representatives of the
placements of the first kind under the whole group, and for each of them the placements of the next kind under
the operations that leave the first in place. Placements of one kind are found by orderly generation (Read,
Ann. Discrete Math. 2, 107 (1978), doi 10.1016/S0167-5060(08)70325-X): a set of sites that is the smallest of
its images remains so when its largest site is taken away, so it suffices to extend smallest sets by larger
sites and keep those that are smallest again. Nothing is stored but the path to the current set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from defectgen.core.classes import DefectClass, element_sites
from defectgen.core.configuration import Configuration
from defectgen.core.host import Host
from defectgen.core.symmetry import SiteGroup, Sites, site_group

_CHUNK_ROWS = 4_096
"""Sets that are extended or handed on together."""


class Distinct(NamedTuple):
    """A symmetry class: its canonical configuration, and how many images of it there are."""

    configuration: Configuration
    multiplicity: int


def enumerate_class(host: Host, defects: DefectClass) -> Iterator[Distinct]:
    """One canonical configuration for each symmetry class, in an order that never changes.

    Args:
        host: the pristine supercell.
        defects: how many of each kind.
    """
    order = len(site_group(host).permutations)
    names = sorted({rule.replacement for rule, _ in defects.counts})
    codes = np.array([names.index(rule.replacement) for rule, number in defects.counts for _ in range(number)], int)
    for block in _distinct(host, defects):
        images = site_group(host).smallest_images(block, np.broadcast_to(codes, block.shape))
        rows = zip(images.sites.tolist(), images.codes.tolist(), images.stabilizer_orders.tolist(), strict=True)
        for sites, kinds, same in rows:
            edits = tuple(zip(sites, (names[kind] for kind in kinds), strict=True))
            yield Distinct(Configuration(host, edits), order // same)


def _distinct(host: Host, defects: DefectClass) -> Iterator[Sites]:
    """Blocks of shape (n, n_defects): the sites of the first kind, then those of the next."""
    start = np.zeros((1, 0), dtype=np.int64)
    levels = [(np.array(element_sites(host, rule.element)), number) for rule, number in defects.counts]
    yield from _place(site_group(host), start, levels)


def _place(group: SiteGroup, placed: Sites, levels: list[tuple[Sites, int]]) -> Iterator[Sites]:
    """Extend one placement, of shape (1, k), by the kinds that are left, under the group that keeps it."""
    if not levels:
        yield placed
        return
    (sites, number), rest = levels[0], levels[1:]
    free = sites[~np.isin(sites, placed)]
    for block in smallest_sets(group, free, number):
        whole = np.hstack([np.repeat(placed, len(block), axis=0), block])
        if not rest:
            yield whole
            continue
        for row, chosen in zip(whole, block, strict=True):
            yield from _place(group.stabilizer(chosen), row[None, :], rest)


def smallest_sets(group: SiteGroup, sites: Sites, number: int) -> Iterator[Sites]:
    """One set of `number` sites for each orbit under a group: the smallest image, in ascending order.

    Args:
        group: must take the allowed sites to themselves.
        sites: the allowed sites, ascending.
        number: how many.

    Yields:
        Blocks of shape (n, number), rows ascending.
    """
    yield from _extend(group, np.sort(sites), np.zeros((1, 0), dtype=np.int64), number)


def _extend(group: SiteGroup, sites: Sites, sets: Sites, number: int) -> Iterator[Sites]:
    if sets.shape[1] == number:
        yield sets
        return
    step = max(1, _CHUNK_ROWS // max(1, len(sites)))
    for start in range(0, len(sets), step):
        block = sets[start : start + step]
        after = np.searchsorted(sites, block[:, -1], side="right") if block.shape[1] else np.zeros(len(block), int)
        choices = np.maximum(len(sites) - after - (number - sets.shape[1] - 1), 0)  # enough sites must be left
        rows = np.repeat(np.arange(len(block)), choices)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(choices) - choices - after, choices)
        larger = np.hstack([block[rows], sites[columns][:, None]])
        if len(group.permutations) > 1:
            larger = larger[(group.smallest_images(larger).sites == larger).all(axis=1)]
        yield from _extend(group, sites, larger, number)
