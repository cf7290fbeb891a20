"""Hosts from structure files: any 2D crystal can be decorated, not only the six of 2DMD."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.core.host import VACANCY, Host, Rule
from defectgen.core.hosts import get_host
from defectgen.core.slab import BULK_GAP_ANGSTROM, ONE_LAYER, empty_slabs, empty_stretches, heights
from defectgen.core.stored_hosts import by_title
from defectgen.core.symmetry import SYMPREC_ANGSTROM, n_operations
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.database_entries import read_entry, split_entry
from defectgen.io.documents import DocumentError, read_object
from defectgen.io.structures import SEVERAL_SUFFIXES, read_structure

if TYPE_CHECKING:
    from pymatgen.core import Structure

MIN_VACUUM_ANGSTROM = 6.0
"""Least empty height that makes a crystal a layer.

Planes of atoms in a layer lie up to 3 angstrom apart, those of touching layers 3 to 4: what is farther apart than this
are separate layers.
"""

MIN_DISTANCE_ANGSTROM = 0.5
"""Atoms of a crystal are farther apart."""

MAX_BASIS = 26
"""Most atoms of a unit cell: each has a letter in the names of sites."""


CARRIERS = ("surrogate.json", "slices_catboost.json", "defectgen.json", "manifest.json")
"""Files that carry hosts, in folders of models, records and design runs."""


NOISE_ANGSTROM = 10 * SYMPREC_ANGSTROM
"""A host that is this symmetric, but not to within `SYMPREC_ANGSTROM`, is taken for one with rounded coordinates."""

LARGEST_TOLERANCE_ANGSTROM = 1.0


def find_host(
    name: str,
    supercell: tuple[int, int] | None = None,
    rules: Sequence[Rule] = (),
    symmetry_tolerance_angstrom: float = NOISE_ANGSTROM,
) -> Host:
    """The built-in host of this name, the one in this CIF or POSCAR file, or the one that a folder carries.

    Args:
        name: see `defectgen.core.get_host`; or the path of a file with one unit cell of a layer, or of a folder with a
            model, records or a design run.
        supercell: repetitions in the plane; must be given for a file.
        rules: the allowed defects; by default the host's own, or a vacancy of each element of a file's.
        symmetry_tolerance_angstrom: see `host_from_file`.

    Raises:
        UsageError: unknown host, several hosts, or a rule for an element that it does not have.
        DefectgenError: see `host_from_file` and `stored_hosts`.
    """
    path = Path(name)
    try:
        host = get_host(name, supercell)
    except UsageError:
        if path.is_dir() or path.suffix.lower() == ".json":
            host = _stored_host(path, supercell)
        elif path.suffix or path.is_file() or split_entry(name):
            return host_from_file(path, supercell, rules, symmetry_tolerance_angstrom)
        else:
            raise
    _check_rules(host.name, host.elements, rules)
    return dataclasses.replace(host, rules=tuple(rules)) if rules else host


def stored_hosts(path: Path) -> dict[str, Host]:
    """The hosts that a folder of a model, of records or of a design run carries, by name and size.

    Args:
        path: the folder, or the one of `CARRIERS` in it.

    Raises:
        DefectgenError: it carries none, or a damaged record.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in CARRIERS if (path / name).is_file()), path)
    expected = f"Expected one of {', '.join(CARRIERS)} in it."
    if path.is_file() and path.name not in CARRIERS:
        expected = f"Of a database of layers name the entry: {path}#NAME."
    try:
        values = read_object(file)
    except (OSError, DocumentError) as error:
        raise DefectgenError(f"{path} carries no host.", expected) from error
    records = [values.get("host"), *(part.get("host") for part in values.get("parts", []) if isinstance(part, dict))]
    for key in ("hosts", "host_records"):
        found = values.get(key)
        records += found.values() if isinstance(found, dict) else []
    whole = [record for record in records if isinstance(record, dict) and "lattice" in record]
    if not whole and path.is_file() and path.name not in CARRIERS:
        raise DefectgenError(f"{path} carries no host.", expected)
    if not whole:
        raise DefectgenError(
            f"{file} carries no host: an earlier version wrote it, or another program.",
            "Make it again, or give the host by name or file.",
        )
    return by_title(Host.from_dict(record) for record in whole)


