"""Pseudopotentials of pw.x: which file is of which element, what they ask for, and whether all are there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from defectgen.dft.codes.pseudo_headers import PseudoHeader, all_norm_conserving, read_header
from defectgen.dft.settings import DftSettings, QeSettings
from defectgen.errors import UsageError

VARIABLE = "ESPRESSO_PSEUDO"
"""Where pw.x itself looks, if the settings name no folder."""

BESIDE = "../pseudo"
"""Else: one folder beside the calculations."""

NORM_CONSERVING_FACTOR, USUAL_FACTOR = 4.0, 8.0
"""Cutoff of the density by that of the waves: 4 is exact for norm-conserving ones, others add a harder charge."""

RYDBERG_EV = 27.211386245988 / 2

ENDINGS = {".upf", ".xml", ".gth", ".psml", ".rrkj3", ".vdb", ".van"}


def pseudo_folder(own: QeSettings) -> str:
    """The folder as pw.x is told it: absolute if it can be seen from here, else as the settings name it."""
    named = own.pseudo_dir or os.environ.get(VARIABLE)
    if not named:
        return BESIDE
    place = Path(named).expanduser()
    return str(place.resolve()) if place.is_dir() else named


def with_folder(settings: DftSettings) -> DftSettings:
    """Settings for a process with another environment: what `VARIABLE` names here is written into them."""
    if settings.qe.pseudo_dir or not os.environ.get(VARIABLE):
        return settings
    return settings.model_copy(update={"qe": settings.qe.model_copy(update={"pseudo_dir": pseudo_folder(settings.qe)})})


def pseudo_files(symbols: Iterable[str], own: QeSettings) -> dict[str, str]:
    """The file of each element: as the settings name it, else the only one in the folder that begins with the element.

    A folder that cannot be seen from here is taken to hold ``El.UPF``.

    Raises:
        UsageError: the folder holds none for an element, or several.
    """
    folder = Path(pseudo_folder(own))
    seen = _seen(folder)
    return {symbol: own.pseudopotentials.get(symbol) or _file_of(symbol, folder, seen) for symbol in symbols}


def density_factor(own: QeSettings) -> float:
    """Cutoff of the density by that of the wave functions: as the settings say, else by the kind of the files.

    The files are all those of the folder, so that cells of other elements are computed alike: `NORM_CONSERVING_FACTOR`
    where each of them is norm-conserving, else, also where they cannot be seen from here, `USUAL_FACTOR`.
    """
    if own.density_cutoff_factor is not None:
        return own.density_cutoff_factor
    folder = Path(pseudo_folder(own))
    names = set(own.pseudopotentials.values()) | set(_seen(folder) or ())
    files = [folder / name for name in sorted(names) if Path(name).suffix.lower() in ENDINGS]
    return NORM_CONSERVING_FACTOR if all_norm_conserving(files) else USUAL_FACTOR


def headers(files: Mapping[str, str], own: QeSettings) -> dict[str, PseudoHeader]:
    """What each element's file says of itself; nothing where it cannot be seen from here."""
    folder = Path(pseudo_folder(own))
    return {symbol: read_header(folder / name) for symbol, name in files.items()}


def header_notes(files: Mapping[str, str], settings: DftSettings) -> list[str]:
    """What the files ask for and the settings do not give, a clause each."""
    notes = []
    wave_ry = settings.cutoff_ev / RYDBERG_EV
    density_ry = wave_ry * density_factor(settings.qe)
    for symbol, header in sorted(headers(files, settings.qe).items()):
        name = files[symbol]
        if header.functional and header.functional != settings.functional:
            notes.append(f"{name} was made for {header.functional}, these calculations are of {settings.functional}")
        if header.wave_cutoff_ry and header.wave_cutoff_ry > 1.02 * wave_ry:
            wanted = header.wave_cutoff_ry * RYDBERG_EV
            notes.append(f"{name} asks for a cutoff_ev of {wanted:.0f}, the settings have {settings.cutoff_ev:g}")
        if header.density_cutoff_ry and header.density_cutoff_ry > 1.02 * density_ry:
            factor = header.density_cutoff_ry / wave_ry
            notes.append(
                f"{name} asks for a density up to {header.density_cutoff_ry:.0f} Ry, these inputs have "
                f"{density_ry:.0f} (qe.density_cutoff_factor {factor:.1f} reaches it)"
            )
    return notes


def content_mark(path: Path) -> str:
    """The first eight digits of the MD5 sum of a file, which pw.x prints as well."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()[:8]


def missing_files(text: str, folder: Path) -> str:
    """What an input of pw.x in a folder names and does not find, in one clause; empty if all is there."""
    found = re.search(r"(?m)^\s*pseudo_dir\s*=\s*'([^']*)'", text)
    block = re.search(r"(?m)^ATOMIC_SPECIES.*\n((?:[A-Z]\S*\s+\S+\s+\S+\s*\n)+)", text)
    if found is None or block is None:
        return ""
    place = folder / found[1]
    names = dict.fromkeys(line.split()[2] for line in block[1].splitlines() if line.strip())
    absent = [name for name in names if not (place / name).is_file()]
    if not absent:
        return ""
    shown = Path(os.path.normpath(place))
    why = f"has no {', '.join(absent)}" if shown.is_dir() else f"is not there, which should hold {', '.join(absent)}"
    return f"the folder of pseudopotentials {shown} {why} (the inputs have it from {VARIABLE} or qe.pseudo_dir)"


def _seen(folder: Path) -> list[str] | None:
    """The names in a folder; None where it cannot be seen from here."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_absolute() and folder.is_dir() else None


def _file_of(symbol: str, folder: Path, seen: list[str] | None) -> str:
    if seen is None:
        return f"{symbol}.UPF"
    fitting = [name for name in seen if _is_of(symbol, name)]
    if len(fitting) == 1:
        return fitting[0]
    given = f"qe: {{pseudopotentials: {{{symbol}: FILE}}}}"
    if not fitting:
        raise UsageError(
            f"{folder} holds no pseudopotential of {symbol}, expected a file such as {symbol}.UPF.",
            f"Put one there, or name it in the settings ({given}).",
        )
    raise UsageError(
        f"{folder} holds {len(fitting)} pseudopotentials of {symbol}: {', '.join(fitting[:4])}.",
        f"Name one in the settings ({given}).",
    )


def _is_of(symbol: str, name: str) -> bool:
    """Whether a file's name begins with the element, in either case, and ends as one of pseudopotentials."""
    file = Path(name)
    first = re.split(r"[^A-Za-z]", file.stem, maxsplit=1)[0]
    return file.suffix.lower() in ENDINGS and first.lower() == symbol.lower()
