"""GPAW: inputs as plain values for a driver that runs in a Python of its own, results as it wrote them."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defectgen.dft.ase_files import NEW_HEAD, read_gpaw_text, read_gpw
from defectgen.dft.calculation import Calculation
from defectgen.dft.codes.dft_code import EngineOptions, Remedy
from defectgen.dft.layer_settings import NARROW_EV
from defectgen.dft.result import DftResult, Fingerprint, spin_levels
from defectgen.dft.settings import DftSettings
from defectgen.errors import DefectgenError
from defectgen.io.documents import DocumentError, read_object

TASK, RESULTS, DRIVER = "gpaw.json", "gpaw-results.json", "gpaw_driver.py"

PYTHONS = ("/usr/bin/python3", "python3", "python")
"""Where GPAW is looked for, after this Python."""

HOW_TO_GET = (
    "Install it with: apt-get install --no-install-recommends gpaw gpaw-data; or pip install gpaw, which is compiled "
    "and needs a C++ compiler and OpenBLAS (or name a Python that has it)"
)

MAX_ITERATIONS = 120


def task_of(calculation: Calculation, settings: DftSettings) -> dict[str, Any]:
    """A calculation as plain values, eV and angstrom, for the driver."""
    own = settings.gpaw
    structure = calculation.structure
    layer = calculation.role != "element"
    symbols = [site.specie.symbol for site in structure]
    return {
        "name": calculation.name,
        "role": calculation.role,
        "about": calculation.about,
        "symbols": symbols,
        "positions": structure.cart_coords.tolist(),
        "cell": structure.lattice.matrix.tolist(),
        "periodic": [True, True, not layer or own.mode == "pw" or calculation.charge != 0],
        "moments": list(calculation.moments),
        "charge": calculation.charge,
        "mesh": list(calculation.mesh),
        "functional": settings.functional,
        "mode": own.mode,
        "cutoff_ev": settings.cutoff_ev,
        "basis": own.basis,
        "grid_spacing_angstrom": own.grid_spacing_angstrom,
        "setups": {symbol: own.setups[symbol] for symbol in dict.fromkeys(symbols) if symbol in own.setups},
        "smearing_ev": settings.smearing_ev,
        "mixer": list(own.mixer),
        "max_iterations": MAX_ITERATIONS,
        "relax": settings.relax and layer,
        "force_ev_angstrom": settings.force_ev_angstrom,
        "max_steps": settings.max_steps,
    }


def _smeared(folder: Path) -> None:
    task = read_object(folder / TASK)
    width = max(NARROW_EV, float(task["smearing_ev"]))
    _changed(mixer=[0.02, 8, 100.0], smearing_ev=width)(folder)


def _changed(**new: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        task = read_object(folder / TASK) | new
        (folder / TASK).write_text(json.dumps(task, indent=1), encoding="utf-8")

    return apply


@functools.cache
def _has_gpaw(python: str) -> bool:
    try:
        done = subprocess.run([python, "-c", "import gpaw"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Gpaw:
    """See `defectgen.dft.codes.dft_code.DftCode`."""

    title = "GPAW"
    remedies: Sequence[Remedy] = (
        Remedy("slower mixing (0.05, 8 steps)", _changed(mixer=[0.05, 8, 100.0])),
        Remedy("slower mixing and a smearing of 0.1 eV", _smeared),
    )

    def write(self, calculation: Calculation, settings: DftSettings, folder: Path) -> Sequence[str]:
        """Write the task and the driver."""
        text = json.dumps(task_of(calculation, settings), indent=1)
        (folder / TASK).write_text(text + "\n", encoding="utf-8")
        shutil.copy(Path(__file__).with_name(DRIVER), folder / DRIVER)
        if not calculation.turned_over and settings.gpaw.mode == "pw" and settings.dipole == "auto":
            return ("GPAW with plane waves gets no dipole correction: levels of layers with two sides are off by it",)
        return ()

    def command(self, options: EngineOptions) -> Sequence[str]:
        """The driver under a Python that has GPAW, which is looked for."""
        if options.command is not None:
            return shlex.split(options.command)
        wanted = [options.python] if options.python else [sys.executable, *PYTHONS]
        for python in wanted:
            found = shutil.which(python)
            if found is not None and _has_gpaw(found):
                return [found, DRIVER]
        raise DefectgenError(f"no GPAW was found ({', '.join(map(str, wanted))} cannot import it).", f"{HOW_TO_GET}.")

    def missing(self, folder: Path) -> str:  # noqa: ARG002
        """Nothing: the driver brings all."""
        return ""

    def resume(self, folder: Path) -> None:
        """The driver goes on by itself where its trajectory ends."""

    def finish(self, folder: Path, command: Sequence[str]) -> None:
        """The driver writes all."""

    def claims(self, path: Path) -> int:
        """The driver's results, a .gpw file, or GPAW's text."""
        if path.name == RESULTS:
            return 3
        if path.suffix == ".gpw":
            return 2
        return 1 if path.suffix == ".txt" and _starts_as_gpaw(path) else 0

    def outdated(self, path: Path) -> bool:  # noqa: ARG002
        """All of a run lies in one folder."""
        return False

    def read(self, path: Path) -> DftResult:
        """See `DftCode.read`."""
        if path.name == RESULTS:
            return _read_results(path)
        return read_gpw(path) if path.suffix == ".gpw" else read_gpaw_text(path)


def _starts_as_gpaw(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return False
    return b"___ ___ ___ _ _ _" in head or head.startswith(NEW_HEAD.encode())


def _read_results(path: Path) -> DftResult:
    from pymatgen.core import Structure

    try:
        values = read_object(path, {"task": dict, "symbols": list, "positions": list, "cell": list})
        task: Mapping[str, Any] = values["task"]
        structure = Structure(values["cell"], values["symbols"], values["positions"], coords_are_cartesian=True)
        levels = tuple(
            spin_levels(np.array(energies, dtype=np.float64), np.array(occupied, dtype=np.float64))
            for energies, occupied in zip(values.get("levels_ev", ()), values.get("occupations", ()), strict=True)
        )
        moment = values.get("magnetization_mu_b")
        if moment is not None and moment < 0:
            levels = levels[::-1]
        lcao = task["mode"] == "lcao"
        fingerprint = Fingerprint(
            code="gpaw",
            functional=task["functional"],
            cutoff_ev=None if lcao else float(task["cutoff_ev"]),
            basis=f"lcao {task['basis']} h={task['grid_spacing_angstrom']:g}" if lcao else "",
            setups=tuple(sorted((e, task["setups"].get(e, "default")) for e in set(values["symbols"]))),
            mesh=tuple(task["mesh"]),
            spin=bool(task["moments"]),
            smearing="fermi-dirac",
            width_ev=float(task["smearing_ev"]),
        )
        return DftResult(
            path=path,
            code="gpaw",
            version=str(values.get("gpaw", "")),
            structure=structure,
            fingerprint=fingerprint,
            energy_ev=values.get("energy_ev"),
            electronic_converged=bool(values["electronic_converged"]),
            ionic_converged=values["ionic_converged"],
            levels=levels,
            fermi_level_ev=values.get("fermi_level_ev"),
            magnetization_mu_b=None if moment is None else abs(moment),
            charge=float(task["charge"]),
            vacuum_level_ev=values.get("vacuum_level_ev"),
            site_potentials_ev=tuple(values.get("site_potentials_ev", ())),
        )
    except DocumentError as error:
        raise DefectgenError(f"{path}: cannot be read ({error.reason}).", "Run the calculation again.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DefectgenError(
            f"{path}: holds no results of the driver ({error}).", "Run the calculation again."
        ) from error
