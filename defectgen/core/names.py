"""Names of point defects and complexes: ``v_S``, ``Se_S``, ``v_Mo+2Se_S``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from defectgen.core.host import VACANCY

PRISTINE = "pristine"


def defect_name(element: str, species: str) -> str:
    """Name of one point defect: ``v_S`` for a vacancy, ``Se_S`` for Se on an S site."""
    return f"v_{element}" if species == VACANCY else f"{species}_{element}"


def defect_label(kinds: Mapping[tuple[str, str], int], elements: Sequence[str]) -> str:
    """Name of a complex: kinds in the order of the host's elements, vacancies first, multiplicity kept.

    Args:
        kinds: number of each kind (host element, species instead).
        elements: the host's elements in the order of its formula.
    """
    return _label(frozenset(kinds.items()), tuple(elements))


@lru_cache(maxsize=16_384)
def _label(counts: frozenset[tuple[tuple[str, str], int]], elements: tuple[str, ...]) -> str:
    order = sorted(counts, key=lambda entry: (elements.index(entry[0][0]), entry[0][1] != VACANCY, entry[0][1]))
    parts = [(f"{number}" if number > 1 else "") + defect_name(*kind) for kind, number in order if number]
    return "+".join(parts) or PRISTINE


def parse_label(label: str) -> Counter[tuple[str, str]]:
    """The inverse of `defect_label`.

    Raises:
        ValueError: not a defect label.
    """
    kinds: Counter[tuple[str, str]] = Counter()
    if label == PRISTINE:
        return kinds
    for part in map(str.strip, label.split("+")):
        match = re.fullmatch(r"(\d*)(v|[A-Z][a-z]?)_([A-Z][a-z]?)", part)
        if match is None:
            raise ValueError(f"got defect {part!r}, expected e.g. v_S, Se_S or 2Se_S")
        species = VACANCY if match[2] == "v" else match[2]
        kinds[match[3], species] += int(match[1] or 1)
    return kinds


def vacancy_hint(name: str) -> str:
    """What to say of a defect such as ``V_S``, meant as a vacancy and read as vanadium; empty for others."""
    return f"V is vanadium, a vacancy is v{name[1:]}. " if name.startswith("V_") else ""


def kroger_vink(kinds: Mapping[tuple[str, str], int], elements: Sequence[str]) -> str:
    """The complex in Kroger-Vink notation of neutral defects, with Unicode marks: ``V_Mo^x``."""
    order = sorted(kinds, key=lambda kind: (elements.index(kind[0]), kind[1] != VACANCY, kind[1]))
    parts = []
    for element, species in order:
        count = kinds[element, species]
        name = f"{'V' if species == VACANCY else species}_{element}\u00d7"
        parts.append(f"{count} {name}" if count > 1 else name)
    return " + ".join(parts) or PRISTINE


def short_text(text: str, width: int = 60) -> str:
    """Text that fits in a line; what is longer is cut in the middle."""
    text = " ".join(text.split())
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]}...{text[-half:]}"
