"""The pristine supercell that every structure of this field decorates."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defectgen.errors import UsageError

VACANCY = "VAC"
"""What stands in place of an element on an empty site."""


@dataclass(frozen=True, order=True)
class Rule:
    """One kind of point defect that a host allows: `element` becomes `replacement`."""

    element: str
    replacement: str

    @property
    def is_vacancy(self) -> bool:
        return self.replacement == VACANCY


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
        if len(self.species) != len(self.frac_coords):
            raise ValueError(f"got {len(self.species)} species, expected {len(self.frac_coords)}")
        if len(self.species) > len(string.ascii_uppercase):
            raise ValueError(f"got {len(self.species)} basis atoms, expected at most 26")
        if min(self.supercell) < 1:
            raise ValueError(f"got supercell {self.supercell}, expected positive repetitions")
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

    def site_name(self, site: int) -> str:
        """Sublattice letter and cell indices, e.g. ``A03``: basis atom A of cell (0, 3)."""
        basis, i, j = self.site_cell(site)
        width = self.index_width
        return f"{self.sublattices[basis]}{i:0{width}d}{j:0{width}d}"

    def parse_site(self, name: str) -> int:
        """The site that `site_name` would give this name to.

        Raises:
            UsageError: the name does not fit this host.
        """
        width = self.index_width
        digits = name[1:]
        if name[:1] in self.sublattices and len(digits) == 2 * width and digits.isascii() and digits.isdigit():
            basis, i, j = self.sublattices.index(name[0]), int(digits[:width]), int(digits[width:])
            if i < self.supercell[0] and j < self.supercell[1]:
                return self.site_index(basis, i, j)
        raise UsageError(
            f"site {name!r} does not exist in {self.name} {self.size}.",
            f"Expected a letter of {''.join(self.sublattices)} and two cell indices, e.g. {self.site_name(0)}.",
        )

    @property
    def size(self) -> str:
        """The supercell as text, e.g. ``8x8``."""
        return f"{self.supercell[0]}x{self.supercell[1]}"

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
