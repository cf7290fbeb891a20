"""How many symmetry-distinct decorations there are, and drawing them at random, without enumeration.

The number of orbits is the mean number of decorations that an operation leaves unchanged (Burnside's
lemma; with the cycles of the operations, Polya, Acta Math. 68, 145 (1937), doi 10.1007/BF02546665). A decoration is
unchanged if each cycle of sites is changed as a whole, so the numbers follow from the cycle lengths alone.

Drawing first an operation, with the number of decorations that it leaves unchanged as its weight, and
then one of those, reaches every orbit with the same probability (Dixon and Wilf, J. Algorithms 4, 205
(1983), doi 10.1016/0196-6774(83)90021-4). All numbers are integers: the draws are exactly uniform.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from defectgen.core.classes import DefectClass
from defectgen.core.configuration import Configuration, canonicalize
from defectgen.core.host import Host
from defectgen.core.symmetry import site_permutations
from defectgen.errors import UsageError

Uniform = Literal["classes", "decorations"]

Option = tuple[str, int]
"""What a site may hold instead, and which of the numbers of defects that counts against."""


@dataclass(frozen=True)
class Demand:
    """Which decorations are meant: for each element the options, and how many of each there must be.

    Attributes:
        host: the pristine supercell.
        options: by host element.
        numbers: how many defects must be made of each of the options that share a place.
    """

    host: Host
    options: dict[str, tuple[Option, ...]]
    numbers: tuple[int, ...]

    @classmethod
    def of_class(cls, host: Host, defects: DefectClass) -> Demand:
        """All decorations of a class."""
        options: dict[str, tuple[Option, ...]] = {}
        for place, (rule, _) in enumerate(defects.counts):
            options[rule.element] = (*options.get(rule.element, ()), (rule.replacement, place))
        return cls(host, options, tuple(number for _, number in defects.counts))

    @classmethod
    def of_size(cls, host: Host, n_defects: int) -> Demand:
        """All decorations with so many defects of whatever kinds the rules allow."""
        changeable = sum(bool(host.allowed[host.site_cell(site)[0]]) for site in range(host.n_sites))
        if not 1 <= n_defects <= changeable:
            raise UsageError(f"got {n_defects} defects, expected 1 to {changeable}, the sites that {host.name} has.")
        elements = dict(zip(host.species, host.allowed, strict=True))
        return cls(host, {e: tuple((new, 0) for new in allowed) for e, allowed in elements.items()}, (n_defects,))

    def _tables(self, permutation: NDArray[np.int32]) -> _Tables:
        cycles = [c for c in _cycles(permutation) if self.options.get(self.host.site_element(c[0]))]
        return _Tables(tuple(cycles), tuple(self.options[self.host.site_element(c[0])] for c in cycles), self.numbers)

    @cached_property
    def _by_operation(self) -> tuple[list[int], list[int]]:
        """For each operation the number of decorations that it leaves unchanged, and their running sum."""
        known: dict[CycleType, int] = {}
        fixed = []
        for permutation, kind in zip(site_permutations(self.host), _cycle_types(self.host), strict=True):
            if kind not in known:
                known[kind] = self._tables(permutation).total
            fixed.append(known[kind])
        running = np.cumsum(np.array(fixed, dtype=object)).tolist()
        return fixed, running

    @property
    def n_classes(self) -> int:
        """Number of symmetry-distinct decorations."""
        fixed, running = self._by_operation
        return int(running[-1]) // len(fixed)

    @property
    def n_decorations(self) -> int:
        """Number of decorations, images counted."""
        return self._by_operation[0][0]  # the identity comes first

    def draw(self, rng: np.random.Generator, uniform: Uniform = "classes") -> Iterator[Configuration]:
        """Random configurations without end, drawn with replacement; canonical form is left to the caller.

        Args:
            rng: where the seed of the draws comes from.
            uniform: ``classes`` gives each symmetry class the same chance, ``decorations`` each decoration.

        Raises:
            UsageError: there is no such decoration.
        """
        if not self.n_decorations:
            raise UsageError(f"{self.host.name} {self.host.size} has no decoration of this kind.")
        exact = random.Random(int(rng.integers(2**63)))
        _, running = self._by_operation
        permutations = site_permutations(self.host)
        tables: dict[int, _Tables] = {}
        while True:
            operation = bisect_right(running, exact.randrange(running[-1])) if uniform == "classes" else 0
            if operation not in tables:
                tables[operation] = self._tables(permutations[operation])
            yield Configuration.of(self.host, tables[operation].draw(exact))


@dataclass(frozen=True)
class _Tables:
    """The decorations that one operation leaves unchanged.

    Attributes:
        cycles: of sites that may change.
        options: of each cycle.
        numbers: see `Demand`.
    """

    cycles: tuple[tuple[int, ...], ...]
    options: tuple[tuple[Option, ...], ...]
    numbers: tuple[int, ...]

    @cached_property
    def _ways(self) -> list[NDArray[np.object_]]:
        """How many ways there are to make the numbers that are left with the cycles from each one on."""
        shape = tuple(number + 1 for number in self.numbers)
        ways = np.zeros(shape, dtype=object)
        ways[(0,) * len(shape)] = 1
        found = [ways]
        for cycle, options in zip(reversed(self.cycles), reversed(self.options), strict=True):
            more = ways.copy()
            for _, place in options:
                size = len(cycle)
                if size < shape[place]:
                    to = (slice(None),) * place + (slice(size, None),)
                    source = (slice(None),) * place + (slice(None, -size),)
                    more[to] += ways[source]
            ways = more
            found.append(ways)
        return found[::-1]

    @property
    def total(self) -> int:
        """The number of decorations."""
        return int(self._ways[0][self.numbers])

    def draw(self, exact: random.Random) -> list[tuple[int, str]]:
        """One of them, each with the same probability, as edits."""
        left = list(self.numbers)
        edits: list[tuple[int, str]] = []
        for step, (cycle, options) in enumerate(zip(self.cycles, self.options, strict=True)):
            if not any(left):
                break
            after = self._ways[step + 1]
            pick = exact.randrange(self._ways[step][tuple(left)]) - after[tuple(left)]
            if pick < 0:
                continue
            for species, place in options:
                if left[place] < len(cycle):
                    continue
                left[place] -= len(cycle)
                pick -= after[tuple(left)]
                if pick < 0:
                    edits += [(site, species) for site in cycle]
                    break
                left[place] += len(cycle)
        return edits


@lru_cache(maxsize=64)
def _cycle_types(host: Host) -> tuple[CycleType, ...]:
    """For each operation how many cycles of each length it has on the sites of each element."""
    elements = [element for _, element in host.sites()]
    counted = (Counter((elements[c[0]], len(c)) for c in _cycles(p)) for p in site_permutations(host))
    return tuple(tuple(sorted(kinds.items())) for kinds in counted)


CycleType = tuple[tuple[tuple[str, int], int], ...]


def _cycles(permutation: NDArray[np.int32]) -> list[tuple[int, ...]]:
    follows = permutation.tolist()
    seen = [False] * len(follows)
    found = []
    for first in range(len(follows)):
        cycle = []
        site = first
        while not seen[site]:
            seen[site] = True
            cycle.append(site)
            site = follows[site]
        if cycle:
            found.append(tuple(cycle))
    return found


def count_classes(host: Host, defects: DefectClass) -> int:
    """The number of symmetry-distinct decorations of a class, by Burnside's lemma."""
    return Demand.of_class(host, defects).n_classes


def sample_distinct(
    demand: Demand, number: int, rng: np.random.Generator, uniform: Uniform = "classes"
) -> list[Configuration]:
    """So many different symmetry classes, drawn at random, each as its canonical configuration.

    Raises:
        UsageError: there are fewer classes than asked for.
    """
    if number > demand.n_classes:
        raise UsageError(
            f"got {number} random structures, but {demand.host.name} {demand.host.size} has only "
            f"{demand.n_classes} distinct ones of this kind.",
            "Ask for fewer, or enumerate them all by leaving --sample out.",
        )
    found: dict[Configuration, None] = {}
    draws = demand.draw(rng, uniform)
    while len(found) < number:
        block: Sequence[Configuration] = [next(draws) for _ in range(number - len(found))]
        found |= dict.fromkeys(canonicalize(block))
    return list(found)
