"""Fingerprints of crystals as CDVAE takes them: local order around the sites, and Magpie statistics of the formula.

Sources: Xie et al., ICLR 2022, doi 10.48550/arXiv.2110.06197 (``scripts/compute_metrics.py`` of its repository:
matminer's ``CrystalNNFingerprint.from_preset("ops")``, mean over the sites, and
``ElementProperty.from_preset("magpie")``); Zimmermann and Jain, RSC Adv 10, 6063 (2020), doi 10.1039/C9RA07755C
(the order parameters); Ward et al., npj Comput Mater 2, 16028 (2016), doi 10.1038/npjcompumats.2016.28 (the elemental
properties). matminer itself does not import beside a current pymatgen and SciPy, so the two fingerprints are
written here on pymatgen's neighbours and order parameters, and on the table files that matminer installs.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import ELEMENTS, Crystal
from defectgen.errors import DefectgenError
from defectgen.io.documents import read_object

MOTIFS: dict[int, tuple[str, ...]] = {
    1: ("sgl_bd",),
    2: ("L-shaped", "water-like", "bent 120 degrees", "bent 150 degrees", "linear"),
    3: ("trigonal planar", "trigonal non-coplanar", "T-shaped"),
    4: ("square co-planar", "tetrahedral", "rectangular see-saw-like", "see-saw-like", "trigonal pyramidal"),
    5: ("pentagonal planar", "square pyramidal", "trigonal bipyramidal"),
    6: ("hexagonal planar", "octahedral", "pentagonal pyramidal"),
    7: ("hexagonal pyramidal", "pentagonal bipyramidal"),
    8: ("body-centered cubic", "hexagonal bipyramidal"),
    9: ("q2", "q4", "q6"),
    10: ("q2", "q4", "q6"),
    11: ("q2", "q4", "q6"),
    12: ("cuboctahedral", "q2", "q4", "q6"),
}
"""Order parameters by coordination number: those of the preset ``ops``."""

MAX_COORDINATION = 24
SITE_ANGSTROM = 1e-3
"""Sites that symmetry brings this near to each other have one fingerprint, which is computed once."""

STRUCTURE_SIZE = MAX_COORDINATION + sum(map(len, MOTIFS.values()))

PROPERTIES = (
    "Number", "MendeleevNumber", "AtomicWeight", "MeltingT", "Column", "Row", "CovalentRadius", "Electronegativity",
    "NsValence", "NpValence", "NdValence", "NfValence", "NValence", "NsUnfilled", "NpUnfilled", "NdUnfilled",
    "NfUnfilled", "NUnfilled", "GSvolume_pa", "GSbandgap", "GSmagmom", "SpaceGroupNumber",
)  # fmt: skip
"""Elemental properties of the preset ``magpie``; of each minimum, maximum, range, mean, mean deviation and mode."""

COMPOSITION_SIZE = 6 * len(PROPERTIES)

Vector = NDArray[np.float64]


def structure_fingerprint(crystal: Crystal) -> Vector:
    """Mean over the sites of their local order, shape (`STRUCTURE_SIZE`,), no unit.

    For each coordination number up to 24 the weight that pymatgen's CrystalNN gives it, followed by the
    order parameters of `MOTIFS` times that weight.

    Raises:
        DefectgenError: no neighbours can be found, for example in a crystal with overlapping atoms.
        MemoryError: as it comes; so does ImportError.
    """
    finder, parameters = _order()
    structure = crystal.to_structure()
    total = np.zeros(STRUCTURE_SIZE)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # CrystalNN wants oxidation states, which CDVAE does not give it
            for index, count in _distinct_sites(crystal).items():
                total += count * _site_fingerprint(finder, parameters, structure, index)
    except (MemoryError, ImportError):  # of this moment, not of this crystal
        raise
    except Exception as error:  # geometry libraries raise nearly anything on impossible crystals
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DefectgenError(f"no structural fingerprint ({reason:.80})") from error
    if not np.isfinite(total).all():
        raise DefectgenError("no structural fingerprint (not finite)")
    return np.asarray(total / len(structure))


def _distinct_sites(crystal: Crystal) -> Mapping[int, int]:
    """One site of each kind under the crystal's symmetry, with how many of the kind there are."""
    import spglib

    lattice = crystal.to_structure().lattice.matrix.tolist()
    numbers = [ELEMENTS.index(symbol) + 1 for symbol in crystal.species]
    found = spglib.get_symmetry_dataset((lattice, crystal.fractional, numbers), symprec=SITE_ANGSTROM)
    if found is None:
        return dict.fromkeys(range(len(numbers)), 1)
    kinds, counts = np.unique(found.equivalent_atoms, return_counts=True)
    return {int(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}


def _site_fingerprint(finder: Any, parameters: Mapping[tuple[int, str], Any], structure: Any, index: int) -> Vector:
    found = finder.get_nn_data(structure, index)
    values: list[float] = []
    for number in range(1, MAX_COORDINATION + 1):
        weight = float(found.cn_weights.get(number, 0.0))
        values.append(weight)
        sites = [structure[index], *(neighbour["site"] for neighbour in found.cn_nninfo.get(number, ()))]
        around = list(range(1, len(sites)))
        for motif in MOTIFS.get(number, ()):
            order = parameters[number, motif].get_order_parameters(sites, 0, indices_neighs=around)[0] if weight else 0
            values.append(weight * float(order or 0.0))
    return np.array(values)


@lru_cache(maxsize=1)
def _order() -> tuple[Any, Mapping[tuple[int, str], Any]]:
    from pymatgen.analysis import local_env

    finder: Any = local_env.CrystalNN
    order: Any = local_env.LocalStructOrderParams
    known: Any = local_env.cn_opt_params
    parameters = {}  # one object a motif: several in one object change each other's values
    for number, motifs in MOTIFS.items():
        for motif in motifs:
            kind, *options = known.get(number, {}).get(motif, [motif])
            parameters[number, motif] = order([kind], parameters=[*options, None][:1])
    return finder(), parameters


def composition_fingerprint(crystal: Crystal) -> Vector:
    """Statistics of the elements' properties weighted by their share, shape (`COMPOSITION_SIZE`,), raw units.

    Not a number where a property of one of the elements is unknown.

    Raises:
        DefectgenError: the extra ``bulk`` is not installed.
    """
    table = _magpie()
    rows = table[[ELEMENTS.index(symbol) for symbol in crystal.elements]]
    weights = np.array([crystal.species.count(symbol) for symbol in crystal.elements], dtype=float)
    weights /= weights.sum()
    mean = weights @ rows
    low, high = rows.min(axis=0), rows.max(axis=0)
    deviation = weights @ np.abs(rows - mean)
    mode = rows[np.isclose(weights, weights.max())].min(axis=0)
    return np.stack([low, high, high - low, mean, deviation, mode], axis=1).ravel()


def scale_composition(fingerprints: Vector) -> Vector:
    """Composition fingerprints, shape (n, `COMPOSITION_SIZE`), in standard deviations of MP-20; unknown ones 0.

    Means and deviations are those over 2,573 crystals of MP-20, so that distances mean the same whatever is
    evaluated (CDVAE has constants of its own for the same purpose).
    """
    scale = read_object(Path(__file__).with_name("magpie_scale.json"))
    scaled = (fingerprints - np.array(scale["mean"])) / np.array(scale["deviation"])
    return np.where(np.isnan(scaled), 0.0, scaled)


@lru_cache(maxsize=1)
def _magpie() -> Vector:
    """Properties of the elements, shape (number of elements, number of properties)."""
    found = importlib.util.find_spec("matminer")
    if found is None or not found.submodule_search_locations:
        raise DefectgenError(
            "composition fingerprints need the extra bulk.", 'Install it: pip install "defectgen[bulk]".'
        )
    folder = Path(found.submodule_search_locations[0], "utils", "data_files", "magpie_elementdata")
    columns = [_column(folder / f"{name}.table") for name in PROPERTIES]
    return np.array(columns).T


def _column(path: Path) -> list[float]:
    """One property of all elements; the file has a line an element in the order of the periodic table."""
    lines = path.read_text(encoding="utf-8").splitlines()
    values = []
    for index in range(len(ELEMENTS)):
        try:
            values.append(float(lines[index]))
        except (ValueError, IndexError):
            values.append(float("nan"))
    return values
