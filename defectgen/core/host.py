"""The pristine supercell that every structure of this field decorates."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import ELEMENTS, SYMBOLS
from defectgen.core.whole import is_whole
from defectgen.errors import DefectgenError, UsageError
from defectgen.one_line import shown

VACANCY = "VAC"
"""What stands in place of an element on an empty site."""

SMALLEST_VOLUME_ANGSTROM3 = 0.1
"""No unit cell is smaller."""

SAME_CELL = 0.02
"""Relative difference of cell vectors up to which two hosts count as the same crystal."""

SAME_FRACTION = 0.02
"""Likewise of fractional coordinates, absolute."""


@dataclass(frozen=True, order=True)
class Rule:
    """One kind of point defect that a host allows: `element` becomes `replacement`."""

    element: str
    replacement: str

    @property
    def is_vacancy(self) -> bool:
        return self.replacement == VACANCY

    @property
    def changes_parity(self) -> bool:
        """Whether the cell loses or gains an odd number of electrons."""
        lost, gained = ELEMENTS.index(self.element) + 1, 0 if self.is_vacancy else ELEMENTS.index(self.replacement) + 1
        return (lost - gained) % 2 == 1


@dataclass(frozen=True, repr=False)
class Host:
    """A 2D crystal, its supercell in the plane, and the point defects allowed in it.

    Sites are numbered basis by basis, then along a, then along b:
    ``site = (basis * n_a + i) * n_b + j``, the order of pymatgen's supercells and of 2DMD's files.

    Attributes:
        name: chemical formula, e.g. ``MoS2``.
        lattice: rows a, b, c of the unit cell in angstrom; c is the normal and holds the vacuum.
        species: element of each basis atom.
        frac_coords: fractional coordinates of each basis atom in the unit cell.
        supercell: repetitions along a and b.
        rules: the allowed point defects.
    """

    name: str
    lattice: tuple[tuple[float, float, float], ...]
    species: tuple[str, ...]
    frac_coords: tuple[tuple[float, float, float], ...]
    supercell: tuple[int, int]
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        """Check the parts, and hold lists and arrays as tuples.

        Raises:
            ValueError: a part that is none, or does not fit the others.
        """
        object.__setattr__(self, "lattice", _rows("lattice", self.lattice))
        object.__setattr__(self, "frac_coords", _rows("frac_coords", self.frac_coords))
        size = () if isinstance(self.supercell, str) else tuple(self.supercell)
        if len(size) != 2 or not all(map(is_whole, size)):
            raise ValueError(f"got supercell {shown(self.supercell)}, expected two whole numbers, e.g. (4, 4)")
        object.__setattr__(self, "supercell", tuple(map(int, size)))
        object.__setattr__(self, "species", tuple(self.species))
        rules = self.rules if isinstance(self.rules, Iterable) else [self.rules]
        object.__setattr__(self, "rules", tuple(rules))
        if wrong := [rule for rule in self.rules if not isinstance(rule, Rule)]:
            raise ValueError(f'got rule {shown(wrong[0])}, expected e.g. Rule("Mo", "W")')
        if len(self.lattice) != 3 or abs(np.linalg.det(self.lattice)) < SMALLEST_VOLUME_ANGSTROM3:
            raise ValueError(f"got cell vectors {shown(self.lattice)}, expected three that span a volume")
        if len(self.species) != len(self.frac_coords):
            raise ValueError(f"got {len(self.species)} species, expected {len(self.frac_coords)}")
        if len(self.species) > len(string.ascii_uppercase):
            raise ValueError(f"got {len(self.species)} basis atoms, expected at most 26")
        if min(self.supercell) < 1:
            raise ValueError(f"got supercell {self.supercell}, expected positive repetitions")
        if unknown := sorted({*self.species, *(rule.replacement for rule in self.rules)} - SYMBOLS - {VACANCY}):
            raise ValueError(f"{unknown[0]!r} is no element")
        for rule in self.rules:
            if rule.element not in self.species or rule.replacement == rule.element:
                raise ValueError(f"rule {rule} does not fit the elements of {self.name}")

    def __repr__(self) -> str:
        allowed = dict(zip(self.species, self.allowed, strict=True))
        rules = "; ".join(f"{element}: {', '.join(news)}" for element, news in allowed.items() if news)
        return f"Host({self.name} {self.size}, {self.n_sites} sites, {rules or 'no rules'})"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.species, self.frac_coords, self.supercell, self.rules))

    def to_dict(self) -> dict[str, Any]:
        """The record of the host, which travels with its data and models: all of it as plain values, for JSON."""
        return {
            "name": self.name,
            "lattice": [list(row) for row in self.lattice],
            "species": list(self.species),
            "sublattices": list(self.sublattices),
            "frac_coords": [list(row) for row in self.frac_coords],
            "supercell": list(self.supercell),
            "rules": [[rule.element, rule.replacement] for rule in self.rules],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Host:
        """The inverse of `to_dict`, equal to the last bit.

        Raises:
            DefectgenError: what is no record of a host; says why.
        """
        try:
            n_a, n_b = (int(n) for n in record["supercell"])
            host = cls(
                name=str(record["name"]),
                lattice=_vectors(record["lattice"]),
                species=tuple(str(element) for element in record["species"]),
                frac_coords=_vectors(record["frac_coords"]),
                supercell=(n_a, n_b),
                rules=tuple(Rule(str(element), str(replacement)) for element, replacement in record["rules"]),
            )
            if list(host.sublattices) != list(record["sublattices"]):
                raise ValueError(f"sublattices {record['sublattices']!r:.60}")
            if unknown := sorted(record.keys() - host.to_dict().keys()):
                raise ValueError(f"{unknown[0]!r:.40} is unknown to this version")
        except (LookupError, TypeError, ValueError) as error:
            raise DefectgenError(
                f"not the record of a host ({type(error).__name__}: {error}).",
                "Expected what Host.to_dict gives: name, lattice, species, sublattices, frac_coords, supercell, rules.",
            ) from error
        return host

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Host:
        """The inverse of `to_json`; the same text gives the same object.

        Raises:
            DefectgenError: no JSON, or see `from_dict`.
        """
        return _read_record(text)

    def is_like(self, other: Host) -> bool:
        """Whether another host has the same sites in the same order and about the same cell, whatever its rules."""
        return (
            (self.name, self.species, self.supercell) == (other.name, other.species, other.supercell)
            and np.allclose(self.frac_coords, other.frac_coords, atol=SAME_FRACTION)
            and np.allclose(self.lattice, other.lattice, rtol=SAME_CELL)
        )

    @property
    def n_basis(self) -> int:
        return len(self.species)

    @property
    def n_sites(self) -> int:
        return self.n_basis * self.supercell[0] * self.supercell[1]

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements of the pristine host, each once, in the order of the formula."""
        return tuple(dict.fromkeys(self.species))

    @cached_property
    def sublattices(self) -> tuple[str, ...]:
        """One letter for each basis atom: A, B, C, ..."""
        return tuple(string.ascii_uppercase[: self.n_basis])

    @cached_property
    def index_width(self) -> int:
        """Digits that a cell index takes in a site name."""
        return len(str(max(self.supercell) - 1))

    @cached_property
    def allowed(self) -> tuple[tuple[str, ...], ...]:
        """For each basis atom the species that may stand in its place, vacancy included."""
        return tuple(
            tuple(sorted(r.replacement for r in self.rules if r.element == element)) for element in self.species
        )

    def site_index(self, basis: int, i: int, j: int) -> int:
        return (basis * self.supercell[0] + i) * self.supercell[1] + j

    def site_cell(self, site: int) -> tuple[int, int, int]:
        """Basis index and cell indices (basis, i, j) of a site."""
        rest, j = divmod(site, self.supercell[1])
        basis, i = divmod(rest, self.supercell[0])
        return basis, i, j

    def site_element(self, site: int) -> str:
        """Element of the pristine host on a site."""
        return self.site_elements[site]

    @cached_property
    def site_elements(self) -> tuple[str, ...]:
        """Elements of the pristine host on all sites, in order."""
        return tuple(element for element in self.species for _ in range(self.supercell[0] * self.supercell[1]))

    @cached_property
    def site_names(self) -> tuple[str, ...]:
        """Sublattice letter and cell indices of each site, e.g. ``A03``: basis atom A of cell (0, 3)."""
        n_a, n_b = self.supercell
        width = self.index_width
        cells = [f"{i:0{width}d}{j:0{width}d}" for i in range(n_a) for j in range(n_b)]
        return tuple(letter + cell for letter in self.sublattices for cell in cells)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: site for site, name in enumerate(self.site_names)}

    def site_name(self, site: int) -> str:
        """The name of a site, see `site_names`."""
        return self.site_names[site]

    def parse_site(self, name: str) -> int:
        """The site that has this name.

        Raises:
            UsageError: the name does not fit this host.
        """
        site = self._numbers.get(name)
        if site is None:
            raise UsageError(
                f"site {name!r} does not exist in {self.name} {self.size}.",
                f"Expected a letter of {''.join(self.sublattices)} and two cell indices, e.g. {self.site_name(0)}.",
            )
        return site

    @property
    def size(self) -> str:
        """The supercell as text, e.g. ``8x8``."""
        return f"{self.supercell[0]}x{self.supercell[1]}"

    @property
    def title(self) -> str:
        """Name and size, e.g. ``MoS2 8x8``."""
        return f"{self.name} {self.size}"

    @cached_property
    def supercell_lattice(self) -> NDArray[np.float64]:
        """Rows a, b, c of the supercell in angstrom, shape (3, 3)."""
        n_a, n_b = self.supercell
        rows: NDArray[np.float64] = np.array(self.lattice) * np.array([[n_a], [n_b], [1]])
        return rows

    @cached_property
    def site_frac_coords(self) -> NDArray[np.float64]:
        """Fractional coordinates of all sites in the supercell, shape (n_sites, 3)."""
        n_a, n_b = self.supercell
        cells = np.array([(i, j, 0) for i in range(n_a) for j in range(n_b)], dtype=float)
        blocks = [(cells + basis) / np.array([n_a, n_b, 1.0]) for basis in self.frac_coords]
        return np.concatenate(blocks)

    @cached_property
    def site_cart_coords(self) -> NDArray[np.float64]:
        """Cartesian coordinates of all sites in angstrom, shape (n_sites, 3)."""
        return np.asarray(self.site_frac_coords @ self.supercell_lattice)

    def sites(self) -> Iterator[tuple[int, str]]:
        """All sites in order, with the element of the pristine host."""
        yield from enumerate(self.site_elements)


def _rows(name: str, rows: Any) -> tuple[tuple[float, float, float], ...]:
    try:
        found = _vectors(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"got {name} {shown(rows)}, expected rows of three numbers") from error
    if not np.isfinite(np.array(found)).all():
        raise ValueError(f"got {name} {shown(rows)}, expected finite numbers")
    return found


def _vectors(rows: Any) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(x), float(y), float(z)) for x, y, z in rows)


@lru_cache(maxsize=256)
def _read_record(text: str) -> Host:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise DefectgenError(f"not the record of a host: {text[:40]!r} is no JSON ({error}).") from error
    return Host.from_dict(values)
