"""Which defects may be proposed: the user's limits, and what they leave of a host."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from defectgen.core import Configuration, Host, Rule, defect_name, site_permutations
from defectgen.core.classes import DefectClass, classes_up_to
from defectgen.core.hosts import common_name, common_title
from defectgen.core.names import vacancy_hint
from defectgen.core.whole import is_number, is_whole
from defectgen.errors import UsageError
from defectgen.one_line import shown
from defectgen.score.surrogate.features import pair_orbits
from defectgen.tasks.defect.encodings import KINDS
from defectgen.tasks.defect.site_grammar import allowed_for_kinds

SIDES = ("top", "bottom")

LAYER_TOLERANCE_ANGSTROM = 0.2
"""Sites of one element closer than this along the normal lie in one layer."""

DRAWS = 1000
"""Random decorations that are drawn in vain before there are said to be none."""


@dataclass(frozen=True)
class Limits:
    """Which defects may be proposed.

    Attributes:
        min_defects: fewest defects in a cell.
        max_defects: most; None for as many as the model saw in the host.
        kinds: kinds of defects, some of ``vacancy`` and ``substitution``; empty for any.
        defects: what there has to be: ``v_S`` (at least one), ``v_S=2`` (so many) or ``v_S=1:3``; here and below
            several, or a text with commas between them.
        only: the only defects that there may be, e.g. ``v_S``; empty for any.
        without: defects, or species that may not come in, e.g. ``W_Mo``, ``Se`` or ``VAC``.
        concentration: least and most share of changed sites, 0 to 1; also as text, or the largest share alone.
        side: ``top`` or ``bottom`` where all defects are to be on one side of the layer, up to the host's symmetry.
        least_distance_angstrom: no two defects are nearer to each other.
    """

    min_defects: int = 1
    max_defects: int | None = None
    kinds: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    concentration: tuple[float, float] | None = None
    side: str | None = None
    least_distance_angstrom: float = 0.0

    def __post_init__(self) -> None:
        for name in ("kinds", "defects", "only", "without"):
            given = getattr(self, name)  # a text is one defect or several, not its letters
            parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
            object.__setattr__(self, name, tuple(part for part in parts if part))
        for name in ("min_defects", "max_defects"):
            if (number := getattr(self, name)) is not None:
                if not is_whole(number):
                    raise UsageError(f"got {name}={shown(number)}, expected a whole number.")
                object.__setattr__(self, name, int(number))
        if not set(self.kinds) <= set(KINDS):
            got = ",".join(self.kinds)
            raise UsageError(f"got kinds {got!r}, expected vacancy, substitution or both.")
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in self.kinds))
        if self.min_defects < 1 or (self.max_defects is not None and self.max_defects < self.min_defects):
            raise UsageError(
                f"got at least {self.min_defects} and at most {self.max_defects} defects, expected 1 or more and no "
                "fewer at most.",
                "Change --min-defects and --max-defects (min_defects=, max_defects=).",
            )
        if self.side is not None and self.side not in SIDES:
            raise UsageError(f"got sublattice {self.side!r}, expected top or bottom.")
        distance, share = self.least_distance_angstrom, self.concentration
        if not (is_number(distance) and math.isfinite(distance) and distance >= 0):
            raise UsageError(f"got a least distance of {shown(distance)}, expected 0 or more angstrom.")
        if isinstance(share, str) or is_number(share):  # one number is the largest share
            object.__setattr__(self, "concentration", parse_share(str(share)))
        low, high = self.concentration or (0.0, 0.0)
        if not 0 <= low <= high <= 1:
            fault = "which is upside down" if low > high else "expected a range within 0 to 1"
            raise UsageError(f"got a concentration of {low:g} to {high:g}, {fault}.")

    @property
    def beyond_kinds(self) -> bool:
        """Whether there is more than numbers of defects and kinds, which is all that a language model is told."""
        return bool(
            self.defects or self.only or self.without or self.concentration or self.side or self.least_distance_angstrom
        )

    @property
    def facts(self) -> dict[str, object]:
        """What to report of the limits besides numbers and kinds, where they limit."""
        found: dict[str, object] = {
            "defects": ", ".join(self.defects),
            "only": ", ".join(self.only),
            "without": ", ".join(self.without),
            "concentration": None if self.concentration is None else "{:g}:{:g}".format(*self.concentration),
            "sublattice": self.side,
            "least_distance_angstrom": self.least_distance_angstrom,
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Space:
    """The decorations of a host that limits leave.

    Attributes:
        host: the pristine supercell.
        least: fewest defects.
        most: most defects.
        counts: for each rule that may be used the least and the largest number of such defects.
        side: see `Limits`.
        least_distance_angstrom: see `Limits`.
    """

    host: Host
    least: int
    most: int
    counts: tuple[tuple[Rule, int, int], ...]
    side: str | None = None
    least_distance_angstrom: float = 0.0

    @classmethod
    def of(cls, host: Host, limits: Limits, most: int) -> Space:
        """What limits leave.

        Args:
            host: the pristine supercell.
            limits: of the user.
            most: most defects where the limits name no number.

        Raises:
            UsageError: a defect that the host does not have, or limits that leave nothing.
        """
        rules = {defect_name(rule.element, rule.replacement): rule for rule in host.rules}
        allowed = dict(zip(host.species, allowed_for_kinds(host, limits.kinds), strict=True))
        usable = {name: rule for name, rule in rules.items() if rule.replacement in allowed[rule.element]}
        if limits.only:
            named = [_rule(host, rules, name) for name in limits.only]
            usable = {name: rule for name, rule in usable.items() if rule in named}
        for name in limits.without:
            out = _excluded(host, rules, name)
            usable = {label: rule for label, rule in usable.items() if rule not in out}
        if not usable:
            raise UsageError(
                f"these limits leave no defect of {common_name(host)}: {_words(limits)}.",
                f"It has: {', '.join(rules)}.",
            )
        least, most = limits.min_defects, limits.max_defects or max(most, limits.min_defects)
        if limits.concentration is not None:
            low, high = limits.concentration
            least = max(least, math.ceil(low * host.n_sites - 1e-9))
            at_most = math.floor(high * host.n_sites + 1e-9)
            most = at_most if limits.max_defects is None else min(most, at_most)
        wanted = dict.fromkeys(usable, (0, most))
        for text in limits.defects:
            name, low_number, high_number = _number(host, rules, text)
            if wanted.get(name, (0, most)) != (0, most):
                raise UsageError(f"{name} is named twice: {_words(limits)}.", "Name it once, e.g. v_S=1:2.")
            if name not in usable:
                raise UsageError(f"{name} is wanted and excluded at once: {_words(limits)}.", "Change one of them.")
            wanted[name] = low_number, min(high_number, most)
        needed = sum(low for low, _ in wanted.values())
        possible = sum(high for _, high in wanted.values())
        if not (max(least, needed) <= min(most, possible)) or any(low > high for low, high in wanted.values()):
            raise UsageError(
                f"these limits leave nothing: {max(least, needed)} or more defects are asked for, at most "
                f"{min(most, possible)} are allowed ({_words(limits)})."
            )
        counts = tuple((rule, *wanted[name]) for name, rule in usable.items())
        least, most = max(least, needed), min(most, possible)
        space = cls(host, least, most, counts, limits.side, limits.least_distance_angstrom)
        if limits.side is not None and all(len(basis) == host.n_basis for basis in space.sides):
            raise UsageError(
                f"got sublattice {limits.side!r}, but {common_name(host)} is flat: all its atoms are on both sides.",
                "Leave --sublattice out (side=).",
            )
        changeable = len(space._free)
        if least > changeable:
            raise UsageError(
                f"got at least {least} defects, expected at most {changeable}, the sites of {common_title(host)} "
                "that may change."
            )
        if limits.max_defects is not None and limits.max_defects > changeable:
            raise UsageError(
                f"got at most {limits.max_defects} defects of {common_title(host)}, expected "
                f"{limits.min_defects} to {changeable}."
            )
        return cls(host, least, min(most, changeable), counts, limits.side, limits.least_distance_angstrom)

    @cached_property
    def options(self) -> tuple[tuple[str, ...], ...]:
        """For each basis atom the species that may stand in its place."""
        return tuple(
            tuple(sorted(rule.replacement for rule, _, high in self.counts if rule.element == element and high))
            for element in self.host.species
        )

    @property
    def is_limited(self) -> bool:
        """Whether the numbers of each kind, which are allowed, or where they are leave out what the host could have."""
        free = {rule for rule, low, high in self.counts if low == 0 and high >= self.most}
        return self.limits_arrangement or not set(self.host.rules) <= free

    @property
    def limits_arrangement(self) -> bool:
        """Whether some arrangements of a class are left out."""
        return self.side is not None or self.least_distance_angstrom > 0

    def classes(self, n_defects: int) -> Iterator[DefectClass]:
        """The classes of so many defects that are within the numbers of each kind."""
        limits = {rule: (low, high) for rule, low, high in self.counts}
        host = replace(self.host, rules=tuple(rule for rule, _, _ in self.counts))
        for found in classes_up_to(host, n_defects, n_defects):
            numbers = dict(found.counts)
            if all(low <= numbers.get(rule, 0) <= high for rule, (low, high) in limits.items()):
                yield found

    def admits(self, configuration: Configuration) -> bool:
        """Whether a configuration is within the limits."""
        if not self.least <= configuration.n_defects <= self.most:
            return False
        kinds = configuration.kinds
        if not kinds.keys() <= self._ranges.keys():
            return False
        if any(not low <= kinds[kind] <= high for kind, (low, high) in self._ranges.items()):
            return False
        return self.admits_arrangement(configuration)

    def admits_arrangement(self, configuration: Configuration) -> bool:
        """Whether side and distances are within the limits; the numbers are not looked at."""
        sites = [site for site, _ in configuration.edits]
        if self.side is not None:
            used = {self.host.site_cell(site)[0] for site in sites}
            if not any(used <= basis for basis in self.sides):
                return False
        if self.least_distance_angstrom > 0 and len(sites) > 1:
            return nearest_pair_angstrom(configuration) >= self.least_distance_angstrom - 1e-6
        return True

    @cached_property
    def sides(self) -> tuple[frozenset[int], ...]:
        """Sets of basis atoms of which each is the wanted side in some image of the host."""
        height = [position[2] * self.host.lattice[2][2] for position in self.host.frac_coords]
        side = set()
        for basis, element in enumerate(self.host.species):
            own = [h for h, other in zip(height, self.host.species, strict=True) if other == element]
            end = max(own) if self.side == "top" else min(own)
            if abs(height[basis] - end) < LAYER_TOLERANCE_ANGSTROM:
                side.add(basis)
        n_cells = self.host.supercell[0] * self.host.supercell[1]
        first = np.arange(self.host.n_basis) * n_cells
        images = {tuple((image[first] // n_cells).tolist()) for image in site_permutations(self.host)}
        return tuple(sorted({frozenset(b for b, to in enumerate(image) if to in side) for image in images}, key=sorted))

    @cached_property
    def _ranges(self) -> dict[tuple[str, str], tuple[int, int]]:
        """For each kind of defect the least and the largest number."""
        return {(rule.element, rule.replacement): (low, high) for rule, low, high in self.counts}

    @cached_property
    def _basis(self) -> list[int]:
        return [self.host.site_cell(site)[0] for site in range(self.host.n_sites)]

    @cached_property
    def _free(self) -> list[int]:
        return [site for site in range(self.host.n_sites) if self.options[self._basis[site]]]

    def draw(self, rng: np.random.Generator) -> Configuration:
        """A random decoration: its number of defects uniform, its sites uniform, then what stands on each.

        Raises:
            UsageError: none was found.
        """
        for _ in range(DRAWS):
            found = self._draw(rng)
            if found is not None and self.admits_arrangement(found):
                return found
        raise UsageError(
            f"no decoration of {common_title(self.host)} within these limits was found in {DRAWS} draws.",
            "Allow fewer defects, or a smaller distance.",
        )

    def _draw(self, rng: np.random.Generator) -> Configuration | None:
        total = int(rng.integers(self.least, self.most + 1))
        basis, free = self._basis, self._free
        elements = self.host.site_elements
        left = {kind: high for kind, (_, high) in self._ranges.items()}
        edits: dict[int, str] = {}
        for rule, low, _ in self.counts:
            if not low:
                continue
            sites = [site for site in free if elements[site] == rule.element and site not in edits]
            if low > len(sites):
                return None
            for site in rng.choice(sites, size=low, replace=False):
                edits[int(site)] = rule.replacement
                left[rule.element, rule.replacement] -= 1
        for site in rng.permutation([site for site in free if site not in edits]).tolist():
            if len(edits) == total:
                break
            element = elements[site]
            options = [new for new in self.options[basis[site]] if left[element, new] > 0]
            if options:
                chosen = options[int(rng.integers(len(options)))]
                edits[site] = chosen
                left[element, chosen] -= 1
        return Configuration.of(self.host, edits) if len(edits) == total else None


def parse_share(text: str) -> tuple[float, float]:
    """Least and most share of changed sites, from text such as ``0.05`` (at most) or ``0.02:0.05``.

    Raises:
        UsageError: neither.
    """
    low, _, high = text.rpartition(":")
    try:
        return float(low or 0), float(high)
    except ValueError as error:
        raise UsageError(f"got a concentration of {text!r}, expected a share such as 0.05 or 0.02:0.05.") from error


def nearest_pair_angstrom(configuration: Configuration) -> float:
    """Distance of the two nearest defects, infinite for fewer than two."""
    return pair_range_angstrom(configuration)[0]


def pair_range_angstrom(configuration: Configuration) -> tuple[float, float]:
    """Distances of the two nearest and of the two farthest defects, infinite for fewer than two."""
    sites = np.array([site for site, _ in configuration.edits], dtype=np.int64)
    if len(sites) < 2:
        return math.inf, math.inf
    orbits = pair_orbits(configuration.host)
    i, j = np.triu_indices(len(sites), 1)
    distances = orbits.distances_angstrom[orbits.table[sites[i], sites[j]]]
    return float(distances.min()), float(distances.max())


def _rule(host: Host, rules: dict[str, Rule], name: str) -> Rule:
    if name not in rules:
        meant = vacancy_hint(name)
        raise UsageError(f"{name!r} is no defect of {common_name(host)}.", f"{meant}It has: {', '.join(rules)}.")
    return rules[name]


def _excluded(host: Host, rules: dict[str, Rule], name: str) -> list[Rule]:
    """The rules that a label, or the species that comes in, stands for."""
    found = [rule for label, rule in rules.items() if name in (label, rule.replacement)]
    if not found:
        species = ", ".join(sorted({rule.replacement for rule in rules.values()}))
        raise UsageError(
            f"{name!r} is no defect of {common_name(host)} and no species that comes in.",
            f"Defects: {', '.join(rules)}; species: {species}.",
        )
    return found


_NUMBERED = re.compile(r"(?P<name>[^=]+)(?:=(?P<low>\d+)?(?P<range>:)?(?P<high>\d+)?)?")


def _number(host: Host, rules: dict[str, Rule], text: str) -> tuple[str, int, int]:
    """Name of a defect, least and largest number of them, from ``v_S``, ``v_S=2``, ``v_S=1:3``."""
    match = _NUMBERED.fullmatch(text.replace(" ", ""))
    low, high = (match["low"], match["high"]) if match else (None, None)
    if match is None or ("=" in text and low is None and high is None):
        raise UsageError(f"got defects {text!r}, expected e.g. v_S, v_S=2 or v_S=1:3.")
    name = match["name"]
    _rule(host, rules, name)
    if "=" not in text:
        return name, 1, host.n_sites
    least = int(low or 0)
    most = int(high) if high is not None else (host.n_sites if match["range"] else least)
    if most < least:
        raise UsageError(f"got {text}, a range upside down.", f"Expected {name}={most}:{least}.")
    return name, least, most


def _words(limits: Limits) -> str:
    """The limits as options."""
    words = [
        *(f"--kinds {kind}" for kind in limits.kinds),
        *(f"--defects {','.join(limits.defects)}" for _ in [0] if limits.defects),
        *(f"--only {','.join(limits.only)}" for _ in [0] if limits.only),
        *(f"--without {','.join(limits.without)}" for _ in [0] if limits.without),
        *(f"--min-defects {limits.min_defects}" for _ in [0] if limits.min_defects > 1),
        *(f"--max-defects {limits.max_defects}" for _ in [0] if limits.max_defects),
        *("--concentration {:g}:{:g}".format(*c) for c in [limits.concentration] if c),
    ]
    return " ".join(words) or "all defects"
