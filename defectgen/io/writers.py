"""The one table of output formats: CIF, POSCAR, extended XYZ, ASE's database and zip, and what others register.

CIF and POSCAR of a configuration are written here and not by pymatgen, whose writers take 15 to 35 ms a structure;
these take less than one. Both hold every coordinate with 16 digits, so that it is read back as the number it was.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from defectgen.core.configuration import Configuration
from defectgen.core.host import VACANCY
from defectgen.core.registry import Registry, breaks, require_members
from defectgen.errors import UsageError
from defectgen.io.files import write_whole

if TYPE_CHECKING:
    from pymatgen.core import Structure

Atom = tuple[str, int]
"""Element and site."""

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip: the same structures give the same bytes."""


@dataclass(frozen=True)
class OutputStructure:
    """A structure to write.

    Attributes:
        name: stem of its file, or its name within a file of several.
        structure: a configuration, which is written unrelaxed, or atoms as they are.
        values: numbers and texts that go with it, where a format has a place for them.
    """

    name: str
    structure: Configuration | Structure
    values: Mapping[str, float | str] = field(default_factory=dict)

    def atoms(self) -> Structure:
        """As a pymatgen structure; of a configuration, its unrelaxed supercell."""
        return self.structure.to_structure() if isinstance(self.structure, Configuration) else self.structure


@runtime_checkable
class StructureWriter(Protocol):
    """Writes structures in one format.

    Attributes:
        suffix: of its files, with the dot.
        several: whether one file holds any number of structures; if not, `write` gets one.
    """

    @property
    def suffix(self) -> str: ...

    @property
    def several(self) -> bool: ...

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        """Write a file that does not exist yet.

        Raises:
            OSError: it cannot be written.
        """
        ...


@dataclass(frozen=True)
class _Text:
    """A format of one structure a file."""

    suffix: str
    of_configuration: Callable[[Configuration], str]
    form: Literal["cif", "poscar"]
    """As pymatgen calls it."""
    several: bool = False

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        (item,) = structures
        path.write_text(self.text(item.structure), encoding="utf-8", newline="\n")

    def text(self, structure: Configuration | Structure) -> str:
        if isinstance(structure, Configuration):
            return self.of_configuration(structure)
        return str(structure.to(fmt=self.form))


@dataclass(frozen=True)
class _ExtendedXyz:
    """A frame a structure; name and values are in its second line."""

    suffix: str = ".extxyz"
    several: bool = True

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        from ase.io import write

        write(path, [_ase_atoms(item) for item in structures], format="extxyz")


@dataclass(frozen=True)
class _Database:
    """ASE's database, a row a structure; name and values are its key-value pairs."""

    suffix: str = ".db"
    several: bool = True

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        from ase.db import connect

        database_at: Any = connect  # without types
        with database_at(path, type="db", use_lock_file=False) as database:
            for item in structures:
                database.write(_ase_atoms(item, info=False), name=item.name, data={"values": dict(item.values)})


