"""Which formulas the positions of a space group can hold."""

from __future__ import annotations

from functools import lru_cache

from defectgen.core.orbits import primitive_group
from defectgen.errors import UsageError


def check_spacegroup(number: int, composition: tuple[tuple[str, int], ...] | None, max_atoms: int) -> None:
    """Refuse a space group that no cell can have.

    Args:
        number: of the space group.
        composition: counts by element of the formula; None for any.
        max_atoms: most atoms in a cell.

    Raises:
        UsageError: its positions hold other numbers of atoms than the formula has, in cells of that size.
    """
    kinds = primitive_group(number).kinds
    sizes = ", ".join(str(size) for size in sorted({kind.atoms for kind in kinds}))
    if kinds[0].atoms > max_atoms:
        raise UsageError(
            f"a primitive cell of space group {number} has {kinds[0].atoms} atoms at least, {max_atoms} are allowed.",
            "Allow more with --max-atoms.",
        )
    if composition is None:
        return
    if not unit_counts(number, composition, max_atoms, (0,) * len(composition), (0,) * len(kinds)):
        name = "".join(f"{element}{n if n > 1 else ''}" for element, n in composition)
        raise UsageError(
            f"no cell of at most {max_atoms} atoms has formula {name} and space group {number}, whose positions hold "
            f"{sizes} atoms in a primitive cell.",
            "Ask for another space group or formula, or allow more atoms with --max-atoms.",
        )


@lru_cache(maxsize=65536)
def unit_counts(
    number: int,
    composition: tuple[tuple[str, int], ...],
    max_atoms: int,
    counts: tuple[int, ...],
    taken: tuple[int, ...],
) -> list[int]:
    """Numbers of formula units that a crystal can come to have, the least first.

    Args:
        number: of the space group.
        composition: counts by element.
        max_atoms: most atoms in a cell.
        counts: atoms of each element so far.
        taken: orbits so far, by kind of position.
    """
    kinds = primitive_group(number).kinds
    free = tuple(kind.atoms for kind in kinds if kind.orbits is None)
    left = tuple((k.atoms, k.orbits - n) for k, n in zip(kinds, taken, strict=True) if k.orbits is not None)
    found = []
    for units in range(1, max_atoms // sum(n for _, n in composition) + 1):
        missing = [units * n - used for (_, n), used in zip(composition, counts, strict=True)]
        if min(missing) >= 0 and _can_add_up(tuple(sorted(missing)), left, free):
            found.append(units)
    return found


@lru_cache(maxsize=65536)
def _can_add_up(missing: tuple[int, ...], left: tuple[tuple[int, int], ...], free: tuple[int, ...]) -> bool:
    """Whether each number is a sum of sizes: of `free` ones as often as one likes, of those `left` so often in all."""
    if not missing:
        return True
    n, *rest = missing
    if _is_sum(n, free) and _can_add_up(tuple(rest), left, free):
        return True
    for k, (size, number) in enumerate(left):
        if number and size <= n:
            fewer = (*left[:k], (size, number - 1), *left[k + 1 :])
            if _can_add_up((n - size, *rest), fewer, free):
                return True
    return False


@lru_cache(maxsize=4096)
def _is_sum(n: int, sizes: tuple[int, ...]) -> bool:
    return n == 0 or any(size <= n and _is_sum(n - size, sizes) for size in sizes)
