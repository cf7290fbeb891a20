"""Bulk crystals as text: the string of a crystal, the prompts around it, and the way back.

The form is that of Gruver et al. 2024 (arXiv:2402.04379, section 4): lengths with one decimal,
angles as integers, fractional coordinates with two digits, each element and its coordinates on
separate lines. All lines but the last end in a line break. A style may write the positions in
angstrom instead (appendix A.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from defectgen.core.crystal import ELEMENTS, Crystal, Triple, volume_fraction, wrap
from defectgen.errors import UsageError
from defectgen.tasks.bulk.prompts import OURS, PromptStyle
from defectgen.tasks.numbers import format_number
from defectgen.tasks.parsing import MASK, ParseError

BULK_PROMPT_VERSION = 1
"""Raised whenever a prompt or a completion would read differently."""

SPACEGROUPS = range(1, 231)

CONDITIONS = tuple(OURS.sentences)
"""What a generation prompt can state."""

GENERATION_START = "Below is a description of a bulk material."
GENERATION_END = (
    "Generate a description of the lengths and angles of the lattice vectors and then the element type and "
    "coordinates for each atom within the lattice:\n"
)
INFILL_START = (
    f'Below is a partial description of a bulk material where one element has been replaced with the string "{MASK}":\n'
)
INFILL_END = f"\nGenerate an element that could replace {MASK} in the bulk material:\n"

_NUMBER = re.compile(r"\d{1,4}(\.\d{1,8})?")
_SIGNED = re.compile(r"-?\d{1,4}(\.\d{1,8})?")


def write_crystal(crystal: Crystal, style: PromptStyle = OURS) -> str:
    """The crystal as text, e.g. ``4.2 4.2 4.2\\n90 90 90\\nNa\\n0.00 0.00 0.00\\nCl\\n0.50 0.50 0.50``."""
    return _write(crystal, crystal.species, style)


def _write(crystal: Crystal, symbols: tuple[str, ...], style: PromptStyle) -> str:
    angles = [math.floor(angle + 1e-6) if style.cut_angles else angle for angle in crystal.angles]
    lines = [
        " ".join(format_number(length, 1) for length in crystal.lengths),
        " ".join(format_number(angle, 0) for angle in angles),
    ]
    if style.absolute:  # in the cell as it is written, so that they read back to the same shares of it
        vectors = _vectors(_numbers(lines[0], "three lengths"), _numbers(lines[1], "three angles"))
        places = [[wrap(x) for x in xyz] for xyz in crystal.fractional] @ vectors
    else:  # 0.996 is 0.00 of the next cell, which is the same place
        places = np.array([[wrap(round(wrap(x), 2)) for x in xyz] for xyz in crystal.fractional])
    for symbol, xyz in zip(symbols, places.tolist(), strict=True):
        lines += [symbol, " ".join(format_number(x, 2) for x in xyz)]
    return "\n".join(lines)


def _vectors(lengths: Triple, angles: Triple) -> np.ndarray[Any, Any]:
    """Lattice vectors as rows, in pymatgen's setting (c along z), in angstrom, shape (3, 3)."""
    from pymatgen.core import Lattice

    return np.asarray(Lattice.from_parameters(*lengths, *angles).matrix)