def _stored_host(path: Path, supercell: tuple[int, int] | None) -> Host:
    found = stored_hosts(path)
    chosen = [host for host in found.values() if supercell in (None, host.supercell)]
    if not chosen and supercell is not None:
        size = "{}x{}".format(*supercell)
        raise UsageError(f"{path} carries {', '.join(found)}, not {size}.", "Leave --supercell out, or name another.")
    if len(chosen) != 1:
        raise UsageError(f"{path} carries {len(found)} hosts: {', '.join(found)}.", "Expected one; give its name.")
    return chosen[0]


def host_of_options(host: str | None, supercell: str | None, allow: Sequence[str] | None) -> Host | None:
    """The host that options name, None if they name none.

    Raises:
        UsageError: a supercell or rules without a host, or what is no host.
    """
    if host is None:
        if supercell is not None or allow:
            raise UsageError("--supercell and --allow need --host.", "Name the host, or the file of its unit cell.")
        return None
    return find_host(host, parse_supercell(supercell) if supercell else None, parse_rules(allow or ()))


def _unit_cell(path: Path) -> Structure:
    """The structure of a file, or of the entry of a database that is named."""
    if (entry := split_entry(path)) is not None:
        return read_entry(*entry)
    try:
        return read_structure(path)
    except DefectgenError as error:
        if path.is_file() and path.suffix.lower() in SEVERAL_SUFFIXES:
            raise DefectgenError(str(error.args[0]), f"Name one of its entries: {path}#NAME.") from error
        raise


