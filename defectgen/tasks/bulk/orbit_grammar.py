"""Crystals of a space group, written as orbits: after each atom its images under the group are forced.

The lattice is a primitive one of the group (`defectgen.core.orbits`), the numbers of it that follow from those before
are forced, and so are the images, so that they cost no choice. A place near a special position is on it. The text has
two digits; `OrbitGrammar.crystal` gives the lattice and the orbits that it stands for without rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import Crystal, Triple
from defectgen.core.orbits import Place, SiteKind, primitive_group
from defectgen.core.space_group import crystal_space_group
from defectgen.errors import UsageError
from defectgen.tasks.bulk.clearance import GRID, ROWS, Clearance, Site, sphere_volume
from defectgen.tasks.bulk.crystal_grammar import DENSEST_PACKING, LEAST_VOLUME_ANGSTROM3, CrystalGrammar
from defectgen.tasks.bulk.crystal_text import SPACEGROUPS, parse_crystal
from defectgen.tasks.bulk.orbit_counts import check_spacegroup, unit_counts
from defectgen.tasks.bulk.orbit_lattice import ANGLES_DEGREE, GroupLattice, Numbers
from defectgen.tasks.bulk.orbit_places import has_room, orbit, rooms, rounded
from defectgen.tasks.grammar import END, State
from defectgen.tasks.parsing import ParseError


class Written(NamedTuple):
    """What of a crystal is there.

    Attributes:
        counts: atoms, or atoms of each element of the composition.
        taken: orbits of each kind of position of the group.
        species: element of each orbit.
        atoms: of each orbit.
    """

    counts: tuple[int, ...]
    taken: tuple[int, ...]
    species: tuple[str, ...] = ()
    atoms: tuple[int, ...] = ()


@dataclass(frozen=True)
class OrbitGrammar(CrystalGrammar):
    """Crystals of a space group.

    As long as another atom has a place, a crystal does not end with more symmetry than was asked for.

    Attributes:
        spacegroup: 1 to 230.
    """

    spacegroup: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spacegroup not in SPACEGROUPS:
            raise UsageError(f"got space group {self.spacegroup}, expected a number from 1 to 230.")
        check_spacegroup(self.spacegroup, self.composition, self.max_atoms)

    @property
    def start(self) -> State:
        return ("lattice", (0, ()), None)

    def choices(self, state: State) -> Mapping[str, State]:
        place, where, clearance = cast(tuple[str, Any, Any], state)
        if place == "lattice":
            return self._lattice(*where)
        if place == "tenths":
            return self._tenths(*where)
        if place == "image":
            (piece, *more), then = where
            return {piece: ("image", (tuple(more), then), clearance) if more else ("atom", then, clearance)}
        if place == "xyz":
            at, element, written = where
            return self._coordinates(at, element, written, clearance)
        return self._elements(where, "\n" if place == "atom" else "", clearance)

    # the lattice

    @cached_property
    def _group_lattice(self) -> GroupLattice:
        return GroupLattice(self.spacegroup)

    @cached_property
    def _least_volume(self) -> float:
        """Cubic angstrom of the smallest cell that has what must be in it."""
        if self.composition is None:
            return self._kinds[0].atoms * LEAST_VOLUME_ANGSTROM3
        return self._unit_counts(Written(self._nothing, self._no_orbits))[0] * self._unit_volume

    def _lattice(self, row: int, chosen: Numbers) -> Mapping[str, State]:
        """A number of the lattice, of a length its whole angstroms."""
        lattice = self._group_lattice
        is_free = row in lattice.free
        if row < 3:
            if is_free:
                wholes = np.flatnonzero(self._admitted(chosen).reshape(-1, 10).any(axis=1)) + 1
            else:
                wholes = np.array([_tenths_of(lattice.numbers(chosen)[row]) // 10])
            return {f"{w}.": ("tenths", (row, chosen, w), None) for w in wholes.tolist()}
        ending = "\n" if row == 5 else " "
        if not is_free:
            return {f"{round(lattice.numbers(chosen)[row])}{ending}": self._after(row, chosen)}
        angles = ANGLES_DEGREE[self._admitted(chosen)].tolist()
        return {f"{round(angle)}{ending}": self._after(row, (*chosen, angle)) for angle in angles}

    def _tenths(self, row: int, chosen: Numbers, whole: int) -> Mapping[str, State]:
        ending = " " if row < 2 else "\n"
        if row in self._group_lattice.free:
            free = np.flatnonzero(self._admitted(chosen)[10 * whole - 10 : 10 * whole]).tolist()
            return {f"{k}{ending}": self._after(row, (*chosen, (10 * whole + k) / 10)) for k in free}
        tenths = _tenths_of(self._group_lattice.numbers(chosen)[row])
        return {f"{tenths % 10}{ending}": self._after(row, chosen)}

    def _admitted(self, chosen: Numbers) -> NDArray[np.bool_]:
        return self._group_lattice.admitted(chosen, self._least_volume)

    def _after(self, row: int, chosen: Numbers) -> State:
        if row < 5:
            return ("lattice", (row + 1, chosen), None)
        return ("first", Written(self._nothing, self._no_orbits), Clearance(self._cell(chosen)))

    def _cell(self, chosen: Numbers) -> tuple[float, ...]:
        """The exact lattice as `Clearance` has it."""
        a, b, c, *angles = (round(x, 9) for x in self._group_lattice.numbers(chosen))
        return (10 * a, 10 * b, 10 * c, *angles)

    # what may be where

    @property
    def _kinds(self) -> tuple[SiteKind, ...]:
        return primitive_group(self.spacegroup).kinds

    @cached_property
    def _no_orbits(self) -> tuple[int, ...]:
        return (0,) * len(self._kinds)

    def _unit_counts(self, written: Written) -> list[int]:
        """Numbers of formula units that the rest of the crystal can lead to."""
        return unit_counts(self.spacegroup, cast(Any, self.composition), self.max_atoms, written.counts, written.taken)

    def _orbits(
        self, written: Written, clearance: Clearance, *, last_resort: bool = False
    ) -> dict[str, dict[int, Written]]:
        """For each element the kinds of positions that its next orbit may have, with what is written then.

        As a last resort cells may be as full as they like, and no formula unit is begun.
        """
        volume = clearance.largest_volume()
        found: dict[str, dict[int, Written]] = {}
        wanted = self.elements if self.composition is None else [element for element, _ in self.composition]
        units: list[int] = []
        if self.composition is not None:
            least, *further = self._unit_counts(written)
            units = [least, *(u for u in further if not last_resort and u * self._unit_volume <= volume)]
        for k, kind in enumerate(self._kinds):
            taken = tuple(n + (j == k) for j, n in enumerate(written.taken))
            if kind.orbits is not None and taken[k] > kind.orbits:
                continue
            for j, element in enumerate(wanted):
                axis = 0 if self.composition is None else j
                counts = tuple(n + kind.atoms * (i == axis) for i, n in enumerate(written.counts))
                then = Written(counts, taken, (*written.species, element), (*written.atoms, kind.atoms))
                if self.composition is None:
                    dense = not last_resort and self._is_dense(then, volume)
                    fits = counts[0] <= self.max_atoms and not dense
                else:
                    fits = not set(units).isdisjoint(self._unit_counts(then))
                if fits:
                    found.setdefault(element, {})[k] = then
        return found

    def _is_dense(self, written: Written, volume: float) -> bool:
        """Whether a cell is denser than any solid, or fuller than `DENSEST_PACKING`."""
        atoms = zip(written.species, written.atoms, strict=True)
        spheres = sum(n * sphere_volume(self._halves[symbol]) for symbol, n in atoms)
        return max(written.counts[0] * LEAST_VOLUME_ANGSTROM3, spheres / DENSEST_PACKING) > volume

    def _elements(self, written: Written, before: str, clearance: Clearance) -> Mapping[str, State]:
        """The element of the next orbit, on a new line, or the end."""
        widest = _widest(self.spacegroup, clearance.cell, clearance.sites, self.max_atoms)
        following = self._orbits(written, clearance)
        fitting = {
            element
            for element, kinds in following.items()
            if max(widest[k] for k in kinds) >= max(1, self._halves[element])
        }
        may_end = written.counts[0] > 0
        if self.composition is not None:
            counts = [n for _, n in self.composition]
            may_end = may_end and all(
                c * counts[0] == written.counts[0] * n for c, n in zip(written.counts, counts, strict=True)
            )
            if may_end and len(fitting) < len(counts):
                fitting = set()
        if not fitting and not may_end:
            following = self._orbits(written, clearance, last_resort=True)
            fitting = set(following)
        pieces: dict[str, State] = {
            f"{before}{element}\n": (
                "xyz",
                ((), element, written),
                clearance.of(element, max(1, self._halves[element])),
            )
            for element in following
            if element in fitting
        }
        if may_end and (not pieces or self._is_met(written, clearance)):
            pieces[END] = None
        return pieces

    def _is_met(self, written: Written, clearance: Clearance) -> bool:
        """Whether the crystal has the symmetry asked for and no more."""
        return _number_of(self.spacegroup, clearance.cell, clearance.sites, written.species) == self.spacegroup

    def _coordinates(
        self, at: tuple[int, ...], element: str, written: Written, clearance: Clearance
    ) -> Mapping[str, State]:
        """The next coordinate of an orbit's first atom."""
        following = self._orbits(written, clearance)
        then = following.get(element) or self._orbits(written, clearance, last_resort=True)[element]
        cell, first, half = clearance.cell, clearance.sites, clearance.half
        places = _places(self.spacegroup, cell, first, self.max_atoms, half, tuple(then))
        free = np.flatnonzero(places[at].reshape(GRID, -1).any(axis=1)).tolist()
        if len(at) < 2:
            return {f"0.{k:02d} ": ("xyz", ((*at, k), element, written), clearance) for k in free}
        x, y = at
        exact = [z for z in free if has_room(self.spacegroup, cell, first, half, (x, y, z))]
        return {f"0.{z:02d}": self._placed((x, y, z), element, then, clearance) for z in exact or free}

    def _placed(self, place: Place, element: str, then: dict[int, Written], clearance: Clearance) -> State:
        """With an orbit: its images are written next."""
        images = rounded(orbit(self.spacegroup, place))[1:]
        written = then[int(primitive_group(self.spacegroup).kind_at[place]) - 1]
        counts = dict(clearance.counts)
        counts[element] += len(images)
        placed = clearance._replace(sites=(*clearance.sites, (*place, clearance.half)), counts=tuple(counts.items()))
        pieces = [
            piece for x, y, z in images for piece in (f"\n{element}\n", f"0.{x:02d} ", f"0.{y:02d} ", f"0.{z:02d}")
        ]
        return ("image", (tuple(pieces), written), placed) if pieces else ("atom", written, placed)

    def crystal(self, text: str) -> Crystal:
        """The crystal that a text of this grammar stands for: lattice and orbits as the group has them, not rounded.

        Raises:
            ParseError: it is no crystal, or atoms in it are not the orbit of the first of them.
        """
        written = parse_crystal(text)
        numbers = (*written.lengths, *written.angles)
        chosen = tuple(float(numbers[row]) for row in self._group_lattice.free)
        places = rounded(written.fractional)
        exact: list[Triple] = []
        while len(exact) < len(places):
            try:
                found = orbit(self.spacegroup, places[len(exact)])
            except ValueError as error:
                raise ParseError(f"{error}.") from error
            span = slice(len(exact), len(exact) + len(found))
            if places[span][1:] != rounded(found)[1:] or len(set(written.species[span])) > 1:
                raise ParseError(
                    f"the atoms after {places[len(exact)]} are not its images under space group {self.spacegroup}."
                )
            exact += found
        return _crystal(self._cell(chosen), written.species, exact)


