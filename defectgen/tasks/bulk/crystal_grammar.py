"""What a model may write as a bulk crystal: real elements, lattices with a volume, a bounded number of atoms.

Pieces are cut where every tokenizer cuts: around line breaks, before a number, after its decimal
point or space. So tokenizers that take digits singly and those that take up to three at once split
the pieces as they split the whole text. No piece is the beginning of another in tokens: a number or
symbol that could go on ends with what follows it (``C`` and ``Co``, ``10`` and ``100``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from defectgen.core.charge import balanced
from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.core.elements import atomic_radius
from defectgen.errors import UsageError
from defectgen.tasks.bulk.clearance import MAX_DISTANCE_ANGSTROM, Clearance, half_steps, sphere_volume
from defectgen.tasks.bulk.crystal_text import parse_crystal
from defectgen.tasks.grammar import END, State

MP_ELEMENTS: tuple[str, ...] = tuple(e for e in ELEMENTS[:94] if e not in ("Po", "At", "Rn", "Fr", "Ra"))
"""The 89 elements of the Materials Project, H to Pu without Po, At, Rn, Fr and Ra."""

LENGTHS = range(1, 100)
"""Whole angstroms of a lattice length: 1.0 to 99.9."""

ANGLES = range(5, 176)
"""Degrees of a lattice angle."""

DENSEST_PACKING = 0.42
"""Share of the cell that atoms may fill, as spheres of the least radius that the rules of distance leave them. With
0.75 of the radii 99 % of 2,061 crystals of MP-20 fill 0.424 at most."""

LEAST_VOLUME_ANGSTROM3 = 2.0
"""A cell with less for each atom is denser than any solid; diamond has 5.7."""

MIN_VOLUME_FRACTION = 0.02
"""Least volume of a cell over the product of its lengths; the flattest cell of MP-20 has about this."""


@dataclass(frozen=True)
class CrystalGrammar:
    """All crystals of 1 to `max_atoms` atoms, as `defectgen.tasks.bulk.crystal_text.write_crystal` writes them.

    Attributes:
        max_atoms: most atoms in a cell.
        elements: symbols that may occur.
        composition: counts by element of the formula that the crystal must have, any number of
            formula units that fits; atoms in any order. None leaves the composition open.
        min_distance: atoms, images included, are no nearer to each other than this, in angstrom, at most
            `MAX_DISTANCE_ANGSTROM`; 0 admits any.
        radii: nor nearer than this share of the sum of their atomic radii, 0 to 1; 0 admits any. A crystal ends
            when no element has such a place left. With a composition the cell is large enough for a formula unit
            (`DENSEST_PACKING`), and another one is begun only if the cell is for that too and each element has a
            place. Only where no element has a place and the crystal may not end, in the middle of a unit or before
            its first atom, atoms may stand anywhere. Without a composition no atom follows that would fill the cell
            beyond `DENSEST_PACKING`, or make it denser than any solid (`LEAST_VOLUME_ANGSTROM3`), and a cell is full
            where oxygen does not fit: else hydrogen would fill what is left of many.
        balance: how much a crystal leans towards an end where charges balance, and away from one where they do not,
            in nats; see `defectgen.core.charge.balanced`. 0 leaves the model's own probability.
    """

    max_atoms: int = 20
    elements: tuple[str, ...] = MP_ELEMENTS
    composition: tuple[tuple[str, int], ...] | None = None
    min_distance: float = 0.0
    radii: float = 0.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.balance < math.inf:
            raise UsageError(f"got a weight of {self.balance:g} for balanced charges, expected 0 or more.")
        if not 0 <= self.min_distance <= MAX_DISTANCE_ANGSTROM:
            raise UsageError(
                f"got a least distance of {self.min_distance:g} angstrom, expected 0 to {MAX_DISTANCE_ANGSTROM:g}."
            )
        if not 0 <= self.radii <= 1:
            raise UsageError(f"got {self.radii:g} of the sum of the radii, expected 0 to 1.")
        if self.max_atoms < 1:
            raise UsageError(f"got at most {self.max_atoms} atoms, expected 1 or more.")
        _check_elements(self.elements)
        if self.composition is not None:
            size = sum(n for _, n in self.composition)
            name = "".join(f"{element}{n if n > 1 else ''}" for element, n in self.composition)
            if size > self.max_atoms:
                raise UsageError(
                    f"one formula unit of {name} has {size} atoms, at most {self.max_atoms} are allowed in a cell.",
                    "Allow more with --max-atoms.",
                )
            if missing := [element for element, _ in self.composition if element not in self.elements]:
                raise UsageError(
                    f"formula {name} has {', '.join(missing)}, which the allowed elements leave out.",
                    "Name them with --elements.",
                )

    @property
    def start(self) -> State:
        return ("length", 0, Clearance() if self.min_distance or self.radii or self.balance else None)

    def crystal(self, text: str) -> Crystal:
        """The crystal that a text of this grammar stands for.

        Raises:
            ParseError: it is no crystal.
        """
        return parse_crystal(text)

    def end_weight(self, state: State) -> float:
        """Nats by which the end is preferred: `balance` where charges balance, less than nothing where they do not."""
        place, _, clearance = cast(tuple[str, Any, Clearance | None], state)
        if not self.balance or place != "atom" or clearance is None or self.composition is not None:
            return 0.0
        neutral = balanced(clearance.counts)
        return 0.0 if neutral is None else self.balance if neutral else -self.balance

    def is_coordinate(self, state: State) -> bool:
        """See `defectgen.tasks.grammar.PlacingGrammar`."""
        return cast(tuple[str, Any, Any], state)[0] == "xyz"

    def choices(self, state: State) -> Mapping[str, State]:
        place, where, clearance = cast(tuple[str, Any, Clearance | None], state)
        if place == "length":
            wholes = {f"{w}.": ("tenths", where, clearance and clearance.measured(10 * w)) for w in LENGTHS}
            return self._large_enough(wholes, more_tenths=9)
        if place == "tenths":
            following, ending = (("length", where + 1), " ") if where < 2 else (("angle", ()), "\n")
            return self._large_enough(
                {f"{k}{ending}": (*following, clearance and clearance.with_tenths(k)) for k in range(10)}
            )
        if place == "angle":
            return self._large_enough(self._angles(where, clearance))
        if place in ("atom", "first"):
            return self._atoms(where, "\n" if place == "atom" else "", clearance)
        axis, used = where
        free = range(100) if clearance is None else clearance.free()
        following, ending = (("xyz", (axis + 1, used)), " ") if axis < 2 else (("atom", used), "")
        return {f"0.{k:02d}{ending}": (*following, clearance and clearance.moved(k)) for k in free}

    def _large_enough(self, choices: Mapping[str, Any], more_tenths: int = 0) -> Mapping[str, State]:
        """Those numbers of the lattice that leave a formula unit its volume; where none does, all of them."""

        def large(clearance: Clearance | None) -> bool:
            return clearance is None or clearance.largest_volume(more_tenths) >= self._unit_volume

        return {piece: state for piece, state in choices.items() if large(state[2])} or choices

    @cached_property
    def _unit_volume(self) -> float:
        """Cubic angstrom that a formula unit takes at least, 0 without a composition."""
        return sum(n * sphere_volume(self._halves[element]) for element, n in self.composition or ()) / DENSEST_PACKING

    def _angles(self, before: tuple[int, ...], clearance: Clearance | None) -> Mapping[str, State]:
        if len(before) < 2:
            angles = ANGLES if not before else _second_angles(*before)
            return {
                f"{angle} ": ("angle", (*before, angle), clearance and clearance.measured(angle)) for angle in angles
            }
        return {f"{k}\n": ("first", self._nothing, clearance and clearance.measured(k)) for k in _third_angles(*before)}

    @cached_property
    def _nothing(self) -> tuple[int, ...]:
        """No atoms yet: their number, or one number for each element of the composition."""
        return (0,) if self.composition is None else (0,) * len(self.composition)

    @cached_property
    def _oxygen_volume(self) -> float:
        """Cubic angstrom that an oxygen atom fills."""
        return sphere_volume(self._half("O"))

    def _half(self, element: str) -> int:
        """Half of what an element reaches, in steps of `defectgen.tasks.bulk.clearance`."""
        return half_steps(max(self.min_distance, 2 * self.radii * atomic_radius(element)))

    @cached_property
    def _halves(self) -> dict[str, int]:
        """The same of each element that may occur."""
        return {element: self._half(element) for element in self.elements}

    def _atoms(self, used: tuple[int, ...], before: str, clearance: Clearance | None) -> Mapping[str, State]:
        """The next atom's element, on a new line, or the end."""
        following, may_end = self._wanted(used)
        if clearance is not None:
            following = self._fitting(used, following, may_end, clearance)
        pieces: dict[str, State] = {
            f"{before}{element}\n": ("xyz", (0, then), clearance and clearance.of(element, self._halves[element]))
            for element, then in following.items()
        }
        return pieces | {END: None} if may_end else pieces

    def _fitting(
        self, used: tuple[int, ...], following: dict[str, tuple[int, ...]], may_end: bool, clearance: Clearance
    ) -> dict[str, tuple[int, ...]]:
        """Those of the following elements that have a place, or where one must follow, any that is still missing."""
        widest = clearance.widest()
        fits = {element for element in following if self._halves[element] <= widest}
        if self.composition is None and may_end:
            volume = clearance.largest_volume()
            left = DENSEST_PACKING * volume - clearance.filled()
            fits = {element for element in fits if sphere_volume(self._halves[element]) <= left}
            if left < self._oxygen_volume or volume < (used[0] + 1) * LEAST_VOLUME_ANGSTROM3:
                fits = set()
        missing = set(following)
        if self.composition is not None:
            units = max(1, *(-(-u // n) for u, (_, n) in zip(used, self.composition, strict=True)))
            missing = {e for k, (e, n) in enumerate(self.composition) if used[k] < n * units}
            roomy = clearance.largest_volume() >= (units + 1) * self._unit_volume
            if not roomy or len(fits) < len(self.composition):  # no further formula unit
                fits &= missing
        kept = fits if fits or may_end else missing
        return {element: then for element, then in following.items() if element in kept}

    def _wanted(self, used: tuple[int, ...]) -> tuple[dict[str, tuple[int, ...]], bool]:
        """Elements that the number of atoms admits next, with the numbers then, and whether the crystal may end."""
        if self.composition is None:
            more = self.elements if used[0] < self.max_atoms else ()
            return dict.fromkeys(more, (used[0] + 1,)), used[0] > 0
        units = self.max_atoms // sum(n for _, n in self.composition)
        following = {
            element: (*used[:k], used[k] + 1, *used[k + 1 :])
            for k, (element, n) in enumerate(self.composition)
            if used[k] < n * units
        }
        first = self.composition[0][1]
        whole = all(u * first == used[0] * n for u, (_, n) in zip(used, self.composition, strict=True))
        return following, used[0] > 0 and whole


@dataclass(frozen=True)
class ElementGrammar:
    """One symbol out of `elements` and what follows it, a line break or nothing: what stands for a mask."""

    elements: tuple[str, ...] = MP_ELEMENTS
    symbol_end: str = "\n"

    def __post_init__(self) -> None:
        _check_elements(self.elements)

    @property
    def start(self) -> State:
        return "element"

    def choices(self, state: State) -> Mapping[str, State]:
        if state == "end":
            return {END: None}
        # a symbol that nothing follows ends the completion with it: C is no beginning of Cd then
        after = "end" if self.symbol_end else None
        return {f"{element}{self.symbol_end}": after for element in self.elements}


@cache
def _enclosing(alpha: int) -> NDArray[np.bool_]:
    """For each second and third angle of `ANGLES` whether with `alpha` they enclose enough volume."""
    cosines = np.cos(np.radians(np.array(ANGLES)))
    a, b, c = np.cos(np.radians(alpha)), cosines[:, None], cosines[None, :]
    squared = 1 - a * a - b * b - c * c + 2 * a * b * c
    return cast(NDArray[np.bool_], squared >= MIN_VOLUME_FRACTION**2)


def _second_angles(alpha: int) -> list[int]:
    """The angles that leave a third."""
    return [ANGLES[k] for k in np.flatnonzero(_enclosing(alpha).any(axis=1))]


def _third_angles(alpha: int, beta: int) -> list[int]:
    """The angles that with two others enclose enough volume."""
    return [ANGLES[k] for k in np.flatnonzero(_enclosing(alpha)[ANGLES.index(beta)])]


def _check_elements(elements: tuple[str, ...]) -> None:
    if unknown := [element for element in elements if element not in ELEMENTS]:
        came = ", ".join(element or "an empty name" for element in unknown)
        raise UsageError(f"got {came}, expected symbols of elements, e.g. Li,O.")
    if not elements or len(set(elements)) < len(elements):
        raise UsageError(f"got elements {', '.join(elements) or 'none'}, expected at least one, each once.")
