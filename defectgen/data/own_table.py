"""A table of one's own values of decorations of one host, as rows for training and records."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import polars as pl

from defectgen.core import Configuration, Host, canonicalize, defect_name
from defectgen.core.classes import class_from_label
from defectgen.core.enumeration import enumerate_class
from defectgen.core.properties import BY_COLUMN, COLUMNS, PROPERTIES
from defectgen.data.sources import with_reader_columns
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.host_files import parse_supercell
from defectgen.io.host_tables import HOST_RECORD, host_of, with_host
from defectgen.io.structures import read_configuration
from defectgen.io.tables import column_names, read_csv, read_parquet
from defectgen.one_line import on_one_line

SUFFIXES = (".parquet", ".csv")

NAMES = ("configuration", "structure", "label")
"""Columns that say what a row is of, the most exact first: a key such as ``VAC@A00+Se@B14``, the path of a structure
file, or a label that only one decoration has, such as ``v_S``."""

ENERGY = "energy_ev"
"""Total energy of the cell, which may stand beside the properties."""

LARGEST_LEVEL_EV = 30.0
"""No level or gap of a layer is larger, whatever its zero; what is, has another unit."""

MISSPELT = 0.9
"""How alike a column and a property must be for the column to count as misspelt."""

MOST_AT_LOW_DENSITY = 3
"""A cell with more defects counts as one at high density, as in 2DMD."""


CONTRADICTION_EV = 0.02
"""Values of one structure may be so far apart, by other settings or another relaxation."""


def read_own_table(path: Path, host: Host | None = None) -> pl.DataFrame:
    """The rows of a Parquet or CSV file, see `own_rows`; its sets are named after the file.

    Args:
        path: of the table; structure files are looked for beside it.
        host: what is decorated; None if the table carries its host, as one that ``defectgen data export`` wrote does.

    Raises:
        UsageError: another kind of file, or no host.
        DefectgenError: an unreadable file; see `own_rows`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"got {path.name!r}, expected a table that ends in {' or '.join(SUFFIXES)}.")
    try:
        if path.suffix.lower() == ".csv":
            table = read_csv(path, infer_schema_length=None, null_values=["", "NaN", "nan"])
        else:
            table = read_parquet(path)
    except FileNotFoundError as error:
        raise DefectgenError(f"{path} is not there.", "Name a table of your values, .parquet or .csv.") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DefectgenError(f"{path} cannot be read as a table ({reason}).") from error
    if host is None and HOST_RECORD not in table.columns:
        raise UsageError(
            f"{path} does not say which host its rows decorate.", "Add --host NAME or FILE.cif (host=), and its size."
        )
    return own_rows(table, host or host_of(table), on_one_line(path.stem), path.parent)


def own_rows(table: pl.DataFrame, host: Host, name: str = "own", folder: Path | None = None) -> pl.DataFrame:
    """Rows with the columns of the data reader, ready to be split and trained on.

    Args:
        table: one of the columns `NAMES`, and a column for each property that is known (`core.properties`, e.g.
            ``homo_ev``: eV above the valence band maximum of the pristine host); null where a row has no value.
            ``id`` and ``energy_ev`` (total energy of the cell) may be there, other columns are left out.
        host: what is decorated; its rules allow every defect of the table.
        name: of the set; rows with more than `MOST_AT_LOW_DENSITY` defects are the set ``<name>-high``.
        folder: that paths in the column ``structure`` are relative to; None for the working directory.

    Returns:
        A row for each row of the table that is not empty: the columns `defectgen.data.twodmd.COLUMNS` and any other
        property's.

    Raises:
        UsageError: a column that is missing or has another unit, or a defect that the host's rules do not allow.
        DefectgenError: a value that is no number, a row that is no decoration of the host, or an id that comes twice.
    """
    said = next((column for column in NAMES if column in table.columns), None)
    if said is None:
        columns = ", ".join(table.columns)
        raise UsageError(f"the table has none of the columns {', '.join(NAMES)}; its columns are {columns}.")
    table = table.filter(~pl.all_horizontal(pl.all().is_null()))  # rows that a spreadsheet leaves empty
    if table.is_empty():
        raise DefectgenError("the table has no rows.", "Expected at least one structure with values.")
    _require_size(table, host)
    values = _values(table)
    ids = (
        table["id"].cast(pl.String) if "id" in table.columns else pl.Series([f"{name}-{k}" for k in range(len(table))])
    )
    if ids.null_count() or ids.n_unique() < len(ids):
        raise DefectgenError("the table has a row without an id, or an id twice.", "Leave the column out, or mend it.")
    found: list[Configuration] = []
    singles: dict[str, Configuration] = {}
    for place, text in zip(ids, table[said], strict=True):
        if not isinstance(text, str):
            raise DefectgenError(f"row {place}: {said} is {text!r}, expected text.")
        try:
            found.append(_configuration(said, text, host, folder, singles))
        except (DefectgenError, ValueError) as error:
            known = isinstance(error, DefectgenError)
            is_value = isinstance(error, ValueError)
            hint = "Expected a key such as VAC@A00+Se@B14." if is_value else getattr(error, "hint", "")
            raise DefectgenError(f"row {place}: {error.args[0]}{'' if known else '.'}", hint) from error
    _require_rules(found, ids, host)
    sizes = [item.n_defects for item in found]
    high = [size > MOST_AT_LOW_DENSITY for size in sizes]
    rows = pl.DataFrame(
        {
            "id": ids,
            "set": [f"{name}-high" if crowded else name for crowded in high],
            "density": ["high" if crowded else "low" for crowded in high],
            "configuration": [item.key for item in canonicalize(found)],
            "label": [item.label for item in found],
            "n_defects": sizes,
            "concentration": [item.concentration for item in found],
        }
    ).with_columns(**values)
    rows = with_host(rows, host)
    rows = rows.with_columns(formation_energy_per_site_ev=pl.col("formation_energy_ev") / pl.col("n_defects"))
    return with_reader_columns(rows)


