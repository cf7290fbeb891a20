"""OUTCAR by its text: the last ionic step that is whole, its levels, and what the potentials say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectgen.dft.codes.vasp_settings import functional, hubbard_terms, setups, smearing
from defectgen.dft.result import DftResult, Fingerprint, SpinLevels, spin_levels
from defectgen.errors import DefectgenError

NUMBER = r"-?\d+\.\d+(?:[Ee][+-]?\d+)?"

END_OF_STEP = "energy  without entropy="
"""Stands in each ionic step once; with one blank, energies of the steps of a self-consistent cycle."""

START = "Iteration"


def text_of(path: Path) -> str:
    """The text of a file, compressed or not."""
    from monty.io import zopen

    with zopen(str(path), "rt", encoding="latin-1") as file:
        return str(file.read())


def read_outcar(path: Path) -> DftResult:
    """The result in an OUTCAR without a vasprun.xml.

    Raises:
        DefectgenError: no ionic step in it is whole, or it is of another program or kind of calculation.
    """
    try:
        text = text_of(path)
    except (OSError, EOFError, UnicodeError) as error:
        raise DefectgenError(f"{path}: cannot be unpacked ({error}).", "Copy it again.") from error
    if "vasp." not in text[:200]:
        raise DefectgenError(f"{path}: is no OUTCAR: it does not begin with VASP's version.", "Name another file.")
    algorithm = _word(text, "ALGO")
    if is_beyond_dft(algorithm):
        raise DefectgenError(*beyond_dft_refused(path, algorithm))
    step, found, after = text.rpartition(END_OF_STEP)
    if not found:
        raise DefectgenError(
            f"{path}: ends before the first ionic step is done.", "The run was cut off or is going on: start it again."
        )
    try:
        return _result(path, text, step, after)
    except (IndexError, ValueError) as error:
        raise DefectgenError(
            f"{path}: is no complete OUTCAR ({error}).", "The run was cut off: start it again."
        ) from error


def is_beyond_dft(algorithm: str) -> bool:
    """Whether a value of ALGO stands for GW, RPA or a Bethe-Salpeter equation."""
    return any(word in algorithm.upper() for word in ("GW", "RPA", "ACFDT", "BSE"))


def beyond_dft_refused(path: Path, algorithm: str) -> tuple[str, str]:
    """Why such a run is not read, and what to do."""
    return (
        f"{path}: its energies and levels are not those of DFT (ALGO = {algorithm}).",
        "Name the DFT calculation before it.",
    )


def _result(path: Path, text: str, step: str, after: str) -> DftResult:
    """The result by the text up to the end of the last whole step, behind which a run that was killed goes on."""
    from pymatgen.core import Structure

    titles, counts = _titles(text), [int(word) for word in _line(text, "ions per type =").split()]
    if not counts or len(titles) != len(counts):
        raise ValueError(f"{len(titles)} potentials, {len(counts)} kinds of ions")
    elements = [(title.split()[1:] or title.split())[0].split("_")[0] for title in titles]
    symbols = [symbol for symbol, number in zip(elements, counts, strict=True) for _ in range(number)]
    notes = ["OUTCAR alone"]
    positions, moved = _positions(step, len(symbols))
    if not moved:
        notes.append("its atoms are those at the start")
    structure = Structure(_lattice(step), symbols, positions, coords_are_cartesian=True)
    spin = _word(text, "ISPIN") == "2"
    levels, bad = _levels(step, spin)
    if bad:
        notes.append(f"{bad} levels are no numbers")
    if not levels:
        notes.append("no levels in the file")
    mesh = re.search(r"generate k-points for:((?:\s+\d+){3})", text)
    if mesh is None:
        notes.append("k points are not known")
    energies = re.findall(rf"energy\(sigma->0\) =\s*({NUMBER})", after.splitlines()[0])
    moment = re.findall(rf"number of electron\s+{NUMBER}\s+magnetization\s+({NUMBER})", step) if spin else []
    hubbard = _hubbard(text, elements)
    fermi = re.findall(rf"E-fermi :\s*({NUMBER})", step)
    cutoff = _word(text, "ENCUT")
    static = _word(text, "NSW") in ("0", "-1") or _word(text, "IBRION") == "-1"
    broadening = re.search(rf"ISMEAR =\s*(-?\d+);\s*SIGMA\s*=\s*({NUMBER})", text)
    last_cycle = step.rpartition(START)[2]
    return DftResult(
        path=path,
        code="vasp",
        version=text.split(maxsplit=1)[0].removeprefix("vasp."),
        structure=structure,
        fingerprint=Fingerprint(
            code="vasp",
            functional=functional(_tags(text), titles, hubbard),
            cutoff_ev=round(float(cutoff), 1) if cutoff else None,
            setups=setups(titles, hubbard),
            mesh=tuple(int(word) for word in mesh[1].split()) if mesh else (),
            spin=spin,
            **smearing(*(broadening.groups() if broadening else (None, None))),
        ),
        energy_ev=float(energies[-1]) if energies else None,
        electronic_converged="EDIFF is reached" in last_cycle and not _used_all_cycles(text, step),
        ionic_converged=static or "reached required accuracy - stopping" in text,
        levels=levels,
        fermi_level_ev=float(fermi[-1]) if fermi else None,
        magnetization_mu_b=abs(float(moment[-1])) if moment else None,
        charge=_charge(text, counts),
        site_potentials_ev=site_potentials(step, len(symbols)),
        notes=tuple(notes),
    )


def site_potentials(text: str, atoms: int) -> tuple[float, ...]:
    """The average potential at each atom's core in the last step of an OUTCAR, eV; empty if they are not all there."""
    _, found, rest = text.rpartition("average (electrostatic) potential at core")
    if not found:
        return ()
    block = re.split(r"\n\s*\n|E-fermi", rest.partition("norm of the test charge")[2].partition("\n")[2], maxsplit=1)[0]
    pairs = re.findall(r"(\d+)\s*(-?\d+\.\d{4})", block)
    values = tuple(float(value) for _, value in pairs)
    return values if len(values) == atoms else ()


