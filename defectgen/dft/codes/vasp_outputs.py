"""Reading vasprun.xml through pymatgen, with what OUTCAR and LOCPOT beside it say of the potential."""

from __future__ import annotations

import math
import re
import tempfile
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.dft.codes.vasp_outcar import beyond_dft_refused, is_beyond_dft, read_outcar, site_potentials, text_of
from defectgen.dft.codes.vasp_settings import functional, hubbard_terms, setups, smearing
from defectgen.dft.result import DftResult, Fingerprint, SpinLevels, spin_levels
from defectgen.errors import DefectgenError

VACUUM_SHARE = 0.05
"""Planes of LOCPOT, farthest from the layer, over which the vacuum level is averaged."""

PACKED = ("", ".gz", ".bz2", ".xz", ".Z")

_STARRED = re.compile(r'<(i|v)\b[^>]*name="(?P<name>[^"]*)"[^>]*>[^<]*\*\*\*[^<]*</\1>')
"""A setting that did not fit into its column."""

FIXED_DENSITY = 10
"""ICHARG from which the density is not moved: a band structure."""


def read_vasp(path: Path) -> DftResult:
    """The result in a vasprun.xml or an OUTCAR, compressed or not; LOCPOT and OUTCAR beside it are read too.

    Raises:
        DefectgenError: it ends in the middle, or is none.
    """
    return read_outcar(path) if path.name.startswith("OUTCAR") else _vasprun(path)


def _vasprun(path: Path) -> DftResult:
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.io.vasp import Vasprun

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _readable(path) as (place, starred):
                run = Vasprun(str(place), parse_dos=False, parse_potcar_file=False)
            structure = run.final_structure
            algorithm = str(run.incar.get("ALGO", ""))
            energy = float(run.final_energy)  # VASP 5 and 6 write another number into the last step's own block
            electronic, ionic = bool(run.converged_electronic), bool(run.converged_ionic)
    except Exception as error:  # pymatgen raises nearly anything on a damaged file
        raise _unreadable(path, error, "vasprun.xml") from error
    if is_beyond_dft(algorithm):
        raise DefectgenError(*beyond_dft_refused(path, algorithm))
    notes: list[str] = [f"settings that are no numbers: {', '.join(starred)}"] if starred else []
    levels: tuple[SpinLevels, ...] = ()
    moment: float | None = None
    spin = bool(run.parameters.get("ISPIN", 1) == 2)
    if run.eigenvalues:
        channels = [run.eigenvalues[key] for key in (Spin.up, Spin.down) if key in run.eigenvalues]
        bad = sum(int((~np.isfinite(part[..., 0])).sum()) for part in channels)
        notes += [f"{bad} levels are no numbers"] if bad else []
        levels = tuple(spin_levels(part[..., 0], part[..., 1]) for part in channels)
        if len(channels) == 2:
            weights = np.asarray(run.actual_kpoints_weights, dtype=np.float64)
            counts = [float((weights[:, None] * part[..., 1]).sum() / weights.sum()) for part in channels]
            moment = abs(counts[0] - counts[1])
            levels = levels if counts[0] >= counts[1] else levels[::-1]
    else:
        notes.append("no levels in the file")
    if run.parameters.get("LHFCALC"):
        notes.append("hybrid functional")
    if _fixed_density(run):
        notes.append("a band structure at a fixed density: its energy is not used")
        energy = math.nan
    head, fermi = _head_and_fermi(path)
    return DftResult(
        path=path,
        code="vasp",
        version=str(run.vasp_version),
        structure=structure,
        fingerprint=_fingerprint(run, spin),
        energy_ev=energy if math.isfinite(energy) else None,
        electronic_converged=electronic,
        ionic_converged=ionic,
        levels=levels,
        fermi_level_ev=fermi,
        magnetization_mu_b=moment,
        charge=_charge(run, head),
        vacuum_level_ev=_vacuum_level(path, structure, notes),
        site_potentials_ev=_beside_outcar(path, structure, notes),
        notes=tuple(notes),
    )