def _tenths_of(length: float) -> int:
    return round(10 * length)


@lru_cache(maxsize=ROWS)
def _widest(number: int, cell: tuple[float, ...], first: tuple[Site, ...], most: int) -> tuple[int, ...]:
    """Half the largest reach that an atom can have somewhere, for each kind of position, in steps."""
    group = primitive_group(number)
    room = rooms(number, cell, first, most)
    return tuple(int(room[group.kind_at == k + 1].max(initial=0)) for k in range(len(group.kinds)))


@lru_cache(maxsize=ROWS)
def _places(
    number: int, cell: tuple[float, ...], first: tuple[Site, ...], most: int, half: int, kinds: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Where an atom may go, on positions of some kinds; where none has room, those that are not taken, or all."""
    room = rooms(number, cell, first, most)
    of_kind = np.isin(primitive_group(number).kind_at, [k + 1 for k in kinds])
    return next(p for p in (of_kind & (room >= half), of_kind & (room > 0), of_kind) if p.any())


@lru_cache(maxsize=4096)
def _number_of(number: int, cell: tuple[float, ...], first: tuple[Site, ...], species: tuple[str, ...]) -> int | None:
    """Number of the space group that orbits have."""
    orbits = [orbit(number, site[:3]) for site in first]
    symbols = [symbol for symbol, found in zip(species, orbits, strict=True) for _ in found]
    return crystal_space_group(_crystal(cell, symbols, [place for found in orbits for place in found]))


def _crystal(cell: tuple[float, ...], species: Sequence[str], places: Sequence[Triple]) -> Crystal:
    a, b, c, alpha, beta, gamma = cell
    return Crystal((a / 10, b / 10, c / 10), (alpha, beta, gamma), tuple(species), tuple(places))
