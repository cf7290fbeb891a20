"""What is asked for: targets from options or a table, and whether the data covers them."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import polars as pl

from defectgen.core.properties import BY_COLUMN, COLUMNS, PROPERTIES
from defectgen.core.whole import is_number
from defectgen.design.candidates import Target
from defectgen.design.limits import Limits
from defectgen.design.own_limits import OWN_COLUMNS, TOLERANCE, own_limits
from defectgen.design.wishes import Wish, parse_wish
from defectgen.errors import UsageError
from defectgen.io.documents import DocumentError, read_text
from defectgen.io.tables import separator_of, with_points
from defectgen.io.yaml_documents import read_yaml
from defectgen.one_line import printable, shown, typed


def _columns_by_name() -> dict[str, str]:
    """Columns by every name of a property that a user may give."""
    return {name: p.column for p in PROPERTIES for name in (p.column, p.option, p.option.replace("-", "_"))}


LARGEST_TABLE = 200_000_000
"""Bytes of a table of targets; a million of them have some ten millions."""

LARGEST_EV = 1e3
"""No property in eV is larger; what is, was meant in another unit."""

LIKELY_MILLI = 5
"""So many times larger than what is known, a wish was most likely meant in meV."""

CONTRADICTED_EV = 0.02
"""A gap that is farther than this from the difference of the levels asked for contradicts them."""

Wanted = float | str | tuple[float | None, float | None] | Wish | None
"""A number, text as `parse_wish` takes it, the two ends of a range (None for none), or a wish."""


def single_target(values: Mapping[str, Wanted]) -> Target:
    """The target of one call.

    Args:
        values: column to what is wanted, in its unit, None where nothing is asked.

    Raises:
        UsageError: nothing is asked for, or what is no wish.
    """
    wishes = [_wish(column, value) for column in COLUMNS if (value := values.get(column)) is not None]
    if not wishes:
        options = ", ".join(f"--{p.option}" for p in PROPERTIES)
        raise UsageError(
            "no target given.", f"Expected at least one of {options} (in Python homo=0.05), or a table of targets."
        )
    return _target("1", wishes, "the options")


def _wish(column: str, value: Wanted) -> Wish:
    try:
        if isinstance(value, Wish):
            if value.column != column:
                raise UsageError(
                    f"got a wish of {value.column} for {BY_COLUMN[column].name}.", f"Expected one of {column}."
                )
            return value
        if isinstance(value, str):
            return parse_wish(column, value)
        if isinstance(value, tuple):
            if len(value) != 2 or not all(end is None or is_number(end) for end in value):
                raise UsageError(
                    f"{BY_COLUMN[column].name}: got the range {shown(value)}, expected two numbers or None."
                )
            low, high = value
            if low is not None and high is not None and low > high:
                raise UsageError(f"{BY_COLUMN[column].name}: got the range {low:g} to {high:g}, which is upside down.")
            return Wish(column, -math.inf if low is None else float(low), math.inf if high is None else float(high))
        return Wish.value(column, float(value if value is not None else math.nan))
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def targets_of(given: object, wanted: Mapping[str, Wanted]) -> tuple[Target, ...]:
    """The targets of a call in Python.

    Args:
        given: targets, a mapping for each (properties by name, and ``id``; None for nothing), or the path of a table;
            None for none.
        wanted: what is wanted where none are given, by name of the property.

    Raises:
        UsageError: both, or what is no target.
    """
    if given is None:
        return (single_target(wanted_values(wanted)),)
    if wanted:
        raise UsageError(f"got targets and {', '.join(sorted(wanted))}.", "Give one or the other.")
    if isinstance(given, str | Path):
        return read_targets(Path(given))
    if isinstance(given, Target):
        return (given,)
    if isinstance(given, Sequence):
        found = tuple(_of_row(item, k) if isinstance(item, Mapping) else item for k, item in enumerate(given, 1))
        if not all(isinstance(item, Target) for item in found):
            raise UsageError(f"got targets {shown(given)}, expected one or more of type Target, or a mapping for each.")
        return found
    raise UsageError(
        f"got {typed(given)} as targets, expected Target objects, a mapping for each, or a file.",
        "A table of polars gives mappings by to_dicts().",
    )


def _of_row(row: Mapping[str, Wanted], number: int) -> Target:
    """The target that a mapping says."""
    values = wanted_values({name: value for name, value in row.items() if name != "id" and value is not None})
    wishes = [_wish(column, value) for column, value in values.items()]
    identity = str(number if row.get("id") in (None, "") else row["id"])
    if not wishes:
        raise UsageError(f"target {shown(identity)} asks for nothing.", "Expected at least one property.")
    return _target(identity, wishes, "the targets")


def wanted_values(wanted: Mapping[str, Wanted]) -> dict[str, Wanted]:
    """What is wanted by column, from any name of a property: ``homo``, ``band_gap``, ``band_gap_ev``.

    Raises:
        UsageError: no such property, one named twice, or what is no wish.
    """
    found: dict[str, Wanted] = {}
    columns = _columns_by_name()
    for name, value in wanted.items():
        if name not in columns:
            if name in {field.name for field in fields(Limits)}:
                raise UsageError(f"got {name}, which limits the defects.", f"Give it as limits=Limits({name}=...).")
            known = ", ".join(p.option.replace("-", "_") for p in PROPERTIES)
            raise UsageError(f"unknown property or option {name!r}.", f"Properties that can be wanted: {known}.")
        column = columns[name]
        if column in found:
            raise UsageError(f"got two values of {column}, expected one.")
        item: Wanted = value
        if isinstance(value, str):
            try:
                item = parse_wish(column, value)
            except UsageError as error:
                if re.search(r"\d|min|max", value):
                    raise
                raise UsageError(f"got {name}={value!r}, expected a number in {BY_COLUMN[column].unit}.") from error
        elif isinstance(value, list | tuple) and len(value) == 2:
            item = (value[0], value[1])
        elif not isinstance(value, Wish) and not is_number(value):
            raise UsageError(f"got {name}={value!r}, expected a number in {BY_COLUMN[column].unit}.")
        found[column] = item
    return found


def read_targets(path: Path) -> tuple[Target, ...]:
    """Targets from a CSV file, one a line (empty ones are none), or a YAML file, a list of mappings.

    A column is a property (``homo`` or ``homo_ev``), each cell a wish as `parse_wish` takes it or empty. A column
    ``id`` names the targets; without it they are numbered from 1. ``tolerance`` makes ranges of the plain numbers of
    its row. `OWN_COLUMNS` limit their row, in place of what the options say. All other columns (a name, a note) are
    handed on, but for one that looks like a misspelt one of these.

    Raises:
        UsageError: no such file, an unknown column, a value that is no wish or limit, a line without a target.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file.", "Expected a CSV or YAML table of targets.")
    names, rows = _yaml_rows(path) if path.suffix.lower() in (".yaml", ".yml") else _csv_rows(path)
    by_name = _columns_by_name()
    plain = {name: name.strip().lower() for name in names}
    limiting = {name: one for name in names if (one := plain[name].replace("-", "_")) in (*OWN_COLUMNS, TOLERANCE)}
    columns = [by_name.get(one, limiting.get(name, one)) for name, one in plain.items()]
    times = Counter(columns)
    repeated = [name for name, column in zip(names, columns, strict=True) if times[column] > 1]
    if repeated:
        raise UsageError(f"{path}: column {shown(repeated[0])} stands for a property that another one gives too.")
    notes = [name for name, one in plain.items() if one != "id" and one not in by_name and name not in limiting]
    for name in notes:
        meant = [*by_name, *OWN_COLUMNS, TOLERANCE]
        if difflib.get_close_matches(plain[name], meant, n=1, cutoff=MISSPELT) or not any(
            one in by_name for one in plain.values()
        ):
            known = ", ".join(["id", *COLUMNS, TOLERANCE, *OWN_COLUMNS])
            near = difflib.get_close_matches(plain[name], meant, n=1, cutoff=MISSPELT)
            guess = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(f"{path}: unknown column {shown(name)}.", f"{guess}Known columns: {known}.")
    identity_column = next((name for name, one in plain.items() if one == "id"), None)
    targets: list[Target] = []
    for number, row in enumerate(rows, 1):
        wishes = []
        own = [(limiting[name], row[name].strip()) for name in names if name in limiting and row[name].strip()]
        try:
            tolerance = _tolerance(dict(own))
            own_limits(Limits(), [pair for pair in own if pair[0] != "min_defects"])
        except UsageError as error:
            raise UsageError(f"{path}, target {number}: {printable(str(error))}") from error
        for name, text in row.items():
            if plain[name] not in by_name or not text.strip():
                continue
            column = by_name[plain[name]]
            try:
                wishes.append(_within(parse_wish(column, text), tolerance))
            except UsageError as error:
                message = str(error).replace(f"{BY_COLUMN[column].name} is ", f"{name} is ", 1)
                raise UsageError(f"{path}, target {number}: {printable(message)}") from error
        identity = " ".join(printable(row[identity_column] if identity_column else "").split()) or str(number)
        if not wishes:
            raise UsageError(
                f"{path}: target {identity} asks for nothing.", "Expected a number in at least one column."
            )
        said = [(name, row[name]) for name in names if name in notes or name in limiting]
        targets.append(_target(identity, wishes, str(path), said, [pair for pair in own if pair[0] != TOLERANCE]))
    if not targets:
        raise UsageError(f"{path} holds no targets.", "Expected one a line below the header.")
    twice = sorted(name for name, number in Counter(target.id for target in targets).items() if number > 1)
    if twice:
        raise UsageError(f"{path}: target id {shown(twice[0])} occurs more than once.", "Give each target its own id.")
    return tuple(targets)


