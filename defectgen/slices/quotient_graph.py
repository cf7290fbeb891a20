"""SLICES strings, and the labelled quotient graphs that they write down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from defectgen.errors import DefectgenError

Edge = tuple[int, int, tuple[int, int, int]]
"""First atom, second atom (not before the first), and the cell of the second one."""


@dataclass(frozen=True)
class QuotientGraph:
    """What a SLICES string says.

    Attributes:
        space_group: number 1 to 230, or None where the string has no such block.
        species: element of each atom.
        edges: the bonds, in the order of the string.
    """

    space_group: int | None
    species: tuple[str, ...]
    edges: tuple[Edge, ...]

    def text(self) -> str:
        """The SLICES string; each token is followed by a blank, the last one too."""
        head = [] if self.space_group is None else [space_group_block(self.space_group)]
        bonds = [f"{i} {j} {_label(cell)}" for i, j, cell in self.edges]
        return " ".join([*head, *self.species, *bonds, ""])


def parse_slices(text: str) -> QuotientGraph:
    """The inverse of `QuotientGraph.text`, but for bonds to cells beyond the next ones: a sign means the next one.

    Raises:
        DefectgenError: not a SLICES string of strategy 4.
    """
    match = re.fullmatch(r"((?:[a-z+] |[A-Z]{3} )*?)((?:[A-Z][a-z]? )+)((?:\d+ \d+ [-o+]{3} )*)", f"{text.strip()} ")
    if match is None:
        raise DefectgenError(
            f"got {text.strip()[:40]!r}, which is no SLICES string.",
            "Expected a space-group block, atoms, then edges such as '0 1 oo+'.",
        )
    block, species, tokens = match[1].strip(), tuple(match[2].split()), match[3].split()
    if block and block not in _numbers_of_blocks():
        raise DefectgenError(f"the space-group block {block!r} of the SLICES string is unknown.")
    edges: list[Edge] = []
    for first, second, label in zip(tokens[::3], tokens[1::3], tokens[2::3], strict=True):
        x, y, z = ("-o+".index(sign) - 1 for sign in label)
        edges.append((int(first), int(second), (x, y, z)))
    highest = max((max(i, j) for i, j, _ in edges), default=0)
    if highest >= len(species):
        raise DefectgenError(f"the SLICES string has an edge of atom {highest}, but {len(species)} atoms.")
    return QuotientGraph(_numbers_of_blocks().get(block), species, tuple(edges))


def space_group_block(number: int) -> str:
    """The space-group block of a SLICES string.

    It is the generator string of De Graef and McHenry, Structure of Materials, Cambridge University Press
    (2012), in words: ``+`` or ``o`` for an inversion or none, the number of generators counted back from z,
    a letter and a translation for each of them, and ``+`` with a translation for a second origin, else ``o``.
    """
    from pymatgen.symmetry.groups import SYMM_DATA

    code = next(entry["enc"] for entry in SYMM_DATA["space_group_encoding"].values() if entry["int_number"] == number)
    inversion, generators, rest = "o+"[int(code[0])], chr(ord("z") - int(code[1])), code[2:]
    words = re.findall(r"[a-z]|[A-Z]{3}|[01]", rest)
    return " ".join([inversion, generators, *({"0": "o", "1": "+"}.get(word, word) for word in words)])


@cache
def _numbers_of_blocks() -> dict[str, int]:
    return {space_group_block(number): number for number in range(1, 231)}


@cache
def _label(cell: tuple[int, int, int]) -> str:
    return "".join("o" if n == 0 else "+" if n > 0 else "-" for n in cell)
