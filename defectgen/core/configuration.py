"""A decoration of a host: the one type that every structure of this field is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from defectgen.core.crystal import SYMBOLS
from defectgen.core.host import VACANCY, Host
from defectgen.core.names import defect_label, short_text
from defectgen.core.symmetry import canonical_edits, site_permutations
from defectgen.core.whole import is_whole
from defectgen.errors import UsageError, UsageValueError
from defectgen.one_line import shown, typed

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

Edit = tuple[int, str]
"""A site and the species that stands there instead of the host's: an element or ``VAC``."""


@dataclass(frozen=True, repr=False)
class Configuration:
    """A host and the sites on which it is changed.

    Attributes:
        host: the pristine supercell.
        edits: (site, species) pairs in the order of the sites, each site once; a species is an
            element other than the host's own on that site, or ``VAC``.
    """

    host: Host
    edits: tuple[Edit, ...]

    def __post_init__(self) -> None:
        sites = [site for site, _ in self.edits]
        if sites != sorted(set(sites)):
            raise UsageValueError(f"edits must be sorted by site with each site once, got sites {sites}.")
        if sites and not 0 <= sites[0] <= sites[-1] < self.host.n_sites:
            raise UsageValueError(f"got sites {sites}, expected 0 to {self.host.n_sites - 1}.")
        elements = self.host.site_elements
        for site, species in self.edits:
            if species == elements[site]:
                raise UsageValueError(f"site {self.host.site_name(site)} of {self.host.name} already holds {species}.")
            if species not in SYMBOLS and species != VACANCY:
                raise UsageValueError(
                    f"got {species!r} at {self.host.site_name(site)}, expected an element or {VACANCY}."
                )

    def __repr__(self) -> str:
        return f"Configuration({self.host.name} {self.host.size}, {short_text(self.label)}: {short_text(self.key)})"

    @classmethod
    def of(cls, host: Host, edits: Mapping[int, str] | Mapping[str, str] | Iterable[Edit]) -> Configuration:
        """A configuration from edits in any order: sites by number, or in a mapping by name, e.g. ``{"A00": "W"}``.

        Raises:
            UsageError: what is no host or no edits, what is no site of the host, a site twice, or no species that
                differs from the host's; the last three are a `ValueError` too.
        """
        _require_host(host)
        if isinstance(edits, str):
            raise UsageError(
                f"got edits {shown(edits)}, expected sites and species.",
                'E.g. {"A00": "VAC"}; from a key: Configuration.from_key; of a label: defectgen.enumerate.',
            )
        pairs = []
        for site, new in edits.items() if isinstance(edits, Mapping) else _pairs(edits):
            if not isinstance(site, str) and not is_whole(site):
                raise UsageError(f"got site {shown(site)}, expected its number or its name, e.g. 0 or A00.")
            if not isinstance(new, str):
                raise UsageError(f"got species {shown(new)}, expected an element or {VACANCY}.")
            pairs.append((host.parse_site(site) if isinstance(site, str) else int(site), new))
        return cls(host, tuple(sorted(pairs)))

    @classmethod
    def from_key(cls, host: Host, key: str) -> Configuration:
        """The inverse of `key`.

        Raises:
            UsageError: the key names a site that the host does not have.
        """
        _require_host(host)
        if not isinstance(key, str):
            raise UsageError(f"got configuration {shown(key)}, expected a key, e.g. VAC@A00+Se@B14.")
        pairs = [part.split("@") for part in key.split("+") if part]
        if any(len(pair) != 2 for pair in pairs):
            raise UsageError(f"got configuration {key!r}, expected e.g. VAC@A00+Se@B14.")
        return cls.of(host, [(host.parse_site(site), species) for species, site in pairs])

    @property
    def key(self) -> str:
        """The edits as text, e.g. ``VAC@A00+Se@B14``; with `canonical` first, an identity."""
        names = self.host.site_names
        return "+".join([f"{species}@{names[site]}" for site, species in self.edits])

    @property
    def n_defects(self) -> int:
        return len(self.edits)

    @property
    def concentration(self) -> float:
        """Share of the host's sites that are changed."""
        return len(self.edits) / self.host.n_sites

    @property
    def kinds(self) -> Counter[tuple[str, str]]:
        """How many defects there are of each kind (host element, species instead)."""
        elements = self.host.site_elements
        return Counter([(elements[site], species) for site, species in self.edits])

    @property
    def label(self) -> str:
        """Name of the defect or defect complex, e.g. ``v_Mo+2Se_S``."""
        return defect_label(self.kinds, self.host.elements)

    @property
    def species(self) -> tuple[str, ...]:
        """What stands on each site, ``VAC`` where nothing does; length n_sites."""
        changed = dict(self.edits)
        return tuple(changed.get(site, element) for site, element in self.host.sites())

    @property
    def formula(self) -> str:
        """Composition of the cell, e.g. ``Mo64S127``: the host's elements first."""
        counts = Counter(species for species in self.species if species != VACANCY)
        order = [*self.host.elements, *sorted(set(counts) - set(self.host.elements))]
        return "".join(f"{element}{counts[element]}" for element in order if counts[element])

    def follows_rules(self) -> bool:
        """Whether every edit is one that the host's defect rules allow."""
        return all(species in self.host.allowed[self.host.site_cell(site)[0]] for site, species in self.edits)

    def canonical(self) -> Configuration:
        """The representative of all images of this configuration under the host's symmetry."""
        return Configuration(self.host, canonical_edits(self.host, [self.edits])[0])

    def image(self, operation: int) -> Configuration:
        """The image under one row of `site_permutations`."""
        permutation = site_permutations(self.host)[operation]
        return Configuration.of(self.host, [(int(permutation[site]), species) for site, species in self.edits])

    def random_image(self, rng: np.random.Generator) -> Configuration:
        """An image under an operation drawn uniformly from the host's symmetry group."""
        return self.image(int(rng.integers(len(site_permutations(self.host)))))

    @classmethod
    def from_structure(cls, structure: Structure, host: Host | None = None) -> Configuration:
        """The decoration that a structure shows; it may be relaxed, shifted, or have another vacuum.

        Args:
            structure: cell and atoms, in angstrom; its in-plane cell is the host's supercell.
            host: what it decorates; None for the first built-in host that fits.

        Raises:
            NotADecorationError: another cell, an atom away from all sites, two on one site, partial occupancy.
            UsageError: what is no structure or no host.
        """
        from defectgen.core.matching import known_configuration

        return known_configuration(structure, host)

    def to_ase(self) -> Atoms:
        """The unrelaxed structure as ASE's atoms: positions in angstrom, periodic along all three cell vectors."""
        from ase import Atoms

        structure = self.to_structure()
        symbols = [site.specie.symbol for site in structure]
        return Atoms(symbols, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True)

    def to_structure(self) -> Structure:
        """The unrelaxed structure in the host's supercell, lengths in angstrom."""
        from pymatgen.core import Structure

        filled = [(site, species) for site, species in enumerate(self.species) if species != VACANCY]
        coordinates = self.host.site_frac_coords[[site for site, _ in filled]]
        return Structure(self.host.supercell_lattice, [species for _, species in filled], coordinates)