def has_keys_alone(path: Path) -> bool:
    """Whether the rows of a file are named by keys, and nothing in it says of which supercell these are.

    A file that cannot be read counts as none of these: `read_own_table` says what is wrong with it.
    """
    try:
        is_csv = path.suffix.lower() == ".csv"
        columns = read_csv(path, n_rows=1).columns if is_csv else column_names(path)
    except (OSError, pl.exceptions.PolarsError):
        return False
    return NAMES[0] in columns and "supercell" not in columns


def _require_size(table: pl.DataFrame, host: Host) -> None:
    """Refuse rows of another supercell, in which a key means other sites.

    Raises:
        UsageError: a row that says another one than the host's, or none where others say theirs.
    """
    sizes = table["supercell"].cast(pl.String) if "supercell" in table.columns else pl.Series([], dtype=pl.String)
    said = sizes.drop_nulls().unique(maintain_order=True).to_list()
    other = next((size for size in said if parse_supercell(size) != host.supercell), None)
    if other is not None:
        raise UsageError(
            f"the table has rows of supercell {other}, expected {host.size} as the host.",
            f"Give --supercell {other} (supercell=), or leave these rows out.",
        )
    if said and sizes.null_count():
        row = int(sizes.is_null().arg_true()[0])
        raise UsageError(
            f"row {row + 1} of the table says no supercell, others do.", "Fill it in, or leave the column out."
        )


def contradiction(rows: pl.DataFrame) -> str:
    """What to say of structures that come more than once with other values; empty if none does.

    Args:
        rows: as `own_rows` gives them; images under the symmetry are one structure.
    """
    worst, number = (0.0, ""), 0
    repeated = rows.filter(pl.col("configuration").is_duplicated())
    for (key,), same in repeated.group_by(["configuration"], maintain_order=True):
        spreads = {}
        for item in PROPERTIES:
            if item.column in same.columns:
                values = same[item.column].cast(pl.Float64).drop_nulls().to_numpy()
                spreads[item] = float(np.ptp(values)) if len(values) else 0.0
        most = max(spreads, key=lambda one: spreads[one] * one.weight_ev, default=None)
        if most is None or spreads[most] * most.weight_ev <= CONTRADICTION_EV:
            continue
        number += 1
        names = ", ".join(on_one_line(name) for name in same["id"][:3])
        text = f"rows {names} are one structure ({key}) and differ by {spreads[most]:.3f} {most.unit} in {most.column}"
        worst = max(worst, (spreads[most] * most.weight_ev, text))
    return worst[1] + (f"; {number - 1} more like that" if number > 1 else "")


def valued_columns(rows: pl.DataFrame) -> tuple[str, ...]:
    """The properties that some row has a value of, in their order."""
    return tuple(column for column in COLUMNS if column in rows.columns and rows[column].null_count() < len(rows))


