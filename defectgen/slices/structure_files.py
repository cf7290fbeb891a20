"""SLICES strings of structure files, and files of the structures that strings stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.core import (
    Configuration,
    NotADecorationError,
    configuration_from_structure,
    get_host,
    host_names,
)
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.folders import MANIFEST, listing, write_folder
from defectgen.io.structures import CIF_SUFFIXES, chosen_files, read_structures
from defectgen.slices.econnn import graph_of_structure
from defectgen.slices.host_graph import graph_of_configuration
from defectgen.slices.quotient_graph import parse_slices
from defectgen.slices.reference_package import ReferencePackage

if TYPE_CHECKING:
    from pymatgen.core import Structure

SAME_CELL_ANGSTROM = 0.01
"""How far cell and atoms may be from a host's to be numbered as its sites."""


@dataclass(frozen=True)
class SlicesOutcome:
    """What became of some items.

    Attributes:
        made: one entry for each that went well.
        problems: one line for each that did not.
        n_items: number of all.
    """

    made: tuple[Any, ...]
    problems: tuple[str, ...]
    n_items: int

    def require_all(self) -> None:
        """Raise a `DefectgenError` that tells of the first problem if there is one."""
        if self.problems:
            more = f" ({len(self.problems)} of {self.n_items} failed.)" if self.n_items > 1 else ""
            raise DefectgenError(self.problems[0] + more)


def encode_files(paths: Sequence[Path]) -> SlicesOutcome:
    """The SLICES strings of the structures in files and folders.

    Returns:
        For each structure a dict: ``file`` (with ``#2`` for the second of several in it), ``host`` (None unless it is
        an unrelaxed decoration of a known host, whose order of sites the string then has), ``space_group``,
        ``n_atoms``, ``n_edges``, ``slices``.

    Raises:
        UsageError: folders without structures only.
        DefectgenError: a path that is neither file nor folder.
    """
    rows, problems = [], []
    items = [(path, item) for path in chosen_files(paths) for item in read_structures(path)]
    for path, item in items:
        try:
            if item.structure is None:
                raise DefectgenError(f"{item.name}: {item.note}.")
            rows.append(_row(item.name, item.structure, path.suffix.lower() in CIF_SUFFIXES))
        except DefectgenError as error:
            problems.append(str(error) if item.name in str(error) else f"{item.name}: {error}")
    return SlicesOutcome(tuple(rows), tuple(problems), len(items))


def decoration_in_its_cell(structure: Structure) -> Configuration | None:
    """The unrelaxed decoration of a known host's own cell that a structure is, or None."""
    for host in map(get_host, host_names()):
        lengths = np.linalg.norm(host.supercell_lattice, axis=1)
        if np.abs(lengths - structure.lattice.abc).max() < SAME_CELL_ANGSTROM:
            try:
                return configuration_from_structure(host, structure, SAME_CELL_ANGSTROM)
            except NotADecorationError:
                continue
    return None


def read_strings(paths: Sequence[Path]) -> list[str]:
    """The SLICES strings in text files, one a line.

    Raises:
        UsageError: there are none, or one that is no SLICES string.
        DefectgenError: a file that cannot be read as text.
    """
    texts: list[str] = []
    for path in paths:
        try:
            texts += [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DefectgenError(f"{path} cannot be read as text.", "Expected a SLICES string a line.") from error
    if not texts:
        raise UsageError("the files hold no SLICES strings.", "Expected a string a line.")
    for text in texts:
        parse_slices(text)
    return texts


def decode_to_files(texts: Sequence[str], folder: Path, package: ReferencePackage) -> SlicesOutcome:
    """Write the structures of SLICES strings as CIF files, numbered and named after their formula, and a manifest.

    Args:
        texts: the strings.
        folder: is made if there is anything to write.
        package: the reference package, which decodes.

    Returns:
        The files.
    """
    made: dict[str, Structure] = {}
    problems = []
    for number, structure in enumerate(package.decode(texts), start=1):
        if isinstance(structure, str):
            problems.append(f"string {number}: {structure}")
        else:
            made[f"{number:04d}-{structure.composition.reduced_formula}.cif"] = structure

    def fill(new: Path) -> None:
        for name, structure in made.items():
            structure.to(str(new / name), fmt="cif")
        about = {"stage": "slices", "strings": len(texts), "files": listing(new)}
        (new / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    if made:
        write_folder(folder, fill)
    return SlicesOutcome(tuple(folder / name for name in made), tuple(problems), len(texts))


def _row(name: str, structure: Structure, is_cif: bool) -> dict[str, Any]:
    if is_cif:  # the order that the reference package gets from pymatgen's reader
        structure = structure.get_sorted_structure()
    found = decoration_in_its_cell(structure)
    graph = graph_of_structure(structure) if found is None else graph_of_configuration(found)
    return {
        "file": name,
        "host": None if found is None else found.host.name,
        "space_group": graph.space_group,
        "n_atoms": len(graph.species),
        "n_edges": len(graph.edges),
        "slices": graph.text(),
    }
