"""`defectgen hosts`: the hosts that there are, and which models know them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from defectgen_cli.options import JsonOption, SupercellOption
from defectgen_cli.output import columns, emit, wrapped

if TYPE_CHECKING:
    from defectgen.design.host_records import HostRecord

WIDE = 80
"""Columns that the whole table of hosts takes."""


def hosts(
    host: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="One host, or a CIF or POSCAR of a layer's unit cell.")
    ] = None,
    supercell: SupercellOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the hosts: cells, defect rules, models that know them.

    With the name of one, or a file, its record: cell, symmetry, sites that differ by symmetry, rules. A
    host from a file can be decorated by `defectgen enumerate --host FILE`; the shipped models know the
    built-in hosts only.
    """
    from defectgen.design.host_records import host_record, known_hosts
    from defectgen.io.host_files import parse_supercell
    from defectgen.models import SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_SURROGATE, shipped

    size = parse_supercell(supercell) if supercell else None
    models = [shipped(name) for name in (SHIPPED_ADAPTER, SHIPPED_CROWDED_ADAPTER, SHIPPED_SURROGATE)]
    if host is None:
        records = known_hosts(models, size)
        emit({"hosts": [asdict(one) for one in records]}, as_json, _table(records, [path.name for path in models]))
        return
    record = host_record(host, models, size)
    emit(asdict(record), as_json, _text(record))


def _table(records: list[HostRecord], models: list[str]) -> str:
    """A row a host; in a narrow terminal other names and what the columns of models are stand below."""
    short = [name.removesuffix("-smollm2") for name in models]
    narrow = columns() < WIDE
    rows = [("host", "cell", "sites", "point defects", "models") if narrow else
            ("host", "also", "cell", "sites", "point defects", *short)]  # fmt: skip
    others = []
    for record in records:
        most = [str(record.max_defects.get(model, "-")) for model in models]
        size, defects = str(record.supercell), " ".join(record.defects)
        name, also = _names(record)
        others += [f"{name} also {', '.join(also)}"] if also else []
        cells = (size, str(record.n_sites), defects)
        rows.append((name, *cells, "/".join(most)) if narrow else (name, ", ".join(also), *cells, *most))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    what = f"models ({'/'.join(short)})" if narrow else "Columns of models"
    notes = [
        f"cell: supercell. {what}: most defects in a cell of their training; "
        "defect and crowded are language models, for few and for many defects.",
        "Any other layer: defectgen hosts FILE.cif, defectgen enumerate --host FILE.cif",
    ]
    if narrow:
        notes.insert(0, f"{'; '.join(others)}.")
    return "\n".join([*lines, "", *(line for note in notes for line in wrapped(note))])


def _names(record: HostRecord) -> tuple[str, list[str]]:
    """What people call the host, and the other names that are understood."""
    from defectgen.core.hosts import common_name

    name = common_name(record.name) if record.aliases else record.name
    return name, [other for other in (record.name, *record.aliases) if other != name]


def _text(record: HostRecord) -> str:
    found = record.symmetry
    a, b, c = found.lengths_angstrom
    size = f"{record.supercell}, {record.n_sites} sites" if record.supercell else "none given; add e.g. --supercell 8x8"
    vacancies = all(name.startswith("v_") for name in record.defects)
    others = f"; other commands allow more, e.g. --allow {found.distinct_sites[0]}:X,VAC" if vacancies else ""
    known = ", ".join(f"{model} {most}" for model, most in record.max_defects.items())
    known = f"most defects: {known}" if known else ""
    lines = {
        "unit cell": f"{record.formula}; a {a:.4f}, b {b:.4f}, c {c:.4f} angstrom, gamma {found.gamma_degree:.2f}",
        "symmetry": f"space group {found.symbol} ({found.number}), {found.n_operations} operations",
        "sites": f"{', '.join(found.distinct_sites)}: those that differ by symmetry",
        "supercell": size,
        "defects": f"{' '.join(record.defects)}{others}",
        "models": known or f"none of the shipped ones was trained on it{' in this size' if record.supercell else ''}",
    }
    name, aliases = _names(record)
    also = f", also {', '.join(aliases)}" if aliases else ""
    shown = [line for title, text in lines.items() for line in wrapped(text, f"  {title:<10} ")]
    return "\n".join([f"{name}{also}", *shown])
