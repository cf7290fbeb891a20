"""The atoms in the text of a CIF: one reader, fast for files in P1, with pymatgen where symmetry must be applied."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defectgen.core.crystal import SYMBOLS, Crystal, volume_fraction, wrap
from defectgen.errors import DefectgenError
from defectgen.io.stated_group import contradicted_group, named_groups

if TYPE_CHECKING:
    from pymatgen.core import Structure

MERGE_FRACTION = 1e-4
"""Two atoms whose fractional coordinates all differ by less are one atom written twice."""

IMAGES_ANGSTROM = 0.5
"""Nearest that symmetry operations may put two atoms."""

COARSE_ANGSTROM = 0.05
"""Coordinates with two decimals that leave more than this open are too coarse to be read."""

MANY_DECIMALS = 16
"""Of coordinates that no text was read for."""

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_FRACTIONS = ("fract_x", "fract_y", "fract_z")
_OPERATIONS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
)
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:\d*[+-])?")


class CifError(DefectgenError):
    """Text that is no CIF of one ordered crystal; the message is the reason alone."""


@dataclass(frozen=True)
class CifAtoms:
    """All atoms of the cell in a CIF, in the order of the file if it is in P1.

    Attributes:
        lengths: of a, b, c in angstrom.
        angles: alpha, beta, gamma in degrees.
        species: element symbols, shape (n,).
        fractional: coordinates as the file has them, shape (n, 3).
        warnings: what the reader took for granted.
        stated: sum formula that the file states, as it is written; empty if none.
        units: formula units in the cell that it states; None if none.
        groups: space groups that it names, numbers and symbols.
        expanded: whether symmetry operations made some of the atoms, or a space group is named.
        decimals: most decimals of a coordinate.
    """

    lengths: tuple[float, float, float]
    angles: tuple[float, float, float]
    species: tuple[str, ...]
    fractional: NDArray[np.float64]
    warnings: tuple[str, ...] = ()
    stated: str = ""
    units: int | None = None
    groups: tuple[str, ...] = ()
    expanded: bool = False
    decimals: int = MANY_DECIMALS

    def lattice(self) -> NDArray[np.float64]:
        """Rows a, b, c in angstrom: a along x, b in the plane of x and y; shape (3, 3)."""
        import gemmi

        return np.array(gemmi.UnitCell(*self.lengths, *self.angles).orth.mat.tolist()).T

    def structure(self) -> Structure:
        """As a pymatgen structure."""
        from pymatgen.core import Lattice, Structure

        return Structure(Lattice.from_parameters(*self.lengths, *self.angles), list(self.species), self.fractional)

    def crystal(self) -> Crystal:
        """As a crystal, its fractional coordinates within [0, 1).

        Raises:
            CifError: a cell without volume.
        """
        positions = tuple((wrap(x), wrap(y), wrap(z)) for x, y, z in self.fractional.tolist())
        try:
            return Crystal(self.lengths, self.angles, self.species, positions)
        except ValueError as error:
            raise CifError(str(error)) from error


def crystal_from_cif(text: str) -> Crystal:
    """The crystal in the text of a CIF, see `atoms_from_cif`, unchecked: atoms may lie on one place.

    Raises:
        CifError: see `atoms_from_cif`, or a cell without volume.
    """
    return atoms_from_cif(text).crystal()


def atoms_from_cif(text: str) -> CifAtoms:
    """All atoms of the cell in the text of a CIF.

    A file in P1, as Materials Project, MP-20 and 2DMD write it, is read directly, and so is one that says nothing of
    its symmetry; one with symmetry operations goes through pymatgen, which costs a hundred times as much.

    Raises:
        CifError: no or several crystals, an unknown element, partial occupancy, no cell or position, operations
            that cannot be read or contradict the formula.
    """
    import gemmi

    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError, IndexError) as error:
        raise CifError(f"not a CIF of one crystal ({_parser_reason(error)})") from error
    blocks = list(document)
    if len(blocks) > 1:
        blocks = [block for block in document if len(block.find_values("_atom_site_fract_x"))]
        if len(blocks) > 1 or not document:
            raise CifError(f"not a CIF of one crystal ({len(blocks)} of {len(document)} blocks have atoms)")
    if not blocks and len(document) > 1:
        raise CifError("no atoms with fractional coordinates")
    if not blocks:
        raise CifError("not a CIF of one crystal (no data block)")
    block = blocks[0]
    if not len(block.find_values("_atom_site_fract_x")):
        raise CifError("no atoms with fractional coordinates")
    operations = _operations(block)
    named = bool(named_groups(block))
    if len(operations) > 1 or (not operations and named):
        return _with_statements(block, _with_symmetry(block), expanded=True)
    atoms = _with_statements(block, _read_p1(block), expanded=named)
    if named:
        if not atoms.stated:
            raise CifError(
                "names a space group, but has only the operation x,y,z and no formula that tells whether all atoms are "
                "there; expected all operations, or the space group P 1"
            )
        _check_formula(atoms, "has only the operation x,y,z and the atoms")
    return atoms


def _parser_reason(error: Exception) -> str:
    """What gemmi says, with the line in words: it calls the text ``string`` and adds column and byte."""
    text = re.sub(r"^string:(\d+)(:\d+\(\d+\))?", r"line \1", " ".join(str(error).split()))
    return f"{text.removesuffix(' _*'):.100}"


def _with_statements(block: Any, atoms: CifAtoms, *, expanded: bool) -> CifAtoms:
    """The atoms with what the file says of them."""
    import gemmi

    formula = gemmi.cif.as_string(block.find_value("_chemical_formula_sum") or "")
    units = gemmi.cif.as_string(block.find_value("_cell_formula_units_Z") or "")
    texts = "\0".join(text for name in _FRACTIONS for text in block.find_values(f"_atom_site_{name}"))
    decimals = max(map(len, re.findall(r"\.([^(\0]*)", texts)), default=0)
    number = int(units) if units.isdecimal() and len(units) < 10 else None
    return replace(
        atoms,
        stated=formula if formula not in ("?", ".") else "",
        units=number or None,
        groups=named_groups(block),
        expanded=expanded,
        decimals=decimals,
    )


def _operations(block: Any) -> set[Any]:
    """The symmetry operations written out; empty if there are none."""
    import gemmi

    for tag in _OPERATIONS:
        operations = list(block.find_values(tag))
        if operations:
            try:
                return {gemmi.Op(gemmi.cif.as_string(item)) for item in operations}
            except (ValueError, RuntimeError) as error:
                raise CifError(f"unreadable symmetry operation {operations[0]}") from error
    return set()


def _check_formula(atoms: CifAtoms, what: str = "") -> None:
    """Refuse a file whose atoms are not those of the formula and the number of formula units that it states."""
    found = re.findall(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?", _in_symbols(atoms.stated))
    stated = {name: float(count or 1) for name, count in found}
    stated = {name: count for name, count in stated.items() if count}
    if not stated:
        return
    what = what or ("its operations and atoms give" if atoms.expanded else "its atoms are")
    counts = Counter(atoms.species)
    ratios = {counts[name] / count for name, count in stated.items()}
    got = " ".join(f"{name}{count}" for name, count in sorted(counts.items()))
    if stated.keys() != counts.keys() or max(ratios) - min(ratios) > 1e-3 * max(ratios):
        where = "names a space group and" if atoms.expanded else "states"
        raise CifError(f"{where} the formula {atoms.stated}, but {what} {got}; expected all operations or all atoms")
    ratio = max(ratios)
    whole = math.gcd(*(round(count) for count in stated.values()))  # some programs state the formula of the whole cell
    if atoms.units and abs(ratio - atoms.units) > 1e-3 and (ratio != 1 or whole % atoms.units):
        raise CifError(
            f"states {atoms.units} formula units of {atoms.stated}, but {what} {got}; "
            "expected all operations or all atoms"
        )


def _in_symbols(formula: str) -> str:
    """A formula in capitals, ``W1 SE2``, with elements as they are written; any other as it is."""
    return " ".join(word.capitalize() for word in formula.split()) if formula.isupper() and " " in formula else formula


def _check_precision(atoms: CifAtoms) -> None:
    """Refuse coordinates with so few decimals that they do not say where the atoms are."""
    if atoms.decimals != 2:
        return  # one or none: special positions, which are exact
    hundredths = np.rint(atoms.fractional * 100).astype(np.int64)
    rounded = (hundredths % 5 != 0).any(axis=0) if not atoms.expanded else np.ones(3, dtype=bool)
    error = 0.5 * 10.0**-atoms.decimals * np.array(atoms.lengths) * rounded
    if error.max() > COARSE_ANGSTROM:
        raise CifError(
            f"its coordinates have {atoms.decimals} decimals, which places atoms to {error.max():.2f} angstrom; "
            f"expected {COARSE_ANGSTROM:g} or better"
        )


def _read_p1(block: Any) -> CifAtoms:
    lengths, angles = _cell(block)
    labels = list(block.find_values("_atom_site_type_symbol")) or list(block.find_values("_atom_site_label"))
    columns = [list(block.find_values(f"_atom_site_{name}")) for name in _FRACTIONS]
    if not labels or not all(columns):
        raise CifError("no atoms")
    if {len(labels)} != {len(column) for column in columns}:
        raise CifError("not as many positions as atoms")
    species = _species(labels)
    positions = np.array([_numbers(column) for column in columns]).T
    lost = ~np.isfinite(positions).all(axis=1)
    if lost.any():
        atom = int(lost.argmax())
        raise CifError(f"no finite position for atom {atom + 1} ({species[atom]})")
    _check_occupancy(block, species)
    return CifAtoms(lengths, angles, species, positions)


def _cell(block: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    a, b, c, alpha, beta, gamma = _numbers([block.find_value(f"_cell_{name}") or "?" for name in _CELL]).tolist()
    if not all(map(math.isfinite, (a, b, c, alpha, beta, gamma))):
        raise CifError("no cell")
    return (a, b, c), (alpha, beta, gamma)


def _numbers(texts: list[str]) -> NDArray[np.float64]:
    """Numbers of a CIF, with or without their errors in brackets; what is none is NaN."""
    import gemmi

    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        return np.array([gemmi.cif.as_number(text) for text in texts])


def _species(labels: list[str]) -> tuple[str, ...]:
    import gemmi

    known = {label: _element(gemmi.cif.as_string(label)) for label in dict.fromkeys(labels)}
    return tuple(known[label] for label in labels)


def _check_occupancy(block: Any, species: tuple[str, ...]) -> None:
    texts = list(block.find_values("_atom_site_occupancy"))
    once = list(set(texts) - {".", "?"})
    partial = {text for text, occupancy in zip(once, _numbers(once).tolist(), strict=True) if occupancy != 1}
    if partial:
        number = next(number for number, text in enumerate(texts) if text in partial)
        name = species[number] if number < len(species) else "?"
        raise CifError(f"occupancy {texts[number]} of atom {number + 1} ({name}), expected 1")


def _element(text: str) -> str:
    """The symbol of an atom type such as ``Fe``, ``Fe3+``, or the label ``Fe12`` or ``FE12``."""
    stem = text.rstrip("0123456789")
    for form in (text, stem, stem.capitalize() if stem.isupper() else stem):
        found = _SYMBOL.fullmatch(form)
        if found is not None and found[1] in SYMBOLS:
            return found[1]
    raise CifError(f"{text!r} is no element")


def _with_symmetry(block: Any) -> CifAtoms:
    """Apply the symmetry of a file with pymatgen."""
    import gemmi
    from pymatgen.core import Structure

    lengths, angles = _cell(block)
    labels = list(block.find_values("_atom_site_type_symbol")) or list(block.find_values("_atom_site_label"))
    _check_occupancy(block, _species(labels))
    alone = gemmi.cif.Document()
    copy = alone.add_copied_block(block)
    occupancies = copy.find_values("_atom_site_occupancy")
    for row, text in enumerate(list(occupancies)):
        if text in (".", "?"):
            occupancies[row] = "1"  # pymatgen leaves out an atom that does not say it
    try:
        with collected_remarks() as remarks:
            structure = Structure.from_str(alone.as_string(), fmt="cif")
    except Exception as error:  # a damaged file raises nearly anything there
        raise CifError(f"unreadable ({type(error).__name__}: {' '.join(str(error).split()):.100})") from error
    try:
        crystal = Crystal.from_structure(structure)
    except DefectgenError as error:
        raise CifError(str(error).rstrip(".")) from error
    return CifAtoms(lengths, angles, crystal.species, np.array(crystal.fractional), tuple(remarks))


@contextmanager
def collected_remarks() -> Iterator[list[str]]:
    """Collect what libraries remark on a file (Python's warnings): a list that is filled in the end, none twice."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield remarks
    of_the_file = [str(item.message) for item in caught if issubclass(item.category, UserWarning)]
    lines = (" ".join(line.split()) for message in of_the_file for line in message.splitlines())
    remarks += dict.fromkeys(line for line in lines if line)


def check_positions(atoms: CifAtoms) -> None:
    """Make sure that the atoms are what the file says of them, and that it says where they are.

    Raises:
        CifError: formula, number of formula units or space group are others, symmetry puts two atoms on one place, or
            the coordinates are too coarse.
    """
    _check_formula(atoms)
    if atoms.expanded:
        _check_images(atoms)
    if found := contradicted_group(atoms.groups, atoms.lattice(), atoms.species, atoms.fractional):
        raise CifError(f"{found}; expected the group of the atoms, or P 1")
    _check_precision(atoms)


def check_cell(atoms: CifAtoms) -> None:
    """Make sure that lengths and angles make a cell.

    Raises:
        CifError: they do not.
    """
    if min(atoms.lengths) <= 0:
        raise CifError(f"got lengths {atoms.lengths}, expected more than 0 angstrom")
    if not all(0 < angle < 180 for angle in atoms.angles) or volume_fraction(atoms.angles) < 1e-6:
        raise CifError(f"got angles {atoms.angles}, expected three that enclose a volume")


def _check_images(atoms: CifAtoms) -> None:
    """Refuse symmetry images that nearly coincide: the operations do not fit coordinates as coarse as these."""
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    lattice = atoms.lattice()
    inside = atoms.fractional % 1.0
    shifts = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
    everything = (inside[:, None] + shifts).reshape(-1, 3) @ lattice
    distance, _ = cKDTree(everything).query(inside @ lattice, k=2)
    if (distance[:, 1] < IMAGES_ANGSTROM).any():
        atom = int(distance[:, 1].argmin())
        raise CifError(
            f"its symmetry operations put two atoms ({atoms.species[atom]}) {distance[atom, 1]:.2f} angstrom apart: "
            "the coordinates are too coarse for them"
        )


def shared_place(fractional: NDArray[np.float64]) -> tuple[int, int] | None:
    """The first two atoms that are on one place; None if each has its own."""
    from scipy.spatial import cKDTree

    if len(fractional) < 2:
        return None
    inside = fractional % 1.0
    inside[inside >= 1.0] = 0.0
    pairs = cKDTree(inside, boxsize=1.0).query_pairs(MERGE_FRACTION, p=np.inf)
    return min(pairs) if pairs else None
