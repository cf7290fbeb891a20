"""Which crystals are the same: pymatgen's StructureMatcher within each reduced formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from defectgen.core.crystal import Crystal


def groups(crystals: Sequence[Crystal], advance: Callable[[int], None] = lambda _: None) -> list[int]:
    """For each crystal the index of the first that is the same; its own if there is none before it.

    Two crystals are the same if pymatgen's StructureMatcher with its own tolerances (ltol 0.2, stol 0.3,
    angle 5 degrees, primitive cells, scaled to one volume) matches them (Ong et al., Comput Mater Sci 68, 314
    (2013), doi 10.1016/j.commatsci.2012.10.028).
    """
    matcher = _matcher()
    firsts: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    found = []
    for index, crystal in enumerate(crystals):
        structure = crystal.to_structure()
        same = next((i for i, other in firsts[crystal.formula] if matcher.fit(structure, other)), None)
        if same is None:
            firsts[crystal.formula].append((index, structure))
        found.append(index if same is None else same)
        advance(1)
    return found


def known(
    crystals: Sequence[Crystal], others: Sequence[Crystal], advance: Callable[[int], None] = lambda _: None
) -> list[bool]:
    """Whether each crystal is the same as one of `others`, as in `groups`."""
    matcher = _matcher()
    by_formula: dict[str, list[Any]] = defaultdict(list)
    wanted = {crystal.formula for crystal in crystals}
    for crystal in others:
        if crystal.formula in wanted:
            by_formula[crystal.formula].append(crystal.to_structure())
    found = []
    for crystal in crystals:
        structure = crystal.to_structure()
        found.append(any(matcher.fit(structure, other) for other in by_formula[crystal.formula]))
        advance(1)
    return found


def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher()