def parse_crystal(text: str, style: PromptStyle = OURS) -> Crystal:
    """The crystal that a text states; the inverse of `write_crystal`.

    Positions in angstrom may lie outside of the cell; a place at its very border may be written as its image on the
    other side. More decimals than `write_crystal` writes and a coordinate of 1 are understood; white space
    around the text and at the ends of lines is ignored.

    Raises:
        ParseError: says which line is not what it should be.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    if len(lines) < 4 or len(lines) % 2:
        raise ParseError(f"{len(lines)} lines, expected lengths, angles, and two lines for each atom.")
    lengths, angles = _numbers(lines[0], "three lengths"), _numbers(lines[1], "three angles")
    for symbol in lines[2::2]:
        if symbol not in ELEMENTS:
            raise ParseError(f"{symbol[:20]!r} is no element.")
    fractional = [_numbers(line, "three coordinates", signed=style.absolute) for line in lines[3::2]]
    if style.absolute:
        fractional = _shares(fractional, lengths, angles)
    elif outside := [xyz for xyz in fractional if max(xyz) > 1]:
        raise ParseError(f"coordinates {outside[0]}, expected numbers from 0 to 1.")
    wrapped = tuple(cast(Triple, tuple(wrap(x) for x in xyz)) for xyz in fractional)
    try:
        return Crystal(lengths, angles, tuple(lines[2::2]), wrapped)
    except ValueError as error:
        raise ParseError(f"{error}.") from error


def _shares(positions: list[Triple], lengths: Triple, angles: Triple) -> list[Triple]:
    """Positions in angstrom as shares of the lattice vectors.

    Raises:
        ParseError: the angles enclose no volume.
    """
    if min(lengths) <= 0 or not all(0 < angle < 180 for angle in angles) or volume_fraction(angles) < 1e-6:
        raise ParseError(f"lengths {lengths} and angles {angles} enclose no volume.")
    found = (np.array(positions) @ np.linalg.inv(_vectors(lengths, angles))).round(9)  # no -1e-17, which wraps to 1
    return [cast(Triple, tuple(row)) for row in found.tolist()]


def _numbers(line: str, expected: str, *, signed: bool = False) -> Triple:
    words, number = line.split(" "), _SIGNED if signed else _NUMBER
    if len(words) != 3 or not all(number.fullmatch(word) and word.isascii() for word in words):
        raise ParseError(f"{line[:40]!r}, expected {expected}.")
    return float(words[0]), float(words[1]), float(words[2])


def write_generation_prompt(conditions: Mapping[str, object], style: PromptStyle = OURS) -> str:
    """The prompt that asks for a crystal.

    Args:
        conditions: any of ``formula`` (text), ``spacegroup`` (number), ``e_above_hull``,
            ``formation_energy`` (eV/atom) and ``band_gap`` (eV); none asks for any crystal. The
            order of the sentences is that of `CONDITIONS`; where the style puts the formula first, the
            others come as they are given.
        style: of the sentences.

    Raises:
        UsageError: an unknown condition or an impossible value.
    """
    check_conditions(conditions)
    parts = [GENERATION_START]
    keys = sorted(conditions, key=lambda key: key != "formula") if style.formula_first else style.sentences
    for key in keys:
        value = conditions.get(key)
        if value is not None:
            parts.append(style.sentences[key].format(_value(key, value, style)))
    return " ".join([*parts, GENERATION_END])


def check_conditions(conditions: Mapping[str, object]) -> None:
    """Refuse conditions that no crystal can meet; values of None count as absent.

    Raises:
        UsageError: says what came and what was expected.
    """
    for key, value in conditions.items():
        if key not in CONDITIONS:
            raise UsageError(f"unknown condition {key!r}, expected {', '.join(CONDITIONS)}.")
        if value is None:
            continue
        if key == "formula":
            parse_formula(str(value))
        elif key == "spacegroup":
            if isinstance(value, bool) or not isinstance(value, int) or value not in SPACEGROUPS:
                raise UsageError(f"got space group {value}, expected a number from 1 to 230.")
        else:
            number = float(cast(float, value))
            least = float("-inf") if key == "formation_energy" else 0.0
            if not least <= number < float("inf"):
                expected = "a finite number" if key == "formation_energy" else "0 or more"
                raise UsageError(f"got {key} {value}, expected {expected} (eV).")


def parse_formula(text: str) -> dict[str, int]:
    """Counts of a formula by element in lowest terms, e.g. ``{"Li": 1, "Fe": 1, "P": 1, "O": 4}``.

    Raises:
        UsageError: not a formula of elements with whole numbers.
    """
    from pymatgen.core import Composition

    problem = UsageError(f"got formula {text!r}, expected elements with whole numbers, e.g. LiFePO4 or Ca3(PO4)2.")
    symbols = set(re.findall(r"[A-Z][a-z]?", text))
    if not re.fullmatch(r"[A-Za-z0-9()]+", text) or not symbols or not symbols <= set(ELEMENTS):
        raise problem
    try:
        counts = Composition(text, strict=True).get_el_amt_dict()
    except ValueError as error:
        raise problem from error
    if set(counts) != symbols or any(n < 1 or n != int(n) for n in counts.values()):
        raise problem
    divisor = math.gcd(*(int(n) for n in counts.values()))  # also of O2, which pymatgen keeps
    return {element: int(n) // divisor for element, n in counts.items()}


def _value(key: str, value: object, style: PromptStyle) -> str:
    """A condition as prompts write it: formulas reduced and in pymatgen's order, whatever order came in."""
    if key == "spacegroup":
        return str(value)
    if key == "formula":
        from pymatgen.core import Composition

        return str(Composition(parse_formula(str(value))).reduced_formula)
    return style.number(float(cast(float, value)))


def write_infill_prompt(crystal: Crystal, masked: str, style: PromptStyle = OURS) -> str:
    """The prompt that asks for an element: every atom of species `masked` is shown as ``[MASK]``.

    Raises:
        UsageError: there is no such atom.
    """
    if masked not in crystal.species:
        raise UsageError(f"got element {masked!r} to mask, expected one of the crystal: {', '.join(crystal.elements)}.")
    symbols = tuple(MASK if symbol == masked else symbol for symbol in crystal.species)
    return INFILL_START + _write(crystal, symbols, style) + INFILL_END


def write_element(symbol: str, style: PromptStyle = OURS) -> str:
    """The completion of an infill prompt: the symbol, in our style on a line of its own."""
    return f"{symbol}{style.symbol_end}"


def parse_element(text: str) -> str:
    """The element that an infill completion names.

    Raises:
        ParseError: not exactly one symbol of an element.
    """
    symbol = text.strip()
    if symbol not in ELEMENTS:
        raise ParseError(f"{symbol[:20]!r} is no element.")
    return symbol
