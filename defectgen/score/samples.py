"""Structure files as samples to score: each matched to the host that it decorates, if any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defectgen.core import Configuration, Host, NotADecorationError, configuration_from_structure
from defectgen.errors import DefectgenError
from defectgen.extras import import_extra
from defectgen.io.structures import atoms_problem, read_structure
from defectgen.one_line import OneLine
from defectgen.score.protocol import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

SUFFIXES = (".cif", ".vasp", ".poscar")
NAMES = ("POSCAR", "CONTCAR")
EXTXYZ_SUFFIXES = (".extxyz", ".xyz")


@dataclass(frozen=True, repr=False)
class NamedSample(OneLine):
    """What one structure of a file is.

    Attributes:
        name: path of the file, with ``#2`` for the second structure of several in it.
        sample: None if the file holds nothing that can be scored.
        note: why it is no sample, or no decoration; empty if it is one.
    """

    name: str
    sample: Sample | None
    note: str = ""


def structure_files(folder: Path) -> list[Path]:
    """CIF, POSCAR and extended XYZ files of a folder, sorted by name; not of the folders in it."""
    known = (*SUFFIXES, *EXTXYZ_SUFFIXES)
    return sorted(
        p for p in folder.iterdir() if p.is_file() and (p.suffix.lower() in known or p.name.startswith(NAMES))
    )


def read_samples(path: Path, hosts: Sequence[Host]) -> list[NamedSample]:
    """The structures of a file, each with the decoration that it shows of one of the hosts.

    A file that cannot be read gives one entry that says why.
    """
    try:
        structures = list(_structures(path))
    except DefectgenError as error:
        return [NamedSample(str(path), None, str(error))]
    if not structures:
        return [NamedSample(str(path), None, f"{path}: holds no structure.")]
    found = []
    for number, structure in enumerate(structures, 1):
        name = str(path) if len(structures) == 1 else f"{path}#{number}"
        problem = atoms_problem(structure)
        if problem:
            found.append(NamedSample(name, None, f"{name}: the structure {problem}."))
            continue
        configuration, note = match_host(structure, hosts)
        found.append(NamedSample(name, Sample(structure, configuration), note))
    return found


def match_host(structure: Structure, hosts: Sequence[Host]) -> tuple[Configuration | None, str]:
    """The decoration that a structure shows of the first host that fits, or why none does."""
    reasons: dict[Host, str] = {}
    for host in hosts:
        try:
            return configuration_from_structure(host, structure), ""
        except NotADecorationError as error:
            reasons[host] = str(error)
    symbols = [site.specie.symbol for site in structure]
    nearest = max(hosts, key=lambda host: sum(symbol in host.elements for symbol in symbols))
    if len(hosts) > 1 and not set(symbols) & set(nearest.elements):
        return None, f"is no decoration of a known host ({', '.join(host.name for host in hosts)})."
    return None, f"is no decoration of {nearest.name} {nearest.size}: {reasons[nearest]}"


def _structures(path: Path) -> Iterator[Structure]:
    if path.suffix.lower() not in EXTXYZ_SUFFIXES:
        yield read_structure(path)
        return
    if not path.is_file():
        raise DefectgenError(f"{path} is not a file.", "Expected a CIF, a POSCAR or an extended XYZ file.")
    reader = import_extra("ase.io", "m3gnet", "reading extended XYZ files")
    from pymatgen.core import Structure

    try:
        frames = reader.read(path, index=":", format="extxyz")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DefectgenError(f"{path}: cannot be read as extended XYZ ({reason:.100}).") from error
    for atoms in frames:
        if abs(atoms.cell.volume) < 1e-6:
            raise DefectgenError(f"{path}: has no cell.", 'Expected Lattice="..." in its second line.')
        symbols = atoms.get_chemical_symbols()
        yield Structure(atoms.cell.array, symbols, atoms.get_positions(), coords_are_cartesian=True)
