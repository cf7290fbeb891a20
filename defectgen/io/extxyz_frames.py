"""The frames of an extended XYZ file, each by itself."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any


def extxyz_frames(text: str) -> Iterator[tuple[Any, str]]:
    """The frames of an extended XYZ file: one that is damaged does not cost those after it.

    Yields:
        ASE's atoms, None for a damaged frame; and what is wrong with it, empty if nothing is.
    """
    from ase.io.extxyz import read_xyz

    lines = text.splitlines()
    start = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        end, problem = _frame(lines, start)
        atoms = None
        if not problem:
            try:
                atoms = next(iter(read_xyz(io.StringIO("\n".join(lines[start:end]) + "\n"), index=slice(None))))
            except KeyError as error:
                problem = f"{error} is no element"
            except Exception as error:  # the reader raises nearly anything on a damaged frame
                problem = f"{' '.join(str(error).split()) or type(error).__name__:.100}"
        yield atoms, problem
        start = end


def _frame(lines: list[str], start: int) -> tuple[int, str]:
    """Where the next frame begins, and what is wrong with this one; empty if it has as many rows as it says."""
    count = lines[start].strip()
    if not (count.isascii() and count.isdecimal()) or len(count) > 9:
        end = next((n for n in range(start + 1, len(lines) - 1) if _begins(lines, n)), len(lines))
        return end, f"line {start + 1} is {count!r:.30}, expected the number of atoms"
    end = start + 2 + int(count)
    early = next((n for n in range(start + 2, min(end, len(lines) - 1)) if _begins(lines, n)), None)
    if early is not None or end > len(lines):
        stop = len(lines) if early is None else early
        return stop, f"it has {max(stop - start - 2, 0)} rows of atoms, expected {count}"
    return end, ""


def _begins(lines: list[str], number: int) -> bool:
    return lines[number].strip().isdecimal() and "=" in lines[number + 1]
