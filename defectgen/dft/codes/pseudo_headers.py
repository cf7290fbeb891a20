"""What the head of a pseudopotential's file says: its kind, its electrons, the cutoffs it asks for, its functional."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

NORM_CONSERVING, ULTRASOFT, PAW = "norm-conserving", "ultrasoft", "PAW"

_KINDS = {"NC": NORM_CONSERVING, "SL": NORM_CONSERVING, "US": ULTRASOFT, "USPP": ULTRASOFT, "PAW": PAW}

_ENDINGS = {".gth": NORM_CONSERVING, ".psml": NORM_CONSERVING, ".vdb": ULTRASOFT, ".van": ULTRASOFT}

_LONGEST = 1 << 18
"""Bytes in which a header begins and ends; inputs of the generating code may stand before it."""


@dataclass(frozen=True)
class PseudoHeader:
    """The head of a pseudopotential.

    Attributes:
        kind: `NORM_CONSERVING`, `ULTRASOFT` or `PAW`; empty if the file does not say.
        electrons: of the neutral atom that it treats; None if not known.
        wave_cutoff_ry: plane waves it asks for, in rydberg; None if it does not say.
        density_cutoff_ry: likewise of the density.
        functional: ``PBE``, ``PBEsol`` or ``LDA``; empty for others, or if it does not say.
    """

    kind: str = ""
    electrons: float | None = None
    wave_cutoff_ry: float | None = None
    density_cutoff_ry: float | None = None
    functional: str = ""


def read_header(path: Path) -> PseudoHeader:
    """The head of a file in one of the formats of pw.x: UPF, its XML, GTH, RRKJ3, Vanderbilt's, PSML."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        return PseudoHeader()


def all_norm_conserving(paths: Iterable[Path]) -> bool:
    """Whether there are files and all of them are norm-conserving."""
    kinds = {read_header(path).kind for path in paths}
    return kinds == {NORM_CONSERVING}


@lru_cache(maxsize=512)
def _read(path: Path, _time: int) -> PseudoHeader:
    with path.open("rb") as file:
        text = file.read(_LONGEST).decode("utf-8", errors="replace")
    ending = path.suffix.lower()
    found = re.search(r"<pp_header\b(.*?)(?:/>|</pp_header>)", text, re.DOTALL | re.IGNORECASE)
    if found is None:
        return _without_header(text.splitlines(), ending)
    if re.search(r"pseudo_type", found[1]):
        return _from_values(found[1])
    return _from_rows(found[1].splitlines())


def _without_header(lines: list[str], ending: str) -> PseudoHeader:
    rows = [line.split() for line in lines[:3]]
    if ending == ".gth" and len(rows) > 1 and len(rows[1]) > 1:
        return PseudoHeader(NORM_CONSERVING, _number(rows[1][1]))
    if ending == ".rrkj3" and len(rows) > 1 and rows[1]:  # 3 is ultrasoft
        return PseudoHeader({"2": NORM_CONSERVING, "3": ULTRASOFT}.get(rows[1][0], ""))
    return PseudoHeader(_ENDINGS.get(ending, ""))


def _from_values(text: str) -> PseudoHeader:
    """Attributes of UPF 2, or elements of its XML."""

    def given(name: str) -> str:
        found = re.search(rf"""\b{name}\s*(?:=\s*["']|>)\s*([^"'<]*)""", text)
        return found[1].strip() if found else ""

    wave, density = _number(given("wfc_cutoff")), _number(given("rho_cutoff"))
    return PseudoHeader(
        kind=_KINDS.get(given("pseudo_type").upper(), ""),
        electrons=_number(given("z_valence")),
        wave_cutoff_ry=wave,
        density_cutoff_ry=density if wave else None,  # alone it is the extent of a model charge
        functional=_functional(given("functional")),
    )


def _from_rows(lines: list[str]) -> PseudoHeader:
    """Rows of UPF 1, each with its meaning after the values."""

    def row(meaning: str) -> list[str]:
        return next((line.split() for line in lines if meaning in line), [])

    kind = next((line.split()[0] for line in lines if "pseudopotential" in line.lower()), "")
    cutoffs = row("Suggested cutoff")
    return PseudoHeader(
        kind=_KINDS.get(kind, ""),
        electrons=_number(next(iter(row("Z valence")), "")),
        wave_cutoff_ry=_number(cutoffs[0]) if cutoffs else None,
        density_cutoff_ry=_number(cutoffs[1]) if cutoffs else None,
        functional=_functional(" ".join(row("Exchange-Corr")[:4])),
    )


def _number(text: str) -> float | None:
    """A number above 0; 0 stands for one that is not given."""
    try:
        value = float(text.replace("D", "E"))
    except ValueError:
        return None
    return value if value > 0 else None


def _functional(text: str) -> str:
    """The functional by its name, or by its parts as Quantum ESPRESSO names them."""
    words = set(re.split(r"[\s+\-]+", text.upper()))
    if words & {"PBESOL", "PSX"}:
        return "PBEsol"
    if words & {"PBE", "PBX"}:
        return "PBE"
    return "LDA" if words & {"PZ", "LDA"} and not words & {"GGA"} else ""
