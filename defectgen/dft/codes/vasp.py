"""VASP: inputs through pymatgen's input sets, results through its parsers."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from defectgen.dft.calculation import Calculation
from defectgen.dft.codes.dft_code import EngineOptions, Remedy
from defectgen.dft.layer_settings import NARROW_EV
from defectgen.dft.result import DftResult
from defectgen.dft.settings import DftSettings
from defectgen.errors import DefectgenError, UsageError
from defectgen.io.files import FULL, write_problem

GGA_TAGS = {"PBE": "PE", "PBEsol": "PS"}

SEMICORE = {"": 0, "_pv": 6, "_sv": 8, "_d": 10}
"""Electrons that a potential with semicore states adds to those of the valence, by the end of its name."""

STEP_RANKS: dict[str | None, int] = {None: 1000, "static": 999, "scf": 999, "bands": 1, "band": 1, "dos": 1, "nscf": 1}
"""Of several steps of a run the file without a suffix counts, then a static one; fixed densities come last."""

NO_STEPS = ("orig", "bak", "error", "old", "broken")
"""Suffixes of files that were set aside."""

ODD_POTENTIALS = {"H": 1, "He": 2, "Li_sv": 3, "Be_sv": 4}

_INCAR: dict[str, Any] = {
    "PREC": "Accurate",
    "ALGO": "Normal",
    "EDIFF": 1e-6,
    "NELM": 200,
    "IBRION": 2,
    "ISIF": 2,
    "ISMEAR": 0,
    "LASPH": True,
    "LREAL": "Auto",
    "LORBIT": 11,
    "LWAVE": False,
    "LCHARG": False,
}
"""What every calculation without a base set has. LOCPOT, which levels are aligned by, is asked for in any (LVHAR)."""


def input_set(calculation: Calculation, settings: DftSettings) -> Any:
    """pymatgen's input set of a calculation.

    Raises:
        UsageError: a charged cell with an element whose number of valence electrons is not known here.
    """
    from pymatgen.io.vasp import Kpoints
    from pymatgen.io.vasp.sets import MPRelaxSet, VaspInputSet

    structure = calculation.structure.copy()
    usual = MPRelaxSet.CONFIG
    base = dict(usual["INCAR"]) if settings.vasp.base else dict(_INCAR)
    base = {key: value for key, value in base.items() if key != "MAGMOM"} | {"LVHAR": True}
    potentials = {**usual["POTCAR"], **settings.vasp.potcar}
    incar = {
        "ENCUT": settings.cutoff_ev,
        "GGA": GGA_TAGS[settings.functional],
        "ISMEAR": 0,
        "SIGMA": settings.smearing_ev,
        "ISIF": 3 if calculation.role == "element" and calculation.mesh != (1, 1, 1) else 2,  # a molecule keeps its box
        "EDIFFG": -settings.force_ev_angstrom,
        "NSW": settings.max_steps if settings.relax else 0,
        "IBRION": 2 if settings.relax else -1,
        "ISPIN": 2 if calculation.spin else 1,
    }
    if calculation.role != "element":
        incar["LREAL"] = base.get("LREAL", "Auto")
        if settings.dipole == "auto" and not calculation.turned_over and calculation.charge == 0:
            incar |= {"LDIPOL": True, "IDIPOL": 3, "DIPOL": [0.5, 0.5, 0.5]}
    else:
        incar["LREAL"] = False
    if calculation.charge:
        incar["NELECT"] = electrons(calculation, potentials)
    if calculation.spin:
        structure.add_site_property("magmom", list(calculation.moments))
        base["MAGMOM"] = {}
    incar |= settings.vasp.incar
    points: Any = Kpoints.gamma_automatic(calculation.mesh)  # pymatgen takes them as it takes a dict
    return VaspInputSet(
        structure=structure,
        config_dict={"INCAR": base, "POTCAR": potentials, "POTCAR_FUNCTIONAL": settings.vasp.potcar_functional},
        user_incar_settings=incar,
        user_kpoints_settings=points,
        user_potcar_functional=settings.vasp.potcar_functional,
        sort_structure=False,
        validate_magmom=False,
    )


def electrons(calculation: Calculation, potentials: dict[str, str]) -> float:
    """Valence electrons of a charged cell, NELECT.

    Raises:
        UsageError: an element for whose potential the number is not known here.
    """
    total = sum(count * valence(potentials[symbol]) for symbol, count in calculation.counts.items())
    return float(total - calculation.charge)


def valence(potential: str) -> int:
    """Electrons that a PAW potential of VASP treats, by its name, e.g. 14 for ``Mo_sv``.

    Raises:
        UsageError: an f element, or an ending that says nothing of electrons.
    """
    from pymatgen.core import Element

    symbol, _, _ = potential.partition("_")
    if potential in ODD_POTENTIALS:
        return ODD_POTENTIALS[potential]
    element, ending = Element(symbol), potential[len(symbol) :]
    if ending not in SEMICORE or element.is_lanthanoid or element.is_actinoid or symbol in ODD_POTENTIALS:
        raise UsageError(
            f"the number of electrons of VASP's potential {potential} is not known here.",
            "Leave --charge out and set NELECT in INCAR from the ZVAL of your POTCAR.",
        )
    group = int(element.group)
    return (group if group <= 12 else group - 10) + SEMICORE[ending]


def _smeared(folder: Path) -> None:
    from pymatgen.io.vasp import Incar

    width = float(Incar.from_file(str(folder / "INCAR")).get("SIGMA", 0.0))
    _changed(ALGO="All", SIGMA=max(NARROW_EV, width))(folder)


def _changed(**tags: Any) -> Callable[[Path], None]:
    """A remedy: other tags in INCAR."""

    def apply(folder: Path) -> None:
        from pymatgen.io.vasp import Incar

        incar = Incar.from_file(str(folder / "INCAR"))
        incar.update(tags)
        incar.write_file(str(folder / "INCAR"))

    return apply


class Vasp:
    """See `defectgen.dft.codes.dft_code.DftCode`."""

    title = "VASP"
    remedies: Sequence[Remedy] = (
        Remedy("ALGO = All", _changed(ALGO="All")),
        Remedy("slower mixing, no wave functions kept", _changed(ALGO="Normal", AMIX=0.1, BMIX=0.01, ISTART=0)),
        Remedy("SIGMA = 0.1", _smeared),
    )

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        """Write INCAR, KPOINTS, POSCAR and POTCAR.spec by pymatgen, and POTCAR if it knows where the potentials are."""
        from pymatgen.core import SETTINGS

        found = input_set(calculation, settings)
        try:
            found.write_input(str(folder), potcar_spec=True)
            if SETTINGS.get("PMG_VASP_PSP_DIR"):
                found.potcar.write_file(str(folder / "POTCAR"))
        except (OSError, ValueError) as error:
            if write_problem(error) in FULL:
                raise
            raise DefectgenError(f"{folder}: pymatgen cannot write VASP's inputs ({error}).") from error
        if calculation.charge and not calculation.turned_over and settings.dipole == "auto":
            return ("charged cells get no dipole correction: correct them as a whole (doped, pydefect-2d)",)
        return ()

    def command(self, options: EngineOptions) -> Sequence[str]:
        """VASP by its command."""
        words = shlex.split(options.command or "vasp_std")
        if shutil.which(words[0]) is None:
            raise DefectgenError(
                f"{words[0]} was not found.",
                "VASP is licensed software (https://www.vasp.at); give its command, e.g. --command 'srun vasp_std'.",
            )
        return words

    def missing(self, folder: Path) -> str:  # noqa: ARG002
        """Nothing that is looked for: the command may bring the potentials."""
        return ""

    def resume(self, folder: Path) -> None:
        """Take the atoms of CONTCAR, if it is whole."""
        from pymatgen.io.vasp import Poscar

        last = folder / "CONTCAR"
        if last.is_file() and last.stat().st_size:
            try:
                Poscar.from_file(str(last))
            except Exception:  # of pymatgen on a file that was cut off: the atoms stay where they were
                return
            shutil.copy(last, folder / "POSCAR")

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        """Nothing: what VASP leaves stays."""

    def claims(self, path: Path) -> int:
        """vasprun.xml or OUTCAR, compressed or not; of a run in steps (vasprun.xml.relax2) the last, by vasprun.xml."""
        stem = re.sub(r"\.(gz|bz2|xz|Z)$", "", path.name)
        step = re.fullmatch(r"(vasprun\S*\.xml|OUTCAR)(?:\.([a-z]+)(\d*))?", stem)
        if step is None or step[2] in NO_STEPS:
            return 0
        relaxed = min(1 + int(step[3] or 1), STEP_RANKS["static"] - 1)
        order = STEP_RANKS.get(step[2], relaxed)
        return 2 * order + (step[1] != "OUTCAR")

    def outdated(self, path: Path) -> bool:  # noqa: ARG002
        """All of a run lies in one folder."""
        return False

    def read(self, path: Path) -> DftResult:
        """See `DftCode.read`."""
        from defectgen.dft.codes.vasp_outputs import read_vasp

        return read_vasp(path)
