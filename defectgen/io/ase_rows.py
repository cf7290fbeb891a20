"""Rows of a database of ASE and frames of an extended XYZ file: a damaged one does not cost those after it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defectgen.errors import DefectgenError
from defectgen.one_line import reason_of


@dataclass(frozen=True)
class AseRow:
    """One structure of a file of several.

    Attributes:
        number: of the row or frame, as ASE counts it: frames from 1.
        atoms: ASE's; None if it is damaged.
        values: of its key-value pairs, or of the fields of the frame.
        problem: what is wrong with it; empty if nothing is.
    """

    number: int
    atoms: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def database_rows(path: Path) -> Iterator[AseRow]:
    """The rows of a database of ASE, with what `defectgen.io.writers` keeps beside key-value pairs among the values.

    Raises:
        DefectgenError: it cannot be read.
    """
    from ase.db import connect

    opened: Any = connect  # without types
    try:
        with opened(path, type="db", use_lock_file=False) as database:
            for row in database.select():
                try:
                    atoms, data = row.toatoms(), row.data
                except Exception as error:  # of a damaged row
                    problem = f"cannot be read as a row of ASE's database ({reason_of(error)})"
                    yield AseRow(row.id, None, problem=problem)
                    continue
                more = data.get("values", {}) if isinstance(data, dict) else {}
                yield AseRow(row.id, atoms, {**more, **row.key_value_pairs})
    except Exception as error:  # of sqlite or of ase
        raise DefectgenError(f"cannot be read as a database of ASE ({reason_of(error)})") from error


def extxyz_frames(text: str) -> Iterator[AseRow]:
    """The frames of an extended XYZ file."""
    from ase.io.extxyz import read_xyz

    lines = text.splitlines()
    start = number = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        end, problem = _frame(lines, start)
        atoms: Any = None
        if not problem:
            try:
                atoms = next(iter(read_xyz(io.StringIO("\n".join(lines[start:end]) + "\n"), index=slice(None))))
            except KeyError as error:
                problem = f"{error} is no element"
            except Exception as error:  # the reader raises nearly anything on a damaged frame
                problem = reason_of(error)
        number, start = number + 1, end
        if problem:
            yield AseRow(number, None, problem=f"cannot be read as extended XYZ ({problem})")
        else:
            yield AseRow(number, atoms, dict(atoms.info))


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