@dataclass(frozen=True)
class _Zip:
    """A CIF a structure in a zip file."""

    suffix: str = ".zip"
    several: bool = True

    def write(self, path: Path, structures: Sequence[OutputStructure]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for item in structures:
                info = zipfile.ZipInfo(f"{item.name}{_CIF.suffix}", ZIP_DATE)
                archive.writestr(info, _CIF.text(item.structure), zipfile.ZIP_DEFLATED)


def cif_text(configuration: Configuration) -> str:
    """The unrelaxed supercell as a CIF in P1, atoms grouped by element; lengths in angstrom."""
    lattice = configuration.host.supercell_lattice
    lengths = np.linalg.norm(lattice, axis=1)
    angles = [
        float(np.degrees(np.arccos(np.clip(lattice[i] @ lattice[j] / (lengths[i] * lengths[j]), -1.0, 1.0))))
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    cell = [f"_cell_length_{axis} {length:.12f}" for axis, length in zip("abc", lengths, strict=True)]
    cell += [f"_cell_angle_{name} {angle:.10f}" for name, angle in zip(("alpha", "beta", "gamma"), angles, strict=True)]
    frac = configuration.host.site_frac_coords
    atoms = []
    numbers: Counter[str] = Counter()
    for element, site in _grouped_atoms(configuration):
        numbers[element] += 1
        atoms.append(f"{element} {element}{numbers[element]} {_numbers(frac[site])} 1")
    return "\n".join(
        [
            f"# {comment(configuration)}",
            f"data_{configuration.formula}",
            f"_chemical_formula_sum '{' '.join(f'{element}{count}' for element, count in numbers.items())}'",
            *cell,
            "_space_group_name_H-M_alt 'P 1'",
            "_space_group_IT_number 1",
            "loop_",
            "_space_group_symop_id",
            "_space_group_symop_operation_xyz",
            "1 'x, y, z'",
            "loop_",
            "_atom_site_type_symbol",
            "_atom_site_label",
            "_atom_site_fract_x",
            "_atom_site_fract_y",
            "_atom_site_fract_z",
            "_atom_site_occupancy",
            *atoms,
            "",
        ]
    )


def poscar_text(configuration: Configuration) -> str:
    """The unrelaxed supercell as a POSCAR (VASP 5, direct coordinates), atoms grouped by element."""
    frac = configuration.host.site_frac_coords
    atoms = _grouped_atoms(configuration)
    counts = Counter(element for element, _ in atoms)
    return "\n".join(
        [
            comment(configuration),
            "1.0",
            *(_numbers(row) for row in configuration.host.supercell_lattice),
            " ".join(counts),
            " ".join(str(count) for count in counts.values()),
            "Direct",
            *(_numbers(frac[site]) for _, site in atoms),
            "",
        ]
    )


def comment(configuration: Configuration) -> str:
    """One line that names the structure: host, supercell, label and key."""
    host = configuration.host
    return f"{host.name} {host.size} {configuration.label} {configuration.key}".rstrip()


_CIF = _Text(".cif", cif_text, "cif")
_POSCAR = _Text(".vasp", poscar_text, "poscar")


def _check(name: str, writer: StructureWriter) -> None:
    if name.lower() != name:
        raise UsageError(f"got the name {name!r} of a format, expected lower-case letters, digits and dashes.")
    require_members("format", name, writer, StructureWriter)
    if not isinstance(writer.suffix, str) or not writer.suffix.startswith("."):
        raise breaks("format", name, f"its suffix is {writer.suffix!r}, expected e.g. '.{name}'")


WRITERS: Registry[StructureWriter] = Registry("format", "formats", _check)
WRITERS.built_in(
    {
        "cif": _CIF,
        "poscar": _POSCAR,
        "vasp": _POSCAR,
        "extxyz": _ExtendedXyz(),
        "db": _Database(),
        "zip": _Zip(),
    }
)


def register_format(name: str, writer: StructureWriter) -> None:
    """Add an output format.

    Args:
        name: by which commands and functions call it: lower-case letters, digits and dashes.
        writer: see `StructureWriter`.

    Raises:
        UsageError: a name that is taken or of another form, or a writer that breaks the protocol.
    """
    WRITERS.register(name, writer)


def format_names() -> tuple[str, ...]:
    """All output formats by name."""
    return tuple(WRITERS)


def writer_of(name: str) -> StructureWriter:
    """The writer of a format.

    Raises:
        UsageError: no such format; lists those that there are.
    """
    return WRITERS.find(name)


def format_list(text: str) -> tuple[str, ...]:
    """Formats from text such as ``cif,extxyz``.

    Raises:
        UsageError: none, or an unknown one.
    """
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"got {text!r}, expected one or more formats.", f"Some of {', '.join(WRITERS)}.")
    for name in names:
        writer_of(name)
    return names


def format_of(path: Path) -> str | None:
    """The format whose suffix a file's name has, or None."""
    return next((name for name, writer in WRITERS.items() if path.suffix.lower() == writer.suffix), None)


def write_structures(
    target: Path,
    structures: Mapping[str, Configuration | Structure] | Sequence[OutputStructure],
    formats: Sequence[str] | None = None,
) -> list[Path]:
    """Write structures to a file, or to a folder in several formats.

    Args:
        target: a file by its suffix, if no formats are named; else a folder.
        structures: by name, or with values of their own; names must differ.
        formats: some of `format_names`. A format of one structure a file gives a file for each, any other the file
            ``structures`` with its suffix.

    Returns:
        The files, each complete.

    Raises:
        UsageError: an unknown format or suffix, no structures, two of one name, or several for a file of one.
        DefectgenError: a file cannot be written.
    """
    items = (
        [OutputStructure(name, item) for name, item in structures.items()]
        if isinstance(structures, Mapping)
        else list(structures)
    )
    if not items:
        raise UsageError("got no structures to write, expected at least one.")
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise UsageError(f"two structures have the name {twice[0]}, expected different ones.")
    if formats is None:
        name = format_of(target)
        if name is None:
            suffixes = dict.fromkeys(writer.suffix for writer in WRITERS.values())
            raise UsageError(f"{target} has no known suffix.", f"Expected one of {', '.join(suffixes)}.")
        writer = writer_of(name)
        if len(items) > 1 and not writer.several:
            raise UsageError(f"{target} holds one structure, got {len(items)}.", "Name a folder with formats=[...].")
        write_whole(target, lambda part: writer.write(part, items))
        return [target]
    written = []
    for writer in {id(found): found for found in map(writer_of, formats)}.values():
        groups = [("structures", items)] if writer.several else [(item.name, [item]) for item in items]
        for stem, group in groups:
            path = target / f"{stem}{writer.suffix}"
            write_whole(path, lambda part, w=writer, g=group: w.write(part, g))  # type: ignore[misc]
            written.append(path)
    return written


def _ase_atoms(item: OutputStructure, info: bool = True) -> Any:
    from ase import Atoms

    structure = item.atoms()
    symbols = [site.specie.symbol for site in structure]
    about = {"name": item.name, **item.values} if info else {}
    return Atoms(symbols, positions=structure.cart_coords, cell=structure.lattice.matrix, pbc=True, info=about)


def _grouped_atoms(configuration: Configuration) -> list[Atom]:
    """All atoms: the host's elements first, each element in one block, sites in order within."""
    elements = configuration.host.elements
    atoms = [(species, site) for site, species in enumerate(configuration.species) if species != VACANCY]
    return sorted(atoms, key=lambda atom: (elements.index(atom[0]) if atom[0] in elements else len(elements), atom))


def _numbers(values: np.typing.NDArray[np.float64]) -> str:
    return " ".join(f"{float(value):.16f}" for value in values)