@contextmanager
def _readable(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """The file, or one without the settings that VASP printed as stars, which pymatgen does not read; their names."""
    head, mark, rest = text_of(path).partition("<calculation>")
    starred = [found["name"] for found in _STARRED.finditer(head)]
    if not starred:
        yield path, []
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "vasprun.xml"
        place.write_text(_STARRED.sub("", head) + mark + rest, encoding="latin-1")
        yield place, sorted(set(starred))


def _unreadable(path: Path, error: Exception, kind: str) -> DefectgenError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    cut = isinstance(error, ET.ParseError | EOFError) or type(error).__name__ == "XMLSyntaxError"  # of lxml
    if cut:
        return DefectgenError(
            f"{path}: ends in the middle or is no XML ({reason}).", "The run was cut off: start it again."
        )
    return DefectgenError(
        f"{path}: cannot be read as {kind} ({reason}).",
        "The run was cut off or is of another program: start it again.",
    )


def _head_and_fermi(path: Path) -> tuple[str, float | None]:
    """The file up to its atoms' types, and the last Fermi level, which pymatgen reads with densities of states only."""
    text = text_of(path)
    found = re.findall(r'name="efermi">\s*(-?[\d.]+)\s*<', text)
    return text.partition("</atominfo>")[0], float(found[-1]) if found else None


def _fixed_density(run: Any) -> bool:
    value = run.incar.get("ICHARG", run.parameters.get("ICHARG", 0))
    return isinstance(value, int) and value >= FIXED_DENSITY


def _fingerprint(run: Any, spin: bool) -> Fingerprint:
    titles = [str(item) for item in run.potcar_symbols]  # e.g. PAW_PBE Mo_sv 02Feb2006
    elements = [[*title.split(), "", ""][1].split("_")[0] for title in titles]
    tags = {**run.parameters, **run.incar}
    hubbard = hubbard_terms(elements, run.incar.get("LDAUU"), run.incar.get("LDAUJ")) if run.incar.get("LDAU") else {}
    points = run.kpoints
    mesh = points.kpts[0] if points is not None and points.style.name in ("Gamma", "Monkhorst") else ()
    return Fingerprint(
        code="vasp",
        functional=functional(tags, titles, hubbard),
        cutoff_ev=round(float(run.parameters.get("ENMAX", run.incar.get("ENCUT", 0.0))), 1) or None,  # as in OUTCAR
        setups=setups(titles, hubbard),
        mesh=tuple(int(n) for n in mesh),
        spin=spin,
        **smearing(run.parameters.get("ISMEAR", run.incar.get("ISMEAR")), tags.get("SIGMA")),
    )


def _charge(run: Any, head: str) -> float | None:
    """Charge of the cell, by the electrons of the potentials that stand beside the atoms' types."""
    given = run.parameters.get("NELECT")
    block = head.partition('name="atomtypes"')[2]
    rows = [re.findall(r"<c>\s*(.*?)\s*</c>", row) for row in re.findall(r"<rc>(.*?)</rc>", block)]
    try:
        neutral = sum(int(row[0]) * float(row[3]) for row in rows)
    except (IndexError, ValueError):
        return None
    return None if given is None or not rows else round(neutral - float(given), 6) + 0.0


def _sibling(path: Path, stem: str) -> Path | None:
    """A file of the same step: OUTCAR.relax2.gz beside vasprun.xml.relax2.gz."""
    step = re.sub(r"\.(gz|bz2|xz|Z)$", "", path.name.partition(".xml")[2])
    return next((p for end in PACKED if (p := path.with_name(f"{stem}{step}{end}")).is_file()), None)


def _beside_outcar(path: Path, structure: Any, notes: list[str]) -> tuple[float, ...]:
    """Potentials at the atoms' cores from the OUTCAR beside a file."""
    found = _sibling(path, "OUTCAR")
    if found is None:
        return ()
    try:
        return site_potentials(text_of(found), len(structure))
    except (OSError, EOFError) as error:
        notes.append(f"OUTCAR beside it cannot be read ({type(error).__name__})")
        return ()


def _vacuum_level(path: Path, structure: Any, notes: list[str]) -> float | None:
    """Average of LOCPOT in the planes farthest from the layer; None without one, or where it is not flat."""
    from pymatgen.io.vasp import Locpot

    found = _sibling(path, "LOCPOT")
    if found is None:
        return None
    try:
        planes = np.asarray(Locpot.from_file(str(found)).get_average_along_axis(2))
    except Exception as error:
        notes.append(f"LOCPOT beside it cannot be read ({type(error).__name__})")
        return None
    heights = np.arange(len(planes)) / len(planes)
    z = np.asarray(structure.frac_coords)[:, 2]
    away = np.abs((heights[:, None] - z[None, :] + 0.5) % 1.0 - 0.5).min(axis=1)
    farthest = np.argsort(-away, kind="stable")[: max(1, round(VACUUM_SHARE * len(planes)))]
    return float(planes[farthest].mean())
