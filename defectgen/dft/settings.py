"""What a DFT calculation is asked for, in words that every code understands, and in a code's own where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from defectgen.config import StageConfig, find_config, load_config

GROUP = "dft"
"""Folder of the shipped settings among the configurations."""

DEFAULT = "2dmd"

Mesh = tuple[int, int, int]
"""K points along a, b, c."""


class VaspSettings(StageConfig):
    """What only VASP is told.

    Attributes:
        base: input set of pymatgen that the INCAR starts from; None for the settings here alone.
        incar: tags that come last and win.
        potcar_functional: family of the potentials, as pymatgen names it.
        potcar: element -> potential, where it is not pymatgen's usual one for that element.
    """

    base: Literal["MPRelaxSet"] | None = None
    incar: dict[str, Any] = Field(default_factory=dict)
    potcar_functional: Literal["PBE", "PBE_52", "PBE_54", "PBE_64"] = "PBE_54"
    potcar: dict[str, str] = Field(default_factory=dict)


class GpawSettings(StageConfig):
    """What only GPAW is told.

    Attributes:
        mode: plane waves up to the cutoff, or localized orbitals, not periodic along the normal.
        basis: of localized orbitals.
        grid_spacing_angstrom: of the real-space grid, for localized orbitals.
        setups: element -> PAW setup, where it is not the default one.
        mixer: density mixed in each step, steps remembered, damping of long waves.
    """

    mode: Literal["pw", "lcao"] = "pw"
    basis: str = "dzp"
    grid_spacing_angstrom: float = Field(default=0.25, gt=0.05, lt=0.5)
    setups: dict[str, str] = Field(default_factory=dict)
    mixer: tuple[float, int, float] = (0.1, 6, 50.0)


class QeSettings(StageConfig):
    """What only Quantum ESPRESSO is told.

    Attributes:
        pseudopotentials: element -> file; for the others the only file of the folder that begins with the element.
        pseudo_dir: their folder, as the machine that computes sees it; None for that of ``ESPRESSO_PSEUDO``, else
            ``pseudo`` beside the calculations.
        density_cutoff_factor: cutoff of the density by that of the wave functions; None for 4 where all files of the
            folder are norm-conserving, else 8.
    """

    pseudopotentials: dict[str, str] = Field(default_factory=dict)
    pseudo_dir: str | None = None
    density_cutoff_factor: float | None = Field(default=None, ge=4.0, le=20.0)


class AseSettings(StageConfig):
    """What a calculator of ASE is told.

    Attributes:
        calculator: ``chgnet``, ``m3gnet``, another potential by its name, or ``package.module:Calculator``.
        arguments: of the calculator.
    """

    calculator: str = "chgnet"
    arguments: dict[str, Any] = Field(default_factory=dict)


class DftSettings(StageConfig):
    """Settings of all calculations of a folder.

    Attributes:
        description: one line for people.
        functional: exchange and correlation.
        cutoff_ev: kinetic energy up to which plane waves are taken.
        kpoint_length_angstrom: in-plane k points times the length of the cell vector; points are as many as fit,
            rounded, at least one.
        kpoint_length_bulk_angstrom: likewise along each vector of an elemental crystal.
        smearing_ev: width of the occupations (Gaussian; Fermi-Dirac in GPAW).
        spin: ``auto`` for cells with a vacancy, an odd number of electrons or a magnetic element.
        dipole: ``auto`` for a correction along the normal where no symmetry turns the layer over.
        relax: whether atoms are moved by the code; the cell never changes.
        force_ev_angstrom: largest force of a relaxed cell.
        max_steps: most ionic steps.
        vacuum_angstrom: least empty height; None for the host's own.
        vasp: see `VaspSettings`.
        gpaw: see `GpawSettings`.
        qe: see `QeSettings`.
        ase: see `AseSettings`.
    """

    description: str = ""
    functional: Literal["PBE", "PBEsol"] = "PBE"
    cutoff_ev: float = Field(default=500.0, ge=100.0, le=2000.0)
    kpoint_length_angstrom: float = Field(default=76.6, gt=0.0, le=500.0)
    kpoint_length_bulk_angstrom: float = Field(default=40.0, gt=0.0, le=500.0)
    smearing_ev: float = Field(default=0.05, gt=0.0, le=1.0)
    spin: Literal["auto", "on", "off"] = "auto"
    dipole: Literal["auto", "off"] = "auto"
    relax: bool = True
    force_ev_angstrom: float = Field(default=0.01, gt=0.0, le=1.0)
    max_steps: int = Field(default=200, ge=1, le=10_000)
    vacuum_angstrom: float | None = Field(default=None, ge=5.0, le=100.0)
    vasp: VaspSettings = VaspSettings()
    gpaw: GpawSettings = GpawSettings()
    qe: QeSettings = QeSettings()
    ase: AseSettings = AseSettings()

    def told(self, code: str) -> dict[str, Any]:
        """What a code is told, as plain values: nothing of other codes, a calculator of ASE nothing of electrons."""
        others = {name for name in CODE_SECTIONS if name != code} if code in CODE_SECTIONS else set()
        return self.model_dump(mode="json", exclude=others | (OF_ELECTRONS if code == "ase" else set()))


CODE_SECTIONS = ("vasp", "gpaw", "qe", "ase")
"""Fields of `DftSettings` that are of one code."""

OF_ELECTRONS = {
    "functional", "cutoff_ev", "kpoint_length_angstrom", "kpoint_length_bulk_angstrom", "smearing_ev", "spin", "dipole",
}  # fmt: skip
"""Fields of `DftSettings` that a potential has no use for."""


def load_settings(name: str | Path = DEFAULT, overrides: Sequence[str] = ()) -> DftSettings:
    """Settings by name (``2dmd``, ``mp``, ``lcao``) or from a YAML file.

    Args:
        name: of shipped settings, or path of a file with the fields of `DftSettings`.
        overrides: ``key=value`` that win over the file's.

    Raises:
        UsageError: no such settings, an unknown key or a senseless value.
    """
    return load_config(DftSettings, find_config(str(name), GROUP), overrides)


def k_mesh(lattice: NDArray[np.float64], length_angstrom: float, periodic: tuple[bool, bool, bool]) -> Mesh:
    """Gamma-centred mesh of k points.

    Args:
        lattice: rows a, b, c in angstrom, shape (3, 3).
        length_angstrom: points times length of a vector.
        periodic: along which vectors; one point along the others.
    """
    lengths = np.linalg.norm(lattice, axis=1)
    a, b, c = (
        max(1, round(length_angstrom / float(length))) if along else 1
        for length, along in zip(lengths, periodic, strict=True)
    )
    return a, b, c
