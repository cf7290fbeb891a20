"""Crystals and labels of the Materials Project by its web interface, as a CSV file with the columns of MP-20.

Source: route ``materials/summary``; Jain et al., APL Materials 1, 011002 (2013), doi 10.1063/1.4812323.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defectgen.data.asset_cards import FromMaterialsProject
from defectgen.errors import DefectgenError
from defectgen.io.files import write_whole
from defectgen.io.tables import safe_cell
from defectgen.watch import Watch
from defectgen.web import MaterialsProject

ROUTE = "materials/summary"
PAGE = 500
"""Documents in one request."""

FIELDS = {
    "material_id": "material_id",
    "pretty_formula": "formula_pretty",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "band_gap": "band_gap",
    "e_above_hull": "energy_above_hull",
}
"""Column of the CSV file and field of a document; the space group and the CIF are made from two others."""

COLUMNS = (*FIELDS, "spacegroup.number", "cif")


def download_summaries(get: FromMaterialsProject, work: Path, file: Path, progress: Watch) -> str:
    """Download all documents that a card asks for.

    Pages that are there from an interrupted download of the same version are not asked for again.

    Args:
        get: of the card.
        work: folder for the pages, the same each time.
        file: CSV file to write.
        progress: shows how far it is.

    Returns:
        The origin for the manifest: address and version of the database.

    Raises:
        UsageError: there is no key, or no address.
        DefectgenError: no connection, a key that is not accepted, or an answer of another form.
    """
    project = MaterialsProject.from_environment()
    fields = ",".join([*FIELDS.values(), "symmetry", "structure"])
    query = {**get.query, "_fields": fields, "_sort_fields": "material_id"}
    first = project.page(ROUTE, query, 0, PAGE)
    if not first.total:
        raise DefectgenError(f"the Materials Project at {project.url} has no document for {dict(get.query)}.")
    about = json.dumps([project.url, dict(get.query), first.total, first.version], sort_keys=True)
    folder = work / "pages" / hashlib.sha256(about.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    pages = [folder / f"{skip:08d}.csv" for skip in range(0, first.total, PAGE)]
    with progress("materials-project", first.total, "crystals") as advance:
        for number, page in enumerate(pages):
            expected = min(PAGE, first.total - number * PAGE)
            if not page.is_file():
                content = first if number == 0 else project.page(ROUTE, query, number * PAGE, PAGE)
                if len(content.documents) != expected:
                    raise DefectgenError(
                        f"page {number} of {project.url} has {len(content.documents)} documents, expected {expected}.",
                        "Run the same command again: it goes on from there.",
                    )
                _write_page(page, content.documents)
            advance(expected)
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(COLUMNS) + "\n")
        for page in pages:
            stream.write(page.read_text(encoding="utf-8"))
    return f"{project.url}, database {first.version}"


def _write_page(path: Path, documents: list[dict[str, Any]]) -> None:
    """The documents as CSV rows without header; the file appears complete or not at all."""

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            for document in documents:
                symmetry = document.get("symmetry") or {}
                found = (document.get(field) for field in FIELDS.values())
                labels = [safe_cell(value) if isinstance(value, str) else value for value in found]
                writer.writerow([*labels, symmetry.get("number"), _cif(document)])

    write_whole(path, write)


def _cif(document: Mapping[str, Any]) -> str:
    """The document's structure in P1; empty if it has none, so that the reader names the row."""
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    try:
        return str(CifWriter(Structure.from_dict(document["structure"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
