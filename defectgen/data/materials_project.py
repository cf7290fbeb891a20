"""Crystals and labels of the Materials Project by its web interface, as a CSV file with the columns of MP-20.

Source: https://api.materialsproject.org/docs, route ``materials/summary``; Jain et al., APL Materials 1,
011002 (2013), doi 10.1063/1.4812323. Plain HTTP instead of the package mp-api, which brings much that is
not needed for one route.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from defectgen.data.cards import FromMaterialsProject
from defectgen.data.download import ATTEMPTS, BACKOFF_S, TRANSIENT_STATUS, Progress
from defectgen.errors import DefectgenError, UsageError

ROUTE = "materials/summary/"
PAGE = 500
"""Documents in one request."""
TIMEOUT_S = 120.0

FIELDS = {
    "material_id": "material_id",
    "pretty_formula": "formula_pretty",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "band_gap": "band_gap",
    "e_above_hull": "energy_above_hull",
}
"""Column of the CSV file and field of a document; the space group and the CIF are made from two others."""

COLUMNS = (*FIELDS, "spacegroup.number", "cif")


def api_key(get: FromMaterialsProject) -> str:
    """The user's key from the environment; it is sent to the interface and written nowhere.

    Raises:
        UsageError: there is none.
    """
    key = os.environ.get(get.key_variable, "").strip()
    if not key:
        raise UsageError(
            f"the Materials Project needs your key, and {get.key_variable} is not set.", f"Get one at {get.key_page}"
        )
    return key


def download_summaries(get: FromMaterialsProject, work: Path, progress: Progress) -> tuple[Path, str]:
    """Download all documents that a card asks for.

    Pages that are there from an interrupted download of the same version are not asked for again.

    Args:
        get: of the card.
        work: folder for the pages and the file.
        progress: shows how far it is.

    Returns:
        The CSV file, and the origin for the manifest: address and version of the database.

    Raises:
        UsageError: there is no key, or no address.
        DefectgenError: no connection, a key that is not accepted, or an answer of another form.
    """
    key = api_key(get)
    base = os.environ.get(get.url_variable, "").strip().rstrip("/") or get.url
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"got {get.url_variable}={base!r}, expected an address that starts with http:// or https://.")
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, headers={"X-API-KEY": key}) as client:
        first = _page(client, base, get, 0)
        total, version = int(first["meta"]["total_doc"]), str(first["meta"].get("db_version", "of unknown version"))
        if not total:
            raise DefectgenError(f"the Materials Project at {base} has no document for {dict(get.query)}.")
        about = json.dumps([base, dict(get.query), total, version], sort_keys=True)
        folder = work / "pages" / hashlib.sha256(about.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        pages = [folder / f"{skip:08d}.csv" for skip in range(0, total, PAGE)]
        with progress("materials-project", total, "crystals") as advance:
            for number, page in enumerate(pages):
                if not page.is_file():
                    content = first if number == 0 else _page(client, base, get, number * PAGE)
                    expected = min(PAGE, total - number * PAGE)
                    if len(content["data"]) != expected:
                        raise DefectgenError(
                            f"page {number} of {base} has {len(content['data'])} documents, expected {expected}.",
                            "Run the same command again: it goes on from there.",
                        )
                    _write_page(page, content["data"])
                advance(min(PAGE, total - number * PAGE))
    file = work / get.file
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(COLUMNS) + "\n")
        for page in pages:
            stream.write(page.read_text(encoding="utf-8"))
    return file, f"{base}, database {version}"


def _page(client: httpx.Client, base: str, get: FromMaterialsProject, skip: int) -> dict[str, Any]:
    """One page of documents, with a few attempts."""
    query: dict[str, str | int] = {name: _text(value) for name, value in get.query.items()}
    fields = ",".join([*FIELDS.values(), "symmetry", "structure"])
    query |= {"_fields": fields, "_sort_fields": "material_id", "_limit": PAGE, "_skip": skip}
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        try:
            answer = client.get(f"{base}/{ROUTE}", params=query)
        except httpx.HTTPError as error:
            problem = " ".join(str(error).split()) or type(error).__name__
            continue
        if answer.status_code in (401, 403):
            raise DefectgenError(f"the Materials Project does not accept the key in {get.key_variable}.", "Check it.")
        if answer.status_code in TRANSIENT_STATUS:
            problem = f"status {answer.status_code}"
            continue
        return _content(answer, base, get)
    raise DefectgenError(
        f"the Materials Project gave nothing at {base} in {ATTEMPTS} attempts ({problem:.100}).",
        "Check the network, and run the same command again: it goes on from there.",
    )


def _content(answer: httpx.Response, base: str, get: FromMaterialsProject) -> dict[str, Any]:
    if answer.status_code != httpx.codes.OK:
        raise DefectgenError(f"{base}: got status {answer.status_code}, expected documents.", "Try later.")
    try:
        content: dict[str, Any] = answer.json()
        int(content["meta"]["total_doc"])
        if all(isinstance(document, dict) for document in content["data"]):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise DefectgenError(f"the answer of {base} is not the Materials Project's.", f"Check {get.url_variable}.")


def _text(value: str | int | bool) -> str | int:
    return str(value).lower() if isinstance(value, bool) else value


def _write_page(path: Path, documents: list[dict[str, Any]]) -> None:
    """The documents as CSV rows without header; the file appears complete or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        for document in documents:
            symmetry = document.get("symmetry") or {}
            labels = [document.get(field) for field in FIELDS.values()]
            writer.writerow([*labels, symmetry.get("number"), _cif(document)])
    part.replace(path)


def _cif(document: Mapping[str, Any]) -> str:
    """The document's structure in P1; empty if it has none, so that the reader names the row."""
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    try:
        return str(CifWriter(Structure.from_dict(document["structure"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
