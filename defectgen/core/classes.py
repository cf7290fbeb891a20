"""Defect classes: how many defects of each kind, the unit in which decorations are enumerated."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from defectgen.core.host import Host, Rule
from defectgen.core.hosts import common_name
from defectgen.core.names import PRISTINE, defect_label, defect_name, parse_label, vacancy_hint
from defectgen.errors import UsageError


@dataclass(frozen=True)
class DefectClass:
    """A number of defects of each kind in a host.

    Attributes:
        name: of the class, e.g. ``X2``, or its label.
        label: e.g. ``2v_S``.
        counts: (rule, number of such defects), each rule once, numbers positive.
    """

    name: str
    label: str
    counts: tuple[tuple[Rule, int], ...]

    @property
    def n_defects(self) -> int:
        return sum(number for _, number in self.counts)

    @property
    def by_element(self) -> dict[str, list[tuple[str, int]]]:
        """For each host element that changes: the species instead and how many of each."""
        found: dict[str, list[tuple[str, int]]] = {}
        for rule, number in self.counts:
            found.setdefault(rule.element, []).append((rule.replacement, number))
        return found


def class_from_label(host: Host, label: str, name: str | None = None) -> DefectClass:
    """The class of all configurations of a host with this label, e.g. ``v_Mo+2Se_S``.

    Raises:
        UsageError: no label, or defects that the host's rules do not have.
    """
    try:
        kinds = parse_label(label)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    known = {(rule.element, rule.replacement): rule for rule in host.rules}
    if label != PRISTINE and min(kinds.values()) < 1:
        raise UsageError(f"got defect class {label!r} with none of a defect.", "Leave it out.")
    for kind in kinds:
        if kind not in known:
            rules = ", ".join(defect_name(*one) for one in known)
            raise UsageError(
                f"{label!r} is no defect class of {common_name(host)}: no rule makes {defect_name(*kind)}.",
                f"{vacancy_hint(defect_name(*kind))}Its rules: {rules or 'none'}; more with --allow ELEMENT:SPECIES.",
            )
    return _make(host, {known[kind]: number for kind, number in kinds.items()}, name)


def classes_up_to(host: Host, max_defects: int, min_defects: int = 1) -> Iterator[DefectClass]:
    """Every class of `min_defects` to `max_defects` defects that the rules allow, smaller ones first.

    Raises:
        UsageError: a range that is none.
    """
    if not 0 <= min_defects <= max_defects <= host.n_sites:
        raise UsageError(
            f"got {min_defects} to {max_defects} defects, expected a range within 0 to {host.n_sites}, the sites."
        )
    n_classes = math.comb(max_defects + len(host.rules), len(host.rules))
    if n_classes > MAX_CLASSES:
        raise UsageError(
            f"there are {n_classes:,} defect classes of up to {max_defects} defects, more than {MAX_CLASSES:,}.",
            "Name the classes, or count all structures of one size with --defects N --count.",
        )
    for number in range(min_defects, max_defects + 1):
        for rules in itertools.combinations_with_replacement(host.rules, number):
            found = _make(host, Counter(rules))
            if all(sum(n for _, n in new) <= _n_sites(host, e) for e, new in found.by_element.items()):
                yield found


def rule_set(host: Host, name: str) -> list[DefectClass]:
    """A named list of classes.

    ``2dmd-low`` is the low-density part of 2DMD: the 17 classes X1 to S6 of Huang et al., npj 2D Mater
    Appl 7, 6 (2023), doi 10.1038/s41699-023-00369-1. It needs a host of one metal and one chalcogen with one
    substituent each.

    Raises:
        UsageError: no such list, or a host that it does not fit.
    """
    from pymatgen.core import Element

    if name != LOW_DENSITY:
        raise UsageError(f"unknown rules {name!r}.", f"Known: {LOW_DENSITY}.")
    new = {e: [r.replacement for r in host.rules if r.element == e and not r.is_vacancy] for e in host.elements}
    if len(host.elements) != 2 or any(len(species) != 1 for species in new.values()):
        raise UsageError(
            f"{LOW_DENSITY} needs a host of two elements with one substituent each, {host.name} is none.",
            "Name the defect classes instead, e.g. 2v_S, or use --max-defects.",
        )
    metal, chalcogen = sorted(host.elements, key=lambda symbol: Element(symbol).X)  # in whatever order a file has them
    empty, other = f"v_{chalcogen}", f"{new[chalcogen][0]}_{chalcogen}"
    around = ["", empty, f"2{empty}", other, f"2{other}", f"{empty}+{other}"]
    labels = {f"X{number}": label for number, label in enumerate(around[1:], 1)}
    for letter, centre in (("V", f"v_{metal}"), ("S", f"{new[metal][0]}_{metal}")):
        labels |= {f"{letter}{number}": f"{centre}+{rest}".rstrip("+") for number, rest in enumerate(around, 1)}
    return [class_from_label(host, label, name) for name, label in labels.items()]


LOW_DENSITY = "2dmd-low"

MAX_CLASSES = 10_000
"""Most classes that are made at once."""


def _make(host: Host, numbers: Mapping[Rule, int], name: str | None = None) -> DefectClass:
    ordered = tuple((rule, numbers[rule]) for rule in host.rules if numbers.get(rule))
    label = defect_label({(rule.element, rule.replacement): n for rule, n in ordered}, host.elements)
    return DefectClass(name or label, label, ordered)


def _n_sites(host: Host, element: str) -> int:
    return host.species.count(element) * host.supercell[0] * host.supercell[1]


def element_sites(host: Host, element: str) -> Sequence[int]:
    """The sites that hold an element in the pristine host, in order."""
    return [site for site, found in host.sites() if found == element]