MISSPELT = 0.75
"""How alike a column and a property must be for the column to count as misspelt."""


def _csv_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = read_text(path, LARGEST_TABLE)
        separator = separator_of(text.lstrip().partition("\n")[0])
        text = with_points(text, separator)
        times = Counter(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), []))
        if twice := sorted(name for name, number in times.items() if number > 1):
            raise UsageError(f"{path}: two columns are named {shown(twice[0])}.", "Give each column a name of its own.")
        table = pl.read_csv(io.StringIO(text), infer_schema=False, separator=separator)
    except DocumentError as error:
        raise UsageError(str(error)) from error
    except (pl.exceptions.PolarsError, OSError, csv.Error) as error:
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])
        raise UsageError(
            f"{path}: cannot be read as CSV ({reason:.200}).", "Expected commas, semicolons or tabs between columns."
        ) from error
    rows = [{name: text or "" for name, text in row.items()} for row in table.iter_rows(named=True)]
    return table.columns, [row for row in rows if any(text.strip() for text in row.values())]


def _yaml_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    values = read_yaml(path)
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        raise UsageError(f"{path} holds no list of mappings.", "Expected e.g. - {homo: 0.05, band_gap: '0.5:0.8'}.")
    names = list(dict.fromkeys(str(name) for item in values for name in item))
    texts = [{str(name): _yaml_text(value) for name, value in item.items()} for item in values]
    return names, [{name: item.get(name, "") for name in names} for item in texts]


