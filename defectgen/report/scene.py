"""What the 3D view of a structure shows: its files, its defect sites, and the distances between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from defectgen.core import Configuration, defect_name
from defectgen.io.writers import cif_text, poscar_text
from defectgen.report.site_positions import layer_names

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class DefectSite:
    """A site that differs from the host.

    Attributes:
        label: the defect, numbered where there are several of its kind, e.g. ``v_S 2``.
        site: name of the site in the configuration's key, e.g. ``B25``.
        layer: ``top``, ``bottom`` or empty.
        species: what is there, or ``VAC``.
        frac: fractional coordinates as in the POSCAR.
        position: Cartesian ones in angstrom.
        nearest: label of the defect that is nearest, images counted; empty for a single defect.
        nearest_angstrom: how far that is; 0 for a single defect.
    """

    label: str
    site: str
    layer: str
    species: str
    frac: Vector
    position: Vector
    nearest: str
    nearest_angstrom: float


@dataclass(frozen=True)
class Distance:
    """A line between two defects, the second one perhaps in a neighbouring cell; positions in angstrom."""

    start: Vector
    end: Vector
    length_angstrom: float


@dataclass(frozen=True)
class Scene:
    """A structure as the page holds it.

    Attributes:
        sites: of the defects.
        distances: the shortest lines that join all defects (a minimum spanning tree), shortest first.
        cif: the CIF.
        poscar: the POSCAR, from which the view takes atoms, axes and origin.
    """

    sites: tuple[DefectSite, ...]
    distances: tuple[Distance, ...]
    cif: str
    poscar: str

    def record(self) -> dict[str, object]:
        """The scene as plain values, numbers rounded for a picture."""
        return {
            "cif": self.cif,
            "poscar": self.poscar,
            "sites": [
                [s.label, s.site, s.layer, s.species, _rounded(s.frac), _rounded(s.position), s.nearest,
                 round(s.nearest_angstrom, 2)]
                for s in self.sites
            ],
            "distances": [[_rounded(d.start), _rounded(d.end), round(d.length_angstrom, 2)] for d in self.distances],
        }  # fmt: skip


def scene(configuration: Configuration) -> Scene:
    """The scene of a configuration; its sites are those of the written files."""
    host = configuration.host
    frac, cart = host.site_frac_coords, host.site_cart_coords
    edits = sorted(configuration.edits)
    names = _numbered([defect_name(host.site_element(site), species) for site, species in edits])
    offsets, lengths = _nearest_images(cart[[site for site, _ in edits]], host.supercell_lattice)
    sites = []
    for k, (site, species) in enumerate(edits):
        ranked = sorted((round(float(lengths[k, n]), 6), n) for n in range(len(edits)) if n != k)
        away, nearest = ranked[0] if ranked else (0.0, None)
        sites.append(
            DefectSite(
                label=names[k],
                site=host.site_name(site),
                layer=layer_names(host)[host.site_cell(site)[0]],
                species=species,
                frac=_vector(frac[site]),
                position=_vector(cart[site]),
                nearest="" if nearest is None else names[nearest],
                nearest_angstrom=away,
            )
        )
    distances = tuple(
        Distance(sites[a].position, _vector(cart[edits[a][0]] + offsets[a, b]), float(lengths[a, b]))
        for a, b in _spanning_tree(lengths)
    )
    return Scene(tuple(sites), distances, cif_text(configuration), poscar_text(configuration))


def _numbered(names: list[str]) -> list[str]:
    total, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} {seen[name]}" if total[name] > 1 else name)
    return numbered


def _nearest_images(
    positions: NDArray[np.float64], lattice: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors to the nearest image of each other site in the plane, shape (n, n, 3), and their lengths, in angstrom."""
    steps = np.array([i * lattice[0] + j * lattice[1] for i, j in product((0, -1, 1), repeat=2)])
    vectors = positions[None, :, None] - positions[:, None, None] + steps
    lengths = np.round(np.linalg.norm(vectors, axis=-1), 9)
    nearest = np.argmin(lengths, axis=-1)
    rows, columns = np.indices(nearest.shape)
    return vectors[rows, columns, nearest], lengths[rows, columns, nearest]


def _spanning_tree(lengths: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Kruskal's tree: pairs in order of their distance, each joining what was not joined (doi 10.2307/2033241)."""
    group = list(range(len(lengths)))
    tree = []
    for a, b in sorted(combinations(group, 2), key=lambda pair: (round(float(lengths[pair]), 6), pair)):
        if group[a] != group[b]:
            tree.append((a, b))
            group = [group[a] if member == group[b] else member for member in group]
    return tree


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _rounded(values: Vector) -> list[float]:
    return [round(value, 5) + 0.0 for value in values]
