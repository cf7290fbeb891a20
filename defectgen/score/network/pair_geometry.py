"""What the network sees of a host: features of every possible defect, and of every pair of sites.

Both depend on elements, heights and distances alone, so that images under the host's symmetry look the same
by construction, and a host that is in no training data has features as well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.configuration import Edit
from defectgen.core.host import VACANCY, Host, Rule
from defectgen.errors import UsageError

Array = NDArray[np.float32]

ELEMENT_FEATURES = ("period", "group", "s", "p", "d", "electronegativity", "radius", "ionization", "affinity")
"""Of an element, each scaled to about 1; a vacancy has zeros."""

CENTRES_ANGSTROM = tuple(1.0 + 0.8 * k for k in range(16))
WIDTH_ANGSTROM = 0.55
CUTOFF_ANGSTROM = 14.0
"""Gaussians of the distances between two defects, all periodic images within the cutoff."""

SAME_HEIGHT_ANGSTROM = 0.3
N_SITE_FEATURES = 4
N_PAIR_FEATURES = 2 * len(CENTRES_ANGSTROM)
N_NODE_FEATURES = 4 * len(ELEMENT_FEATURES) + 1 + N_SITE_FEATURES + 2
"""Elements, vacancy, site, sites per area, and, last, whether an odd number of electrons comes or goes."""

N_TOLD = 2
"""What is told of a cell as a whole: logarithm of its number of defects, and parity of its electrons."""


def element_features(symbol: str) -> tuple[float, ...]:
    """`ELEMENT_FEATURES` of an element, from the periodic table that pymatgen carries.

    Raises:
        UsageError: no such element, or one of which a feature is not known, e.g. a noble gas.
    """
    from pymatgen.core import Element

    if not Element.is_valid_symbol(symbol):
        raise UsageError(f"got species {symbol!r}, expected an element or {VACANCY}.")
    element = Element(symbol)
    block = element.block
    return (
        element.row / 6,
        element.group / 18,
        float(block == "s"),
        float(block == "p"),
        float(block in "df"),
        _known(element, "X") / 3,
        _known(element, "atomic_radius") / 1.5,
        _known(element, "ionization_energy") / 10,
        _known(element, "electron_affinity") / 2,
    )


def _known(element: Any, name: str) -> float:
    """A value of the periodic table."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen tells of what the error below says
            value = float(getattr(element, name))
    except (KeyError, TypeError):  # pymatgen has none
        value = math.nan
    if not math.isfinite(value):
        told = "electronegativity" if name == "X" else name.replace("_", " ")
        raise UsageError(
            f"the network cannot describe {element.symbol}: its {told} is not known.",
            "Train without networks, or leave that element out.",
        )
    return value


@dataclass(frozen=True, eq=False)
class HostGeometry:
    """One host as arrays.

    Attributes:
        host: the supercell.
        kinds: the defects that it allows, in order; a node is a site and the number of its kind.
        nodes: features of each kind on each basis atom, shape (n_basis, n_kinds, N_NODE_FEATURES).
        pairs: number of the pair class of two sites, shape (n_sites, n_sites).
        classes: features of each pair class, shape (n_classes, N_PAIR_FEATURES).
    """

    host: Host
    kinds: tuple[Rule, ...]
    nodes: Array
    pairs: NDArray[np.int16 | np.int32]
    classes: Array

    @classmethod
    def of(cls, host: Host) -> HostGeometry:
        """Features of a host."""
        kinds = tuple(sorted(host.rules))
        known = {symbol: np.array(element_features(symbol)) for symbol in _symbols(host)}
        pairs, classes = _pair_classes(host)
        return cls(host, kinds, _nodes(host, kinds, known), pairs, classes)

    def numbers(self, edits: Sequence[Edit]) -> tuple[list[int], list[int]]:
        """Sites and kinds of a configuration.

        Raises:
            UsageError: a defect that the host does not allow.
        """
        try:
            index = {(rule.element, rule.replacement): k for k, rule in enumerate(self.kinds)}
            return [s for s, _ in edits], [index[self.host.site_element(s), species] for s, species in edits]
        except KeyError as error:
            raise UsageError(f"{self.host.name} allows no defect {error}.") from error

    def arrays(self) -> dict[str, Any]:
        """As arrays that `from_arrays` reads."""
        return {"nodes": self.nodes, "pairs": self.pairs, "classes": self.classes}

    def check(self) -> None:
        """Raise ValueError unless the arrays fit the host."""
        host, n_classes = self.host, len(self.classes)
        shapes = {
            "nodes": (self.nodes, (host.n_basis, len(self.kinds), N_NODE_FEATURES)),
            "pairs": (self.pairs, (host.n_sites, host.n_sites)),
            "classes": (self.classes, (n_classes, N_PAIR_FEATURES)),
        }
        for name, (array, expected) in shapes.items():
            if array.shape != expected:
                raise ValueError(f"{name} of {host.title} have shape {array.shape}, expected {expected}")
        if self.pairs.dtype.kind != "i" or self.pairs.min() < 0 or self.pairs.max() >= n_classes:
            raise ValueError(f"pairs of {host.title} are not numbers of the {n_classes} classes")

    @classmethod
    def from_arrays(cls, host: Host, arrays: Mapping[str, Any]) -> HostGeometry:
        """The inverse of `arrays`."""
        return cls(host, tuple(sorted(host.rules)), arrays["nodes"], arrays["pairs"], arrays["classes"])