def host_from_file(
    path: Path,
    supercell: tuple[int, int] | None,
    rules: Sequence[Rule] = (),
    symmetry_tolerance_angstrom: float = NOISE_ANGSTROM,
) -> Host:
    """The host whose unit cell is in a CIF or POSCAR file, or is an entry of a database: ``c2db.db#1MoS2-1``.

    The axis with the vacuum becomes the third one and is made normal to the layer, which changes nothing in it.

    Args:
        path: of the file; ``FILE#ID`` for an entry of a database, see `defectgen.io.database_entries`.
        supercell: repetitions in the plane.
        rules: the allowed defects; by default a vacancy of each element.
        symmetry_tolerance_angstrom: a host that has more symmetry to within this than it has to within
            `SYMPREC_ANGSTROM` is taken for one with rounded coordinates and refused. For a layer with a real, small
            distortion give less than the distortion: it is taken with the symmetry that it has.

    Raises:
        UsageError: no supercell, or a rule for an element that the file does not have.
        DefectgenError: unreadable file, no vacuum, several layers, partial occupancy, too many atoms.
    """
    from pymatgen.core import Lattice

    structure = _unit_cell(path)
    if supercell is None:
        raise UsageError(f"{path} needs the size of its supercell.", "Add e.g. --supercell 8x8.")
    if not structure.is_ordered:
        raise DefectgenError(f"{path} has partially occupied sites, expected one element a site.")
    if len(structure) > MAX_BASIS:
        raise DefectgenError(f"{path} has {len(structure)} atoms, expected a unit cell of at most {MAX_BASIS}.")
    if (
        len(structure) > 1
        and structure.distance_matrix[np.triu_indices(len(structure), 1)].min() < MIN_DISTANCE_ANGSTROM
    ):
        raise DefectgenError(f"{path} has atoms closer than {MIN_DISTANCE_ANGSTROM:g} angstrom, expected a crystal.")
    vacuum = empty_slabs(structure.lattice.matrix, structure.frac_coords)
    normal = int(np.argmax(vacuum))
    if vacuum[normal] < MIN_VACUUM_ANGSTROM:
        bulk = "is a bulk crystal, not a layer: it " if vacuum[normal] < BULK_GAP_ANGSTROM else ""
        raise DefectgenError(
            f"{path} {bulk}has at most {vacuum[normal]:.1f} angstrom of vacuum along an axis, "
            f"expected a layer with at least {MIN_VACUUM_ANGSTROM:g}.",
            ONE_LAYER,
        )
    empty = int((vacuum >= MIN_VACUUM_ANGSTROM).sum())
    if empty > 1:
        raise DefectgenError(
            f"{path} has over {MIN_VACUUM_ANGSTROM:g} angstrom of vacuum along {empty} axes, expected a layer: one."
        )
    height = float(heights(structure.lattice.matrix)[normal])
    gaps, middles = empty_stretches(structure.frac_coords[:, normal])
    _check_one_layer(path, height * gaps)
    order = [(normal + 1) % 3, (normal + 2) % 3, normal]
    middle = float(middles[0])
    a, b, c = structure.lattice.matrix[order]
    cell = Lattice.from_parameters(1, 1, 1, 90, 90, _angle(a, b)).matrix
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    rows = ((length_a, 0.0, 0.0), _on_plane(cell[1] * length_b), (0.0, 0.0, height))
    frac = structure.frac_coords[:, order].copy()
    frac[:, 2] = (frac[:, 2] - middle) % 1.0 + middle - 1.0 * (middle > 0.5)
    plane = np.array([a, b])
    lean = np.linalg.lstsq(plane.T, c, rcond=None)[0]  # what of c lies in the plane, in units of a and b
    frac[:, :2] = (frac[:, :2] + frac[:, 2:] * lean) % 1.0
    if np.linalg.det(structure.lattice.matrix[order]) < 0:
        frac[:, 2] = -frac[:, 2]  # the third axis points down; turned up, not mirrored
    species = tuple(site.specie.symbol for site in structure)
    elements = tuple(dict.fromkeys(species))
    name = structure.composition.reduced_formula
    _check_rules(name, elements, rules)
    host = Host(
        name=name,
        lattice=rows,
        species=species,
        frac_coords=tuple((float(x), float(y), float(z)) for x, y, z in frac),
        supercell=supercell,
        rules=tuple(rules) or tuple(Rule(element, VACANCY) for element in elements),
    )
    if not SYMPREC_ANGSTROM <= symmetry_tolerance_angstrom <= LARGEST_TOLERANCE_ANGSTROM:
        raise UsageError(
            f"got a symmetry tolerance of {symmetry_tolerance_angstrom:g} angstrom, "
            f"expected {SYMPREC_ANGSTROM:g} to {LARGEST_TOLERANCE_ANGSTROM:g}."
        )
    nearly = n_operations(host, symmetry_tolerance_angstrom)
    if nearly > n_operations(host):
        raise DefectgenError(
            f"{path} is symmetric to {symmetry_tolerance_angstrom:g} angstrom only, expected {SYMPREC_ANGSTROM:g}: "
            "equivalent defects would count as different.",
            "Write its coordinates with more decimals, or symmetrize it (e.g. with pymatgen's SpacegroupAnalyzer); "
            f"if the layer is distorted, give --symmetry-tolerance {SYMPREC_ANGSTROM:g} "
            f"(symmetry_tolerance={SYMPREC_ANGSTROM:g}) to take it with the symmetry that it has.",
        )
    return host


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Rules from texts such as ``Mo:W,VAC``: the element, and what may stand in its place.

    Raises:
        UsageError: another form, or a species that is no element.
    """
    from pymatgen.core import Element

    rules: dict[Rule, None] = {}
    for text in texts:
        element, colon, rest = text.partition(":")
        news = [part.strip() for part in rest.split(",") if part.strip()]
        for symbol in (element.strip(), *news):
            if symbol != VACANCY and not Element.is_valid_symbol(symbol):
                raise UsageError(f"rule {text!r}: {symbol!r} is no element.", "Expected e.g. Mo:W,VAC.")
        if not colon or not news or element.strip() in (VACANCY, *news):
            raise UsageError(f"got rule {text!r}, expected an element and what may replace it, e.g. Mo:W,VAC.")
        rules |= dict.fromkeys(Rule(element.strip(), new) for new in news)
    return tuple(rules)


def parse_supercell(text: str) -> tuple[int, int]:
    """Repetitions along a and b from text such as ``8x8``.

    Raises:
        UsageError: another form.
    """
    parts = text.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() and 1 <= int(part) <= 99 for part in parts):
        raise UsageError(f"got supercell {text!r}, expected two numbers from 1 to 99 such as 8x8.")
    return int(parts[0]), int(parts[1])


def _check_rules(name: str, elements: Sequence[str], rules: Sequence[Rule]) -> None:
    for rule in rules:
        if rule.element not in elements:
            raise UsageError(f"{name} has no {rule.element}.", f"Its elements: {', '.join(elements)}.")


def _check_one_layer(path: Path, gaps: NDArray[np.float64]) -> None:
    """Refuse layers with vacuum between them; `gaps` are those along the normal, in angstrom, the longest first."""
    wide = [gap for gap in gaps if gap >= MIN_VACUUM_ANGSTROM]
    if len(wide) > 1:
        raise DefectgenError(
            f"{path} holds {len(wide)} separate layers, {wide[-1]:.1f} angstrom apart, "
            f"expected one layer, or layers that touch (less than {MIN_VACUUM_ANGSTROM:g} angstrom apart).",
            "Keep the atoms of one layer, or close the gap between them.",
        )


def _angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))))


def _on_plane(row: NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(row[0]), float(row[1]), 0.0)
