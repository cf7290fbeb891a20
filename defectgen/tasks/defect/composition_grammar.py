"""What a model may write as a composition and the sites of its defects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from defectgen.core.host import Host, Rule
from defectgen.tasks.grammar import END, State

MOST_OF_A_RULE = 99
"""Defects of one rule are counted in two digits."""


def count_piece(number: int) -> str:
    """How often a rule is applied."""
    return f" {number:02d}"


@dataclass(frozen=True)
class CompositionGrammar:
    """How often each rule of the host is applied, in the order of the rules, then the sites, rule by rule.

    `` 01 00 02 00 A05 B00 B14`` in MoS2 (rules Mo>VAC, Mo>W, S>Se, S>VAC): a vacancy of Mo and two Se. Sites of one
    rule ascend, and no site occurs twice. The levels of a crowded cell depend on its composition first of all, so
    it is said first, in a few tokens.

    Attributes:
        host: the supercell whose sites may change.
        max_defects: largest number of defects.
        min_defects: smallest number of defects.
        allowed: species for each basis atom; the same for all atoms of one element.
    """

    host: Host
    max_defects: int
    min_defects: int
    allowed: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        changeable = len({site for sites in self.sites for site in sites})
        if not 0 <= self.min_defects <= self.max_defects <= changeable:
            raise ValueError(
                f"got {self.max_defects} defects, expected {max(self.min_defects, 1)} to {changeable} "
                f"in {self.host.name} {self.host.size}"
            )
        if self._most(()) < self.min_defects:
            raise ValueError(
                f"got {self.min_defects} defects, expected at most {self._most(())} with {MOST_OF_A_RULE} of each rule"
            )

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Of the host, in the order in which they are counted."""
        return counted_rules(self.host)

    @cached_property
    def sites(self) -> tuple[tuple[int, ...], ...]:
        """For each rule the sites that it may change, ascending; none where its kind is not asked for."""
        return tuple(
            tuple(
                site
                for site, element in self.host.sites()
                if element == rule.element and rule.replacement in self.allowed[self.host.site_cell(site)[0]]
            )
            for rule in self.rules
        )

    @property
    def start(self) -> State:
        return ((), ())

    def choices(self, state: State) -> Mapping[str, State]:
        counts, written = cast(tuple[tuple[int, ...], tuple[int, ...]], state)
        if len(counts) < len(self.rules):
            return {count_piece(n): ((*counts, n), written) for n in self._counts(counts)}
        if len(written) == sum(counts):
            return {END: None}
        rule, before = 0, 0
        while before + counts[rule] <= len(written):
            before += counts[rule]
            rule += 1
        last = written[-1] if len(written) > before else -1
        free = [site for site in self.sites[rule] if site > last and site not in written]
        needed = before + counts[rule] - len(written)
        return {f" {self.host.site_name(site)}": (counts, (*written, site)) for site in free[: len(free) - needed + 1]}

    def _counts(self, counts: tuple[int, ...]) -> list[int]:
        """How often the next rule may be applied, so that all that is needed still finds a site."""
        most = min(self.max_defects - sum(counts), self._room(counts, len(counts)), MOST_OF_A_RULE)
        return [n for n in range(most + 1) if self._most((*counts, n)) >= self.min_defects]

    def _room(self, counts: tuple[int, ...], number: int) -> int:
        """Sites that are left for a rule."""
        element = self.rules[number].element
        taken = sum(n for n, rule in zip(counts, self.rules, strict=False) if rule.element == element)
        return max(len(self.sites[number]) - taken, 0)

    def _most(self, counts: tuple[int, ...]) -> int:
        """Most defects that can follow from these counts."""
        later: dict[str, list[int]] = {}
        for number in (n for n in range(len(counts), len(self.rules)) if self.sites[n]):
            later.setdefault(self.rules[number].element, []).append(number)
        return sum(counts) + sum(
            min(max(self._room(counts, n) for n in numbers), MOST_OF_A_RULE * len(numbers))
            for numbers in later.values()
        )


def counted_rules(host: Host) -> tuple[Rule, ...]:
    """The rules of a host in the order in which a composition counts them: by element, then by replacement."""
    return tuple(sorted(host.rules))
