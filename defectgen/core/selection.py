"""Which decorations of a host are wanted, how many there are, and the decorations themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from defectgen.core.classes import DefectClass, class_from_label, classes_up_to, rule_set
from defectgen.core.configuration import Configuration
from defectgen.core.counting import Demand, Uniform, count_classes, sample_distinct
from defectgen.core.enumeration import enumerate_class
from defectgen.core.host import Host
from defectgen.core.whole import is_whole
from defectgen.errors import UsageError
from defectgen.one_line import shown

MAX_LISTED = 5_000_000
"""More structures than this are not listed without a limit."""


@dataclass(frozen=True)
class Decoration:
    """One row: a canonical configuration, its class, and how many images it has (None: not known)."""

    configuration: Configuration
    defect_class: str
    multiplicity: int | None = None


@dataclass(frozen=True)
class Selection:
    """Symmetry-distinct decorations of a host: those of some classes, or all with so many defects.

    Attributes:
        host: the pristine supercell.
        classes: in the order in which they are listed.
        n_defects: number of defects of any kind, instead of classes; such decorations are drawn or counted only.
    """

    host: Host
    classes: tuple[DefectClass, ...] = ()
    n_defects: int | None = None

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of decorations by class, by Burnside's lemma."""
        if self.n_defects is not None:
            return {f"{self.n_defects} defects": Demand.of_size(self.host, self.n_defects).n_classes}
        return {kind.name: count_classes(self.host, kind) for kind in self.classes}

    def listed(self, limit: int | None = None) -> Iterator[Decoration]:
        """Every decoration, in an order that never changes.

        Args:
            limit: how many the caller will take at most.

        Raises:
            UsageError: a size instead of classes, or more than `MAX_LISTED` and no limit.
        """
        if self.n_defects is not None:
            raise UsageError("--defects and --concentration are for random structures.", "Add --sample N, or --count.")
        number = sum(self.counts.values())
        if limit is None and number > MAX_LISTED:
            raise UsageError(
                f"there are {number:,} structures, more than {MAX_LISTED:,}.",
                "Add --limit N for the first N, --sample N for random ones, or --count.",
            )
        return (
            Decoration(configuration, kind.name, multiplicity)
            for kind in self.classes
            for configuration, multiplicity in enumerate_class(self.host, kind)
        )

    def sampled(self, number: int, rng: np.random.Generator, uniform: Uniform = "classes") -> Iterator[Decoration]:
        """So many distinct random decorations; with several classes, so many of each.

        Args:
            number: how many.
            rng: draws.
            uniform: see `Demand.draw`.

        Raises:
            UsageError: there are fewer than asked for, or no such way of drawing.
        """
        if uniform not in ("classes", "decorations"):
            raise UsageError(f"got --uniform {uniform!r}, expected classes or decorations.")
        demands = [(kind.name, Demand.of_class(self.host, kind)) for kind in self.classes]
        if self.n_defects is not None:
            demands = [(f"{self.n_defects} defects", Demand.of_size(self.host, self.n_defects))]
        return (
            Decoration(item, name) for name, demand in demands for item in sample_distinct(demand, number, rng, uniform)
        )


def select(
    host: Host,
    labels: Sequence[str] = (),
    *,
    rules: str | None = None,
    max_defects: int | None = None,
    min_defects: int = 1,
    n_defects: int | None = None,
    concentration: float | None = None,
) -> Selection:
    """The decorations that are described in one of these ways.

    Args:
        host: the pristine supercell.
        labels: of classes, e.g. ``2v_S``.
        rules: a named list of classes, see `rule_set`.
        max_defects: all classes up to so many defects, from `min_defects` on.
        min_defects: fewest defects of a class.
        n_defects: of random decorations.
        concentration: share of changed sites of random decorations, 0 to 1.

    Raises:
        UsageError: none or several of them, or a class that the host does not have.
    """
    for name, number in (("max_defects", max_defects), ("min_defects", min_defects), ("n_defects", n_defects)):
        if number is not None and not is_whole(number):
            raise UsageError(f"got {name}={shown(number)}, expected a whole number.")
    random = [value for value in (n_defects, concentration) if value is not None]
    if sum([bool(labels), rules is not None, max_defects is not None, bool(random)]) != 1 or len(random) > 1:
        raise UsageError(
            "say which structures in one way: labels, --rules, --max-defects, or --defects or --concentration.",
            "E.g. defectgen enumerate --host MoS2 2v_S --count",
        )
    if min_defects != 1 and max_defects is None:
        raise UsageError("--min-defects goes with --max-defects.")
    if labels:
        return Selection(host, tuple(dict.fromkeys(class_from_label(host, label) for label in labels)))
    if rules is not None:
        return Selection(host, tuple(rule_set(host, rules)))
    if max_defects is not None:
        return Selection(host, tuple(classes_up_to(host, max_defects, min_defects)))
    return Selection(host, n_defects=n_defects or round(float(concentration or 0) * host.n_sites))