def _yaml_text(value: object) -> str:
    """A value as a cell of a table has it: two numbers are a range, other lists names with commas."""
    if isinstance(value, list):
        numbers = len(value) == 2 and all(item is None or is_number(item) for item in value)
        return (":" if numbers else ",").join("" if item is None else str(item) for item in value)
    return "" if value is None else str(value)


def _tolerance(own: Mapping[str, str]) -> float:
    """Of a row, in the unit of its wishes."""
    text = own.get(TOLERANCE, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"got a tolerance of {shown(text)}, expected a number of 0 or more.")
    return value


def _within(wish: Wish, tolerance: float) -> Wish:
    """A wish for one value as a range about it; any other as it is."""
    if wish.towards or wish.low < wish.high:
        return wish
    return replace(wish, low=wish.low - tolerance, high=wish.high + tolerance)


def _as_milli(values: Sequence[float]) -> str:
    """What numbers are in eV if they were meant in meV."""
    largest = max(values, key=abs)
    return f"If you mean {largest:g} meV, write {largest / 1000:g}"


def _target(
    identity: str,
    wishes: Sequence[Wish],
    where: str,
    notes: Sequence[tuple[str, str]] = (),
    own: Sequence[tuple[str, str]] = (),
) -> Target:
    about = f"target {identity} in {where}"
    by_column = {wish.column: wish for wish in wishes}
    for wish in wishes:
        ends = [end for end in (wish.low, wish.high) if math.isfinite(end)]
        if wish.unit == "eV" and any(abs(end) > LARGEST_EV for end in ends):
            raise UsageError(
                f"{about}: got {wish.column}={wish.text:.20}, expected electronvolts.", f"{_as_milli(ends)}."
            )
    gap = by_column.get("band_gap_ev")
    if gap is not None and gap.high < 0:
        raise UsageError(f"{about}: got a gap of {gap.high:g} eV, expected 0 or more.")
    homo, lumo = by_column.get("homo_ev"), by_column.get("lumo_ev")
    if homo is not None and lumo is not None and lumo.high < homo.low:
        raise UsageError(f"{about}: the LUMO asked for lies below the HOMO.")
    try:
        return Target.of(identity, wishes, notes, own)
    except ValueError as error:
        raise UsageError(f"{about}: {error}.") from error


