"""Results in ASE's own files (.db, extended XYZ with energies), and in GPAW's, read through ASE without GPAW."""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.dft.result import UNKNOWN_CODE, DftResult, Fingerprint, SpinLevels, spin_levels
from defectgen.errors import DefectgenError
from defectgen.io.ase_rows import AseRow, database_rows, extxyz_frames
from defectgen.io.structures import DB_SUFFIXES, EXTXYZ_SUFFIXES, decoded, structure_from_ase

NEW_HEAD = "  __  _  _\n | _ |_)|_||  |"
"""How the text of GPAW begins since its new form."""

USUAL_OCCUPATIONS: Mapping[str, Any] = {"name": "fermi-dirac", "width": 0.1}
"""Those of GPAW for periodic cells where none are given, eV."""


FLAGS = {"true": True, "t": True, "yes": True, "false": False, "f": False, "no": False}
"""Texts that say whether a calculation converged."""


def is_ase_file(path: Path) -> bool:
    """Whether a file may hold energies in one of ASE's formats."""
    return path.suffix.lower() in (*DB_SUFFIXES, *EXTXYZ_SUFFIXES)


def read_ase_results(path: Path) -> Iterator[tuple[str, DftResult | str]]:
    """The structures with energies in a database of ASE or an extended XYZ file, with a name each; or what is wrong.

    Key-value pairs of a row, or fields of a frame, that have the names of `DftResult` are taken: ``homo_ev``,
    ``lumo_ev``, ``fermi_level_ev``, ``magnetization_mu_b``, ``charge``, ``vacuum_level_ev``, ``converged``,
    ``code``, ``functional``, ``cutoff_ev``.

    Raises:
        DefectgenError: it cannot be read, or none of its structures has an energy.
    """
    found = 0
    for row in _rows(path):
        name = str(row.values.get("name", row.number))
        if row.problem:
            yield name, row.problem
            continue
        try:
            energy = float(row.atoms.get_potential_energy())
        except Exception:  # whatever ASE raises for atoms without a calculator
            continue
        found += 1
        try:
            yield name, _with_values(_plain(path, row.atoms, energy), row.values)
        except DefectgenError as error:  # the atoms are no crystal
            yield name, str(error)
    if not found:
        raise DefectgenError(f"{path}: no structure in it has an energy.", "Expected results, not structures alone.")


def frame_text(result: DftResult, name: str) -> str:
    """A result of `read_ase_results` as an extended XYZ file of one frame, which is read as it was."""
    from ase.calculators import singlepoint
    from ase.io import write
    from pymatgen.io.ase import AseAtomsAdaptor

    calculator: Any = singlepoint.SinglePointCalculator  # without types
    atoms: Any = AseAtomsAdaptor.get_atoms(result.structure, msonable=False)
    energy = math.nan if result.energy_ev is None else result.energy_ev
    atoms.calc = calculator(atoms, energy=energy)
    values: dict[str, Any] = {
        "name": name, "code": result.code, "functional": result.fingerprint.functional,
        "cutoff_ev": result.fingerprint.cutoff_ev, "converged": result.electronic_converged, "charge": result.charge,
        "homo_ev": result.homo_ev, "lumo_ev": result.lumo_ev, "fermi_level_ev": result.fermi_level_ev,
        "magnetization_mu_b": result.magnetization_mu_b, "vacuum_level_ev": result.vacuum_level_ev,
    }  # fmt: skip
    atoms.info = {key: value for key, value in values.items() if value not in (None, "")}
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    return text.getvalue()