def _values(table: pl.DataFrame) -> dict[str, pl.Series]:
    """The columns of all properties as numbers, null where there is no value.

    Raises:
        UsageError: no property, or one without its unit.
        DefectgenError: what is no finite number.
    """
    known = [column for column in (*COLUMNS, ENERGY) if column in table.columns]
    named = {p.option.replace("-", "_"): p.column for p in PROPERTIES} | {p.name: p.column for p in PROPERTIES}
    for column in table.columns:
        if column not in known and column in named:
            raise UsageError(f"the table has a column {column!r}, expected {named[column]!r}, which says the unit.")
        near = difflib.get_close_matches(column.strip().lower(), COLUMNS, n=1, cutoff=MISSPELT)
        if column not in known and near:
            raise UsageError(
                f"the table has a column {column!r}, which looks like {near[0]!r}.",
                f"Rename it to {near[0]} if its values are in {BY_COLUMN[near[0]].unit}, else to another name.",
            )
    if not set(known) - {ENERGY}:
        raise UsageError(
            f"the table has no property; its columns are {', '.join(table.columns)}.",
            f"Expected some of: {', '.join(COLUMNS)}.",
        )
    found: dict[str, pl.Series] = {}
    for column in known:
        numbers = table[column].cast(pl.Float64, strict=False)
        wrong = (table[column].is_not_null() & ~numbers.is_finite().fill_null(value=False)).arg_true()
        if len(wrong):
            row = int(wrong[0])
            raise DefectgenError(
                f"row {row + 1} of the table: {column} is {table[column][row]!r}, expected a finite number or nothing."
            )
        if column != ENERGY and (BY_COLUMN[column].is_level or column == "band_gap_ev"):
            _require_electronvolts(column, numbers)
        found[column] = numbers.alias(column)
    return {column: found.get(column, _nothing(column, len(table))) for column in (*COLUMNS, ENERGY)}


def _require_electronvolts(column: str, numbers: pl.Series) -> None:
    """Refuse levels and gaps that are in another unit.

    Raises:
        DefectgenError: one larger than any is.
    """
    beyond = (numbers.abs() > LARGEST_LEVEL_EV).fill_null(value=False).arg_true()
    if len(beyond):
        row = int(beyond[0])
        raise DefectgenError(
            f"row {row + 1} of the table: {column} is {numbers[row]:g}, expected electronvolts.",
            f"If it is {numbers[row]:g} meV, divide the column by 1000.",
        )


def _nothing(column: str, n: int) -> pl.Series:
    return pl.Series(column, [None] * n, dtype=pl.Float64)


def _configuration(
    said: str, text: str, host: Host, folder: Path | None, singles: dict[str, Configuration]
) -> Configuration:
    """What one row is of."""
    if said == "configuration":
        return _with_defects(Configuration.from_key(host, text))
    if said == "structure":
        return _with_defects(read_configuration(host, Path(text) if folder is None else folder / text))
    if text not in singles:
        distinct = enumerate_class(host, class_from_label(host, text))
        first, second = next(distinct, None), next(distinct, None)
        if first is None or second is not None:
            raise UsageError(
                f"the label {text!r} stands for {'no' if first is None else 'several'} decorations of {host.title}, "
                "expected one.",
                "Give the column configuration, e.g. VAC@A00+Se@B14, or structure.",
            )
        singles[text] = first.configuration
    return _with_defects(singles[text])


def _with_defects(item: Configuration) -> Configuration:
    if not item.n_defects:
        raise DefectgenError(f"got pristine {item.host.title}, expected a cell with defects.", "Leave the row out.")
    return item


def _require_rules(items: list[Configuration], ids: pl.Series, host: Host) -> None:
    """Refuse defects that the host's rules do not allow; says all that would have to be allowed."""
    used = {kind for item in items for kind in item.kinds}
    known = {(rule.element, rule.replacement) for rule in host.rules}
    if used <= known:
        return
    place = next(k for k, item in enumerate(items) if not item.follows_rules())
    wanted: dict[str, list[str]] = {}
    for element, new in sorted(used | known):
        wanted.setdefault(element, []).append(new)
    missing = ", ".join(sorted(defect_name(*kind) for kind in used - known))
    options = " ".join(f"--allow {element}:{','.join(news)}" for element, news in wanted.items())
    raise UsageError(
        f"row {ids[place]} is {items[place].label}: {host.title} does not allow {missing}.", f"Add {options} (allow=)."
    )
