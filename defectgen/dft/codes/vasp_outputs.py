"""Reading vasprun.xml and OUTCAR, through pymatgen, or through ASE where there is an OUTCAR alone."""

from __future__ import annotations

import math
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.dft.codes.vasp import GGA_TAGS
from defectgen.dft.result import DftResult, Fingerprint, SpinLevels, spin_levels
from defectgen.errors import DefectgenError

FUNCTIONALS = {tag: name for name, tag in GGA_TAGS.items()}

VACUUM_SHARE = 0.05
"""Planes of LOCPOT, farthest from the layer, over which the vacuum level is averaged."""


def read_vasp(path: Path) -> DftResult:
    """The result in a vasprun.xml or an OUTCAR, compressed or not; LOCPOT and OUTCAR beside it are read too.

    Raises:
        DefectgenError: it ends in the middle, or is none.
    """
    return _outcar_alone(path) if path.name.startswith("OUTCAR") else _vasprun(path)


def _vasprun(path: Path) -> DftResult:
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.io.vasp import Vasprun

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Vasprun(str(path), parse_dos=False, parse_potcar_file=False)
            structure = run.final_structure
            energy = float(run.ionic_steps[-1]["e_0_energy"])
            electronic, ionic = bool(run.converged_electronic), bool(run.converged_ionic)
    except Exception as error:  # pymatgen raises nearly anything on a damaged file
        raise _unreadable(path, error, "vasprun.xml") from error
    notes: list[str] = []
    levels: tuple[SpinLevels, ...] = ()
    moment: float | None = None
    spin = bool(run.parameters.get("ISPIN", 1) == 2)
    if run.eigenvalues:
        channels = [run.eigenvalues[key] for key in (Spin.up, Spin.down) if key in run.eigenvalues]
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
    potentials = _beside_outcar(path, structure, notes)
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
        fermi_level_ev=_fermi(path),
        magnetization_mu_b=moment,
        charge=_charge(run),
        vacuum_level_ev=_vacuum_level(path, structure, notes),
        site_potentials_ev=potentials,
        notes=tuple(notes),
    )


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


def _fermi(path: Path) -> float | None:
    """The last Fermi level in the file, which pymatgen reads with the whole density of states only."""
    from monty.io import zopen

    found: float | None = None
    with zopen(str(path), "rt", encoding="latin-1") as file:
        for line in file:
            if match := re.search(r'name="efermi">\s*(-?[\d.]+)\s*<', str(line)):
                found = float(match[1])
    return found


def _fingerprint(run: Any, spin: bool) -> Fingerprint:
    tag = str(run.parameters.get("GGA", run.incar.get("GGA", "--"))).strip().upper()
    titles = [str(item).split() for item in run.potcar_symbols]  # e.g. PAW_PBE Mo_sv 02Feb2006
    family = titles[0][0].removeprefix("PAW_").replace("PAW", "LDA") if titles and len(titles[0]) > 1 else ""
    functional = FUNCTIONALS.get(tag, "") or (family if tag in ("--", "NONE", "") else tag)
    if run.parameters.get("LHFCALC"):
        functional = f"{functional} hybrid {run.parameters.get('AEXX', 0.25):g} {run.parameters.get('HFSCREEN', 0):g}"
    if run.parameters.get("METAGGA") not in (None, "--", "None", "NONE"):
        functional = str(run.parameters["METAGGA"]).strip()
    if run.incar.get("LDAU"):
        functional += f"+U{list(run.incar.get('LDAUU', []))}"
    names = [title[1] if len(title) > 1 else title[0] for title in titles]
    mesh = run.kpoints.kpts[0] if run.kpoints is not None and run.kpoints.num_kpts == 0 else ()
    return Fingerprint(
        code="vasp",
        functional=functional,
        cutoff_ev=float(run.parameters.get("ENMAX", run.incar.get("ENCUT", 0.0))) or None,
        setups=tuple(sorted(dict.fromkeys((name.split("_")[0], name) for name in names))),
        mesh=tuple(int(n) for n in mesh),
        spin=spin,
    )