def canonicalize(configurations: Sequence[Configuration]) -> list[Configuration]:
    """`Configuration.canonical` of many at once, in their order, which is faster than one by one."""
    by_host: dict[Host, list[int]] = {}
    for row, item in enumerate(configurations):
        by_host.setdefault(item.host, []).append(row)
    found = list(configurations)
    for host, rows in by_host.items():
        for row, edits in zip(rows, canonical_edits(host, [found[row].edits for row in rows]), strict=True):
            found[row] = Configuration(host, edits)
    return found


def labels_of_keys(host: Host, keys: Iterable[str]) -> list[str]:
    """`Configuration.label` of many keys of a host, without making their configurations."""
    elements = dict(zip(host.sublattices, host.species, strict=True))
    known: dict[tuple[str, ...], str] = {}
    found = []
    for key in keys:
        kinds = tuple(sorted(part[: part.index("@") + 2] for part in key.split("+") if part))  # species, sublattice
        if kinds not in known:
            pairs = (kind.split("@") for kind in kinds)
            counts = Counter((elements[letter], species) for species, letter in pairs)
            known[kinds] = defect_label(counts, host.elements)
        found.append(known[kinds])
    return found


def _require_host(host: object) -> None:
    if not isinstance(host, Host):
        raise UsageError(f"got {typed(host)} as host, expected a Host.", 'Use defectgen.host("MoS2").')


def _pairs(edits: object) -> Iterator[tuple[object, object]]:
    """Pairs of a site and a species."""
    items = list(edits) if isinstance(edits, Iterable) else [edits]
    for item in items:
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
            raise UsageError(f"got edit {shown(item)}, expected a site and a species.", 'E.g. (0, "VAC").')
        yield item[0], item[1]
