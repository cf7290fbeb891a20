"""What is asked for: targets from options or a table, and whether the data covers them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import polars as pl

from defectgen.core.properties import BY_COLUMN, COLUMNS, PROPERTIES
from defectgen.design.candidates import Target
from defectgen.errors import UsageError
from defectgen.io.documents import DocumentError, read_text
from defectgen.one_line import printable, shown


def _columns_by_name() -> dict[str, str]:
    """Columns by every name of a property that a user may give."""
    return {name: p.column for p in PROPERTIES for name in (p.column, p.option, p.option.replace("-", "_"))}


LARGEST_TABLE = 200_000_000
"""Bytes of a table of targets; a million of them have some ten millions."""

LARGEST_EV = 1e3
"""No property in eV is larger; what is, was meant in another unit."""


def single_target(values: Mapping[str, float | None]) -> Target:
    """The target of one call.

    Args:
        values: column to wanted value in its unit, None where nothing is asked.

    Raises:
        UsageError: nothing is asked for.
    """
    asked = tuple((column, float(value)) for column in COLUMNS if (value := values.get(column)) is not None)
    if not asked:
        options = ", ".join(f"--{p.option}" for p in PROPERTIES)
        raise UsageError(
            "no target given.", f"Expected at least one of {options} (in Python homo=0.05), or a table of targets."
        )
    return _target("1", asked, "the options")


def wanted_values(wanted: Mapping[str, float]) -> dict[str, float]:
    """Values by column, from values by any name of a property: ``homo``, ``band_gap``, ``band_gap_ev``.

    Raises:
        UsageError: no such property, one named twice, or what is no number.
    """
    found: dict[str, float] = {}
    columns = _columns_by_name()
    for name, value in wanted.items():
        if name not in columns:
            known = ", ".join(p.option.replace("-", "_") for p in PROPERTIES)
            raise UsageError(f"unknown property or option {name!r}.", f"Properties that can be wanted: {known}.")
        if columns[name] in found:
            raise UsageError(f"got two values of {columns[name]}, expected one.")
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UsageError(f"got {name}={value!r}, expected a number in {BY_COLUMN[columns[name]].unit}.")
        found[columns[name]] = float(value)
    return found


def read_targets(path: Path) -> tuple[Target, ...]:
    """Targets from a CSV file: one a line, a column a property (``homo`` or ``homo_ev``), empty cells allowed.

    A column ``id`` names the targets; without it they are numbered from 1.

    Raises:
        UsageError: no such file, an unknown column, a value that is no number, a line without a target.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file.", "Expected a CSV table of targets.")
    try:
        text = read_text(path, LARGEST_TABLE)
        table = pl.read_csv(io.StringIO(text), infer_schema=False)
    except DocumentError as error:
        raise UsageError(str(error)) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])
        raise UsageError(
            f"{path}: cannot be read as CSV ({reason:.200}).", "Expected commas between columns."
        ) from error
    by_name = _columns_by_name()
    names = {name: name.strip().lower() for name in table.columns}
    columns = [by_name.get(plain, plain) for plain in names.values()]
    repeated = [name for name, column in zip(names, columns, strict=True) if columns.count(column) > 1]
    if repeated:
        raise UsageError(f"{path}: column {shown(repeated[0])} stands for a property that another one gives too.")
    unknown = [name for name, plain in names.items() if plain != "id" and plain not in by_name]
    if unknown:
        known = ", ".join(["id", *COLUMNS])
        raise UsageError(f"{path}: unknown column {shown(unknown[0])}.", f"Known columns: {known}.")
    targets: list[Target] = []
    for number, row in enumerate(table.iter_rows(named=True), 1):
        given: dict[str, float] = {}
        for name, text in row.items():
            if names[name] == "id" or text is None or not text.strip():
                continue
            try:
                given[by_name[names[name]]] = float(text)
            except ValueError as error:
                raise UsageError(
                    f"{path}, target {number}: {printable(name):.60} is {shown(text)}, expected a number."
                ) from error
        identity = next(
            (text for name in names if names[name] == "id" and (text := printable(row[name] or "").strip())),
            str(number),
        )
        asked = tuple((column, given[column]) for column in COLUMNS if column in given)
        if not asked:
            raise UsageError(
                f"{path}: target {identity} asks for nothing.", "Expected a number in at least one column."
            )
        targets.append(_target(identity, asked, str(path)))
    if not targets:
        raise UsageError(f"{path} holds no targets.", "Expected one a line below the header.")
    twice = sorted(name for name, number in Counter(target.id for target in targets).items() if number > 1)
    if twice:
        raise UsageError(f"{path}: target id {shown(twice[0])} occurs more than once.", "Give each target its own id.")
    return tuple(targets)


def _target(identity: str, asked: tuple[tuple[str, float], ...], where: str) -> Target:
    try:
        target = Target(identity, asked)
    except ValueError as error:
        raise UsageError(f"target {identity} in {where}: {error}.") from error
    values = dict(asked)
    for column, value in asked:
        if BY_COLUMN[column].unit == "eV" and abs(value) > LARGEST_EV:
            raise UsageError(f"target {identity} in {where}: got {column}={value:g}, expected electronvolts.")
    if values.get("band_gap_ev", 0.0) < 0:
        raise UsageError(
            f"target {identity} in {where}: got a gap of {values['band_gap_ev']:g} eV, expected 0 or more."
        )
    if "homo_ev" in values and values.get("lumo_ev", values["homo_ev"]) < values["homo_ev"]:
        raise UsageError(f"target {identity} in {where}: the LUMO asked for lies below the HOMO.")
    return target


def coverage_warnings(host: str, targets: tuple[Target, ...], covered: Mapping[str, list[float]]) -> tuple[str, ...]:
    """One line for each value that lies outside what the model was trained on.

    Args:
        host: name of the host.
        targets: on the scale of `covered`.
        covered: least and largest trained value of each property, in its unit.
    """
    warnings = []
    for target in targets:
        for wish in target.wishes:
            item = BY_COLUMN[wish.column]
            if wish.column not in covered:
                warnings.append(f"target {target.id}: the model was not trained on {item.title} of {host}.")
                continue
            low, high = covered[wish.column]
            if not wish.towards and not (wish.high >= low and wish.low <= high):
                shown = f"{wish.low:.3f}" if wish.low == wish.high else wish.text
                warnings.append(
                    f"target {target.id}: {item.title} {shown} {item.unit} is outside what the data of {host} covers "
                    f"({low:.3f} to {high:.3f} {item.unit}); expect the nearest that there is."
                )
    return tuple(warnings)