def counted_from(targets: Sequence[Target], covered: Mapping[str, Sequence[float]]) -> tuple[Target, ...]:
    """Targets whose wishes for ``min`` or ``max`` count from the least or largest value that is known.

    Args:
        targets: as asked for.
        covered: least and largest known value of each property, in its unit.

    Raises:
        UsageError: nothing is known of a property.
    """
    found = []
    for target in targets:
        wishes = []
        for wish in target.wishes:
            if wish.towards and wish.column not in covered:
                raise UsageError(
                    f"target {target.id}: got {wish.column}={wish.towards}, but no value of it is known of this host.",
                    "Give a value or a range.",
                )
            wishes.append(wish.counted_from(*covered[wish.column]) if wish.towards else wish)
        found.append(
            Target.of(target.id, wishes, target.notes, target.own) if wishes != list(target.wishes) else target
        )
    return tuple(found)


def coverage_warnings(host: str, targets: tuple[Target, ...], covered: Mapping[str, list[float]]) -> tuple[str, ...]:
    """One line for each value that lies outside what the model was trained on, or that others contradict.

    Args:
        host: name of the host.
        targets: on the scale of `covered`.
        covered: least and largest trained value of each property, in its unit.
    """
    warnings = []
    for target in targets:
        warnings += _contradicted_gap(target)
        for wish in target.wishes:
            item = BY_COLUMN[wish.column]
            if wish.column not in covered:
                warnings.append(f"target {target.id}: the model was not trained on {item.title} of {host}.")
                continue
            low, high = covered[wish.column]
            if not wish.towards and not (wish.high >= low and wish.low <= high):
                shown = f"{wish.low:.3f}" if wish.low == wish.high else wish.text
                ends = [end for end in (wish.low, wish.high) if math.isfinite(end)]
                milli = wish.unit == "eV" and max(map(abs, ends)) >= LIKELY_MILLI * max(abs(low), abs(high), 1.0)
                meant = f" {_as_milli(ends)}." if milli else ""
                warnings.append(
                    f"target {target.id}: {item.title} {shown} {item.unit} is outside what the data of {host} covers "
                    f"({low:.3f} to {high:.3f} {item.unit}); expect the nearest that there is.{meant}"
                )
    return tuple(warnings)


def _contradicted_gap(target: Target) -> list[str]:
    """A line where the gap asked for is not that between the levels asked for.

    With spin the levels may be of two channels, and the gap is the smaller one of the two: never less than their
    difference, but more in some cells.
    """
    by_column = {wish.column: wish for wish in target.wishes if not wish.towards}
    if not {"homo_ev", "lumo_ev", "band_gap_ev"} <= set(by_column):
        return []
    homo, lumo, gap = (by_column[column] for column in ("homo_ev", "lumo_ev", "band_gap_ev"))
    least, most = lumo.low - homo.high, lumo.high - homo.low
    if gap.high < least - CONTRADICTED_EV:
        why = f"smaller than the {least:.3f} eV between the levels asked for: no structure has all three."
    elif gap.low > most + CONTRADICTED_EV:
        why = f"larger than the {most:.3f} eV between the levels asked for: at most cells with spin have all three."
    else:
        return []
    return [f"target {target.id}: the gap asked for, {gap.text} eV, is {why}"]