def _used_all_cycles(text: str, step: str) -> bool:
    """Whether the last ionic step took as many cycles as it may: VASP 5 says then too that EDIFF is reached."""
    cycles, most = re.findall(r"Iteration\s+\d+\(\s*(\d+)\)", step), _word(text, "NELM")
    return bool(cycles) and most.isdigit() and int(cycles[-1]) >= int(most)


def _word(text: str, name: str) -> str:
    """The value of a tag as VASP prints its settings."""
    found = re.search(rf"(?m)^\s*{name}\s*=\s*(\S+)", text)
    return found[1].rstrip(";") if found else ""


def _line(text: str, before: str) -> str:
    return text.partition(before)[2].partition("\n")[0]


def _tags(text: str) -> dict[str, Any]:
    names = ("GGA", "METAGGA", "LHFCALC", "AEXX", "HFSCREEN", "IVDW", "LVDW", "LUSE_VDW")
    tags: dict[str, Any] = {name: word for name in names if (word := _word(text, name))}
    return tags | ({} if str(tags.get("IVDW", "0")).isdigit() else {"IVDW": 0})


def _titles(text: str) -> list[str]:
    """Titles of the potentials in the order of the ions, e.g. ``PAW_PBE Mo_sv 02Feb2006``."""
    found = [line.strip() for line in re.findall(r"TITEL  =(.*)", text)]
    return found or list(dict.fromkeys(line.strip() for line in re.findall(r"POTCAR:(.*)", text)))


def _floats(text: str) -> list[float]:
    return [float(word) for word in re.findall(NUMBER, text)]


def _lattice(text: str) -> NDArray[np.float64]:
    lines = text.rpartition("direct lattice vectors")[2].splitlines()[1:4]
    return np.array([_floats(line)[:3] for line in lines], dtype=np.float64).reshape(3, 3)


def _positions(text: str, atoms: int) -> tuple[NDArray[np.float64], bool]:
    """Cartesian positions in the last step, and whether they are of that step."""
    _, found, rest = text.rpartition("TOTAL-FORCE (eV/Angst)")
    lines = rest.splitlines()[2 : 2 + atoms] if found else []
    if len(lines) < atoms:
        rest = text.partition("position of ions in cartesian coordinates")[2]
        lines, found = rest.splitlines()[1 : 1 + atoms], ""
    rows = [_floats(line)[:3] for line in lines]
    return np.array(rows, dtype=np.float64).reshape(atoms, 3), bool(found)


def _levels(text: str, spin: bool) -> tuple[tuple[SpinLevels, ...], int]:
    """Levels of each channel, majority first, and how many are no numbers."""
    block = text.rpartition("E-fermi :")[2]
    parts = re.split(r"spin component \d", block)[1:] if spin else [block]
    channels, filled, bad = [], [], 0
    for part in parts:
        rows = [match for line in part.splitlines() if (match := re.fullmatch(r"\s+\d+\s+(\S+)\s+(\d+\.\d+)\s*", line))]
        values = [(_value(row[1]), float(row[2])) for row in rows]
        if not values:
            return (), bad
        bad += sum(not math.isfinite(level) for level, _ in values)
        levels, occupied = np.array(values).T
        share = occupied / (2.0 if not spin and occupied.max() > 1.5 else 1.0)
        channels.append(spin_levels(levels, share))
        filled.append(float(share.sum()))
    return tuple(channels[::-1] if len(filled) == 2 and filled[1] > filled[0] else channels), bad


def _value(word: str) -> float:
    try:
        return float(word)
    except ValueError:  # ******
        return math.nan


def _hubbard(text: str, elements: Sequence[str]) -> dict[str, float]:
    u, j = _line(text, "LDAUU ="), _line(text, "LDAUJ =")
    return hubbard_terms(elements, _floats(u), _floats(j)) if u else {}


def _charge(text: str, counts: Sequence[int]) -> float | None:
    """Charge of the cell, by the electrons of the potentials."""
    given = _word(text, "NELECT")
    _, found, rest = text.partition("Ionic Valenz")
    valence = _floats(rest.split("\n", 2)[1]) if found else []
    if not given or len(valence) != len(counts):
        return None
    charge = float(np.dot(valence, counts)) - float(given)
    return round(charge, 6) + 0.0