def structure_of(host: Host) -> tuple[tuple[int, int], ...]:
    """The same for hosts of one structure: of each basis atom how many there are of its element, and its bonds."""
    bonds = np.rint(6 * _site_features(host)[:: host.n_sites // host.n_basis, 1]).astype(int)
    return tuple(sorted((host.species.count(e), int(n)) for e, n in zip(host.species, bonds, strict=True)))


def _symbols(host: Host) -> set[str]:
    return set(host.species) | {rule.replacement for rule in host.rules if not rule.is_vacancy}


def _nodes(host: Host, kinds: Sequence[Rule], known: Mapping[str, NDArray[np.float64]]) -> Array:
    nothing = np.zeros(len(ELEMENT_FEATURES))
    mean = np.mean([known[element] for element in host.species], axis=0)
    area = abs(np.linalg.det(np.array(host.lattice)[:2, :2]))
    sites = _site_features(host)[:: host.n_sites // host.n_basis]
    nodes = np.zeros((host.n_basis, len(kinds), N_NODE_FEATURES), dtype=np.float32)
    for basis, element in enumerate(host.species):
        for k, kind in enumerate(kinds):
            if kind.element != element:
                continue
            old, new = known[element], nothing if kind.is_vacancy else known[kind.replacement]
            change = nothing if kind.is_vacancy else 5 * (new - old)
            nodes[basis, k] = np.concatenate(
                [
                    old,
                    new,
                    change,
                    mean,
                    [kind.is_vacancy],
                    sites[basis],
                    [host.n_basis / area * 5, kind.changes_parity],
                ]
            )
    return nodes


def _site_features(host: Host) -> NDArray[np.float64]:
    """Height above the middle of the layer (signless), neighbours, and their distance, shape (n_sites, 4)."""
    heights = host.site_cart_coords[:, 2]
    middle = (heights.max() + heights.min()) / 2
    distances = _image_distances(host).min(axis=0)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    bonds = (distances < 1.15 * nearest[:, None]).sum(axis=1)
    layer = np.abs(heights - middle)
    return np.column_stack([layer / 2, bonds / 6, nearest / 2.5, (layer < SAME_HEIGHT_ANGSTROM).astype(float)])


def image_displacements(host: Host) -> NDArray[np.float64]:
    """From each site to each, for the images around the cell, in angstrom, shape (n_images, n_sites, n_sites, 3)."""
    places, lattice = host.site_cart_coords, host.supercell_lattice
    lengths = np.linalg.norm(lattice[:2], axis=1) * abs(np.sin(np.arccos(_cosine(lattice[0], lattice[1]))))
    reach = np.ceil(CUTOFF_ANGSTROM / lengths).astype(int) + 1
    images = [
        a * lattice[0] + b * lattice[1] for a in range(-reach[0], reach[0] + 1) for b in range(-reach[1], reach[1] + 1)
    ]
    return np.stack([places[None, :, :] + image - places[:, None, :] for image in images])


def _image_distances(host: Host) -> NDArray[np.float64]:
    """Their lengths, shape (n_images, n_sites, n_sites)."""
    return np.asarray(np.linalg.norm(image_displacements(host), axis=3))


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _pair_classes(host: Host) -> tuple[NDArray[np.int16 | np.int32], Array]:
    distances = np.round(_image_distances(host), 4)
    heights = host.site_cart_coords[:, 2]
    level = np.abs(heights[:, None] - heights[None, :]) < SAME_HEIGHT_ANGSTROM
    found = np.zeros((host.n_sites, host.n_sites, len(CENTRES_ANGSTROM)))
    fade = np.where(distances < CUTOFF_ANGSTROM, 0.5 * (1 + np.cos(np.pi * distances / CUTOFF_ANGSTROM)), 0.0)
    fade[distances < 1e-3] = 0.0
    for k, centre in enumerate(CENTRES_ANGSTROM):
        found[:, :, k] = (np.exp(-(((distances - centre) / WIDTH_ANGSTROM) ** 2) / 2) * fade).sum(axis=0)
    features = np.concatenate([found * level[:, :, None], found * ~level[:, :, None]], axis=2)
    rounded, pairs = np.unique(np.round(features.reshape(-1, N_PAIR_FEATURES), 4), axis=0, return_inverse=True)
    number = np.int16 if len(rounded) <= np.iinfo(np.int16).max else np.int32
    return pairs.reshape(host.n_sites, host.n_sites).astype(number), rounded.astype(np.float32)