def _charge(run: Any) -> float | None:
    """Charge of the cell, where the numbers of valence electrons are known."""
    from defectgen.dft.codes.vasp import valence

    given = run.parameters.get("NELECT")
    try:
        names = [str(item).split()[1] for item in run.potcar_symbols]
        per_element = {name.split("_")[0]: valence(name) for name in names}
        neutral = sum(per_element[site.specie.symbol] for site in run.final_structure)
    except (DefectgenError, IndexError, KeyError, ValueError):
        return None
    return None if given is None else float(neutral - given)


def _sibling(path: Path, stem: str) -> Path | None:
    return next((p for end in ("", ".gz", ".bz2", ".xz") if (p := path.with_name(f"{stem}{end}")).is_file()), None)


def _beside_outcar(path: Path, structure: Any, notes: list[str]) -> tuple[float, ...]:
    """Potentials at the atoms' cores from the OUTCAR beside a file."""
    from pymatgen.io.vasp import Outcar

    found = _sibling(path, "OUTCAR")
    if found is None:
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcar = Outcar(str(found))
            values = getattr(outcar, "electrostatic_potential", None) or ()
    except Exception as error:
        notes.append(f"OUTCAR beside it cannot be read ({type(error).__name__})")
        return ()
    if len(values) != len(structure):
        return ()
    return tuple(float(value) for value in values)


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


def _outcar_alone(path: Path) -> DftResult:
    from ase.io import read
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp import Outcar

    adapt: Any = AseAtomsAdaptor.get_structure
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcar = Outcar(str(path))
            atoms: Any = read(str(path), format="vasp-out", index=-1)
            text = _text(path)
            structure = adapt(atoms)
            calc = atoms.calc
            energy = float(atoms.get_potential_energy())
    except Exception as error:  # of pymatgen or ASE on a damaged file
        raise _unreadable(path, error, "OUTCAR") from error
    kpts = getattr(calc, "kpts", None) or []
    spins = sorted({k.s for k in kpts})
    levels = tuple(
        spin_levels(
            np.concatenate([k.eps_n for k in kpts if k.s == s]),
            np.concatenate([np.asarray(k.f_n) * (len(spins) if len(spins) == 2 else 1) for k in kpts if k.s == s])
            / (2.0 if len(spins) == 1 and max(float(np.max(k.f_n)) for k in kpts) > 1.5 else 1.0),
        )
        for s in spins
    )
    potentials = getattr(outcar, "electrostatic_potential", None) or ()
    moment = outcar.total_mag if len(spins) == 2 else None
    steps = "aborting loop because EDIFF is reached" in text
    return DftResult(
        path=path,
        code="vasp",
        version=next(iter(text.split(maxsplit=1)), "").removeprefix("vasp."),
        structure=structure,
        fingerprint=Fingerprint(
            code="vasp",
            functional=FUNCTIONALS.get(_word(text, "GGA     =", 1), "PBE" if "PAW_PBE" in text else ""),
            cutoff_ev=float(_word(text, "ENCUT  =", 1) or "nan"),
            setups=tuple(sorted({(n.split("_")[0], n) for n in _potcars(text)})),
            spin=len(spins) == 2,
        ),
        energy_ev=energy,
        electronic_converged=steps,
        ionic_converged="reached required accuracy" in text or _word(text, "NSW    =", 1) in ("0", "1"),
        levels=levels,
        fermi_level_ev=None if outcar.efermi is None else float(outcar.efermi),
        magnetization_mu_b=None if moment is None else abs(float(moment)),
        site_potentials_ev=tuple(map(float, potentials)) if len(potentials) == len(structure) else (),
        notes=("OUTCAR alone: k points are not known",),
    )


def _text(path: Path) -> str:
    from monty.io import zopen

    with zopen(str(path), "rt", encoding="latin-1") as file:
        return str(file.read())


def _word(text: str, before: str, number: int) -> str:
    _, found, rest = text.partition(before)
    words = rest.split(maxsplit=number)
    return words[number - 1] if found and words else ""


def _potcars(text: str) -> list[str]:
    rows = [line.split() for line in text.splitlines() if line.startswith(" POTCAR:")]
    return [words[2] for words in rows if len(words) > 2]
