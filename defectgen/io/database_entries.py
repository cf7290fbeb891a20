"""One entry of a database of 2D materials that the user has: C2DB, JARVIS-DFT 2D, MC2D, or any of their forms.

``FILE#ID`` names it: ``c2db.db#1MoS2-1`` (ASE's database, by uid), ``dft_2d.json#JVASP-664`` (JARVIS, also zipped),
``mc2d.json#...`` (an OPTIMADE response) or ``structures.zip#MoS2`` (CIF files, by name).
"""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from defectgen.errors import DefectgenError
from defectgen.io.documents import JSON_BYTES, parse_json, read_text
from defectgen.io.structures import DB_SUFFIXES, ZIP_SUFFIXES, read_structures, structure_from_ase
from defectgen.one_line import printable, reason_of

if TYPE_CHECKING:
    from pymatgen.core import Structure

MARK = "#"
NAMES_OF_ROWS = ("uid", "c2db_uid", "olduid", "unique_id", "name", "label", "jid", "mc2d_id", "source_db_id")
"""Key-value pairs of ASE's database by which its rows may be named."""

NAMES_OF_RECORDS = ("jid", "id", "uid", "name", "immutable_id", "material_id")
"""Keys of JSON records, likewise."""

SHOWN = 5


def split_entry(path: Path | str) -> tuple[Path, str] | None:
    """File and entry of ``FILE#ID``; None for the path of a file alone."""
    whole = Path(path)
    if whole.is_file():
        return None
    text = str(path)
    for place in [index for index, letter in enumerate(text) if letter == MARK]:
        file = Path(text[:place])
        if file.is_file() and text[place + 1 :]:
            return file, text[place + 1 :]
    return None


def read_entry(file: Path, identity: str) -> Structure:
    """The structure of one entry.

    Args:
        file: ASE's ``.db``, JSON of JARVIS or of OPTIMADE (also in a zip), or another file of several structures.
        identity: by which the database knows it; of ASE's database also the number of the row.

    Raises:
        DefectgenError: unreadable file, no such entry (names the nearest), or several.
    """
    suffix = file.suffix.lower()
    if suffix in DB_SUFFIXES:
        return _of_rows(file, identity)
    if suffix == ".json":
        return _of_records(file, _records(parse_json(read_text(file, JSON_BYTES), str(file), finite=False)), identity)
    if suffix in ZIP_SUFFIXES and (text := _zipped_json(file)) is not None:
        return _of_records(file, _records(parse_json(text, str(file), finite=False)), identity)
    items = list(read_structures(file))
    if all(item.structure is None for item in items):
        raise DefectgenError(f"{items[0].name}: {items[0].note}.")
    found = {item.name.partition(f"{file}{MARK}")[2] or item.name: item for item in items}
    chosen = [found[name] for name in found if identity in (name, PurePosixPath(name).stem)]
    if len(chosen) != 1:
        raise _no_entry(file, identity, [PurePosixPath(name).stem for name in found], len(chosen))
    if chosen[0].structure is None:
        raise DefectgenError(f"{chosen[0].name}: {chosen[0].note}.")
    return chosen[0].structure


def _no_entry(file: Path, identity: str, names: list[str], count: int) -> DefectgenError:
    near = difflib.get_close_matches(identity, names, n=SHOWN, cutoff=0.5) or names[:SHOWN]
    what = f"{count} entries" if count else "no entry"
    return DefectgenError(
        f"{file} has {what} {printable(identity)!r} among {len(names)}.",
        f"{'Near ones' if count == 0 else 'Some of its entries'}: {', '.join(map(printable, near))}." if near else "",
    )


def _of_rows(file: Path, identity: str) -> Structure:
    from ase.db import connect

    opened: Any = connect  # without types
    names: list[str] = []
    chosen = []
    try:
        with opened(file, type="db", use_lock_file=False) as database:
            for row in database.select(include_data=False):
                mine = [str(row.key_value_pairs[key]) for key in NAMES_OF_ROWS if key in row.key_value_pairs]
                names += mine[:1]
                if identity in (*mine, row.unique_id):
                    chosen.append(row.toatoms())
            if not chosen and identity.isdecimal():
                chosen = [row.toatoms() for row in database.select(id=int(identity))]
    except Exception as error:  # of sqlite or of ase
        raise DefectgenError(f"{file} cannot be read as a database of ASE ({reason_of(error)}).") from error
    if len(chosen) != 1:
        raise _no_entry(file, identity, names, len(chosen))
    return structure_from_ase(chosen[0])


def _zipped_json(file: Path) -> str | None:
    """The text of the only JSON file in a zip, as JARVIS is downloaded; None if there is none."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename.lower().endswith(".json")]
            if len(members) != 1 or members[0].file_size > JSON_BYTES:
                return None
            return archive.read(members[0]).decode("utf-8")
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise DefectgenError(f"{file} cannot be read as a zip file ({reason_of(error)}).") from error


def _records(values: object) -> list[dict[str, Any]]:
    """Records of a list, or of the ``data`` of an OPTIMADE response: of several structures, or of one."""
    if isinstance(values, dict):
        inside = values.get("data")
        values = inside if isinstance(inside, list) else [inside if isinstance(inside, dict) else values]
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _of_records(file: Path, records: list[dict[str, Any]], identity: str) -> Structure:
    names: list[str] = []
    chosen = []
    for record in records:
        mine = list(_names(record))
        names += mine[:1]
        if identity in mine:
            chosen.append(record)
    if len(chosen) != 1:
        raise _no_entry(file, identity, names, len(chosen))
    try:
        return _structure(chosen[0])
    except (KeyError, TypeError, ValueError, LookupError) as error:
        raise DefectgenError(
            f"{file}: entry {printable(identity)!r} cannot be read as a structure ({reason_of(error)}).",
            "Expected JARVIS's atoms, an OPTIMADE structure, or pymatgen's.",
        ) from error


def _names(record: dict[str, Any]) -> Iterator[str]:
    attributes = record.get("attributes")
    for place in (record, attributes if isinstance(attributes, dict) else {}):
        yield from (str(place[key]) for key in NAMES_OF_RECORDS if isinstance(place.get(key), str | int))


def _structure(record: dict[str, Any]) -> Structure:
    from pymatgen.core import Lattice, Structure

    if isinstance(record.get("structure"), dict):
        return Structure.from_dict(record["structure"])
    atoms = record.get("atoms")
    if isinstance(atoms, dict):
        lattice, elements = Lattice(atoms["lattice_mat"]), [str(symbol).strip() for symbol in atoms["elements"]]
        return Structure(lattice, elements, atoms["coords"], coords_are_cartesian=bool(atoms.get("cartesian")))
    values = record.get("attributes")
    if not isinstance(values, dict):
        raise ValueError("it has no atoms")
    symbols = {item["name"]: item["chemical_symbols"] for item in values["species"]}
    species = [symbols[name] for name in values["species_at_sites"]]
    if any(len(one) != 1 or one[0] in ("X", "vacancy") for one in species):
        raise ValueError("partly occupied or unknown sites")
    places = values["cartesian_site_positions"]
    return Structure(Lattice(values["lattice_vectors"]), [one[0] for one in species], places, coords_are_cartesian=True)
