"""A data source: a folder with ``springs.csv``: id, host, edits such as ``3:VAC 8:N``, stiffness_gpa."""

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

import defectgen as dg


class SpringTables:
    """Any host by its name."""

    layout = "springs.csv"

    def claims(self, path: Path) -> bool:
        return (path / "springs.csv").is_file()

    def read(self, path: Path, sets: Sequence[str] | None = None) -> pl.DataFrame:  # noqa: ARG002
        rows = []
        for line in csv.DictReader((path / "springs.csv").open()):
            host = dg.host(line["host"])
            edits = [edit.split(":") for edit in line["edits"].split()]
            item = dg.Configuration.of(host, [(int(site), new) for site, new in edits])
            rows.append(
                {
                    "id": line["id"],
                    "host": host.name,
                    "set": "springs",
                    "supercell": host.size,
                    "configuration": item.canonical().key,
                    "label": item.label,
                    "n_defects": item.n_defects,
                    "stiffness_gpa": float(line["stiffness_gpa"]),
                }
            )
        return pl.DataFrame(rows)


SPRING_TABLES = SpringTables()