def read_gpw(path: Path) -> DftResult:
    """The result in a .gpw file of GPAW; one of a cycle that did not converge has levels and no energy.

    Raises:
        DefectgenError: it cannot be read.
    """
    from ase.io import read, ulm

    open_ulm: Any = ulm.open  # without types

    try:
        atoms: Any = read(str(path), format="gpw")
        with open_ulm(str(path)) as reader:
            parameters = dict(reader.parameters.asdict()) if "parameters" in reader else {}
            waves = reader.wave_functions
            levels = np.asarray(waves.eigenvalues)  # eV, (spins, k points, bands)
            occupied = np.asarray(waves.occupations)  # 0 to 1 at each k point
            weights = np.asarray(waves.kpts.weights)
            fermi = np.asarray(waves.fermi_levels).ravel()[0] if "fermi_levels" in waves else None
            converged = bool(reader.scf.converged) if "scf" in reader and "converged" in reader.scf else True
            results = reader.results.asdict() if "results" in reader else {}
            version = str(getattr(reader, "gpaw_version", ""))
    except Exception as error:  # of ASE on a damaged file
        if _is_tar(path):
            raise DefectgenError(
                f"{path}: is a .gpw file of GPAW before version 1.", "Open it with that GPAW and give its text output."
            ) from error
        raise DefectgenError(
            f"{path}: cannot be read as a .gpw file ({type(error).__name__}: {str(error)[:100]}).", "Run it again."
        ) from error
    if levels.ndim == 2:  # spinors: one set of levels
        levels, occupied = levels[None], occupied[None]
    spins = levels.shape[0]
    found = tuple(spin_levels(levels[s], occupied[s]) for s in range(spins))
    moment: float | None = None
    if spins == 2:
        counts = (weights[:, None] * occupied).sum(axis=(1, 2))
        moment = abs(float(counts[0] - counts[1]))
        found = found if counts[0] >= counts[1] else found[::-1]
    energy = results.get("energy")
    return DftResult(
        path=path,
        code="gpaw",
        version=version,
        structure=structure_from_ase(atoms),
        fingerprint=_gpw_fingerprint(parameters, atoms, spins == 2),
        energy_ev=None if energy is None else float(energy),
        electronic_converged=converged and energy is not None,
        levels=found,
        fermi_level_ev=None if fermi is None else float(fermi),
        magnetization_mu_b=moment,
        charge=float(parameters.get("charge", 0.0)),
    )


def _gpw_fingerprint(parameters: Mapping[str, Any], atoms: Any, spin: bool) -> Fingerprint:
    """Settings out of the parameters that a file of GPAW keeps: what was given, and nothing else."""
    mode = parameters.get("mode", "fd")
    mode = mode if isinstance(mode, dict) else {"name": mode}
    cutoff = mode.get("ecut") if mode.get("name") == "pw" else None
    mesh = parameters.get("kpts", ())
    size = mesh.get("size", ()) if isinstance(mesh, dict) else mesh
    setups = parameters.get("setups", {})
    setups = setups if isinstance(setups, dict) else {"default": setups}
    usual = str(setups.get("default", "default"))
    given = parameters.get("occupations")
    occupations = given if isinstance(given, dict) else USUAL_OCCUPATIONS if any(atoms.pbc) else {"width": 0.0}
    width, spacing = occupations.get("width"), parameters.get("h", "?")
    return Fingerprint(
        code="gpaw",
        functional=_one(parameters.get("xc", "LDA"), "name"),
        cutoff_ev=None if cutoff is None else float(cutoff),
        basis="" if cutoff else f"{mode.get('name')} {_one(parameters.get('basis', ''), 'default')} h={spacing}",
        setups=tuple((symbol, str(setups.get(symbol, usual))) for symbol in sorted(set(atoms.get_chemical_symbols()))),
        mesh=tuple(int(n) for n in size) if len(size) == 3 and np.ndim(size) == 1 else (),
        spin=spin,
        smearing=str(occupations.get("name", "fixed" if width == 0.0 else "")),
        width_ev=None if width is None else float(width),
    )


def _one(value: Any, key: str) -> str:
    """A parameter that newer versions of GPAW wrap: ``{'name': 'PBE'}``, ``{'default': 'dzp'}``."""
    return str(value[key]) if isinstance(value, dict) and set(value) == {key} else str(value)


def _is_tar(path: Path) -> bool:
    return path.is_file() and tarfile.is_tarfile(path)


