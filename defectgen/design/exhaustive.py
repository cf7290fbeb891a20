"""Every symmetry-distinct structure that limits leave, as far as they can be listed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from defectgen.core.classes import DefectClass
from defectgen.core.configuration import Configuration
from defectgen.core.counting import count_classes
from defectgen.core.enumeration import enumerate_class
from defectgen.core.host import Host
from defectgen.core.hosts import common_name
from defectgen.design.limits import Space
from defectgen.design.proposers import Ask, Budget, Proposal, ProposerOptions
from defectgen.errors import UsageError
from defectgen.one_line import OneLine
from defectgen.score.protocol import Scorer

MAX_LISTED = 300_000
"""Most structures that are listed without being asked to."""


@dataclass(frozen=True, repr=False)
class Listing(OneLine):
    """What an enumeration holds: whole numbers of defects, from the fewest on, while there are few enough.

    Attributes:
        space: what the limits leave.
        classes: that are listed, those with few defects first.
        count: symmetry-distinct structures in them, before distances and sides are looked at.
        left_out: structures of as many defects in classes that the scorer was not made for.
        most: largest number of defects that is listed in full; 0 if none is.
        in_domain: whether the scorer was made for some of the classes.
    """

    space: Space
    classes: tuple[DefectClass, ...]
    count: int
    left_out: int
    most: int
    in_domain: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether nothing that the limits leave has more defects."""
        return self.most >= self.space.most

    @property
    def words(self) -> str:
        """Which structures they are, e.g. ``up to 3 defects``."""
        least, most = self.space.least, self.most
        number = f"{most}" if least == most else f"up to {most}" if least == 1 else f"{least} to {most}"
        return f"{number} defect{'' if most == 1 else 's'}{' within these limits' if self.space.is_limited else ''}"


def plan_listing(space: Space, scorer: Scorer | None = None, largest: int = MAX_LISTED) -> Listing:
    """What can be listed of a space; nothing is enumerated.

    Classes that the scorer was not made for (its ``in_domain`` is false for a structure of them) are left out where
    others are there: their predictions have no intervals, so that they rank behind all others.

    Args:
        space: what the limits leave.
        scorer: predicts the properties; None to keep all classes.
        largest: most structures in the listing, and of all classes with as many defects.
    """
    found, most = _within(space, largest)
    known = _in_domain(space.host, [one for one, _ in found], scorer) if scorer is not None else [True] * len(found)
    in_domain = any(known)
    if not in_domain:
        known = [True] * len(found)
    kept = [(one, size) for (one, size), keep in zip(found, known, strict=True) if keep]
    count = sum(size for _, size in kept)
    return Listing(space, tuple(one for one, _ in kept), count, sum(size for _, size in found) - count, most, in_domain)


@lru_cache(maxsize=64)
def _within(space: Space, largest: int) -> tuple[tuple[tuple[DefectClass, int], ...], int]:
    """Classes with their numbers of structures, no more than the largest number of them, and their most defects."""
    found: list[tuple[DefectClass, int]] = []
    total = most = 0
    for number in range(space.least, space.most + 1):
        try:
            classes = list(space.classes(number))
        except UsageError:  # too many classes to be made
            break
        sizes = []
        for one in classes:
            sizes.append(count_classes(space.host, one))
            if total + sum(sizes) > largest:
                break
        if total + sum(sizes) > largest:
            break
        total += sum(sizes)
        found += zip(classes, sizes, strict=True)
        most = number
    return tuple(found), most


def _in_domain(host: Host, classes: Sequence[DefectClass], scorer: Scorer) -> list[bool]:
    """Whether the scorer was made for the first structure of each class."""
    if not classes:
        return []
    scores = scorer.score([_first(host, one) for one in classes])
    return scores["in_domain"].to_list() if "in_domain" in scores.columns else [True] * len(classes)


@lru_cache(maxsize=4096)
def _first(host: Host, defects: DefectClass) -> Configuration:
    return next(enumerate_class(host, defects)).configuration


@dataclass(frozen=True, repr=False)
class ExhaustiveProposer(OneLine):
    """Every structure of a listing, once, for all asks.

    Attributes:
        listing: which ones.
        budget: after so many structures or seconds it ends.
    """

    listing: Listing
    budget: Budget

    def propose(self, host: Host, asks: Sequence[Ask]) -> Iterator[Proposal]:
        """See `defectgen.design.proposers.Proposer`."""
        space, done, started = self.listing.space, 0, time.monotonic()
        for one in self.listing.classes if asks else ():
            for item, _ in enumerate_class(host, one):
                over = self.budget.seconds is not None and time.monotonic() - started > self.budget.seconds
                if over or (self.budget.evaluations is not None and done >= self.budget.evaluations):
                    return
                if not space.limits_arrangement or space.admits_arrangement(item):
                    done += 1
                    yield Proposal(None, item)


def exhaustive_proposer(options: ProposerOptions) -> ExhaustiveProposer:
    """The enumeration that options describe.

    Raises:
        UsageError: more structures than can be listed, and no budget.
    """
    space, budget = options.space, options.budget
    largest = MAX_LISTED
    if budget.evaluations is not None:
        largest = max(largest, budget.evaluations)
    elif budget.seconds is not None:
        largest = int(max(largest, budget.seconds * STRUCTURES_PER_S))
    listing = plan_listing(space, options.scorer, largest)
    if not listing.classes:
        raise UsageError(
            f"more than {largest:,} structures of {common_name(space.host)} have {space.least} defects: "
            "too many to list.",
            "Narrow them (--only, --defects, --max-defects), give a larger --budget, or use --proposer random.",
        )
    return ExhaustiveProposer(listing, budget)


STRUCTURES_PER_S = 10_000
"""About how many structures are listed and scored in a second, to tell what a time is good for."""
