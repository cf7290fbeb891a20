"""The table of labelled structures as one file, with its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from defectgen import __version__
from defectgen.data.asset_cards import Card
from defectgen.errors import UsageError
from defectgen.io.files import refuse_existing, write_text, write_whole
from defectgen.io.tables import write_csv, write_parquet

SUFFIXES = (".parquet", ".csv")


def sidecar(path: Path) -> Path:
    """Where the provenance of a CSV file goes: the name that W3C's CSV on the Web prescribes."""
    return path.with_name(f"{path.name}-metadata.json")


def table_files(path: Path) -> list[Path]:
    """The files that a table and its provenance are written to."""
    return [path, sidecar(path)] if path.suffix.lower() == ".csv" else [path]


def check_table_path(path: Path, overwrite: bool = False) -> None:
    """Make sure that a table may be written to a file; meant to be called before the work starts.

    Raises:
        UsageError: another suffix than `SUFFIXES`, or it (or the file beside it) is there already.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"got {path.name!r}, expected a file that ends in {' or '.join(SUFFIXES)}.")
    for file in table_files(path):
        refuse_existing(file, overwrite)


def provenance(card: Card) -> dict[str, str]:
    """Whose the data is and what read it, as plain text."""
    return {
        "title": card.title,
        "source": " ".join(card.source.split()),
        "licence": card.licence,
        "citation": "; ".join(f"{item.text}, doi:{item.doi}" for item in card.citations),
        "columns": (
            "units are in the names; homo_ev, lumo_ev and fermi_level_ev are relative to the pristine host's valence "
            "band maximum, null where the cell cannot be aligned; *_raw_ev are on each cell's own zero; "
            "concentration is the share of the host's sites that are changed"
        ),
        "defectgen_version": __version__,
    }


def write_table(frame: pl.DataFrame, path: Path, card: Card, *, overwrite: bool = False) -> list[Path]:
    """Write all columns to a Parquet or CSV file; the file appears complete or not at all.

    Parquet carries the `provenance` in its own metadata, under keys that begin with ``defectgen.``;
    beside a CSV file it is written to `sidecar`. The same rows give the same CSV file.

    Args:
        frame: the rows.
        path: file whose suffix says the format; its folder is made.
        card: what the rows are from.
        overwrite: whether a file that is there may be replaced.

    Returns:
        The files written.

    Raises:
        UsageError: see `check_table_path`.
        DefectgenError: the file cannot be written.
    """
    check_table_path(path, overwrite)
    about = provenance(card)
    if path.suffix.lower() == ".parquet":
        keys: dict[str, str] = {f"defectgen.{name}": text for name, text in about.items()}
        write_whole(path, lambda part: write_parquet(frame, part, metadata=keys))
        return table_files(path)
    write_text(sidecar(path), _csv_metadata(path.name, frame, about))
    write_whole(path, lambda part: write_csv(frame, part))
    return table_files(path)


def _csv_metadata(name: str, frame: pl.DataFrame, about: Mapping[str, str]) -> str:
    types = {pl.String: "string", pl.Int64: "integer", pl.Float64: "double"}
    columns = [{"name": key, "datatype": types.get(type(kind), "string")} for key, kind in frame.schema.items()]
    content = {
        "@context": "http://www.w3.org/ns/csvw",
        "url": name,
        "dc:title": about["title"],
        "dc:source": about["source"],
        "dc:license": about["licence"],
        "dc:bibliographicCitation": about["citation"],
        "dc:description": f"{about['columns']}; written by defectgen {about['defectgen_version']}",
        "tableSchema": {"columns": columns},
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