def read_gpaw_text(path: Path) -> DftResult:
    """The last result in GPAW's text output.

    Raises:
        DefectgenError: it cannot be read, or no cycle in it has converged.
    """
    from ase.io import read

    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith(NEW_HEAD):
        raise DefectgenError(f"{path}: is the text of a newer GPAW, which ASE does not read.", "Give its .gpw file.")
    try:
        atoms: Any = read(str(path), format="gpaw-out", index=-1)
        energy = float(atoms.get_potential_energy())
    except Exception as error:  # of ASE on a damaged or unfinished file
        raise DefectgenError(
            f"{path}: holds no finished calculation of GPAW ({type(error).__name__}: {str(error)[:100]}).",
            "The run was cut off or did not converge: start it again.",
        ) from error
    calc = atoms.calc
    kpts = getattr(calc, "kpts", None) or []
    spins = sorted({k.s for k in kpts})
    levels: list[SpinLevels] = []
    for spin in spins:
        energies = np.concatenate([np.asarray(k.eps_n) for k in kpts if k.s == spin])
        filled = np.concatenate([np.asarray(k.f_n) for k in kpts if k.s == spin])
        levels.append(spin_levels(energies, filled / max(float(filled.max()), 1e-12)))
    return replace(
        _plain(path, atoms, energy),
        code="gpaw",
        fingerprint=_text_fingerprint(text, spins),
        electronic_converged="Did not converge" not in text.rpartition("Converged")[2],
        levels=tuple(levels),
        fermi_level_ev=_fermi(text),
        notes=("GPAW's text alone: setups and k points are not known",),
    )


def _rows(path: Path) -> Iterator[AseRow]:
    if path.suffix.lower() not in DB_SUFFIXES:
        yield from extxyz_frames(decoded(path.read_bytes()))
        return
    try:
        yield from database_rows(path)
    except DefectgenError as error:
        raise DefectgenError(f"{path}: {error}.") from error


def _plain(path: Path, atoms: Any, energy: float) -> DftResult:
    calc = atoms.calc
    results = getattr(calc, "results", {})
    name = str(getattr(calc, "name", "") or UNKNOWN_CODE)
    moment = results.get("magmom")
    return DftResult(
        path=path,
        code=name,
        version="",
        structure=structure_from_ase(atoms),
        fingerprint=Fingerprint(code=name),
        energy_ev=energy if np.isfinite(energy) else None,
        magnetization_mu_b=None if moment is None else abs(float(moment)),
    )


def _with_values(result: DftResult, values: Mapping[str, Any]) -> DftResult:
    def number(key: str) -> float | None:
        value = values.get(key)
        usable = isinstance(value, int | float | np.floating | np.integer) and np.isfinite(value)
        return float(value) if usable and value is not None else None

    homo, lumo = number("homo_ev"), number("lumo_ev")
    code = str(values.get("code", result.code))
    known = _flag(values.get("converged"))
    moment = number("magnetization_mu_b")
    return replace(
        result,
        code=code,
        fingerprint=Fingerprint(code, str(values.get("functional", "")), number("cutoff_ev")),
        electronic_converged=known,
        ionic_converged=known,
        levels=() if homo is None or lumo is None else (SpinLevels(homo, lumo),),
        fermi_level_ev=number("fermi_level_ev"),
        magnetization_mu_b=result.magnetization_mu_b if moment is None else abs(moment),
        charge=number("charge"),
        vacuum_level_ev=number("vacuum_level_ev"),
    )


def _flag(value: Any) -> bool | None:
    """Whether a value says yes or no; None for others, and for none."""
    if isinstance(value, str):
        return FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float | np.bool_ | np.number) else None


def _text_fingerprint(text: str, spins: list[int]) -> Fingerprint:
    """Settings as GPAW prints them among its input parameters."""

    def given(pattern: str) -> str:
        found = re.search(rf"(?m)^\s+{pattern}", text)
        return found[1] if found else ""

    cutoff = given(r"mode: \{ecut: ([\d.]+)")
    width = re.search(r"(?m)^\s*(?:Occupation numbers: )?([A-Z][A-Za-z-]+):\s+width: ([\d.]+)", text)
    none = re.search(r"(?m)^Occupation numbers: # Zero width", text)
    basis = " ".join(("lcao", given(r"basis: (\S+?),?$"), f"h={given(r'h: ([0-9.]+)')}"))
    return Fingerprint(
        code="gpaw",
        functional=given(r"xc: (\w+)"),
        cutoff_ev=float(cutoff) if cutoff else None,
        basis="" if cutoff else basis,
        spin=len(spins) == 2,
        smearing=width[1].lower() if width else "fixed" if none else "",
        width_ev=float(width[2]) if width else 0.0 if none else None,
    )


def _fermi(text: str) -> float | None:
    rest = text.rpartition("Fermi level:")[2].split()
    try:
        return float(rest[0]) if "Fermi level:" in text else None
    except (IndexError, ValueError):
        return None
